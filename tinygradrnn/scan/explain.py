"""What a compiled scan does, operation by operation, to read."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tinygradrnn.errors import UntraceableError
from tinygradrnn.loop import Call, Var
from tinygradrnn.scan.cache import program_of
from tinygradrnn.scan.eager import Loop
from tinygradrnn.scan.fingerprint import Fingerprint
from tinygradrnn.scan.program import Look, StepProgram, Way, record
from tinygradrnn.scan.rewrite import behind
from tinygradrnn.scan.schedule import Sorted

_PLACES = {
    "once": "once for each call of scan: the same at every step",
    "before": "before the loop, all steps at once: needs no state",
    "in": "in the loop: the next state needs it",
    "beside": "in the loop, though it could run outside: its inputs are at hand there",
    "after": "after the loop, all steps at once: no later step needs it",
    "sum": "after the loop, only as a sum over all steps",
}
_BACKWARD = {
    **_PLACES,
    "before": "before the loop, all steps at once: needs no cotangent of a state",
    "in": "in the loop: the cotangent of the state before needs it",
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
    ['product_2 = h @ weight_hh.T', 'sum_3 = sum_2 + product_2', "h' = tanh(sum_3)"]
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
    names = _Names(program, _variables(cell), captured, _spoken(loop, program))
    ways: list[tuple[str, Sorted, list[Row]]] = [("forward", program.forward(False), found.forward)]
    if program.active:
        way = program.way(tuple([x.edge is not None for x in program.recorded.outputs]), (), False)
        names.of_way(way, program)
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


def _spoken(loop: Loop, program: StepProgram) -> dict[Var, str]:
    """What the cell itself calls its results: its step is recorded once more to hear it."""
    before = Fingerprint(loop.cell, undo=True)

    def looks(leaves: Sequence[Any], skip: int) -> list[Look]:
        return [Look(x.raw.shape[skip:], x.raw.dtype, x.edge is not None) for x in leaves]

    try:
        again = record(
            loop.cell,
            loop.columns[0].backend,
            (loop.inputs, looks(loop.columns, 1)),
            (loop.carried.structure, looks(loop.begin, 0)),
            None if loop.lengths is None else loop.lengths.batch,
            before.tensors,
            with_names=True,
        )
    finally:
        before.restore()
    known = again.trace.names or {}
    pairs = zip(again.trace.calls, program.trace.calls, strict=False)
    return {b.output: known[a.output] for a, b in pairs if a.output in known and a.op == b.op}


class _Names:
    """A name of its own for each Var: the cell's, or operations are numbered as they are met.

    What the cell calls as a state that came in, such as a new h, gets a prime.
    """

    def __init__(
        self,
        program: StepProgram,
        variables: dict[int, str],
        captured: Sequence[Any],
        spoken: dict[Var, str],
    ) -> None:
        self._names: dict[Var, str] = {}
        self._counts: dict[str, int] = {}
        for v in program.stacked:
            self._give(v, v.name)
        self._states = [
            name if name and not name.isdigit() else f"h{name}"
            for path in program.recorded.structure.paths("")
            for name in [re.sub(r"[]['.]+", ".", path).strip(".")]
        ]
        for (v, _), name in zip(program.carried, self._states, strict=True):
            self._give(v, name)
        for v, value in zip(program.captured, captured, strict=True):
            self._give(v, variables.get(id(value), v.name))
        self._spoken = spoken

    def of_way(self, way: Way, program: StepProgram) -> None:
        """Name the cotangents that enter, and the gradients: that of h is dh."""
        left = dict(way.plan.body.carried) if way.plan.body else {}
        single = len(program.recorded.outputs) == 1
        given: list[tuple[Var | None, str]] = [
            (v, "dy" if single and v.name == "dy0" else v.name) for v in way.seeds if v is not None
        ]
        for v, name in zip(way.entering, self._states, strict=True):
            given += [(v, f"d{name}'"), (left.get(v) if v else None, f"d{name}")]
        for v, x in zip(way.xs, program.stacked, strict=False):
            given.append((v, f"d{self[x]}"))
        for v, x in zip(way.captured, program.captured, strict=True):
            given.append((v, f"d{self[x]}"))
        for v, name in given:
            if v is not None and v not in self._names:
                self._give(v, name)

    def _give(self, v: Var, name: str) -> None:
        taken = set(self._names.values())
        full, n = name, 1
        while full in taken:
            n += 1
            full = f"{name}_{n}"
        self._names[v] = full

    def __getitem__(self, v: Var) -> str:
        if v not in self._names and v in self._spoken:
            name = self._spoken[v]
            self._give(v, f"{name}'" if name in self._states else name)
        if v not in self._names:
            base = {"matmul": "product", "add": "sum"}.get(v.name, v.name).split("[")[0]
            self._counts[base] = n = self._counts.get(base, 0) + 1
            self._names[v] = f"{base}_{n}"
        return self._names[v]

    def call(self, call: Call) -> str:
        """The text of a call."""
        inputs = [self[v] if isinstance(v, Var) else repr(v) for v in call.inputs]
        params = [f"{k}={v!r}" for k, v in call.params.items()]
        sign = _SIGNS.get(call.op)
        if call.op == "matrix_transpose":
            text = f"{inputs[0]}.T"
        elif call.op == "getitem":
            text = f"{inputs[0]}[{_key(call)}]"
        elif sign is not None and len(inputs) == 2:
            text = f"{inputs[0]} {sign} {inputs[1]}"
        else:
            text = f"{call.op}({', '.join([*inputs, *params])})"
        known = call.output in self._names or call.output in self._spoken
        if not known and (call.op in _PARTS or (len(text) <= _SHORT and sign is None)):
            self._names[call.output] = text  # which says more than a number would
        out = self[call.output]
        return out if out == text else f"{out} = {text}"


_PARTS = ("matrix_transpose", "getitem")
_SHORT = 14
"""Up to how many letters a call is called by its own text."""

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
    carried = plan.body.carried if plan.body else []
    needed, goes_round = behind(made, [b for _, b in carried]), {a for a, _ in carried}
    for call in body:
        if not goes_round.isdisjoint(call.vars):
            goes_round.add(call.output)
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
            v, where = call.output, place
            if place == "in" and not (v in needed and v in goes_round):
                where = "beside"
            rows.append(Row(where, names.call(call), v.shape, _flops(call)))
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
