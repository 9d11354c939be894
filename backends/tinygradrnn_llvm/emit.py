"""From a plan to LLVM's IR: one function that runs all steps for some rows of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from tinygradrnn_llvm.blocks import I1, I64, POINTER, VOID, Builder
from tinygradrnn_llvm.columns import Columns, Row
from tinygradrnn_llvm.elementwise import Emitter
from tinygradrnn_llvm.machine import Machine
from tinygradrnn_llvm.plan import Pass, Plan, Product
from tinygradrnn_llvm.tile import Tile, emit_kernel

NAME = "run"


class Layout:
    """Where the arguments of a run stand in the array of numbers that the function is given.

    Attributes:
        inputs, outputs: Pairs: address and bytes from step to step.
        constants, matrices, carried, leaving: Addresses; those of matrices are of their panels.
        own: The first numbers are the first and the last row of a thread, the first step, from step
            to step, and the number of steps.
        size: How many numbers there are.
    """

    def __init__(self, plan: Plan) -> None:
        body = plan.graph.body
        at = self.own = 5

        def take(count: int, step: int) -> list[int]:
            nonlocal at
            places = list(range(at, at + count * step, step))
            at += count * step
            return places

        self.inputs, self.outputs = take(len(body.inputs), 2), take(len(body.outputs), 2)
        self.constants = take(len(body.constants), 1)
        self.products = take(sum(len(products) for products, _ in plan.stages), 1)
        self.carried, self.leaving = take(len(body.carried), 1), take(len(body.carried), 1)
        self.scratch = take(len(plan.scratch), 1)
        self.buffers = take(len(body.carried), 2)
        self.size = at


class Writer:
    """Writes the function of a plan."""

    def __init__(self, plan: Plan, machine: Machine) -> None:
        self.plan, self.machine, self.layout = plan, machine, Layout(plan)
        self.module = ir.Module("loop")
        self.module.triple = machine.triple
        self.function = ir.Function(self.module, ir.FunctionType(VOID, [POINTER]), NAME)
        self.b = Builder(self.function.append_basic_block("entry"))
        self._steps()

    def __str__(self) -> str:
        return str(self.module)

    # ---------------------------------------------------------------------------------- steps

    def _steps(self) -> None:
        b, layout, plan = self.b, self.layout, self.plan
        (arguments,) = self.function.args
        numbers = {
            at: b.load(b.offset(arguments, 8 * at), typ=I64, align=8) for at in range(layout.size)
        }

        self.row0, self.row1, first, step, count = (numbers[at] for at in range(layout.own))

        def address(at: int) -> Any:
            return b.inttoptr(numbers[at], POINTER)

        fixed = {("constant", i): address(at) for i, at in enumerate(layout.constants)} | {
            ("scratch", i): address(at) for i, at in enumerate(layout.scratch)
        }
        moving = {("input", i): at for i, at in enumerate(layout.inputs)} | {
            ("output", i): at for i, at in enumerate(layout.outputs)
        }
        starts = {key: (address(at), numbers[at + 1]) for key, at in moving.items()}
        panels = [address(at) for at in layout.products]
        entering = [address(at) for at in layout.carried]
        leaving = [address(at) for at in layout.leaving]
        buffers = [(address(at), address(at + 1)) for at in layout.buffers]
        products = [p for some, _ in plan.stages for p in some]
        self.panels = dict(zip(products, panels, strict=True))
        self.kernels: dict[Any, Any] = {}

        before = b.block
        head, inside, after = (self.function.append_basic_block(n) for n in ("step", "do", "done"))
        b.branch(head)
        b.position_at_end(head)
        k = b.phi(I64)
        k.add_incoming(I64(0), before)
        current = [b.phi(POINTER) for _ in entering]
        for phi, start in zip(current, entering, strict=True):
            phi.add_incoming(start, before)
        b.cbranch(b.icmp_signed("<", k, count), inside, after)
        b.position_at_end(inside)
        t = b.add(first, b.mul(k, step))
        self.base: dict[tuple[str, int], Any] = dict(fixed)
        for key, (start, stride) in starts.items():
            self.base[key] = b.offset(start, b.mul(t, stride))
        odd = b.trunc(k, I1)
        for i, (even_buffer, odd_buffer) in enumerate(buffers):
            self.base["carry", i] = current[i]
            self.base["next", i] = b.select(odd, odd_buffer, even_buffer)
        for stage, (products_before, passes) in enumerate(plan.stages):
            for product in products_before:
                self._product(product)
            if passes:
                self._rows(stage, passes)
        k.add_incoming(b.add(k, I64(1)), b.block)
        for phi, place in zip(current, plan.carries, strict=True):
            phi.add_incoming(self.base[place.kind, place.index], b.block)
        b.branch(head)

        b.position_at_end(after)
        body = plan.graph.body
        for i, (a, _) in enumerate(body.carried):
            size = np.dtype(a.dtype).itemsize
            width = plan.graph.value(a).width * size
            self._copy(current[i], plan.strides[i] * size, leaving[i], width)
        b.ret_void()

    def _copy(self, source: Any, stride: int, target: Any, width: int) -> None:
        b = self.b

        def row(r: Any) -> None:
            to = b.offset(target, b.mul(r, I64(width)))
            begin = b.offset(source, b.mul(r, I64(stride)))
            b.copy(to, begin, I64(width))

        self.b.loop(self.row0, self.row1, 1, row)

    # ------------------------------------------------------------------------------- products

    def _kernel(self, product: Product, rows: int) -> Any:
        p = product.panels
        tile = Tile(rows, p.vectors, p.lanes, product.source.stride, 1)
        key = (tile, product.node.dtype)
        if key not in self.kernels:
            scalar = Emitter(self.b, 1).type(product.node.dtype)
            name = f"tile.{len(self.kernels)}"
            self.kernels[key] = emit_kernel(self.module, name, scalar, tile)
        return self.kernels[key]

    def _product(self, product: Product) -> None:
        b, p, plan = self.b, product.panels, self.plan
        size = product.node.dtype.itemsize
        source, target = product.source, product.target
        a = b.offset(self.base[source.kind, source.index], source.offset * size)
        c = self.base[target.kind, target.index]
        tile, batch = plan.tile, plan.graph.batch
        rest = batch % tile

        def panel(i: Any) -> None:
            data = b.offset(self.panels[product], b.mul(i, I64(p.width * p.depth * size)))
            column = b.offset(c, b.mul(i, I64(p.width * size)))

            def call(rows: int, r: Any) -> None:
                at = b.offset(a, b.mul(r, I64(source.stride * size)))
                to = b.offset(column, b.mul(r, I64(target.stride * size)))
                sizes = [I64(p.depth), I64(target.stride), I64(0)]
                b.call(self._kernel(product, rows), [at, data, to, *sizes])

            if batch >= tile:
                end = b.sub(self.row1, I64(tile - 1))
                self.b.loop(self.row0, end, tile, lambda r: call(tile, r))
            if rest:
                # A run's rows are whole tiles, but for what is left at the end of the batch.
                last = b.icmp_signed("==", self.row1, I64(batch))
                with b.if_then(last):
                    call(rest, I64(batch - rest))

        self.b.loop(I64(0), I64(p.count), 1, panel)

    # ----------------------------------------------------------------------------------- rows

    def _rows(self, stage: int, passes: list[Pass]) -> None:
        def row(r: Any) -> None:
            # Addresses go into a block of their own, where all passes see them.
            begin = self.b.block
            inside = self.function.append_basic_block("row")
            self.b.branch(inside)
            self.b.position_at_end(inside)
            this = Row(self.b, self.base, r, begin, stage)
            for some in passes:
                Columns(this, some, self._lanes(some))
                this.stored |= {(job.node, job.offset, job.width) for job in some.jobs}

        self.b.loop(self.row0, self.row1, 1, row)

    def _lanes(self, some: Pass) -> int:
        itemsize = min((n.dtype.itemsize for n in some.nodes() if n.dtype.kind == "f"), default=4)
        lanes = self.machine.lanes(itemsize)
        while lanes > some.width:
            lanes //= 2
        return lanes
