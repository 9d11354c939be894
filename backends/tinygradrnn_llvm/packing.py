"""Putting a matrix in panels: columns that fit a tile, one row of them after the other.

A panel is what a tile reads as one stream. Columns beyond the last one of a matrix are zeros.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from tinygradrnn_llvm.blocks import I32, I64, POINTER, VOID, Builder, itemsize, vector_of
from tinygradrnn_llvm.machine import Machine, address, compiled, host

ROWS = 8  # of a matrix that are packed at a time


@dataclass(frozen=True)
class Panels:
    """How a matrix (depth, columns) is packed.

    Attributes:
        depth, columns: Its shape.
        lanes: Elements in a vector.
        vectors: Vectors in a row of a panel.
        count: The number of panels.
    """

    depth: int
    columns: int
    lanes: int
    vectors: int
    count: int

    @property
    def width(self) -> int:
        """Columns of one panel."""
        return self.vectors * self.lanes

    @property
    def padded(self) -> int:
        """Columns of all panels."""
        return self.count * self.width

    @property
    def size(self) -> int:
        """Elements of all panels."""
        return self.padded * self.depth


def panels(machine: Machine, itemsize: int, depth: int, columns: int, rows: int) -> Panels:
    """The panels for tiles of `rows` rows."""
    lanes = machine.lanes(itemsize)
    while lanes > 1 and lanes >= 2 * columns:
        lanes //= 2
    needed = math.ceil(columns / lanes)
    room = (24 if machine.registers >= 32 else 12) // rows
    # Little waste by padding first, then few reads of each element of the left operand.
    best = min(
        range(1, max(1, min(room, 8)) + 1),
        key=lambda v: (math.ceil(needed / v) * v * (1 + (0.6 if v * rows < 8 else 0.15) / v), -v),
    )
    return Panels(depth, columns, lanes, best, math.ceil(needed / best))


def emit_packing(module: Any, name: str, scalar: Any, width: int, turned: bool) -> Any:
    """A function ``(matrix, stride, depth, columns, out)`` that puts a matrix in panels.

    Args:
        module: Where the function goes.
        name: Its name.
        scalar: The type of an element.
        width: Columns of a panel.
        turned: Whether it is the columns of the matrix that are contiguous in memory, `stride`
            elements from each other, and not its rows.
    """
    made = ir.Function(module, ir.FunctionType(VOID, [POINTER, I64, I64, I64, POINTER]), name)
    matrix, stride, depth, columns, out = made.args
    b, size = Builder(made.append_basic_block("entry")), itemsize(scalar)
    # Squares of this size go with the panel's width; of width 1 there are none. Larger ones are no
    # faster, and take LLVM long.
    lanes = math.gcd(width, 4)
    vector = vector_of(scalar, lanes)

    def element(row: Any, column: Any) -> Any:
        return (
            b.at(matrix, column, stride, row, size)
            if turned
            else b.at(matrix, row, stride, column, size)
        )

    def panel(first: Any, begin: Any, end: Any) -> None:
        target = b.offset(out, b.mul(b.mul(first, depth), I64(size)))
        left = b.sub(columns, first)

        def place(row: Any) -> Any:
            return b.offset(target, b.mul(row, I64(width * size)))

        def one_row(row: Any) -> None:
            b.copy(place(row), element(row, first), I64(width * size))

        def row_with_zeros(row: Any) -> None:
            at = place(row)
            b.clear(at, I64(width * size))

            def one(column: Any) -> None:
                x = b.load(element(row, b.add(first, column)), typ=scalar, align=size)
                b.store(x, b.offset(at, b.mul(column, I64(size))), align=size)

            b.loop(I64(0), b.smaller(left, I64(width)), 1, one)

        def square(row: Any) -> None:
            def one(start: Any) -> None:
                heads = [element(row, b.add(first, start))]
                for _ in range(lanes - 1):
                    heads.append(b.offset(heads[-1], b.mul(stride, I64(size))))
                at = b.offset(place(row), b.mul(start, I64(size)))
                for i, x in enumerate(_turned(b, vector, heads)):
                    b.store(x, b.offset(at, i * width * size), align=size)

            b.loop(I64(0), I64(width), lanes, one)

        with b.if_else(b.icmp_signed(">=", left, I64(width))) as (whole, partly):
            with whole:
                if turned and lanes > 1:
                    squares = b.sub(end, b.srem(b.sub(end, begin), I64(lanes)))
                    b.loop(begin, squares, lanes, square)
                    b.loop(squares, end, 1, row_with_zeros)
                else:
                    b.loop(begin, end, 1, one_row)
            with partly:
                b.loop(begin, end, 1, row_with_zeros)

    # What is contiguous in memory is read to its end while the first cache holds it.
    def rows(begin: Any) -> None:
        end = b.smaller(depth, b.add(begin, I64(ROWS)))
        b.loop(I64(0), columns, width, lambda first: panel(first, begin, end))

    if turned:
        b.loop(I64(0), columns, width, lambda first: panel(first, I64(0), depth))
    else:
        b.loop(I64(0), depth, ROWS, rows)
    b.ret_void()
    return made


@cache
def _packer(machine: Machine, dtype: Any, width: int, turned: bool) -> Any:
    module = ir.Module("packing")
    module.triple = machine.triple
    scalar = ir.FloatType() if dtype.itemsize == 4 else ir.DoubleType()
    emit_packing(module, "pack", scalar, width, turned)
    code = compiled(str(module), machine)
    return code.function("pack", [ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p])


def pack(matrix: Any, p: Panels, out: int) -> None:
    """Put the panels of an array at an address."""
    turned = matrix.strides[0] == matrix.itemsize and matrix.strides[1] != matrix.itemsize
    stride, inner = matrix.strides[int(turned)], matrix.strides[1 - turned]
    if inner != matrix.itemsize or stride < 0 or stride % matrix.itemsize:
        matrix, turned = np.ascontiguousarray(matrix), False
        stride = matrix.strides[0]
    function = _packer(host(), matrix.dtype, p.width, turned)
    begin = address(matrix.T if turned else matrix)
    function(begin, stride // matrix.itemsize, p.depth, p.columns, out)


def _turned(b: Builder, vector: Any, columns: list[Any]) -> list[Any]:
    """The rows of a square, of the addresses of its columns."""
    lanes, half = vector.count, vector.count // 2
    rows = [b.load(at, typ=vector, align=itemsize(vector.element)) for at in columns]
    # Zip the first half of the vectors with the second: after log2(lanes) times it is transposed.
    zips = [[x for i in range(half) for x in (k + i, k + i + lanes)] for k in (0, half)]
    masks = [ir.Constant(ir.VectorType(I32, lanes), some) for some in zips]
    for _ in range(lanes.bit_length() - 1):
        rows = [
            b.shuffle_vector(rows[i], rows[i + half], mask) for i in range(half) for mask in masks
        ]
    return rows
