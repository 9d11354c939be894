"""A pass over the columns of one row: a loop over vectors in which values stay in registers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from llvmlite import ir

from tinygradrnn_llvm.blocks import I8, I32, I64, Builder
from tinygradrnn_llvm.elementwise import Emitter
from tinygradrnn_llvm.lower import Node, Place
from tinygradrnn_llvm.plan import Job, Pass, operands


@dataclass
class Row:
    """A row of one stage, while its passes are written.

    Attributes:
        b: Where instructions go.
        base: Where the first row of each kind of place begins.
        index: The row's number.
        block: Where instructions go that all passes see.
        stage: The stage.
        addresses: Where this row begins, as far as asked for.
        numbers: Columns that are one number for the row.
        stored: What passes before have stored: nodes, offsets, and widths.
    """

    b: Builder
    base: dict[tuple[str, int], Any]
    index: Any
    block: Any
    stage: int
    addresses: dict[tuple[str, int, int], Any] = field(default_factory=dict[Any, Any])
    numbers: dict[tuple[Node, int], Any] = field(default_factory=dict[Any, Any])
    stored: set[tuple[Node, int, int]] = field(default_factory=set[Any])

    def address(self, place: Place) -> Any:
        """Where this row begins."""
        key = (place.kind, place.index, place.stride)
        if key not in self.addresses:
            with self.b.before_end(self.block):
                stride = place.stride * place.dtype.itemsize
                base = self.base[place.kind, place.index]
                by = self.b.mul(self.index, I64(stride))
                self.addresses[key] = self.b.offset(base, by) if stride else base
        return self.addresses[key]


class Columns:
    """Writes one pass over the columns of a row."""

    def __init__(self, row: Row, some: Pass, lanes: int) -> None:
        self.row, self.b, self.jobs, self.lanes = row, row.b, some.jobs, lanes
        self.vector = Emitter(self.b, lanes)
        self.scalar = Emitter(self.b, 1)
        self.width = some.width
        self.here = {(job.node, job.offset, job.width) for job in self.jobs}
        self.values: dict[tuple[Node, int], Any] = {}
        self.splats: dict[tuple[Node, int], Any] = {}
        b = self.b
        if lanes == 1 and self.width == 1:
            for job in self.jobs:
                self._single(job)
            return
        self.before = b.block
        self._loop()

    def _loop(self) -> None:
        b, lanes = self.b, self.lanes
        body, after = b.append_basic_block("columns"), b.append_basic_block("on")
        b.branch(body)
        b.position_at_end(body)
        sums = [job for job in self.jobs if job.node.kind == "reduce"]
        trips, ragged = -(-self.width // lanes), self.width % lanes != 0
        # A sum waits for the one before it, so a few are made side by side.
        alone = bool(sums) and len(self.jobs) <= 4 and not ragged
        several = next(n for n in (4, 2, 1) if trips % n == 0) if alone else 1
        count = b.phi(I64)
        count.add_incoming(I64(0), self.before)
        phis = [[b.phi(self.vector.type(job.node.dtype)) for job in sums] for _ in range(several)]
        totals: list[list[Any]] = []
        for i, own in enumerate(phis):
            for phi, job in zip(own, sums, strict=True):
                phi.add_incoming(self._neutral(job), self.before)
            start = b.add(b.mul(count, I64(lanes)), I64(i * lanes))
            totals.append(self._vector(start, ragged, own))
        more = b.add(count, I64(several))
        count.add_incoming(more, b.block)
        for own, ends in zip(phis, totals, strict=True):
            for phi, value in zip(own, ends, strict=True):
                phi.add_incoming(value, b.block)
        b.cbranch(b.icmp_signed("<", more, I64(trips)), body, after)
        b.position_at_end(after)
        for i, job in enumerate(sums):
            total = totals[0][i]
            for ends in totals[1:]:
                total = self._joined(self.vector, job.node.op, total, ends[i])
            self._reduced(job, self._across(job.node.op, total))

    def _vector(self, start: Any, ragged: bool, totals: list[Any]) -> list[Any]:
        """Do all jobs for the vector that begins at a column; the sums so far, with it."""
        b = self.b
        self.column, fresh = start, None
        self.values = {}
        if ragged:
            # The last vector begins earlier than where the one before it ends: what both hold is
            # computed and stored twice, and summed once.
            last = I64(self.width - self.lanes)
            self.column = b.select(b.icmp_signed("<", start, last), start, last)
            fresh = self._fresh(start)
        grown: list[Any] = []
        for job in self.jobs:
            if job.node.kind == "reduce":
                value = self.value(job.node.nodes[0], job.offset)
                if fresh is not None:
                    value = b.select(fresh, value, self._neutral(job))
                grown.append(self._joined(self.vector, job.node.op, totals[len(grown)], value))
            else:
                value = self.value(job.node, job.offset, top=job)
                for place in job.places:
                    self._store(value, place, job.offset, job.node.dtype)
        return grown

    def _neutral(self, job: Job) -> Any:
        return self.vector.number(_NEUTRAL[job.node.op], job.node.dtype)

    # ------------------------------------------------------------------------------ reductions

    def _fresh(self, start: Any) -> Any:
        """Which elements no vector before this one held."""
        b = self.b
        if self.lanes == 1:
            return None
        integers = ir.VectorType(I64, self.lanes)
        ahead = self.vector.splat(b.sub(start, self.column))
        index = ir.Constant(integers, list(range(self.lanes)))
        return b.icmp_signed(">=", index, ahead)

    def _joined(self, emitter: Emitter, op: str, x: Any, y: Any) -> Any:
        names = {"sum": "add", "mean": "add", "max": "maximum", "min": "minimum"}
        return emitter.two(names[op], x, y)

    def _across(self, op: str, x: Any) -> Any:
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            undefined = ir.Constant(x.type, ir.Undefined)
            kind = ir.VectorType(I32, lanes)
            low = ir.Constant(kind, list(range(lanes)))
            high = ir.Constant(kind, list(range(lanes, 2 * lanes)))
            halves = [self.b.shuffle_vector(x, undefined, mask) for mask in (low, high)]
            x = self._joined(Emitter(self.b, lanes), op, *halves)
        if isinstance(x.type, ir.VectorType):
            x = self.b.extract_element(x, I32(0))
        return x

    def _reduced(self, job: Job, total: Any) -> None:
        if job.node.op == "mean":
            total = self.b.fdiv(total, self.scalar.number(job.node.nodes[0].width, job.node.dtype))
        self.row.numbers[job.node, 0] = total
        for place in job.places:
            self._put(total, place, 0, self.row.address(place), job.node.dtype)

    def _single(self, job: Job) -> None:
        """A job of one column."""
        if job.node.kind == "reduce":
            self._reduced(job, self.one(job.node.nodes[0], 0))
            return
        value = self.one(job.node, job.offset, top=job)
        for place in job.places:
            self._put(value, place, job.offset, self.row.address(place), job.node.dtype)

    # ---------------------------------------------------------------------------------- values

    def value(self, node: Node, offset: int, top: Job | None = None) -> Any:
        """This vector of columns of a node."""
        if node.width == 1 and self.width > 1:
            return self._everywhere(node, 0)
        key = (node, offset)
        if key not in self.values:
            self.values[key] = self._value(node, offset, top)
        return self.values[key]

    def _everywhere(self, node: Node, offset: int) -> Any:
        key = (node, offset)
        if key not in self.splats:
            with self.b.before_end(self.before):
                self.splats[key] = self.vector.splat(self.one(node, offset))
        return self.splats[key]

    def _value(self, node: Node, offset: int, top: Job | None) -> Any:
        if self._in_memory(node, offset, self.width, top):
            return self._load(node, offset)
        if node.kind == "op":
            values = [
                self.value(x, 0 if x.width == 1 else offset) if isinstance(x, Node) else None
                for x in node.inputs
            ]
            return self.vector.operate(node, values)
        if node.kind == "view" and node.repeats:
            return self._everywhere(node.nodes[0], node.offset)
        for x, at, width in operands(node, offset, self.width):
            assert width == self.width
            return self.value(x, at)
        return self.vector.number(0.0, node.dtype)  # beside what was placed

    def one(self, node: Node, offset: int, top: Job | None = None) -> Any:
        """One column of a node as a number."""
        key = (node, offset)
        numbers = self.row.numbers
        if key not in numbers:
            numbers[key] = self._one(node, offset, top)
        return numbers[key]

    def _one(self, node: Node, offset: int, top: Job | None) -> Any:
        if self._in_memory(node, offset, 1, top):
            place = node.place
            assert place is not None
            return self._get(self.scalar, place, offset, self.row.address(place), node.dtype)
        if node.kind == "op":
            values = [
                self.one(x, 0 if x.width == 1 else offset) if isinstance(x, Node) else None
                for x in node.inputs
            ]
            return self.scalar.operate(node, values)
        for x, at, _ in operands(node, offset, 1):
            return self.one(x, at)
        return self.scalar.number(0.0, node.dtype)

    def _in_memory(self, node: Node, offset: int, width: int, top: Job | None) -> bool:
        if node.kind in ("leaf", "matmul"):
            return True
        if node.place is None or top is not None:
            return False
        if (node, offset, width) in self.here:
            return False  # it is computed in this very pass
        return node.width > 1 or (node, 0, 1) in self.row.stored or node.late < self.row.stage

    # ---------------------------------------------------------------------------------- memory

    def _load(self, node: Node, offset: int) -> Any:
        place = node.place
        assert place is not None
        size = place.dtype.itemsize
        row = self.b.offset(self.row.address(place), self.b.mul(self.column, I64(size)))
        if place.kind == "input":
            self.b.prefetch(self.b.offset(row, (offset + place.offset + place.stride) * size))
        return self._get(self.vector, place, offset, row, node.dtype)

    def _get(self, emitter: Emitter, place: Place, offset: int, row: Any, dtype: Any) -> Any:
        at = self.b.offset(row, (offset + place.offset) * place.dtype.itemsize)
        kind = self._stored_type(emitter, place)
        value = self.b.load(at, typ=kind, align=place.dtype.itemsize)
        if place.dtype.kind == "b":
            zero = ir.Constant(kind, [0] * emitter.lanes if emitter.lanes > 1 else 0)
            value = self.b.icmp_unsigned("!=", value, zero)
        return emitter.cast(value, place.dtype, dtype)

    def _stored_type(self, emitter: Emitter, place: Place) -> Any:
        if place.dtype.kind != "b":
            return emitter.type(place.dtype)
        return ir.VectorType(I8, emitter.lanes) if emitter.lanes > 1 else I8

    def _store(self, value: Any, place: Place, offset: int, dtype: Any) -> None:
        size = place.dtype.itemsize
        row = self.b.offset(self.row.address(place), self.b.mul(self.column, I64(size)))
        if place.kind == "output":
            self.b.prefetch(self.b.offset(row, (offset + place.offset + place.stride) * size), 1)
        self._put(value, place, offset, row, dtype)

    def _put(self, value: Any, place: Place, offset: int, row: Any, dtype: Any) -> None:
        emitter = self.vector if isinstance(value.type, ir.VectorType) else self.scalar
        at = self.b.offset(row, (offset + place.offset) * place.dtype.itemsize)
        if dtype.kind == "b":
            value = self.b.zext(value, self._stored_type(emitter, place))
        self.b.store(value, at, align=place.dtype.itemsize)


_NEUTRAL = {"sum": -0.0, "mean": -0.0, "max": -np.inf, "min": np.inf}
