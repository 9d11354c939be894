"""What a compiled scan does, operation by operation, to read."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tinygradrnn.errors import UntraceableError
from tinygradrnn.loop import Call, Var
from tinygradrnn.scan.cache import program_of
from tinygradrnn.scan.eager import Loop
from tinygradrnn.scan.program import StepProgram, Way
from tinygradrnn.scan.rewrite import behind
from tinygradrnn.scan.schedule import Sorted

_PLACES = {
    "once": "once for each call of scan: the same at every step",
    "before": "before the loop, all steps at once: needs no state",
    "in": "in the loop: the next state needs it",
    "beside": "in the loop: not for the next state, but its inputs are at hand there",
    "after": "after the loop, all steps at once: no later step needs it",
    "sum": "after the loop, only as a sum over all steps",
}
_BACKWARD = {
    **_PLACES,
    "before": "before the loop, all steps at once: needs no cotangent of a state",
    "in": "in the loop: the cotangent of the state before needs it",
    "beside": "in the loop: not for that cotangent, but its inputs are at hand there",
    "after": "after the loop, all steps at once: no earlier step needs it",
}


class Row(NamedTuple):
    """One operation of a schedule.

    Attributes:
        place: ``"once"``, ``"before"``, ``"in"``, ``"beside"``, ``"after"`` or ``"sum"``.
        text: The call.
        shape: Of the result, in one step.
        flops: Multiplications and additions of a matrix product, in one step.
    """

    place: str
    text: str
    shape: tuple[int, ...]
    flops: int


class Explanation:
    """How ``scan`` runs a cell; its text is what to read.

    Attributes:
        reason: Why the cell runs eagerly; None if it is compiled.
        forward, backward: The operations, in order; empty if it runs eagerly.
        saved: What the way back needs of each step: name, shape and bytes.
        sources: The generated source of each loop, by ``"forward"`` and ``"backward"``.
        notes: What the backend says of each loop.
    """

    def __init__(self, head: str, reason: str | None) -> None:
        self._head, self.reason = head, reason
        self.forward: list[Row] = []
        self.backward: list[Row] = []
        self.saved: list[tuple[str, tuple[int, ...], int]] = []
        self.sources: dict[str, str] = {}
        self.notes: dict[str, str] = {}

    @property
    def compiled(self) -> bool:
        """Whether the cell is compiled."""
        return self.reason is None

    @property
    def saved_bytes(self) -> int:
        """The bytes that each step keeps for the way back."""
        return sum(size for _, _, size in self.saved)

    def __str__(self) -> str:
        if self.reason is not None:
            return f"{self._head}, runs eagerly: {self.reason}"
        lines = [f"{self._head}, compiled"]
        lines += _table("FORWARD", self.forward, _PLACES)
        lines += ["", f"SAVED for the way back: {self.saved_bytes:,} bytes a step"]
        lines += [f"    {name:<24} {_shape(shape):>14} {n:>12,}" for name, shape, n in self.saved]
        if self.backward:
            lines += _table("BACKWARD", self.backward, _BACKWARD)
        for which, note in self.notes.items():
            lines += ["", f"NOTE on the {which} loop: {note}"]
        for which, source in self.sources.items():
            lines += ["", f"SOURCE of the {which} loop", *_shortened(source)]
        return "\n".join(lines)

    __repr__ = __str__


def explain(
    cell: Any, xs: Any, state: Any = None, *, lengths: Any = None, reverse: bool = False
) -> Explanation:
    """How ``scan`` runs a cell: every operation, where it runs and why, what each step saves, and
    the generated source; or why the cell is not compiled.

    Runs the cell a few times on arrays without values, and nothing else.

    Args:
        cell: As of :func:`scan`, and so are the others. How many steps there are plays no part.
        xs: The inputs, ``(time, batch, features)``.
        state: The state before the first step.
        lengths: The length of each sequence.
        reverse: Whether time runs backward.

    Raises:
        ShapeError: As :func:`scan`.

    >>> found = tgr.explain(tgr.nn.RNNCell(3, 4), tgr.ones((10, 2, 3)))
    >>> [row.text for row in found.forward if row.place == "in"]
    ['product_2 = h @ weight_hh.T', 'sum_3 = sum_2 + product_2', 'tanh_1 = tanh(sum_3)']
    >>> def halves(x, h):
    ...     return h, h * 0.5 if h.sum().item() > 0 else h
    >>> tgr.explain(halves, tgr.ones((10, 2, 3)), tgr.ones((2, 3))).reason
    'it reads a value: while it is traced there are none'
    """
    loop = Loop(cell, xs, state, lengths=lengths, reverse=reverse)
    backend = loop.columns[0].backend
    head = f"{loop.name} on {backend}"
    try:
        program, captured = program_of(loop)
    except UntraceableError as why:
        return Explanation(head, str(why))
    found = Explanation(head, None)
    names = _Names(program, _variables(cell), captured)
    ways: list[tuple[str, Sorted, list[Row]]] = [("forward", program.forward(False), found.forward)]
    if program.active:
        way = program.way(tuple([x.edge is not None for x in program.recorded.outputs]), (), False)
        names.of_way(way)
        ways.append(("backward", way.plan, found.backward))
    for which, plan, rows in ways:
        rows += _rows(plan, names)
        if plan.body is not None:
            notes = dict(plan.body.notes)
            if "source" in notes:
                found.sources[which] = str(notes.pop("source"))
            if notes:
                found.notes[which] = "; ".join(f"{k}: {v}" for k, v in notes.items())
    found.saved = [(names[v], v.shape, program.bytes_of(v)) for v in program.kept]
    return found


def _variables(cell: Any) -> dict[int, str]:
    """What a function calls the objects around it that it uses."""
    if not inspect.isfunction(cell):
        return {}
    found = inspect.getclosurevars(cell)
    return {id(x): name for name, x in {**found.globals, **found.nonlocals}.items()}


class _Names:
    """A name of its own for each Var: operations are numbered in the order they are met."""

    def __init__(
        self, program: StepProgram, variables: dict[int, str], captured: Sequence[Any]
    ) -> None:
        self._names: dict[Var, str] = {}
        self._counts: dict[str, int] = {}
        for v in (*program.stacked, *(a for a, _ in program.carried)):
            self._give(v, v.name)
        for v, value in zip(program.captured, captured, strict=True):
            self._give(v, variables.get(id(value), v.name))

    def of_way(self, way: Way) -> None:
        """Name the cotangents that enter."""
        for v in (*way.seeds, *way.entering):
            if v is not None:
                self._give(v, v.name)

    def _give(self, v: Var, name: str) -> None:
        taken = set(self._names.values())
        full, n = name, 1
        while full in taken:
            n += 1
            full = f"{name}_{n}"
        self._names[v] = full

    def __getitem__(self, v: Var) -> str:
        if v not in self._names:
            base = {"matmul": "product", "add": "sum"}.get(v.name, v.name).split("[")[0]
            self._counts[base] = n = self._counts.get(base, 0) + 1
            self._names[v] = f"{base}_{n}"
        return self._names[v]

    def call(self, call: Call) -> str:
        """The text of a call."""
        inputs = [self[v] if isinstance(v, Var) else repr(v) for v in call.inputs]
        if call.op in ("matrix_transpose", "getitem") and call.output not in self._names:
            # Parts of an array are named after it.
            part = ".T" if call.op == "matrix_transpose" else f"[{_key(call)}]"
            self._names.setdefault(call.output, f"{inputs[0]}{part}")
        out = self[call.output]
        sign = _SIGNS.get(call.op)
        if sign is not None and len(inputs) == 2:
            return f"{out} = {inputs[0]} {sign} {inputs[1]}"
        if out == f"{inputs[0]}.T" or (call.op == "getitem" and out.startswith(inputs[0])):
            return out
        params = [f"{k}={v!r}" for k, v in call.params.items()]
        return f"{out} = {call.op}({', '.join([*inputs, *params])})"


_SIGNS = {
    "matmul": "@",
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "pow": "**",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "equal": "==",
    "not_equal": "!=",
}


def _key(call: Call) -> str:
    """An index as one writes it."""

    def one(k: Any, size: int) -> str:
        if not isinstance(k, slice):
            return "..." if k is ... else repr(k)
        start, stop, step = k.indices(size)
        ends = f"{start or ''}:{'' if stop == size else stop}"
        return ends if step == 1 else f"{k.start}:{k.stop}:{step}"

    sizes = iter(call.vars[0].shape)
    return ", ".join(one(k, 0 if k is None else next(sizes, 0)) for k in call.params["key"])


def _rows(plan: Sorted, names: _Names) -> list[Row]:
    body = plan.body.calls if plan.body else []
    made = {c.output: c for c in body}
    required = behind(made, [b for _, b in plan.body.carried] if plan.body else [])
    places: list[tuple[str, Iterable[Call]]] = [
        ("once", plan.once),
        ("before", plan.before),
        ("in", body),
        ("after", plan.after),
        ("sum", plan.totals.values()),
    ]
    rows: list[Row] = []
    for place, calls in places:
        for call in calls:
            where = place if place != "in" or call.output in required else "beside"
            rows.append(Row(where, names.call(call), call.output.shape, _flops(call)))
    return rows


def _flops(call: Call) -> int:
    if call.op != "matmul":
        return 0
    first = call.inputs[0]
    assert isinstance(first, Var)
    return 2 * math.prod(call.output.shape) * first.shape[-1]


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def _table(title: str, rows: list[Row], places: dict[str, str]) -> list[str]:
    lines = ["", title]
    for place, why in places.items():
        mine = [row for row in rows if row.place == place]
        if mine:
            lines.append(f"  {why}")
        for row in mine:
            work = f"  {row.flops:,} flops" if row.flops else ""
            lines.append(f"    {row.text:<60} {_shape(row.shape):>14}{work}")
    return lines


def _shortened(source: str, limit: int = 120) -> list[str]:
    lines = source.rstrip().splitlines()
    shown = [f"    {line}" for line in lines[:limit]]
    if len(lines) > limit:
        shown.append(f"    ... {len(lines) - limit:,} more lines: all in .sources")
    return shown
