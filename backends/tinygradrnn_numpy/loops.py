"""Running a loop's body with NumPy: straight-line Python over preallocated buffers.

At each step a Python loop calls one NumPy function after the other. Each writes into a buffer that
was there before (``out=``), or right into the row of an output; parts of an array are views that
are made once; pieces of a concatenation are computed in their place. At small sizes the number of
calls is the cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygradrnn.loop import Body, Call, Operand, Runner, Var

_UFUNCS = {
    **{
        name: name
        for name in [
            "add",
            "subtract",
            "multiply",
            "divide",
            "negative",
            "exp",
            "expm1",
            "log",
            "log1p",
        ]
    },
    **{
        name: name
        for name in [
            "sqrt",
            "square",
            "sin",
            "cos",
            "tanh",
            "sign",
            "floor",
            "ceil",
            "maximum",
            "minimum",
        ]
    },
    **{
        name: name
        for name in ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]
    },
    **{name: name for name in ["logical_and", "logical_or", "logical_xor", "logical_not"]},
    **{name: name for name in ["isnan", "isinf", "isfinite", "floor_divide", "remainder"]},
    "abs": "absolute",
    "round": "rint",
    "pow": "power",
}
_VIEWS = frozenset(
    [
        "broadcast_to",
        "expand_dims",
        "getitem",
        "matrix_transpose",
        "permute_dims",
        "reshape",
        "squeeze",
    ]
)
_REDUCTIONS = {"sum": "add", "mean": "add", "prod": "multiply", "max": "maximum", "min": "minimum"}


class _Place:
    """Where a Var's values are: an array that was made before the loop, or a name in it.

    Attributes:
        make: Source of the array as it is made, from `base` if it is a part of that.
        base: What it is a part of.
        rows: Whether it has a row for each step.
        name: Its name in the loop.
    """

    def __init__(
        self, name: str, make: str = "", base: _Place | None = None, rows: bool = False
    ) -> None:
        self.name, self.make, self.base, self.rows = name, make, base, rows
        self.contiguous = True

    @property
    def root(self) -> _Place:
        """The whole that it is a part of."""
        return self if self.base is None else self.base.root


class _Writer:
    """Writes the source of one body."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.made = {call.output: call for call in body.calls}
        self.position = {call.output: i for i, call in enumerate(body.calls)}
        self.places: dict[Var, _Place] = {}
        self.before: list[str] = []  # source: buffers and views
        self.lines: list[str] = []  # source: one step
        self.rows: dict[str, str] = {}  # names bound at each step: what to go through
        self.names: dict[str, Any] = {"np": np}
        self.free: dict[Any, list[_Place]] = {}
        self._count = 0
        self._last = self._last_uses()

    # ------------------------------------------------------------------------------- places

    def name(self, start: str) -> str:
        """A name not used before."""
        self._count += 1
        return f"{start}{self._count}"

    def constant(self, value: Any, start: str = "k") -> str:
        """A name for an object that the source uses."""
        for known, held in self.names.items():
            if held is value:
                return known
        name = self.name(start)
        self.names[name] = value
        return name

    def _last_uses(self) -> dict[Var, int]:
        """For each Var the last call that reads it or a view of it."""
        leaving = [*self.body.outputs, *(b for _, b in self.body.carried)]
        last = dict.fromkeys(leaving, len(self.body.calls))
        for i in range(len(self.body.calls) - 1, -1, -1):
            call = self.body.calls[i]
            until = last.get(call.output, i) if call.op in _VIEWS else i
            for v in call.vars:
                last[v] = max(last.get(v, -1), until)
        return last

    def scratch(self, shape: tuple[int, ...], dtype: Any, zeros: bool = False) -> _Place:
        """A buffer of its own."""
        kind = self.constant(np.dtype(dtype), "d")
        place = _Place(self.name("b"))
        maker = "zeros" if zeros else "empty"
        self.before.append(f"{place.name} = np.{maker}({shape!r}, {kind})")
        return place

    def buffer(self, v: Var) -> _Place:
        """A buffer for a Var; one that is free, if there is one."""
        waiting = self.free.get((v.shape, v.dtype))
        return waiting.pop() if waiting else self.scratch(v.shape, v.dtype)

    def release(self, i: int) -> None:
        """Free the buffers that nothing after call `i` reads."""
        for v in self.body.calls[i].vars:
            place = self.places.get(v)
            if place is None or self._last.get(v) != i or v not in self._owned:
                continue
            self._owned.discard(v)
            self.free.setdefault((v.shape, v.dtype), []).append(place)

    def part(self, whole: _Place, key: str, name: str = "v") -> _Place:
        """A view of a place: made once, for all steps if it has a row for each."""
        made = _Place(self.name(name), base=whole, rows=whole.rows)
        made.contiguous = False
        if whole.rows:
            stack = self.name("r")
            self.before.append(f"{stack} = {self.rows[whole.name]}{key.replace('[', '[:, ', 1)}")
            self.rows[made.name] = stack
        else:
            self.before.append(f"{made.name} = {whole.name}{key}")
        return made

    # ------------------------------------------------------------------------------- writing

    def write(self) -> str:
        """The source of a function ``run(inputs, constants, carried, outputs, order)``."""
        body = self.body
        self._owned: set[Var] = set()
        for i, v in enumerate(body.inputs):
            place = self.places[v] = _Place(f"x{i}", rows=True)
            self.rows[place.name] = f"X{i}"
        for i, v in enumerate(body.constants):
            self.places[v] = _Place(f"c{i}")
        ends = self._carried()
        for i, v in enumerate(body.outputs):
            place = _Place(f"y{i}", rows=True)
            # Going through an array of numbers gives numbers, into which nothing can be written.
            self.rows[place.name] = (
                f"Y{i}" if v.shape else f"[Y{i}[k, ...] for k in range(len(Y{i}))]"
            )
            self.stored = {**getattr(self, "stored", {}), v: place}
        self._plan_joins()
        for i, call in enumerate(body.calls):
            self._call(i, call)
            self.release(i)
        for v in body.outputs:
            if self.places[v] is not self.stored[v]:  # type: ignore[has-type]
                self.lines.append(f"{self.stored[v].name}[...] = {self.places[v].name}")
        self.lines += self._hand_over(ends)
        return self._assemble()

    def _carried(self) -> list[tuple[_Place, Var]]:
        """Places for what enters a step."""
        self.stored: dict[Var, _Place] = {}
        ends: list[tuple[_Place, Var]] = []
        kept = set(self.body.outputs)
        for i, (a, b) in enumerate(self.body.carried):
            place = self.places[a] = _Place(f"s{i}")
            ends.append((place, b))
            if b in kept or b not in self.made:
                place.rows = False
                place.make = "bound"
                continue
            kind = self.constant(np.dtype(a.dtype), "d")
            self.before.append(f"{place.name} = np.array({place.name}, {kind})")
            # What leaves the step may be written where it came in, once that has been read.
            last = self._last.get(a, -1)
            at = self.position[b]
            shape = a.shape == b.shape
            taken = any(b is other for _, other in self.body.carried[:i])
            if (
                shape
                and not taken
                and (last < at or (last == at and self.made[b].op in _UFUNCS))
                and self.made[b].op not in _VIEWS
                and self.made[b].op != "concat"
            ):
                self.stored_in = {**getattr(self, "stored_in", {}), b: place}
        return ends

    def _hand_over(self, ends: list[tuple[_Place, Var]]) -> list[str]:
        """The last lines of a step: what leaves it enters the next."""
        bound: list[str] = []
        copied: list[str] = []
        for place, b in ends:
            source = self.places[b]
            if source is place:
                continue
            if place.make == "bound":
                bound.append(f"{place.name} = {self.stored.get(b, source).name}")
            else:
                copied.append(f"{place.name}[...] = {source.name}")
        if len(bound) > 1:  # at once, as one may be bound to what another was
            left = ", ".join(line.split(" = ")[0] for line in bound)
            right = ", ".join(line.split(" = ")[1] for line in bound)
            bound = [f"{left} = {right}"]
        if (bound and copied) or len(copied) > 1:
            held = {p.name for p, _ in ends}
            for k, (place, b) in enumerate(ends):
                source = self.places[b]
                if source is not place and source.root.name in held and place.make != "bound":
                    copied.insert(0, f"h{k} = {source.name}.copy()")
                    copied = [
                        line
                        if line != f"{place.name}[...] = {source.name}"
                        else f"{place.name}[...] = h{k}"
                        for line in copied
                    ]
        firsts = [line for line in copied if ".copy()" in line]
        return [*firsts, *bound, *(line for line in copied if ".copy()" not in line)]

    def _plan_joins(self) -> None:
        """Let the pieces of a concatenation be computed in their place."""
        self.inside: dict[Var, tuple[Var, str]] = {}
        taken = {*self.body.outputs, *(b for _, b in self.body.carried)}
        for call in self.body.calls:
            if call.op != "concat":
                continue
            axis = call.params["axis"] % len(call.output.shape)
            start = 0
            for v in call.inputs:
                assert isinstance(v, Var)
                size = v.shape[axis]
                key = "[" + ":, " * axis + f"{start}:{start + size}]"
                made = self.made.get(v)
                alone = v not in taken and v not in self.inside and call.inputs.count(v) == 1
                if made and alone and made.op not in _VIEWS and made.op != "concat":
                    self.inside[v] = (call.output, key)
                start += size

    def _whole(self, v: Var) -> _Place:
        """The place of a concatenation, which is there before its first piece is."""
        if v not in self.places:
            self.places[v] = self.stored.get(v) or self.scratch(v.shape, v.dtype)
        return self.places[v]

    def target(self, i: int, call: Call) -> _Place:
        """Where the result of a call goes."""
        v = call.output
        if v in self.stored:
            place = self.stored[v]
        elif v in getattr(self, "stored_in", {}):
            place = self.stored_in[v]
        elif v in self.inside:
            whole, key = self.inside[v]
            place = self.part(self._whole(whole), key)
        else:
            if call.op in _UFUNCS:  # may overwrite what it reads last
                self.release_early(i, v)
            place = self.buffer(v)
            self._owned.add(v)
        self.places[v] = place
        return place

    def release_early(self, i: int, out: Var) -> None:
        """Free the operands of a function of each element that are read for the last time."""
        call = self.body.calls[i]
        for v in call.vars:
            alike = v.shape == out.shape and v.dtype == out.dtype
            if alike and v in self._owned and self._last.get(v) == i:
                self._owned.discard(v)
                self.free.setdefault((v.shape, v.dtype), []).append(self.places[v])

    def operand(self, x: Operand) -> str:
        """The source of an argument."""
        if isinstance(x, Var):
            return self.places[x].name
        return repr(x) if np.isfinite(x or 0) else f"float({str(x)!r})"

    def _call(self, i: int, call: Call) -> None:
        emit = self.lines.append
        v = call.output
        if call.op in _VIEWS and self._view(call):
            return
        if call.op == "concat":
            whole = self._whole(v)
            axis = call.params["axis"] % len(v.shape)
            start = 0
            for x in call.inputs:
                assert isinstance(x, Var)
                size = x.shape[axis]
                if self.inside.get(x, (None,))[0] is not v:
                    key = "[" + ":, " * axis + f"{start}:{start + size}]"
                    emit(f"{self.part(whole, key).name}[...] = {self.places[x].name}")
                start += size
            return
        operands = [self.operand(x) for x in call.inputs]
        place = self.target(i, call)
        out = place.name
        if call.op in _UFUNCS:
            f = self.function(f"np.{_UFUNCS[call.op]}")
            by_name = "out=" if call.op in ("maximum", "minimum") else ""  # where NumPy insists
            emit(f"{f}({', '.join(operands)}, {by_name}{out})")
        elif call.op == "sigmoid" and np.dtype(v.dtype) in _HALVES:
            half = self.constant(_HALVES[np.dtype(v.dtype)], "half")
            multiply, tanh, add = map(self.function, ("np.multiply", "np.tanh", "np.add"))
            emit(f"{multiply}({operands[0]}, {half}, {out})")
            emit(f"{tanh}({out}, {out})")
            emit(f"{multiply}({out}, {half}, {out})")
            emit(f"{add}({out}, {half}, {out})")
        elif call.op == "matmul":
            flat = all(isinstance(x, Var) and len(x.shape) == 2 for x in call.inputs)
            dot = flat and place.contiguous and np.dtype(v.dtype).kind == "f"
            same = len({np.dtype(x.dtype) for x in (*call.vars, v)}) == 1
            f = self.function("np.dot" if dot and same else "np.matmul")
            emit(f"{f}({', '.join(operands)}, out={out})")
        elif call.op in _REDUCTIONS and call.inputs[0].dtype == v.dtype:  # type: ignore[union-attr]
            f = self.function(f"np.{_REDUCTIONS[call.op]}.reduce")
            axis, keep = call.params["axis"], call.params["keepdims"]
            emit(f"{f}({operands[0]}, {axis!r}, None, {out}, {keep!r})")
            if call.op == "mean":
                count = math.prod(call.inputs[0].shape) // max(math.prod(v.shape), 1)  # type: ignore[union-attr]
                emit(f"{self.function('np.divide')}({out}, {count}, {out})")
        elif call.op == "where":
            condition, a, b = operands
            emit(f"np.copyto({out}, {b})")
            emit(f"np.copyto({out}, {a}, where={condition})")
        elif call.op in ("zeros_like", "ones_like"):
            emit(f"{out}.fill({int(call.op == 'ones_like')})")
        else:
            f = self.constant(self.body.functions[call.op], call.op)
            params = "".join(f", {k}={self.constant(p, 'p')}" for k, p in call.params.items())
            emit(f"{out}[...] = {f}({', '.join(operands)}{params})")

    def function(self, dotted: str) -> str:
        """A local name for a NumPy function: looked up once."""
        name = dotted.replace(".", "_")
        if name not in self.names:
            found: Any = np
            for part in dotted.split(".")[1:]:
                found = getattr(found, part)
            self.names[name] = found
        return name

    def _view(self, call: Call) -> bool:
        """A part of an array, or the same in another shape: no work at each step."""
        (x,) = call.inputs
        assert isinstance(x, Var)
        base, v = self.places[x], call.output
        if call.op == "reshape" and not base.contiguous:
            self.places.setdefault(v, self.target(self.position[v], call))
            key = self.constant(self.body.functions[call.op], call.op)
            params = "".join(f", {k}={self.constant(p, 'p')}" for k, p in call.params.items())
            self.lines.append(f"{self.places[v].name}[...] = {key}({base.name}{params})")
            return True
        # Source of the view of one step's array, and of all steps' if that is one view as well.
        rows: str | None = None
        if call.op == "getitem":
            key = call.params["key"]
            one = f"{{0}}[{self.constant(key, 'key')}]"
            if base.rows:
                rows = f"{{0}}[{self.constant((slice(None), *key), 'key')}]"
        elif call.op == "broadcast_to":
            one = f"np.broadcast_to({{0}}, {v.shape!r})"
            if len(x.shape) == len(v.shape):
                rows = f"np.broadcast_to({{0}}, (len({{0}}), *{v.shape!r}))"
        elif call.op in ("reshape", "expand_dims", "squeeze"):
            one = f"{{0}}.reshape({v.shape!r})"  # rows of a stack may lie apart: each by itself
        else:
            axes = call.params.get("axes")
            n = len(v.shape)
            axes = tuple(a % n for a in axes) if axes else (*range(n - 2), n - 1, n - 2)
            one = f"{{0}}.transpose({axes!r})"
            rows = f"{{0}}.transpose({(0, *(a + 1 for a in axes))!r})"
        made = _Place(self.name("v"), base=base, rows=base.rows and rows is not None)
        made.contiguous = base.contiguous and call.op in ("reshape", "expand_dims", "squeeze")
        if made.rows:
            assert rows is not None
            stack = self.name("r")
            self.before.append(f"{stack} = {rows.format(self.rows[base.name])}")
            self.rows[made.name] = stack
        elif base.rows or base.root.rows or base.root.make == "bound":
            self.lines.append(f"{made.name} = {one.format(base.name)}")
        else:
            self.before.append(f"{made.name} = {one.format(base.name)}")
        if base.root.make == "bound":
            made.make = "bound"
        self.places[v] = made
        return True

    def _assemble(self) -> str:
        body = self.body
        used = [n for n in self.rows if any(_mentions(line, n) for line in self.lines)]
        lines = ["def run(inputs, constants, carried, outputs, order):"]
        lines += [
            "    pick = slice(order.start, None if order.stop < 0 else order.stop, order.step)"
        ]
        lines += [f"    X{i} = inputs[{i}][pick]" for i in range(len(body.inputs))]
        lines += [f"    c{i} = constants[{i}]" for i in range(len(body.constants))]
        lines += [f"    s{i} = carried[{i}]" for i in range(len(body.carried))]
        lines += [f"    Y{i} = outputs[{i}][pick]" for i in range(len(body.outputs))]
        lines += [f"    {line}" for line in self.before]
        if used:
            head = f"    for {', '.join(used)}, in zip({', '.join(self.rows[n] for n in used)}):"
        else:
            head = "    for _ in order:"
        lines += [head, *(f"        {line}" for line in self.lines or ["pass"])]
        left = ", ".join(f"s{i}" for i in range(len(body.carried)))
        lines += [f"    return [{left}]"]
        return "\n".join(lines) + "\n"


_HALVES = {np.dtype(t): np.asarray(0.5, t) for t in (np.float32, np.float64)}


def _mentions(line: str, name: str) -> bool:
    import re

    return re.search(rf"\b{name}\b", line) is not None


def compile_loop(body: Body) -> Runner:
    """Make a function that runs `body` over time."""
    writer = _Writer(body)
    source = writer.write()
    body.notes["source"] = source
    names = dict(writer.names)
    exec(compile(source, f"<{body.name}>", "exec"), names)
    run: Callable[..., Sequence[Any]] = names["run"]
    return run
