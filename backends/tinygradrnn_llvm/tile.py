"""The innermost part of a matrix product: a tile of the result that stays in registers.

A tile is a few rows by one panel: a few vectors of columns. It reads the right operand as one
stream, as :mod:`packing` has put it, and an element of each row of the left one at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from tinygradrnn_llvm.blocks import I64, POINTER, VOID, Builder, everywhere, itemsize, vector_of
from tinygradrnn_llvm.machine import Machine


@dataclass(frozen=True)
class Tile:
    """The form of a tile.

    Attributes:
        rows, vectors, lanes: Its rows, the vectors in each, and the elements of those.
        row, step: From an element of the left operand to that of the next row, and to the next of
            the same row, in elements.
    """

    rows: int
    vectors: int
    lanes: int
    row: int
    step: int

    @property
    def width(self) -> int:
        """Columns of the tile and of a panel."""
        return self.vectors * self.lanes


def most_rows(machine: Machine) -> int:
    """The tallest tile of two vectors that leaves room for those of a panel beside it."""
    return 12 if machine.registers >= 32 else 6


def emit_kernel(module: Any, name: str, scalar: Any, tile: Tile) -> Any:
    """A function ``(a, panel, c, depth, stride, add)``: a tile of ``c = a @ panel``.

    `stride` is the number of elements from row to row of `c`; unless `add` is 0 the tile is added
    to what is there.
    """
    vector, size = vector_of(scalar, tile.lanes), itemsize(scalar)
    kind = ir.FunctionType(VOID, [POINTER] * 3 + [I64] * 3)
    made = ir.Function(module, kind, name)
    made.linkage = "internal"
    made.attributes.add("noinline")
    a, panel, c, depth, stride, add = made.args
    for pointer in (a, panel, c):
        pointer.add_attribute("noalias")
    b = Builder(made.append_basic_block("entry"))
    count = tile.rows * tile.vectors
    # A sum waits for the one before it: fewer than eight at a time would leave the units idle.
    sets = 1 << max(0, math.ceil(math.log2(8 / count)))
    unrolled = sets * (2 if count * sets <= 16 else 1)

    def steps(trips: Any, several: int, a: Any, panel: Any, sums: list[Any]) -> tuple[Any, ...]:
        before = b.block
        head, inside, after = (made.append_basic_block(n) for n in ("head", "steps", "on"))
        b.branch(head)
        b.position_at_end(head)
        i, at, columns = b.phi(I64), b.phi(POINTER), b.phi(POINTER)
        phis = [b.phi(vector) for _ in sums]
        b.cbranch(b.icmp_signed("<", i, trips), inside, after)
        b.position_at_end(inside)
        grown = list(phis)
        for j in range(several):
            first = count * (j % sets)
            row = [
                b.load(
                    b.offset(columns, (j * tile.width + v * tile.lanes) * size),
                    typ=vector,
                    align=size,
                )
                for v in range(tile.vectors)
            ]
            for r in range(tile.rows):
                x = b.load(
                    b.offset(at, (r * tile.row + j * tile.step) * size), typ=scalar, align=size
                )
                x = b.splat(x, tile.lanes)
                for v in range(tile.vectors):
                    k = first + r * tile.vectors + v
                    grown[k] = b.intrinsic("fmuladd", x, row[v], grown[k])
        ends = [
            b.add(i, I64(1)),
            b.offset(at, several * tile.step * size),
            b.offset(columns, several * tile.width * size),
            *grown,
        ]
        for phi, begin, end in zip(
            [i, at, columns, *phis], [I64(0), a, panel, *sums], ends, strict=True
        ):
            phi.add_incoming(begin, before)
            phi.add_incoming(end, b.block)
        b.branch(head)
        b.position_at_end(after)
        return at, columns, phis

    sums = [everywhere(vector, 0.0)] * (count * sets)
    if unrolled > 1:
        shift = unrolled.bit_length() - 1
        a, panel, sums = steps(b.lshr(depth, I64(shift)), unrolled, a, panel, sums)
        depth = b.and_(depth, I64(unrolled - 1))
    _, _, sums = steps(depth, 1, a, panel, sums)
    totals = sums[:count]
    for s in range(1, sets):
        totals = [b.fadd(x, y) for x, y in zip(totals, sums[s * count :], strict=False)]
    places = [
        b.offset(
            b.offset(c, b.mul(stride, I64(r * size))),
            v * tile.lanes * size,
        )
        for r in range(tile.rows)
        for v in range(tile.vectors)
    ]
    with b.if_else(b.icmp_signed("!=", add, I64(0))) as (adding, setting):
        with adding:
            for at, x in zip(places, totals, strict=True):
                b.store(b.fadd(b.load(at, typ=vector, align=size), x), at, align=size)
        with setting:
            for at, x in zip(places, totals, strict=True):
                b.store(x, at, align=size)
    b.ret_void()
    return made
