"""A body's machine code, and the function that runs it on arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from tinygradrnn.loop import Body, Runner
from tinygradrnn_llvm import threads
from tinygradrnn_llvm.emit import NAME, Writer
from tinygradrnn_llvm.lower import Graph, Unsupported
from tinygradrnn_llvm.machine import Code, Machine, address, compiled, host
from tinygradrnn_llvm.packing import pack
from tinygradrnn_llvm.plan import Plan, Planner, tile_rows
from tinygradrnn_numpy import memory as np_memory

__all__ = ["Unsupported", "compile_loop"]

_ALIGNMENT = 64
_WORTH = 18  # a thread more pays for as many multiplications, as a power of two


def compile_loop(body: Body, machine: Machine | None = None) -> Runner:
    """Make a function that runs `body` over time.

    Raises:
        Unsupported: It cannot be lowered.
    """
    machine = machine or host()
    plan = lowered(body, machine)
    source = str(Writer(plan, machine))
    body.notes["source"] = source
    return Loop(plan, compiled(source, machine))


def lowered(body: Body, machine: Machine) -> Plan:
    """What is to be written for a body."""
    graph = Graph(body)
    return Planner(graph, machine, tile_rows(machine, graph.batch, threads.count())).plan


class Loop:
    """Runs a compiled body.

    Attributes:
        body, plan: What is run.
    """

    def __init__(self, plan: Plan, code: Code) -> None:
        graph = plan.graph
        self.plan, self.body, self.batch = plan, graph.body, graph.batch
        self._code = code
        self._function = code.address(NAME)
        self._products = [p for products, _ in plan.stages for p in products]
        rows = {product.matrix for product in self._products}
        # A constant that is only multiplied with is read from its panels.
        self._rows = [
            i not in rows or plan.reads_constant(i) for i in range(len(self.body.constants))
        ]
        self._carries = [
            (graph.value(a).width, stride, a.shape, np.dtype(a.dtype))
            for (a, _), stride in zip(self.body.carried, plan.strides, strict=True)
        ]
        sizes = [p.panels.size * p.node.dtype.itemsize for p in self._products]
        sizes += [n * self.batch for n in plan.scratch]
        again: list[int] = []  # of what is written where it is read, the room for odd steps
        for i, (place, (_, stride, _, dtype)) in enumerate(
            zip(plan.carries, self._carries, strict=True)
        ):
            size = stride * self.batch * dtype.itemsize if place.kind == "next" else 0
            if i in plan.in_place:
                again.append(len(sizes) + 1)
            sizes += [size, 0 if i in plan.in_place else size]
        ends = list(accumulate((-(-n // _ALIGNMENT) * _ALIGNMENT for n in sizes), initial=0))
        self._size, self._offsets = ends.pop() + _ALIGNMENT, ends
        for i in again:
            ends[i] = ends[i - 1]
        # Of one step, in multiplications; a column of a pass counts as some.
        columns = sum(some.width * len(some.jobs) for _, passes in plan.stages for some in passes)
        self._work = self.batch * (sum(p.panels.size for p in self._products) + 16 * columns)

    def __call__(
        self,
        inputs: Sequence[Any],
        constants: Sequence[Any],
        carried: Sequence[Any],
        outputs: Sequence[Any],
        order: range,
    ) -> list[Any]:
        """As the contract says."""
        body, products = self.body, self._products
        keep: list[Any] = []  # alive while the loop runs
        numbers: list[int] = []
        for x, v in zip(inputs, body.inputs, strict=True):
            rows = _rows(x, v)
            keep.append(rows)
            numbers += address(rows), rows.strides[0]
        copied: list[tuple[Any, Any]] = []
        for y in outputs:
            rows = y
            if not _contiguous_rows(y):
                rows = np.empty(y.shape, y.dtype)
                copied.append((y, rows))
            numbers += address(rows), rows.strides[0]
        for x, v, wanted in zip(constants, body.constants, self._rows, strict=True):
            x = np.ascontiguousarray(x, v.dtype) if wanted else x
            keep.append(x)
            numbers.append(address(x) if wanted else 0)
        memory = np_memory.empty((self._size,), np.uint8)
        begin = address(memory)
        begin += -begin % _ALIGNMENT
        places = [begin + offset for offset in self._offsets]
        for product, at in zip(products, places, strict=False):
            pack(constants[product.matrix], product.panels, at)
        entering, left = self._carried(carried)
        n = len(products)
        numbers += places[:n]
        numbers += map(address, entering)
        numbers += map(address, left)
        numbers += places[n:]
        self._run(numbers, order)
        if copied:
            done = slice(order.start, None if order.stop < 0 else order.stop, order.step)
            for y, rows in copied:
                y[done] = rows[done]
        return left

    def _carried(self, carried: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """What enters the first step, as its rows are to be, and room for what leaves the last."""
        entering: list[Any] = []
        for x, (width, stride, _, dtype) in zip(carried, self._carries, strict=True):
            if stride != width:
                wide = np.zeros((self.batch, stride), dtype)
                wide[:, :width] = np.reshape(x, (self.batch, width))
                x = wide
            entering.append(np.ascontiguousarray(x, dtype))
        return entering, [np.empty(shape, dtype) for _, _, shape, dtype in self._carries]

    def _run(self, numbers: list[int], order: range) -> None:
        tile, batch = self.plan.tile, self.batch
        tiles = -(-batch // tile)
        count = max(1, min(threads.count(), tiles, self._work * len(order) >> _WORTH))
        edges = [min(batch, tiles * i // count * tile) for i in range(count + 1)]
        all_numbers: list[int] = []
        for begin, end in pairwise(edges):
            all_numbers += (begin, end, order.start, order.step, len(order), *numbers)
        own = (ctypes.c_int64 * len(all_numbers))(*all_numbers)
        step = 8 * len(all_numbers) // count
        threads.pool.run(self._function, ctypes.addressof(own), step, count)


def _contiguous_rows(x: Any) -> bool:
    return x.flags.c_contiguous or len(x) == 0 or x[0].flags.c_contiguous


def _rows(x: Any, v: Any) -> Any:
    """The array with each step's rows one after the other."""
    if x.dtype == v.dtype and _contiguous_rows(x):
        return x
    if len(x) and x.strides[0] == 0:
        return np.broadcast_to(np.ascontiguousarray(x[0], v.dtype), x.shape)
    return np.ascontiguousarray(x, v.dtype)
