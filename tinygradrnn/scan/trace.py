"""Recording one step of a cell as a list of calls, without knowing any number.

The cell runs once on :class:`Traced` arrays, which have a shape and a dtype but no values. They
belong to a backend of their own, on which every operation is "note that it was called", so the
engine records its tape as always, and the rules of the gradient, which are written over an array
namespace, take notes when they are run on traced arrays, too. That is the whole of how a backward
step comes about: :func:`~tinygradrnn.backprop.backpropagate` over the tape of the step.

A cell that asks for a value gets :class:`UntraceableError`, and runs eagerly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tinygradrnn import op as engine
from tinygradrnn.backend import Array, Backend
from tinygradrnn.convert import Scalar, is_number
from tinygradrnn.errors import UntraceableError
from tinygradrnn.loop import Call, Operand, Var
from tinygradrnn.namespace import namespace, registry
from tinygradrnn.ops.indexing import resolve_key
from tinygradrnn.tape import Leaf, Value, recording
from tinygradrnn.watch import names_of_results


class Traced:
    """An array inside a step that is being traced: a shape and a dtype, and no values."""

    __slots__ = ("trace", "var")
    __array_ufunc__ = None

    def __init__(self, trace: Trace, var: Var) -> None:
        self.trace, self.var = trace, var

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis."""
        return self.var.shape

    @property
    def dtype(self) -> Any:
        """The backend's own dtype."""
        return self.var.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.var.shape)

    @property
    def device(self) -> Any:
        """The device, as the backend's own object."""
        return self.trace.backend.like.device

    def __getitem__(self, key: Any) -> Traced:
        return self.trace.note("getitem", (self,), {"key": key if type(key) is tuple else (key,)})

    def __iter__(self) -> Iterator[Any]:
        raise self._refusal("iterates over an array")

    def __getattr__(self, name: str) -> Any:
        raise self._refusal(f"reads .{name} of an array")

    def _refusal(self, what: str) -> UntraceableError:
        return self.trace.refuse(f"it {what}: while it is traced there are no values")

    def _reads(self, *_: Any, **__: Any) -> Any:
        raise self._refusal("reads a value")

    __bool__ = __int__ = __float__ = __index__ = __array__ = __len__ = __complex__ = _reads
    __setitem__ = __dlpack__ = _reads  # type: ignore[assignment]
    __hash__ = object.__hash__

    def __pos__(self) -> Traced:
        return self


def _operator(name: str, reflected: bool = False) -> Callable[..., Traced]:
    def apply(self: Traced, *others: Any) -> Traced:
        operands = (*others, self) if reflected else (self, *others)
        return self.trace.note(name, operands, {})

    return apply


_BINARY = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "pow",
    "matmul": "matmul",
}
for _short, _name in _BINARY.items():
    setattr(Traced, f"__{_short}__", _operator(_name))
    setattr(Traced, f"__r{_short}__", _operator(_name, reflected=True))
for _short, _name in {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
    "and": "logical_and",
    "or": "logical_or",
    "xor": "logical_xor",
    "neg": "negative",
    "invert": "logical_not",
}.items():
    setattr(Traced, f"__{_short}__", _operator(_name))
Traced.__hash__ = object.__hash__  # type: ignore[method-assign]


# --------------------------------------------------------------------------- a backend of traces


def _var(xp: Any, x: Any, axis: Any, correction: float, keepdims: bool) -> Any:
    apart = x - xp.mean(x, axis=axis, keepdims=True)
    total = xp.sum(xp.square(apart), axis=axis, keepdims=keepdims)
    count = 1
    for a in range(len(x.shape)) if axis is None else axis if type(axis) is tuple else (axis,):
        count *= x.shape[a]
    return total / max(count - correction, 0.0)


def _unstack(xp: Any, x: Any, axis: int) -> list[Any]:
    before = (slice(None),) * (axis % len(x.shape))
    return [x[(*before, i)] for i in range(x.shape[axis])]


# Operations that are noted by their parts, so that a backend's loop needs to know fewer.
_OPENED: dict[str, Callable[..., Any] | None] = dict.fromkeys(
    [
        "linear",
        "softmax",
        "log_softmax",
        "logsumexp",
        "standardize",
        "gelu",
        "softplus",
        "split",
        "hold",
        "gate",
        "clip_cotangent",
        "trajectory",
        "positive",
    ]
)
_OPENED |= {
    "var": _var,
    "std": lambda xp, x, **how: xp.sqrt(_var(xp, x, **how)),
    "unstack": _unstack,
}
_SHAPES_BY_VALUES = ("nonzero",)


