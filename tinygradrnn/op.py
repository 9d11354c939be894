"""Operations: a forward function, its gradient rule beside it, and how a call is recorded.

An :class:`Op` is written over an array namespace ``xp`` as in the Python Array API standard::

    @op
    def tanh(xp, x, /):
        return xp.tanh(x)

    tanh.vjp(x=lambda xp, g, out: g * (1 - out * out))

There is one rule (vector-Jacobian product) for each array argument. A rule receives ``xp``, the
cotangent ``g`` of the output, and then whatever its own parameter names ask for, and only that is
saved on the tape:

- an argument's name (``x``): its array, or its value for a static argument such as ``axis``;
- ``out``: the output; for an operation with several outputs, the tuple of them;
- a name with ``_shape`` or ``_dtype`` added (``x_shape``): just that, not the array.

Rules never un-broadcast: the engine sums a gradient to its input's shape in one place. Given
``xp = numpy`` a rule computes. Given the namespace of operations on Tensors
(:data:`~tinygradrnn.namespace.recorded`) the same rule is itself recorded, and that is how
gradients of gradients come about.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, cast, overload

from tinygradrnn.backend import Array, Backend, current_backend
from tinygradrnn.convert import Scalar, as_array, describe, kind_of
from tinygradrnn.errors import (
    DeviceError,
    DtypeError,
    IndexRangeError,
    ShapeError,
    TinygradrnnError,
)
from tinygradrnn.namespace import namespace, recorded, registry
from tinygradrnn.recipe import Recipe, Rule
from tinygradrnn.tape import Edge, Node, Output, Trial, Value, recording

P = ParamSpec("P")

tensor_type: type[Value] = Value
"""The class of results. tensor.py, which builds on the operations, puts Tensor here."""

observers = 0
"""How many traces and watches there are just now; when it is 0 operations need not look."""

_PLAIN = frozenset({int, float, type(None)})
_NO_PARAMS: dict[str, Any] = {}
_EMPTY = id(inspect.Parameter.empty)
_MISSING: Any = object()


def _frozen(params: dict[str, Any]) -> dict[str, Any]:
    """Lists as tuples: a node keeps its parameters, and the caller may change the list later."""
    if list in map(type, params.values()):
        return {k: tuple(cast("list[Any]", v)) if type(v) is list else v for k, v in params.items()}
    return params


class _Callable(Generic[P]):
    """What Op and Composite share: a name, a signature, and a place in the registry."""

    def __init__(self, forward: Callable[Concatenate[Any, P], Any]) -> None:
        self.__doc__, self.__name__ = forward.__doc__, forward.__name__
        self.__module__, self.__qualname__ = forward.__module__, forward.__qualname__
        self.__wrapped__ = self.forward = cast("Callable[..., Any]", forward)
        self.name = forward.__name__
        parameters = [
            p.replace(annotation=p.empty)  # in error messages the names are what helps
            for p in list(inspect.signature(forward).parameters.values())[1:]  # without xp
        ]
        self.__signature__ = inspect.Signature(parameters)
        # Positional-only parameters are arrays, the others static: the array standard's own way.
        self.arrays = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY)
        self.statics = {p.name: p.default for p in parameters if p.name not in self.arrays}
        self._names = tuple(self.statics)
        self.optional = {p.name for p in parameters if p.default is None and p.name in self.arrays}
        # A forward function that calls ``xp.<its own name>`` says: as in the array standard. One
        # that reaches past it to the backend's own namespace (``take``) does more than that.
        names = forward.__code__.co_names
        self.standard = self.name in names and "backend" not in names
        if self.name in registry:
            raise ValueError(f"operation {self.name!r} is already registered")
        registry[self.name] = cast("Op[...]", self)

    def __repr__(self) -> str:
        return f"<operation {self.name}{self.__signature__}>"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """In a class body an operation is a method, as a function would be."""
        return self if instance is None else MethodType(cast("Callable[..., Any]", self), instance)

    def __reduce__(self) -> str:
        return self.name

    def bind(
        self, args: Sequence[Any], params: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Sort a call's arguments into arrays and static parameters, with defaults filled in."""
        n = len(self.arrays)
        extra = len(args) - n
        if extra == 0 or 0 < extra <= len(self.statics):
            filled = self.statics | params
            if extra:
                names = self._names[:extra]
                filled.update(zip(names, args[n:], strict=True))
                extra = not params.keys().isdisjoint(names)  # given twice
            if (
                not extra
                and len(filled) == len(self._names)
                and _EMPTY not in map(id, filled.values())
            ):
                return tuple(args[:n]), _frozen(filled)
        try:  # the slow and thorough way, which also knows how to complain
            bound = self.__signature__.bind(*args, **params)
        except TypeError as error:
            raise DtypeError(f"{self.name}{self.__signature__}: {error}") from None
        bound.apply_defaults()
        values = list(bound.arguments.values())
        return tuple(values[:n]), _frozen(dict(zip(self.statics, values[n:], strict=True)))

    def admit(self, value: Any, position: int, backend: Backend, operands: Sequence[Any]) -> Any:
        """Let an array or number stand beside Tensors; refuse what would be a hidden copy."""
        if isinstance(operands[position], Value):
            return value
        if value is None and self.argument(position) in self.optional:
            return value
        if backend.is_array(value):
            return as_array(value, backend)  # a copy, ours alone: its owner may change it later
        if getattr(value, "shape", None) == () and type(value).__module__ == "numpy":
            value = cast("Any", value).item()  # a NumPy scalar counts as a number
        if isinstance(value, Scalar):
            if isinstance(value, bool) and not getattr(self, "promotes", False):
                plain: Any = value
            else:  # in arithmetic True is 1; numpy.float64 is a float and becomes a plain one
                plain = int(value) if isinstance(value, int) else float(value)
            alone = not any(isinstance(o, Value) or backend.is_array(o) for o in operands)
            return as_array(plain, backend) if alone else plain
        name = self.argument(position)
        if hasattr(value, "__array__") or hasattr(value, "__dlpack__"):
            raise DeviceError(
                f"{self.name}: argument {name!r} is a {type(value).__name__} on another device "
                f"than {backend}; expected a Tensor there. Copy it with tgr.tensor(...)"
            )
        raise DtypeError(
            f"{self.name}: argument {name!r} is a {type(value).__name__}; "
            "expected a Tensor, an array or a number"
        )

    def argument(self, position: int) -> str:
        """The name of an array argument, for error messages."""
        return self.arrays[position]


