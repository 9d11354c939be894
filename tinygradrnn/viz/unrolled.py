"""The unrolled tape, sorted for a reader: rows of loops, columns of time, boxes of one step each.

All pictures (text, SVG, page) are drawn from this, and none of them looks at the tape itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tinygradrnn
from tinygradrnn.errors import DtypeError, GradientError
from tinygradrnn.region import Region
from tinygradrnn.scan.compiled import CompiledScan
from tinygradrnn.tape import (
    Edge,
    Leaf,
    Node,
    Output,
    StepMark,
    Tape,
    execution_order,
    origin,
    unique_bytes,
)
from tinygradrnn.tensor import Tensor
from tinygradrnn.viz.walk import Entry, Opened, Visit, aliases, flat, opened, walk_back
from tinygradrnn.watch import Record, record_of

SMALL = 36
"""Up to how many elements an array is shown whole."""

Ref = tuple[int, int]
"""A place: the number of an item, and which of its outputs."""


@dataclass
class Item:
    """A node or a leaf.

    Attributes:
        number: Its place in execution order.
        operation: The operation's name; empty for a leaf.
        name: What the program calls the result, or the parameter's name.
        text: The expression, where it is known; else the call.
        where: File, line and function, where known.
        layer: The modules around it, where known.
        step: The path of its step; empty outside of loops.
        inputs: Where each argument comes from; None for what is on no tape.
        input_names: What the arguments are called; empty for what has no name.
        data: For each argument that is on no tape a summary of it, where it is known.
        values: A summary of each output; None where the numbers are gone.
        gradients: The same of the gradient of each output.
        shape: Of the first output.
        nbytes: Saved for the way back.
        box: The box it is in; None for a leaf.
    """

    number: int
    operation: str
    name: str
    shape: tuple[int, ...]
    text: str = ""
    where: str = ""
    layer: str = ""
    step: str = ""
    inputs: list[Ref | None] = field(default_factory=list)
    input_names: list[str] = field(default_factory=list)
    data: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    gradients: list[Any] = field(default_factory=list)
    nbytes: int = 0
    box: Box | None = None
    uses: int = 0


@dataclass(eq=False)
class Box:
    """What one step of a loop left on the tape, or what ran between loops.

    Attributes:
        row: The row it is in.
        t: The step's number; None outside of loops.
        items: The numbers of its nodes.
        kind: Boxes of one number have the same operations, wired alike.
        data: Whether it takes something that is on no tape, such as the data.
    """

    row: Row
    t: int | None
    items: list[int] = field(default_factory=list)
    kind: int = 0
    data: bool = False


@dataclass(eq=False)
class Row:
    """A loop, or what ran between two loops.

    Attributes:
        name: The loop's name; empty between loops.
        boxes: In the order in which they ran.
    """

    name: str
    boxes: list[Box] = field(default_factory=list)

    @property
    def is_loop(self) -> bool:
        """Whether it is a loop."""
        return bool(self.boxes) and self.boxes[0].t is not None


@dataclass
class Crossing:
    """What goes from one box to another.

    Attributes:
        first, second: The boxes, in the order in which they ran.
        norm: That of the cotangent which goes back; None where gradients are not known.
        names: What goes across.
        factor: By what a gate multiplies the cotangent; 0 for a cut.
        mark: Whether walks back from some losses end here.
    """

    first: Box
    second: Box
    norm: float | None = None
    names: tuple[str, ...] = ()
    factor: float = 1.0
    mark: bool = False


@dataclass
class Unrolled:
    """The whole picture, in facts.

    Attributes:
        items: Nodes and leaves by number, in execution order.
        leaves: The numbers of the leaves.
        rows: The first that ran comes first.
        crossings: Between boxes.
        kinds: One box of each kind.
        visits: The walk back: node, cotangents, and shares with place, share and sum so far.
        notes: What the reader should know.
    """

    items: list[Item]
    leaves: list[int]
    rows: list[Row]
    crossings: list[Crossing]
    kinds: list[Box]
    visits: list[tuple[int, list[Any], list[tuple[Ref, Any, Any]]]]
    notes: list[str]

    @property
    def times(self) -> list[int]:
        """All step numbers, ascending."""
        return sorted({b.t for row in self.rows for b in row.boxes if b.t is not None})

    def between(self, first: Box, second: Box) -> Crossing | None:
        """The crossing between two boxes."""
        return self._crossings.get((id(first), id(second)))

    def __post_init__(self) -> None:
        self._crossings = {(id(c.first), id(c.second)): c for c in self.crossings}


def summary(array: Any, backend: Any) -> dict[str, Any] | None:
    """An array in a few numbers: all of them if it is small, else its range and norm."""
    if array is None:
        return None
    import numpy

    host = numpy.asarray(backend.to_host(array) if backend.is_array(array) else array)
    found: dict[str, Any] = {"shape": list(host.shape), "norm": _norm(host)}
    if host.size <= SMALL:
        found["values"] = _rounded(host.tolist())
    elif host.dtype.kind == "f":
        finite = host[numpy.isfinite(host)]
        if finite.size:
            ends = [finite.min(), finite.mean(dtype="float64"), finite.max()]
            found["range"] = _rounded([float(x) for x in ends])
        if finite.size < host.size:
            found["odd"] = int(host.size - finite.size)
    else:
        found["range"] = [int(host.min()), None, int(host.max())]
    return found


def _norm(host: Any) -> float | str:
    import numpy

    if host.dtype.kind not in "fiu":
        return 0.0
    return _rounded(float(numpy.linalg.norm(host.astype("float64", copy=False).ravel())))


def _rounded(x: Any) -> Any:
    """Five digits; NaN and infinities, which JSON does not know, as text."""
    if isinstance(x, list):
        return [_rounded(y) for y in x]
    if not isinstance(x, float):
        return x
    return float(f"{x:.5g}") if math.isfinite(x) else str(x)


def unroll(*results: Any) -> Unrolled:
    """Gather the facts of the tape behind some results.

    Raises:
        GradientError: There is no tape behind them.
        DtypeError: One is no Tensor.
    """
    for i, r in enumerate(results):
        if not isinstance(r, Tensor):
            raise DtypeError(f"viz.tape: result {i} is a {type(r).__name__}; expected a Tensor")
    Tape(*results)  # says what is wrong if there is none
    edges = [r.edge for r in results if r.edge is not None]
    notes: list[str] = []
    entries: list[Entry]
    try:
        entries = opened(edges)
    except GradientError as why:
        notes.append(f"A compiled loop is drawn closed: {why}")
        entries = [*execution_order(edges)]
    visits: list[Visit] = []
    total: dict[Edge, Any] = {}
    freed = any(isinstance(n, Node) and n.saved is None for n in flat(entries))
    closed = any(isinstance(n, Region) for n in flat(entries))
    if freed:
        notes.append(
            "The tape was freed by backward, so there are no numbers: draw it before, or call "
            "backward(retain_graph=True)"
        )
    elif any(r.shape != () for r in results):
        notes.append("No gradients are shown: only a scalar has a gradient of its own")
    elif not closed:
        seeds = [(r.edge, r.backend.xp.ones_like(r.raw)) for r in results if r.edge is not None]
        visits, total = walk_back(entries, seeds)
    return _Gatherer(entries, visits, total).gather(notes)


class _Gatherer:
    def __init__(
        self, entries: Sequence[Entry], visits: list[Visit], total: dict[Edge, Any]
    ) -> None:
        self.order = list(dict.fromkeys(flat(entries)))
        self.alias = aliases(entries)
        self.number = {n: i for i, n in enumerate(self.order)}
        self.visits, self.total = visits, total
        self.cuts = dict(_cuts(entries))
        self.values = self._known_values()
        self.items: list[Item] = []
        self.rows: list[Row] = []
        self._marks: dict[StepMark, Box] = {}
        self._loops: dict[str, Row] = {}

    def ref(self, edge: Edge | None) -> Ref | None:
        if edge is None:
            return None
        edge = self.alias.get(edge, edge)
        found = self.number.get(origin(edge))
        return None if found is None else (found, edge.slot if isinstance(edge, Output) else 0)

    def _known_values(self) -> dict[Edge, Any]:
        """Arrays that some node saved, by their place."""
        found: dict[Edge, Any] = {}
        for node in self.order:
            if not isinstance(node, Node) or node.saved is None or isinstance(node, Region):
                continue
            layout, op = node.recipe.layout, node.recipe.op
            for name, value in zip(layout, node.saved, strict=True):
                if name == "out" and not op.many:
                    found[node] = value
                elif name in op.arrays and not op.variadic:
                    edge = node.inputs[op.arrays.index(name)]
                    if edge is not None:
                        found.setdefault(self.alias.get(edge, edge), value)
        return found

    def gather(self, notes: list[str]) -> Unrolled:
        for node in self.order:
            item = self._leaf(node) if isinstance(node, Leaf) else self._node(node)
            self.items.append(item)
        for item in self.items:
            for name, ref in zip(item.input_names, item.inputs, strict=True):
                if ref is not None:
                    used = self.items[ref[0]]
                    used.uses += 1
                    if name and not used.operation and not used.name:
                        used.name = name
        for n, item in enumerate(self.items):
            if not item.operation:
                item.name = item.name or f"leaf {n}"
        crossings = self._crossings()
        kinds = self._kinds()
        visits = [
            (
                self.number[v.node],
                [summary(g, v.node.backend) for g in v.cotangents],
                [
                    (ref, summary(s, v.node.backend), summary(after, v.node.backend))
                    for edge, s, after in v.shares
                    if (ref := self.ref(edge)) is not None
                ],
            )
            for v in self.visits
        ]
        leaves = [i.number for i in self.items if not i.operation]
        return Unrolled(self.items, leaves, self.rows, crossings, kinds, visits, notes)

    # ---------------------------------------------------------------------------------- one item

    def _leaf(self, leaf: Leaf) -> Item:
        n = self.number[leaf]
        return Item(
            n,
            "",
            leaf.name,
            leaf.shape,
            values=[summary(self.values.get(leaf), leaf.backend)],
            gradients=[summary(self.total.get(leaf), leaf.backend)],
        )

    def _node(self, node: Node) -> Item:
        record = record_of(node)
        many = node.recipe.op.many
        edges: list[Edge] = [Output(node, i) for i in range(len(node.shape))] if many else [node]
        names = record.names if record else ("",) * len(edges)
        names_in = _argument_names(node, record)
        refs = [self.ref(edge) for edge in node.inputs]
        given = record.inputs if record else (None,) * len(refs)
        item = Item(
            self.number[node],
            node.name,
            ", ".join(filter(None, names)),
            edges[0].shape,
            text=_call(node, record, names_in),
            where=_where(record) if record else "",
            layer=" > ".join(record.layers) if record else "",
            step=repr(node.step) if node.step else "",
            inputs=refs,
            input_names=names_in,
            data=[
                summary(x, node.backend) if ref is None and x is not None else None
                for ref, x in zip(refs, given, strict=True)
            ],
            values=[
                summary(record.outputs[i] if record else self.values.get(e), node.backend)
                for i, e in enumerate(edges)
            ],
            gradients=[summary(self.total.get(e), node.backend) for e in edges],
            nbytes=unique_bytes([node]),
        )
        item.box = self._box(node)
        item.box.items.append(item.number)
        item.box.data |= any(edge is None for edge in node.inputs)
        return item

    # ------------------------------------------------------------------------------ rows and boxes

    def _box(self, node: Node) -> Box:
        mark = node.step
        while mark is not None and mark.parent is not None:
            mark = mark.parent
        if isinstance(node, CompiledScan) and mark is None:
            mark = node.last
        if mark is None:
            if not self.rows or self.rows[-1].is_loop:
                self.rows.append(Row(""))
                self.rows[-1].boxes.append(Box(self.rows[-1], None))
            return self.rows[-1].boxes[0]
        if mark not in self._marks:
            row = self._loops.get(mark.loop)
            last = row.boxes[-1].t if row else None
            if row is None or last is None or not self._goes_on(row, mark.t):
                row = self._loops[mark.loop] = Row(self._title(mark.loop or "loop"))
                self.rows.append(row)
            self._marks[mark] = Box(row, mark.t)
            row.boxes.append(self._marks[mark])
        return self._marks[mark]

    def _title(self, name: str) -> str:
        n = sum(row.name == name or row.name.startswith(f"{name} (") for row in self.rows)
        return f"{name} ({n + 1})" if n else name

    @staticmethod
    def _goes_on(row: Row, t: int) -> bool:
        """Whether a step belongs to this run; there may be gaps, of steps that are on no tape."""
        ts = [b.t for b in row.boxes[-2:] if b.t is not None]
        way = ts[1] - ts[0] if len(ts) > 1 else t - ts[0]
        return (t - ts[-1]) * way > 0

    # ---------------------------------------------------------------------------------- crossings

    def _crossings(self) -> list[Crossing]:
        found: dict[tuple[int, int], Crossing] = {}
        names: dict[tuple[int, int], dict[str, None]] = {}

        def crossing(ref: Ref | None, second: Box | None) -> tuple[int, int] | None:
            first = None if ref is None else self.items[ref[0]].box
            if first is None or second is None or first is second:
                return None
            key = id(first), id(second)
            if key not in found:
                found[key], names[key] = Crossing(first, second), {}
            item = self.items[ref[0]]  # type: ignore[index]
            parts = item.name.split(", ")
            slot = ref[1]  # type: ignore[index]
            names[key][parts[slot] if slot < len(parts) else ""] = None
            return key

        for item in self.items:
            for ref in item.inputs:
                key = crossing(ref, item.box)
                if key and item.operation == "gate":
                    params = self.order[item.number].params  # type: ignore[union-attr]
                    found[key].factor *= float(params.get("factor", 1.0))
                    found[key].mark |= params.get("mark") is not None
        sums: dict[tuple[tuple[int, int], Edge], Any] = {}
        for visit in self.visits:
            box = self.items[self.number[visit.node]].box
            for edge, share, _ in visit.shares:
                edge = self.alias.get(edge, edge)
                key = crossing(self.ref(edge), box)
                if key:
                    before = sums.get((key, edge))
                    sums[key, edge] = share if before is None else before + share
        for (key, edge), total in sums.items():
            norm = summary(total, origin(edge).backend)["norm"]  # type: ignore[index]
            norm = float(norm)
            found[key].norm = math.hypot(found[key].norm or 0.0, norm)
        for key, c in found.items():
            c.names = tuple(n for n in names[key] if n)
            if self.visits and c.norm is None:
                c.norm = 0.0
        self._add_cuts(found)
        return list(found.values())

    def _add_cuts(self, found: dict[tuple[int, int], Crossing]) -> None:
        """Where a loop goes on and nothing of what was before is on the tape."""
        for row in self.rows:
            pairs = list(zip(row.boxes, row.boxes[1:], strict=False))
            whole = {id(b): i for i, b in enumerate(row.boxes)}
            reached = {
                whole[id(c.second)]
                for c in found.values()
                if id(c.first) in whole and id(c.second) in whole
            }
            for i, (a, b) in enumerate(pairs):
                cut = self.cuts.get(row.name, {}).get(b.t)
                if (id(a), id(b)) not in found and (cut or (reached and i + 1 not in reached)):
                    found[id(a), id(b)] = Crossing(a, b, 0.0, factor=0.0)

    # -------------------------------------------------------------------------------------- kinds

    def _kinds(self) -> list[Box]:
        known: dict[Any, int] = {}
        first: list[Box] = []
        for row in self.rows:
            for box in row.boxes:
                place = {n: i for i, n in enumerate(box.items)}
                key = tuple(
                    (
                        self.items[n].operation,
                        self.items[n].shape,
                        tuple(place.get(r[0], -1) if r else None for r in self.items[n].inputs),
                    )
                    for n in box.items
                )
                if key not in known:
                    known[key] = len(first)
                    first.append(box)
                box.kind = known[key]
        return first


def _cuts(entries: Sequence[Entry]) -> Iterator[tuple[str, dict[int | None, bool]]]:
    """Where the plan of a compiled loop cuts, by the loop's name and the step after the cut."""
    for entry in entries:
        if isinstance(entry, Opened) and isinstance(entry.region, CompiledScan):
            job = entry.region._job
            if job.schedule is not None:
                gates = enumerate(job.schedule.gates)
                last = job.time - 1
                yield (
                    entry.region.last.loop,
                    {last - s if job.reverse else s: g == 0 for s, g in gates},
                )


def _argument_names(node: Node, record: Record | None) -> list[str]:
    given = record.input_names if record else ("",) * len(node.inputs)
    leaves = [e.name if isinstance(e, Leaf) else "" for e in node.inputs]
    return [a or b for a, b in zip(given, leaves, strict=True)]


def _call(node: Node, record: Record | None, names: list[str]) -> str:
    if record is not None and record.text and len(record.text) <= 60:
        return record.text
    if isinstance(node, Region):
        return node.name
    given = [name or node.recipe.op.argument(i) for i, name in enumerate(names)]
    params = [f"{k}={v!r}" for k, v in node.params.items() if v is not None]
    return f"{node.name}({', '.join([*given, *params][:6])})"


def _where(record: Record) -> str:
    """The file as one knows it: from the package, or from the folder one is in."""
    path = Path(record.file)
    for root in (Path(tinygradrnn.__file__).parents[1], Path.cwd()):
        if path.is_relative_to(root):
            path = path.relative_to(root)
            break
    else:
        path = Path(path.name)
    return f"{path}:{record.line}, in {record.function}"
