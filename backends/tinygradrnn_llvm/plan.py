"""What is stored, and the loops over columns in which it is computed.

A value stays in registers unless the step after the next product, the next step, or somebody
outside asks for it, or reading it back is cheaper than computing it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from tinygradrnn_llvm.lower import COSTS, Graph, Node, Place
from tinygradrnn_llvm.machine import Machine
from tinygradrnn_llvm.packing import Panels, panels
from tinygradrnn_llvm.tile import most_rows

CHEAP = 2  # as many operations as reading back costs


@dataclass(eq=False)
class Job:
    """Columns of a node to be computed, or all of them to be reduced, in one pass.

    Attributes:
        node, offset, width: Which columns.
        places: Where to store them.
    """

    node: Node
    offset: int
    width: int
    places: list[Place]
    level: int = -1


@dataclass(eq=False)
class Pass:
    """A pass over some columns of one row."""

    width: int
    jobs: list[Job]

    def nodes(self) -> set[Node]:
        """All nodes that are read or computed."""
        found: set[Node] = set()
        stack = [job.node for job in self.jobs]
        while stack:
            node = stack.pop()
            if node not in found:
                found.add(node)
                if node.place is None or node.kind == "op":
                    stack.extend(node.nodes)
        return found


@dataclass(eq=False)
class Product:
    """A matrix product: where its rows come from and go to."""

    node: Node
    matrix: int
    panels: Panels
    source: Place
    target: Place


@dataclass(eq=False)
class Plan:
    """All that is to be emitted.

    Attributes:
        stages: For each stage the products before it, and its passes over each row.
        carries: For each carried pair, where what leaves the step is.
        strides: For each carried pair, elements from row to row in memory.
        scratch: The bytes of a row of each scratch buffer.
        tile: Rows of a tile of the products.
        in_place: The carried pairs that are written where they are read.
        read: What is read as rows: kinds of places, and their numbers.
    """

    graph: Graph
    stages: list[tuple[list[Product], list[Pass]]] = field(default_factory=list)
    carries: list[Place] = field(default_factory=list)
    strides: list[int] = field(default_factory=list)
    scratch: list[int] = field(default_factory=list)
    tile: int = 1
    in_place: set[int] = field(default_factory=set[int])
    read: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])

    def reads_constant(self, index: int) -> bool:
        """Whether anything but a product reads a constant."""
        return ("constant", index) in self.read


def cost(node: Node, seen: set[Node]) -> int:
    """About how many operations computing an element of a node takes."""
    if node.place is not None or node in seen or node.kind in ("leaf", "matmul", "reduce"):
        return 0
    seen.add(node)
    own = COSTS.get(node.op, 1) if node.kind == "op" and node.op != "number" else 0
    return own + sum(cost(x, seen) for x in node.nodes if x.width > 1 or node.width == 1)


class Planner:
    """Makes the Plan of a graph."""

    def __init__(self, graph: Graph, machine: Machine, tile: int) -> None:
        self.graph, self.machine = graph, machine
        self.plan = Plan(graph, tile=tile)
        self.places: dict[Node, list[Place]] = {}
        self.order = self._order()
        self.number = {node: i for i, node in enumerate(self.order)}
        self.plan.read = {(p.kind, p.index) for node in self.order if (p := node.place)}
        self.panels = {
            node: panels(machine, node.dtype.itemsize, node.nodes[0].width, node.width, tile)
            for node in self.order
            if node.kind == "matmul"
        }
        self._assign_stages()
        self._assign_places()
        self._make_passes()

    def _order(self) -> list[Node]:
        found: dict[Node, None] = {}

        def visit(root: Node) -> None:
            stack: list[tuple[Node, bool]] = [(root, False)]
            while stack:
                node, ready = stack.pop()
                if ready:
                    found[node] = None
                elif node not in found:
                    stack.append((node, True))
                    stack.extend((x, False) for x in node.nodes)

        body = self.graph.body
        for v in (*body.outputs, *(b for _, b in body.carried)):
            visit(self.graph.value(v))
        return list(found)

    def _assign_stages(self) -> None:
        for node in self.order:
            before = max((x.stage for x in node.nodes), default=0)
            node.stage = before + (node.kind == "matmul")
        for node in reversed(self.order):
            if node.kind == "matmul":
                latest = node.stage - 1
            else:
                node.late = latest = max(node.stage, min(node.late, 1 << 20))
                if node.late == 1 << 20:
                    node.late = latest = node.stage
            for x in node.nodes:
                x.late = min(x.late, latest)
        for node in self.order:
            if node.kind == "matmul":
                node.late = node.stage

    # --------------------------------------------------------------------------------- places

    def _scratch(self, stride: int, node: Node) -> Place:
        self.plan.scratch.append(stride * node.dtype.itemsize)
        return Place("scratch", len(self.plan.scratch) - 1, stride, node.dtype)

    def _store(self, node: Node, place: Place) -> Place:
        self.places.setdefault(node, []).append(place)
        if node.place is None and node.kind != "matmul":
            node.place = place
        return place

    def _keep(self, node: Node) -> None:
        """Keep a node in scratch memory if it is nowhere yet."""
        if node.place is None:
            self._store(node, self._scratch(-(-node.width // 16) * 16, node))

    def _in_place(self, leaf: Node, node: Node) -> bool:
        """Whether what leaves the step may be written where it came in, element by element."""
        whole = self.machine.lanes(4)  # the last vector of a row is not computed twice
        return (
            node.kind == "op"
            and node.width % whole == 0
            and leaf.width == node.width
            and node.nodes.count(leaf) == 1
            and not any(leaf in other.nodes for other in self.order if other is not node)
            and leaf.flexible is None
            and leaf not in self.leaving
        )

    def _assign_places(self) -> None:
        body, graph, plan = self.graph.body, self.graph, self.plan
        self.leaving = {graph.value(v) for v in (*body.outputs, *(b for _, b in body.carried))}
        for i, v in enumerate(body.outputs):
            node = graph.value(v)
            place = Place("output", i, node.width, node.dtype)
            whole = node.kind == "matmul" and self.panels[node].padded == node.width
            if whole and node.place is None:
                node.place = place
            else:
                self._store(node, place)
        for i, (_, b) in enumerate(body.carried):
            node = graph.value(b)
            stored = [
                p for p in (node.place, *self.places.get(node, ())) if p and p.kind == "output"
            ]
            if stored:
                place = stored[0]
            elif node.kind == "matmul" and node.place is None:
                place = node.place = Place("next", i, self.panels[node].padded, node.dtype)
            else:
                place = self._store(node, Place("next", i, node.width, node.dtype))
                if self._in_place(graph.value(body.carried[i][0]), node):
                    plan.in_place.add(i)
            plan.carries.append(place)
            plan.strides.append(place.stride)
        for i, (a, _) in enumerate(body.carried):
            leaf = graph.value(a)
            for reading in (leaf, leaf.flexible):
                if reading is not None and reading.place is not None and reading.place.stride:
                    reading.place.stride = plan.strides[i]
        for node in self.order:
            if node.kind == "matmul":
                if node.place is None:
                    node.place = self._scratch(self.panels[node].padded, node)
                source = node.nodes[0]
                if located(source) is None:
                    self._keep(source)
            elif node.kind == "reduce" and breaks(node.nodes[0], 0, node.nodes[0].width):
                self._keep(node.nodes[0])

    # --------------------------------------------------------------------------------- passes

    def _make_passes(self) -> None:
        while True:
            last = max((node.late for node in self.order), default=0)
            stages = [self._stage(s) for s in range(last + 1)]
            again = self._computed_twice(stages)
            if again is None:
                break
            self._keep(again)
        products: list[list[Product]] = [[] for _ in stages]
        for node, matrix in zip(self.graph.products, self.graph.matrices, strict=True):
            if node in self.number:
                source = located(node.nodes[0])
                assert source is not None and node.place is not None
                products[node.stage].append(
                    Product(node, matrix, self.panels[node], source, node.place)
                )
        self.plan.stages = list(zip(products, stages, strict=True))

    def _stage(self, stage: int) -> list[Pass]:
        """The passes of a stage: jobs of one width whose inputs are ready."""
        jobs: dict[Node, list[Job]] = {}
        for node in self.order:
            if node.kind == "reduce" and node.late == stage:
                source = node.nodes[0]
                jobs[node] = [Job(node, 0, source.width, [])]
        stored = [n for n in self.order if n in self.places and n.late == stage]
        for node in stored:
            if node.kind == "reduce":
                jobs[node][0].places = self.places[node]
                continue
            ends = [0, *sorted(breaks(node, 0, node.width, top=True)), node.width]
            jobs[node] = [Job(node, a, b - a, self.places[node]) for a, b in pairwise(ends)]
        everything = [job for some in jobs.values() for job in some]
        for job in everything:
            self._level(job, jobs, stage)
        passes: dict[tuple[int, int], Pass] = {}
        for job in everything:
            passes.setdefault((job.level, job.width), Pass(job.width, [])).jobs.append(job)
        for some in passes.values():
            some.jobs.sort(key=lambda job: self.number[job.node])
        return [passes[key] for key in sorted(passes)]

    def _level(self, job: Job, jobs: dict[Node, list[Job]], stage: int) -> int:
        if job.level < 0:
            job.level = 0
            for node, offset, width, aside in self.reads(job, stage):
                if node not in jobs:
                    continue
                for other in jobs[node]:
                    if other is job:
                        continue
                    same = (other.offset, other.width) == (offset, width) and node.kind != "reduce"
                    if same and not aside and width == job.width:
                        job.level = max(job.level, self._level(other, jobs, stage))
                    elif node.kind == "reduce" or (
                        other.offset < offset + width and offset < other.offset + other.width
                    ):
                        job.level = max(job.level, self._level(other, jobs, stage) + 1)
        return job.level

    def reads(self, job: Job, stage: int) -> Iterator[tuple[Node, int, int, bool]]:
        """What a job computes on its way: nodes, and which of their columns.

        `aside` is what is one number for the whole row.
        """
        node = job.node
        if node.kind == "reduce":
            yield from self._walk(node.nodes[0], 0, job.width, False, stage)
        elif node.place is None or node.place is job.places[0]:
            yield from self._inputs(node, job.offset, job.width, False, stage)

    def _walk(
        self, node: Node, offset: int, width: int, aside: bool, stage: int
    ) -> Iterator[tuple[Node, int, int, bool]]:
        if node.kind in ("leaf", "matmul"):
            return
        yield node, offset, width, aside
        if node.kind == "reduce" or (node.place and (node.late < stage or node.width > 1)):
            return
        yield from self._inputs(node, offset, width, aside, stage)

    def _inputs(
        self, node: Node, offset: int, width: int, aside: bool, stage: int
    ) -> Iterator[tuple[Node, int, int, bool]]:
        for x, at, n in operands(node, offset, width):
            one = n == 1 and (width > 1 or aside)
            yield from self._walk(x, at, n, one, stage)

    def _computed_twice(self, stages: list[list[Pass]]) -> Node | None:
        """The last node in order that had better be kept in memory."""
        columns: dict[Node, set[tuple[int, int, int, int]]] = {}
        for s, passes in enumerate(stages):
            for i, some in enumerate(passes):
                for job in some.jobs:
                    for node, offset, width, aside in self.reads(job, s):
                        if node.place is None:
                            key = (s, 0 if aside else i, offset, width)
                            columns.setdefault(node, set()).add(key)
        again = [
            node
            for node, keys in columns.items()
            if (sum(width for *_, width in keys) > node.width and cost(node, set()) > CHEAP)
            or (node.kind == "reduce" and any(s != node.late for s, *_ in keys))
        ]
        return max(again, key=self.number.__getitem__, default=None)


def operands(node: Node, offset: int, width: int) -> Iterator[tuple[Node, int, int]]:
    """Which columns of which nodes are read for some columns of a node."""
    if node.kind == "op":
        for x in node.nodes:
            yield (x, 0, 1) if x.width == 1 else (x, offset, width)
    elif node.kind == "view":
        (x,) = node.nodes
        yield (x, node.offset, 1) if node.repeats else (x, node.offset + offset, width)
    elif node.kind == "pieces":
        ends = (*node.starts[1:], node.width)
        for x, start, end in zip(node.inputs, node.starts, ends, strict=True):
            low, high = max(start, offset), min(end, offset + width)
            if low < high and isinstance(x, Node):
                yield x, low - start, high - low


def breaks(node: Node, offset: int, width: int, top: bool = False) -> set[int]:
    """Between which of some columns the way they are computed changes."""
    if width == 1 or (node.place is not None and not top) or node.kind in ("leaf", "matmul"):
        return set()
    found: set[int] = set()
    if node.kind == "pieces":
        found = {s - offset for s in node.starts if offset < s < offset + width}
        ends = (*node.starts[1:], node.width)
        for x, start, end in zip(node.inputs, node.starts, ends, strict=True):
            low, high = max(start, offset), min(end, offset + width)
            if low < high and isinstance(x, Node):
                found |= {b + low - offset for b in breaks(x, low - start, high - low)}
        return found
    for x, at, n in operands(node, offset, width):
        if n == width:
            found |= breaks(x, at, n)
    return found


def located(node: Node) -> Place | None:
    """Where all columns of a node are in memory, if they are."""
    if node.place is not None:
        return node.place
    if node.kind == "view" and not node.repeats:
        source = located(node.nodes[0])
        if source is not None:
            p = source
            return Place(p.kind, p.index, p.stride, p.dtype, p.offset + node.offset)
    return None


def tile_rows(machine: Machine, rows: int, threads: int) -> int:
    """The height of tiles that divides the rows of each thread evenly."""
    share = -(-rows // min(rows, threads))
    return -(-share // -(-share // most_rows(machine)))
