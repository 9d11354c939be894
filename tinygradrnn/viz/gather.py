"""The facts of a tape, gathered from its nodes: what ran where, what goes on, what comes back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

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
from tinygradrnn.viz.source import argument_names, call, where, written
from tinygradrnn.viz.unrolled import Box, Crossing, Feed, Item, Ref, Row, Unrolled
from tinygradrnn.viz.walk import Entry, Opened, Visit, aliases, flat, opened, walk_back
from tinygradrnn.viz.words import label, summary
from tinygradrnn.watch import record_of


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
    with ExitStack() as stack:  # of an infinity that is met again nothing is said again
        for backend in {r.backend for r in results}:
            stack.enter_context(backend.quiet())
        return _unrolled(results)


def _unrolled(results: Sequence[Tensor]) -> Unrolled:
    edges = [r.edge for r in results if r.edge is not None]
    notes: list[str] = []
    entries: list[Entry]
    why: GradientError | None = None
    try:
        entries = opened(edges)
    except GradientError as error:
        entries, why = [*execution_order(edges)], error
    visits: list[Visit] = []
    total: dict[Edge, Any] = {}
    freed = any(isinstance(n, Node) and n.saved is None for n in flat(entries))
    closed = any(isinstance(n, Region) for n in flat(entries))
    if freed:
        notes.append(
            "The tape was freed by backward, so there are no numbers: draw it before, or call "
            "backward(retain_graph=True)"
        )
    elif why is not None:
        notes.append(f"A loop is drawn closed: {why}")
    elif any(r.shape != () for r in results):
        notes.append("No gradients are shown: only a scalar has a gradient of its own")
    elif not closed:
        seeds = [(r.edge, r.backend.xp.ones_like(r.raw)) for r in results if r.edge is not None]
        visits, total = walk_back(entries, seeds, summary)
    made = {r.edge: r.raw for r in results if r.edge is not None}
    return _Gatherer(entries, visits, total, made).gather(edges, notes)


class _Gatherer:
    def __init__(
        self,
        entries: Sequence[Entry],
        visits: list[Visit],
        total: dict[Edge, Any],
        results: dict[Edge, Any],
    ) -> None:
        self.order = list(dict.fromkeys(flat(entries)))
        self.alias = aliases(entries)
        self.number = {n: i for i, n in enumerate(self.order)}
        self.visits, self.total = visits, total
        self.cuts = set(_cuts(entries))
        self.stops = {id(stop) for stop in _stops(entries)}
        self.given: dict[tuple[Node, int], Any] = {}
        self.values = {self.alias.get(e, e): x for e, x in results.items()} | self._known_values()
        self._compute_more()
        self.made = self._makers()
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
                    position = op.arrays.index(name)
                    edge = node.inputs[position]
                    if edge is not None:
                        found.setdefault(self.alias.get(edge, edge), value)
                    else:
                        self.given[node, position] = value
        for node in self.order:
            if isinstance(node, Node) and (record := record_of(node)) is not None:
                found.update(zip(_outputs(node), record.outputs, strict=True))
                for i, (x, edge) in enumerate(zip(record.inputs, node.inputs, strict=True)):
                    if edge is None:
                        self.given[node, i] = x
                    else:
                        found.setdefault(self.alias.get(edge, edge), x)
        return found

    def _compute_more(self) -> None:
        """What was not kept can be computed again, where all that goes into it is known."""
        for node in self.order:
            if not isinstance(node, Node) or isinstance(node, Region) or node in self.values:
                continue
            op = node.recipe.op
            arrays = [
                self.given.get((node, i)) if e is None else self.values.get(self.alias.get(e, e))
                for i, e in enumerate(node.inputs)
            ]
            if not op.many and all(x is not None for x in arrays):
                args = [arrays] if op.variadic else arrays
                self.values[node] = op.forward(node.backend.namespace, *args, **node.params)

    def _makers(self) -> dict[int, Edge]:
        """Which place an array comes from: so one sees what was handed on without its history."""
        return {
            id(array): edge for edge, array in self.values.items() if not isinstance(edge, Leaf)
        }

    def gather(self, results: Sequence[Edge], notes: list[str]) -> Unrolled:
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
        self._name_leaves()
        for row in self.rows:
            for box in row.boxes:
                box.feeds = self._feeds(box)
        crossings = self._crossings()
        kinds = self._kinds()
        visits = [
            (
                self.number[v.node],
                v.seen,
                [
                    (ref, x.seen, x.total)
                    for x in v.shares
                    if (ref := self.ref(x.place)) is not None
                ],
            )
            for v in self.visits
        ]
        leaves = [i.number for i in self.items if not i.operation]
        ends = [ref for edge in results if (ref := self.ref(edge)) is not None]
        return Unrolled(self.items, leaves, ends, self.rows, crossings, kinds, visits, notes)

    def _name_leaves(self) -> None:
        """Names of several leaves are told apart by the layer that uses them, where it is known."""
        leaves = [item for item in self.items if not item.operation]
        for item in leaves:
            item.name = item.name or f"leaf {item.number}"
        names = [item.name for item in leaves]
        layers: dict[int, str] = {}
        for user in self.items:
            for ref in user.inputs:
                if ref is not None:
                    layers.setdefault(ref[0], user.layer.rpartition(" > ")[2])
        taken: dict[str, int] = {}
        for item in leaves:
            if names.count(item.name) > 1 and layers.get(item.number):
                item.name = f"{layers[item.number]}.{item.name}"
            n = taken[item.name] = taken.get(item.name, 0) + 1
            item.name += f" ({n})" if n > 1 else ""

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
        edges = _outputs(node)
        names = record.names if record else ("",) * len(edges)
        names_in = argument_names(node, record)
        refs = [self.ref(edge) for edge in node.inputs]
        item = Item(
            self.number[node],
            node.name,
            ", ".join(dict.fromkeys(filter(None, names))),
            edges[0].shape,
            text=written(record) or call(node, names_in),
            written=bool(written(record)),
            where=where(record) if record else "",
            layer=" > ".join(record.layers) if record else "",
            step=repr(node.step) if node.step else "",
            inner=_inner(node.step),
            inputs=refs,
            input_names=names_in,
            data=[
                summary(self.given.get((node, i)), node.backend) if ref is None else None
                for i, ref in enumerate(refs)
            ],
            values=[summary(self.values.get(e), node.backend) for e in edges],
            gradients=[summary(self.total.get(e), node.backend) for e in edges],
            nbytes=unique_bytes([node]),
        )
        item.box = self._box(node)
        item.box.items.append(item.number)
        return item

    # ------------------------------------------------------------------------------ rows and boxes

    def _box(self, node: Node) -> Box:
        mark = node.step
        while mark is not None and mark.parent is not None:
            mark = mark.parent
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

    def _feeds(self, box: Box) -> list[Feed]:
        """What comes into a box, in the order in which it is taken; weights are left out."""
        found: dict[Any, tuple[str, str, list[int]]] = {}
        for position, n in enumerate(box.items):
            item, node = self.items[n], self.order[n]
            assert isinstance(node, Node)
            for i, (ref, name) in enumerate(zip(item.inputs, item.input_names, strict=True)):
                if ref is not None:
                    source = self.items[ref[0]]
                    if source.box is None or source.box is box:
                        continue
                    kind = "state" if source.box.row is box.row else "in"
                    key: Any = ref
                    name = source.names[ref[1]] or name
                elif not self._is_data(node, i):
                    continue
                else:
                    maker = self._silent(node, i)
                    known = maker is not None and self.items[maker[0]].box is not box
                    array = self.given.get((node, i))
                    other = name or (n, i) if array is None else id(array)
                    kind, key = ("cut", maker) if known else ("data", ("data", other))
                    if known and maker is not None:
                        name = self.items[maker[0]].names[maker[1]] or name
                users = found.setdefault(key, (name, kind, []))[2]
                if position not in users:
                    users.append(position)
        return [Feed(name, kind, tuple(users)) for name, kind, users in found.values()]

    def _is_data(self, node: Node, i: int) -> bool:
        """Whether an argument on no tape is an array, and not a number in the formula."""
        if (node, i) in self.given:
            return node.backend.is_array(self.given[node, i])
        op = node.recipe.op
        return isinstance(node, Region) or op.variadic or op.argument(i) not in op.optional

    def _silent(self, node: Node, i: int) -> Ref | None:
        """The place an argument comes from that has come without its history."""
        maker = self.made.get(id(self.given.get((node, i))))
        ref = None if maker is None else self.ref(maker)
        box, own = (None if ref is None else self.items[ref[0]].box), self.items[self.number[node]]
        return ref if box is not None and own.box is not None and box.row is own.box.row else None

    def _crossings(self) -> list[Crossing]:
        found: dict[tuple[int, int], Crossing] = {}
        names: dict[tuple[int, int], dict[str, None]] = {}
        silent: dict[tuple[int, int], dict[str, None]] = {}

        def crossing(ref: Ref | None, second: Box | None) -> tuple[int, int] | None:
            first = None if ref is None else self.items[ref[0]].box
            if first is None or second is None or first is second:
                return None
            key = id(first), id(second)
            if key not in found:
                found[key], names[key] = Crossing(first, second), {}
            names[key][self.items[ref[0]].names[ref[1]]] = None  # type: ignore[index]
            return key

        for item in self.items:
            node = self.order[item.number]
            for i, ref in enumerate(item.inputs):
                key = crossing(ref, item.box)
                if key and item.operation == "gate":
                    found[key].factor *= _factor(node)
                    found[key].mark |= id(node.params.get("mark")) in self.stops  # type: ignore[union-attr]
                elif key and item.operation == "clip_cotangent":
                    found[key].clipped = True
                if ref is None and isinstance(node, Node) and (maker := self._silent(node, i)):
                    first = self.items[maker[0]].box
                    if first is not item.box:
                        known = silent.setdefault((id(first), id(item.box)), {})
                        known[self.items[maker[0]].names[maker[1]]] = None
        sums: dict[tuple[tuple[int, int], Edge], Any] = {}
        for visit in self.visits:
            box = self.items[self.number[visit.node]].box
            for x in visit.shares:
                edge = self.alias.get(x.place, x.place)
                key = crossing(self.ref(edge), box)
                if key:
                    before = sums.get((key, edge))
                    sums[key, edge] = x.share if before is None else before + x.share
        for (key, edge), total in sums.items():
            norm = summary(total, origin(edge).backend)["norm"]  # type: ignore[index]
            found[key].norm = math.hypot(found[key].norm or 0.0, float(norm))
        for key, c in found.items():
            c.names = tuple(n for n in names[key] if n)
            if self.visits and c.norm is None:
                c.norm = 0.0
        self._add_cuts(found, silent)
        return list(found.values())

    def _add_cuts(
        self, found: dict[tuple[int, int], Crossing], silent: dict[tuple[int, int], dict[str, None]]
    ) -> None:
        """Where a loop goes on and nothing of what was before is on the tape."""
        for row in self.rows:
            whole = {id(b): i for i, b in enumerate(row.boxes)}
            inner = [c for c in found.values() if c.first.row is row and c.second.row is row]
            reached = {whole[id(c.second)] for c in inner}
            planned = {id(self._marks[m]) for m in self.cuts if m in self._marks}
            usual = next((c.names for c in inner if c.names), ("state",))
            for i, (a, b) in enumerate(pairwise(row.boxes)):
                key = id(a), id(b)
                ends = id(b) in planned or key in silent or (reached and i + 1 not in reached)
                if key not in found and ends:
                    found[key] = Crossing(a, b, 0.0, factor=0.0)
                c = found.get(key)
                if c is not None:
                    names = (*c.names, *silent.get(key, ())) if c.cut else silent.get(key, ())
                    c.silent = tuple(dict.fromkeys(filter(None, names)))
                    if id(b) in planned and not c.silent:
                        c.silent = usual  # a plan cuts a state that does go on

    # -------------------------------------------------------------------------------------- kinds

    def _kinds(self) -> list[Box]:
        known: dict[Any, int] = {}
        first: list[Box] = []
        for row in self.rows:
            for box in row.boxes:
                place = {n: i for i, n in enumerate(box.items)}
                key = (
                    tuple(box.feeds),
                    tuple(
                        (
                            self.items[n].operation,
                            self.items[n].shape,
                            self.items[n].inner,
                            label(self.items[n]),
                            tuple(place.get(r[0], -1) if r else None for r in self.items[n].inputs),
                        )
                        for n in box.items
                    ),
                )
                if key not in known:
                    known[key] = len(first)
                    first.append(box)
                box.kind = known[key]
        return first


def _outputs(node: Node) -> list[Edge]:
    return [Output(node, i) for i in range(len(node.shape))] if node.recipe.op.many else [node]


def _inner(mark: StepMark | None) -> str:
    """The name of the step of a loop within a step, the outermost such."""
    if mark is None or mark.parent is None:
        return ""
    while mark.parent is not None and mark.parent.parent is not None:
        mark = mark.parent
    return f"{mark.loop or 'loop'}, t = {mark.t}"


def _factor(node: Node | Leaf) -> float:
    return float(node.params.get("factor", 1.0)) if isinstance(node, Node) else 1.0


def _stops(entries: Sequence[Entry]) -> Iterator[Any]:
    """The boundaries at which some walk back ends."""
    for entry in entries:
        if isinstance(entry, Opened):
            yield from (s.stop for s in entry.region.sweeps or () if s.stop is not None)
            yield from _stops(entry.inside)


def _cuts(entries: Sequence[Entry]) -> Iterator[StepMark]:
    """The steps before which the plan of a compiled loop cuts."""
    for entry in entries:
        if isinstance(entry, Opened) and isinstance(entry.region, CompiledScan):
            job = entry.region._job
            gates = job.schedule.gates if job.schedule is not None else ()
            for node in flat(entry.inside) if 0 in gates else ():
                mark = node.step if isinstance(node, Node) else None
                if mark is None or mark.parent is not None:
                    continue
                if gates[job.time - 1 - mark.t if job.reverse else mark.t] == 0:
                    yield mark