class Op(_Callable[P]):
    """A named forward function with its vector-Jacobian product; knows no device and no time.

    Made by the decorator :func:`~tinygradrnn.op.op`. Calling it with Tensors (or arrays and numbers
    beside a Tensor) computes and, where a gradient is asked for, records a Node.

    Attributes:
        name: The operation's name.
        rules: The gradient rule for each array argument; empty if the operation has no gradient.
        differentiable: False for operations whose result never needs a gradient (comparisons).
        variadic: Whether its one array argument is a sequence of arrays (``concat``).
        many: Whether it has several outputs (``split``).
        promotes: Whether its arrays must be numbers of one kind (arithmetic).
        casts: Whether its result may be of a kind that has no gradient (``astype``).
        moves: Whether its result is on another backend, named by ``target`` (``transfer``).
        elementwise: Whether each element of the result comes from one element of each array, so
            that more axes in front change nothing.
        contracts: The matrix argument (a weight) whose rule sums over all rows of the others, so
            that its share for the rows of many steps put end to end is the sum of their shares.
    """

    def __init__(
        self,
        forward: Callable[Concatenate[Any, P], Any],
        *,
        differentiable: bool = True,
        variadic: bool = False,
        many: bool = False,
        promotes: bool = False,
        casts: bool = False,
        moves: bool = False,
        elementwise: bool = False,
        contracts: str = "",
    ) -> None:
        super().__init__(forward)
        self.differentiable, self.variadic, self.many = differentiable, variadic, many
        self.promotes, self.casts, self.moves = promotes, casts, moves
        self.elementwise, self.contracts = elementwise, contracts
        self.rules: dict[str, Rule] = {}
        self.together: Rule | None = None
        self._forwards: dict[Backend, Callable[..., Any]] = {}
        self._recipes: dict[int, Recipe] = {}  # by the bits of the inputs that need a gradient

    def vjp(self, **rules: Rule) -> None:
        """Give the gradient rule of each array argument, by its name."""
        for name, rule in rules.items():
            if name not in self.arrays:
                raise TypeError(f"{self.name} has no array argument {name!r}")
            self.rules[name] = rule
        self._recipes.clear()

    def vjp_together(self, rule: Rule) -> None:
        """Give one rule that returns the gradients of all array arguments at once."""
        self.vjp(**dict.fromkeys(self.arrays, rule))
        self.together = rule

    def __call__(self, *args: P.args, **params: P.kwargs) -> Any:
        """Compute, and record if a gradient is asked for."""
        if self.statics or params or len(args) != len(self.arrays):
            args, params = self.bind(args, params)  # type: ignore[assignment]
        if observers:
            return self._observed(cast("Any", args), cast("Any", params))
        return self._run(cast("tuple[Any, ...]", args), cast("dict[str, Any]", params))

    def _observed(self, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """Compute, with whoever traces or watches this thread being told."""
        if recording.trace is not None:
            result = self._run(recording.trace.admit(self, args), params)
            recording.trace.named(result)
            return result
        result = self._run(args, params)
        if recording.watch is not None:
            recording.watch.saw(self, args, params, result)
        return result

    def _run(self, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """Compute, and record if a gradient is asked for. The engine's forward half is this."""
        operands: Sequence[Any] = args[0] if self.variadic else args
        # 1. Take the arrays out of the Tensors; note which of them are on a tape.
        backend: Backend | None = None
        arrays: list[Any] = []
        edges: list[Edge | None] = []
        active, bit, foreign = 0, 1, False
        for a in operands:
            if isinstance(a, Value):
                arrays.append(a.raw)
                edge = a.edge
                edges.append(edge)
                if edge is not None:
                    active |= bit
                if a.backend is not backend:
                    if backend is not None:
                        raise self._two_devices(operands, a, backend)
                    backend = a.backend
            else:
                arrays.append(a)
                edges.append(None)
                if type(a) not in _PLAIN or a is None:
                    foreign = True
            bit += bit
        if foreign or backend is None:
            backend = backend or current_backend()
            arrays = [self.admit(a, i, backend, operands) for i, a in enumerate(arrays)]
        # 2. Compute.
        inputs: list[Any] = [arrays] if self.variadic else arrays
        try:
            out = (self._forwards.get(backend) or self._forward_on(backend))(*inputs, **params)
            if self.promotes:
                dtype = out.dtype
                for a in arrays:
                    if type(a) not in _PLAIN and a.dtype is not dtype:
                        self._check_promotion(arrays, dtype)
                        break
        except Exception as error:
            self._explain(error, operands, params)
        if self.moves:
            backend = cast("Backend", params["target"])
        # 3. Record.
        if active and not (self.differentiable and recording.enabled):
            active = 0
            if recording.trial is not None and self.differentiable:
                return self._tried(out, edges, recording.trial, backend)
        if self.many:
            return self._record_many(out, inputs, edges, active, params, backend)
        shape = out.shape
        if not shape:  # NumPy makes scalars of 0-d results; a Tensor always holds an array
            out = backend.xp.asarray(out)
        if not active or (self.casts and kind_of(out.dtype) != "f"):
            return tensor_type(out, backend)
        if self.variadic:
            active = (
                1  # its one rule serves every element, and elements without an edge are skipped
            )
        recipe = self._recipes.get(active) or self._recipe(active)
        saved = recipe.keep(out, *inputs, **params)
        step = recording.step
        node = Node(recipe, tuple(edges), saved, params, shape, out.dtype, backend, step)
        return tensor_type(out, backend, node)

    def _record_many(
        self,
        outs: Sequence[Array],
        inputs: list[Any],
        edges: list[Edge | None],
        active: int,
        params: dict[str, Any],
        backend: Backend,
    ) -> tuple[Any, ...]:
        shapes = tuple([o.shape for o in outs])
        if () in shapes:
            outs = [o if o.shape else backend.xp.asarray(o) for o in outs]
        if not active or not shapes:
            return tuple([tensor_type(o, backend) for o in outs])
        recipe = self._recipes.get(active) or self._recipe(active)
        saved = recipe.keep(tuple(outs), *inputs, **params)
        dtypes = tuple([o.dtype for o in outs])
        step = recording.step
        node = Node(recipe, tuple(edges), saved, params, shapes, dtypes, backend, step)
        return tuple([tensor_type(o, backend, Output(node, i)) for i, o in enumerate(outs)])

    def _tried(self, out: Any, edges: Sequence[Edge | None], trial: Trial, backend: Backend) -> Any:
        """The result in a trial run: on no tape, but marked as one that would be."""
        trial.use(edges)
        place = trial.place
        if self.many:
            return tuple(
                [tensor_type(o if o.shape else backend.xp.asarray(o), backend, place) for o in out]
            )
        if not out.shape:
            out = backend.xp.asarray(out)
        return tensor_type(
            out, backend, None if self.casts and kind_of(out.dtype) != "f" else place
        )

    def _forward_on(self, backend: Backend) -> Callable[..., Any]:
        xp = namespace(backend)  # made in any case: the walk back relies on it
        found = backend.overrides.get(self.name) or functools.partial(self.forward, xp)
        self._forwards[backend] = found
        return found

    def _recipe(self, active: int) -> Recipe:
        recipe = self._recipes.get(active)
        if recipe is None:
            recipe = self._recipes[active] = Recipe(self, active)
        return recipe

    def argument(self, position: int) -> str:
        """The name of an array argument, for error messages."""
        return f"{self.arrays[0]}[{position}]" if self.variadic else self.arrays[position]

    def _two_devices(self, operands: Sequence[Any], found: Value, backend: Backend) -> DeviceError:
        position = next(i for i, o in enumerate(operands) if o is found)
        return DeviceError(
            f"{self.name}: argument {self.argument(position)!r} is on {found.backend}, the ones "
            f"before it on {backend}; expected all on one device. Move one with .to(...)"
        )

    def _check_promotion(self, arrays: Sequence[Any], dtype: Any) -> None:
        """Refuse what the array standard leaves undefined: mixing kinds of numbers."""
        for a in arrays:
            if isinstance(a, Scalar) or a is None:
                if isinstance(a, float) and kind_of(dtype) != "f":
                    raise DtypeError("a float beside integers; expected .astype(...) first")
            elif a.dtype != dtype and kind_of(a.dtype) != kind_of(dtype):
                raise DtypeError(
                    f"{a.dtype} found where the result is {dtype}; expected one kind of number: "
                    "use .astype(...)"
                )

    def _explain(
        self, error: Exception, operands: Sequence[Any], params: dict[str, Any]
    ) -> NoReturn:
        """Raise an error of ours that names the operation, its arguments and what they were."""
        if isinstance(error, TinygradrnnError) and str(error).startswith(f"{self.name}: "):
            raise error
        found = ", ".join(f"{self.argument(i)}: {describe(o)}" for i, o in enumerate(operands))
        static = "".join(f", {k}={v!r}" for k, v in params.items())
        kinds: dict[type[Exception], type[TinygradrnnError]] = {
            IndexError: IndexRangeError,
            ValueError: ShapeError,
            OverflowError: ShapeError,
            TypeError: DtypeError,
            AttributeError: DtypeError,  # something that is no array was asked for its shape
        }
        for builtin, ours in kinds.items():
            if isinstance(error, builtin):
                raise ours(f"{self.name}: {error} (found {found}{static})") from error
        raise error


@overload
def op(forward: Callable[Concatenate[Any, P], Any], /) -> Op[P]: ...
@overload
def op(**flags: Any) -> Callable[[Callable[Concatenate[Any, P], Any]], Op[P]]: ...
def op(forward: Callable[..., Any] | None = None, /, **flags: Any) -> Any:
    """Declare an operation: ``@op`` over its forward function, then ``name.vjp(...)``.

    The forward function takes ``xp``, then its arrays as positional-only parameters, then static
    parameters. Flags are the attributes of :class:`Op`.
    """
    if forward is None:
        return functools.partial(op, **flags)
    made = Op(forward, **flags)
    if made.statics or flags.keys() & {"many", "variadic", "casts", "moves"}:
        return made
    made.__class__ = {1: Unary, 2: Binary}.get(len(made.arrays), Op)
    return made


class Unary(Op[P]):
    """An Op of one array and nothing else: :meth:`Op._run` without its loop, for speed."""

    def __call__(  # type: ignore[override]
        self, x: Any = _MISSING, /, *more: Any, **params: Any
    ) -> Any:
        """Compute, and record if a gradient is asked for."""
        if more or params or not isinstance(x, Value) or observers:
            given = () if x is _MISSING else (x,)
            return cast("Any", super()).__call__(*given, *more, **params)
        backend = x.backend
        array, edge = x.raw, x.edge
        try:
            out = (self._forwards.get(backend) or self._forward_on(backend))(array)
            if self.promotes and out.dtype is not array.dtype:
                self._check_promotion((array,), out.dtype)
        except Exception as error:
            self._explain(error, (x,), {})
        shape = out.shape
        if not shape:
            out = backend.xp.asarray(out)
        if edge is None or not recording.enabled or not self.differentiable:
            if recording.trial is None or edge is None or not self.differentiable:
                return tensor_type(out, backend)
            return self._tried(out, (edge,), recording.trial, backend)
        recipe = self._recipes.get(1) or self._recipe(1)
        saved = recipe.keep(out, array)
        step = recording.step
        node = Node(recipe, (edge,), saved, _NO_PARAMS, shape, out.dtype, backend, step)
        return tensor_type(out, backend, node)


class Binary(Op[P]):
    """An Op of two arrays and nothing else: :meth:`Op._run` without its loop, for speed."""

    def __call__(  # type: ignore[override]
        self, x1: Any = _MISSING, x2: Any = _MISSING, /, *more: Any, **params: Any
    ) -> Any:
        """Compute, and record if a gradient is asked for."""
        if x2 is _MISSING or more or params or observers:
            given = [x for x in (x1, x2) if x is not _MISSING]
            return cast("Any", super()).__call__(*given, *more, **params)
        if isinstance(x1, Value):
            backend = x1.backend
            a, edge1 = x1.raw, x1.edge
            if isinstance(x2, Value):
                if x2.backend is not backend:
                    return self._run((x1, x2), {})
                b, edge2 = x2.raw, x2.edge
            elif type(x2) in _PLAIN and x2 is not None:
                b, edge2 = x2, None
            else:
                return self._run((x1, x2), {})
        elif type(x1) in _PLAIN and x1 is not None and isinstance(x2, Value):
            backend = x2.backend
            a, edge1, b, edge2 = x1, None, x2.raw, x2.edge
        else:
            return self._run((x1, x2), {})
        try:
            out = (self._forwards.get(backend) or self._forward_on(backend))(a, b)
            if self.promotes:
                dtype = out.dtype
                if not (
                    (type(a) in _PLAIN or a.dtype is dtype)
                    and (type(b) in _PLAIN or b.dtype is dtype)
                ):
                    self._check_promotion((a, b), dtype)
        except Exception as error:
            self._explain(error, (x1, x2), {})
        shape = out.shape
        if not shape:
            out = backend.xp.asarray(out)
        active = (edge1 is not None) + 2 * (edge2 is not None)
        if not active or not recording.enabled or not self.differentiable:
            if recording.trial is None or not active or not self.differentiable:
                return tensor_type(out, backend)
            return self._tried(out, (edge1, edge2), recording.trial, backend)
        recipe = self._recipes.get(active) or self._recipe(active)
        saved = recipe.keep(out, a, b)
        step = recording.step
        node = Node(recipe, (edge1, edge2), saved, _NO_PARAMS, shape, out.dtype, backend, step)
        return tensor_type(out, backend, node)


class Composite(_Callable[P]):
    """A function over ``xp`` that is recorded by its parts and so needs no rule of its own."""

    def __call__(self, *args: P.args, **params: P.kwargs) -> Any:
        """Compute, and record if a gradient is asked for."""
        arrays, statics = self.bind(args, params)
        if observers and recording.trace is not None:
            arrays = recording.trace.admit(self, arrays)
        backend = next((a.backend for a in arrays if isinstance(a, Value)), None)
        backend = backend or current_backend()
        values = [self.admit(a, i, backend, arrays) for i, a in enumerate(arrays)]
        like = next((a.raw.dtype for a in arrays if isinstance(a, Value)), None)
        values = [as_array(v, backend, like) if isinstance(v, Scalar) else v for v in values]
        values = [tensor_type(v, backend) if backend.is_array(v) else v for v in values]
        try:
            return self.forward(recorded, *values, **statics)
        except TinygradrnnError as error:
            if str(error).startswith(f"{self.name}: "):
                raise
            raise type(error)(f"{self.name}: {error}") from error


def composite(forward: Callable[Concatenate[Any, P], Any]) -> Composite[P]:
    """Declare an operation made of others."""
    return Composite(forward)


def as_value(value: Any, backend: Backend | None = None) -> Value:
    """`value` itself if it is a Tensor, else a new Tensor that copies it."""
    if isinstance(value, Value):
        return value
    backend = backend or current_backend()
    return tensor_type(as_array(value, backend), backend)