class _Notes:
    """Every operation of a backend of traces: "note that it was called"."""

    def __init__(self, backend: Abstract) -> None:
        self._backend = backend
        self._made: dict[str, Callable[..., Any] | None] = {}

    def get(self, name: str) -> Callable[..., Any] | None:
        """What to call in place of an operation; None to run the operation's own function."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Callable[..., Any] | None:
        operation = registry.get(name)
        if operation is None or isinstance(operation, engine.Composite):
            return None
        if name in _OPENED:
            parts = _OPENED[name]
            if parts is None:
                return None
            return lambda *arrays, **params: parts(namespace(self._backend), *arrays, **params)
        names = tuple(operation.statics)
        count = len(operation.arrays)

        def note(*args: Any, **params: Any) -> Traced:
            params = {**operation.statics, **dict(zip(names, args[count:], strict=False)), **params}
            operands = args[0] if operation.variadic else args[:count]
            return recording.trace.note(name, operands, params)

        return note


class _AbstractNamespace:
    """What else rules and the engine use of an array namespace."""

    def __init__(self, backend: Abstract) -> None:
        self._backend = backend

    def asarray(
        self, value: Any, *, dtype: Any = None, copy: Any = None, device: Any = None
    ) -> Any:
        """A traced array for a value that is the same at every step."""
        if isinstance(value, Traced):
            return value if dtype is None else self.astype(value, dtype)
        real = self._backend.like
        return recording.trace.constant(real.xp.asarray(value, dtype=dtype, device=device))

    def astype(self, x: Traced, dtype: Any, *, copy: bool = True) -> Any:
        """As the operation of this name."""
        return x if dtype == x.dtype else x.trace.note("astype", (x,), {"dtype": dtype})

    def zeros(self, shape: Any, *, dtype: Any = None, device: Any = None) -> Any:
        """Zeros that are the same at every step."""
        return recording.trace.constant(self._backend.like.xp.zeros(shape, dtype=dtype))

    def __getattr__(self, name: str) -> Any:
        if name in ("finfo", "iinfo", "isdtype") or is_number(name):
            return getattr(self._backend.like.xp, name)
        raise UntraceableError(f"xp.{name} is no operation that can be traced")


class Abstract(Backend):
    """The backend of traced arrays that stand for those of another, `like`."""

    def __init__(self, like: Backend) -> None:
        self.like, self.name, self.device = like, like.name, like.device
        self.xp = _AbstractNamespace(self)
        self.overrides = _Notes(self)  # type: ignore[assignment,misc]
        self.looks: dict[Any, Any] = {}  # shapes and dtypes of results found so far

    def is_array(self, value: object) -> bool:
        """Whether `value` is traced."""
        return isinstance(value, Traced)

    def from_host(self, array: Array) -> Array:
        """A constant of the step."""
        return recording.trace.constant(self.like.from_host(array))

    def to_host(self, array: Array) -> Array:
        """Refused: there are no values."""
        raise recording.trace.refuse("it reads a value: while it is traced there are none")

    def index_add(self, x: Array, indices: Array, updates: Array) -> Array:
        """Not called: the operation that uses it is noted as a whole."""
        raise UntraceableError("index_add")

    def rng(self, seed: int | None = None) -> Any:
        """Refused: a program draws no random numbers."""
        raise recording.trace.refuse("it draws random numbers")


_abstract: dict[Backend, Abstract] = {}


def abstract(backend: Backend) -> Abstract:
    """The one backend of traces for a backend."""
    return _abstract.setdefault(backend, Abstract(backend))


# --------------------------------------------------------------------------------------- a trace

_lock = threading.Lock()


class Trace:
    """The calls of one step, in order.

    Attributes:
        calls: What was called.
        captured: Tensors and arrays from outside the step, by their Var; the same at every step.
        made: Arrays that the step made of nothing (``tgr.zeros``), by their Var.
        refusal: Why the step cannot be compiled, if it cannot.
        names: What the cell calls its results, by their Var; None if nobody wants to know.
    """

    LIMIT = 4000
    """Calls beyond which a step is not compiled."""

    def __init__(
        self, backend: Backend, known: Sequence[Any] = (), *, with_names: bool = False
    ) -> None:
        self.backend = abstract(backend)
        self.names: dict[Var, str] | None = {} if with_names else None
        self.calls: list[Call] = []
        self.captured: dict[Var, Any] = {}
        self.made: dict[Var, Array] = {}
        self.refusal: str | None = None
        # Also by their arrays: a tensor without its history has the same one.
        self._known = {id(x.raw): x for x in known if isinstance(x, Value)}
        self._known |= {id(x): x for x in known}
        self._tensors: dict[int, tuple[Any, Value]] = {}
        self._inside: dict[Var, Value] = {}
        self._same: dict[Any, Traced] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """In this ``with`` block the thread's operations are noted."""
        before = recording.trace, recording.watch
        with _lock:
            engine.observers += 1
        recording.trace, recording.watch = self, None  # there are no numbers to be watched
        try:
            yield
        finally:
            recording.trace, recording.watch = before
            with _lock:
                engine.observers -= 1

    def refuse(self, reason: str) -> UntraceableError:
        """Note why, also if the cell swallows the error; returns the error to raise."""
        self.refusal = self.refusal or reason
        return UntraceableError(reason)

    # ------------------------------------------------------------------------------ values

    def fresh(self, shape: tuple[int, ...], dtype: Any, name: str = "") -> Traced:
        """An array that comes in at each step."""
        return Traced(self, Var(shape, dtype, name))

    def tensor(self, array: Traced, active: bool) -> Value:
        """A Tensor of a traced array, at the beginning of a tape if it is `active`."""
        leaf = Leaf(array.shape, array.dtype, self.backend) if active else None
        return engine.tensor_type(array, self.backend, leaf)

    def constant(self, array: Array) -> Traced:
        """An array that the step made, of values that are the same at every step."""
        made = Traced(self, Var(array.shape, array.dtype, "made"))
        self.made[made.var] = array
        return made

    def admit(self, operation: Any, args: Any) -> Any:
        """The arguments of an operation, with what comes from outside the step as Tensors of it."""
        if getattr(operation, "moves", False):
            raise self.refuse("it moves tensors between backends")
        if getattr(operation, "name", "") in _SHAPES_BY_VALUES:
            raise self.refuse(f"{operation.name} gives a shape that depends on values")
        if getattr(operation, "variadic", False):
            return ([self._admit(a) for a in args[0]], *args[1:])
        return tuple([self._admit(a) for a in args])

    def _admit(self, value: Any) -> Any:
        if isinstance(value, Value):
            if value.backend is not self.backend.like:
                return value  # traced already; or on another device, which the operation refuses
        elif not self.backend.like.is_array(value):
            return value
        found = self._tensors.get(id(value), (None, None))[1]
        if found is None:
            array = value.raw if isinstance(value, Value) else value
            source = self._known.get(id(value), self._known.get(id(array)))
            if source is not None:
                label = getattr(getattr(source, "edge", None), "name", "") or "captured"
                traced = self.fresh(array.shape, array.dtype, label)
                self.captured[traced.var] = source
            else:
                traced = self.constant(array)
                if isinstance(value, Value) and value.edge is not None:
                    raise self.refuse(
                        "it uses a tensor that requires a gradient and is found neither among the "
                        "cell's attributes nor among what its functions refer to"
                    )
            active = isinstance(value, Value) and value.edge is not None and recording.enabled
            found = self.tensor(traced, active)
            self._tensors[id(value)] = value, found  # with the value, so that its id stays its own
            self._inside[traced.var] = found
        return found

    def inside(self, captured: Var) -> Value:
        """The Tensor that stands in the step for what was captured."""
        return self._inside[captured]

    def let_go(self) -> None:
        """Forget what was captured: a program outlives the cell that it was made of."""
        self._known, self._tensors, self._inside = {}, {}, {}
        self.captured = dict.fromkeys(self.captured)

    def named(self, result: Any) -> None:
        """Note what the cell calls the results of an operation."""
        if self.names is not None:
            outputs = result if type(result) is tuple else (result,)
            for name, x in zip(names_of_results(), outputs, strict=False):
                if name and isinstance(x.raw, Traced):
                    self.names.setdefault(x.raw.var, name)

    # ------------------------------------------------------------------------------- calls

    def note(self, name: str, operands: Sequence[Any], params: dict[str, Any]) -> Traced:
        """Note a call; the result of an equal call before, if there was one."""
        if name == "getitem":
            params = {"key": resolve_key(params["key"], operands[0].shape)}
        elif name in ("sum", "mean") and not operands[0].shape:
            return operands[0]
        operation: Any = registry[name]
        inputs = tuple([self._operand(x) for x in operands])
        key = (name, *map(_identity, inputs), repr(params))
        found = self._same.get(key)
        if found is None:
            if len(self.calls) >= self.LIMIT:
                raise self.refuse(f"a step has more than {self.LIMIT} operations")
            shape, dtype = self._result(operation, inputs, params)
            found = self._same[key] = Traced(self, Var(shape, dtype, name))
            self.calls.append(Call(name, inputs, params, found.var))
        return found

    def _operand(self, x: Any) -> Operand:
        if isinstance(x, Traced):
            if x.trace is not self:
                raise self.refuse("it uses an array from another step")
            return x.var
        if x is None or isinstance(x, Scalar):
            return x
        if self.backend.like.is_array(x) or hasattr(x, "dtype"):
            return self.constant(self.backend.like.xp.asarray(x)).var
        raise self.refuse(f"an operation was called with a {type(x).__name__}")

    def _result(
        self, operation: Any, inputs: tuple[Operand, ...], params: dict[str, Any]
    ) -> tuple[tuple[int, ...], Any]:
        """The shape and dtype of a result: found by calling the operation on zeros."""
        key = (operation.name, *map(_look, inputs), repr(params))
        known = self._looks().get(key)
        if known is None:
            like = self.backend.like
            xp = like.xp

            def blank(v: Operand) -> Any:
                return xp.zeros(v.shape, dtype=v.dtype) if isinstance(v, Var) else v

            arrays: list[Any] = [blank(v) for v in inputs]
            forward = operation._forwards.get(like) or operation._forward_on(like)
            with like.quiet():
                out = forward(*([arrays] if operation.variadic else arrays), **params)
            known = self._looks()[key] = (tuple(out.shape), out.dtype)
        return known

    def _looks(self) -> dict[Any, Any]:
        looks = self.backend.looks
        if len(looks) > 20_000:  # many shapes have come by
            looks.clear()
        return looks

    # ------------------------------------------------------------------------- comparison

    def differs(self, other: Trace) -> str | None:
        """How the same step came out differently the second time; None if it did not."""
        number = [{v: i for i, v in enumerate(t.vars())} for t in (self, other)]
        for i, (a, b) in enumerate(zip(self.calls, other.calls, strict=False)):
            if _shown(a, number[0]) != _shown(b, number[1]):
                return f"operation {i} is {a.op} in one run and {b.op} in the next"
        if len(self.calls) != len(other.calls):
            return f"it has {len(self.calls)} operations in one run, {len(other.calls)} in the next"
        for a, b in zip(self.made.values(), other.made.values(), strict=True):
            if a is b:
                return (
                    "it uses an array that it did not make, and that is found neither among the "
                    "cell's attributes nor among what its functions refer to"
                )
            xp = self.backend.like.xp
            same = (a == b) | ((a != a) & (b != b))
            if a.shape != b.shape or a.dtype != b.dtype or not bool(xp.all(same)):
                return "it makes another constant in one run than in the next"
        return None

    def vars(self) -> list[Var]:
        """Every Var, in the order in which they came up."""
        seen: dict[Var, None] = {}
        for call in self.calls:
            seen.update(dict.fromkeys(call.vars))
            seen[call.output] = None
        return list(seen)


def _identity(x: Operand) -> Any:
    return x if isinstance(x, Var) else (type(x), repr(x))


def _look(x: Operand) -> Any:
    return (x.shape, str(x.dtype)) if isinstance(x, Var) else (type(x), repr(x))


def _shown(call: Call, number: dict[Var, int]) -> Any:
    inputs = tuple([number[x] if isinstance(x, Var) else repr(x) for x in call.inputs])
    return call.op, inputs, repr(call.params), call.output.shape, str(call.output.dtype)
