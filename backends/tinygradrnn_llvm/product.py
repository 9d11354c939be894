"""Large matrix products, outside of loops: cut into blocks that stay in the caches.

As in Goto and van de Geijn, *Anatomy of High-Performance Matrix Multiplication* (2008): blocks of
both operands are put in panels, and a tile of the result at a time is computed from those.
"""

from __future__ import annotations

import ctypes
import threading
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from tinygradrnn_llvm import threads
from tinygradrnn_llvm.blocks import I64, POINTER, VOID, Builder, itemsize
from tinygradrnn_llvm.machine import Machine, address, compiled, host
from tinygradrnn_llvm.packing import emit_packing
from tinygradrnn_llvm.tile import Tile, emit_kernel, most_rows
from tinygradrnn_numpy import memory

BLOCK = 1024  # bytes of a row of a block: a panel of it fits the first cache beside a few tiles
HEIGHT = 240  # rows of a block of the left operand: they fit the second cache
BREADTH = 1024  # columns of a block of the right one
NAME = "product"
_WORTH = 19  # a thread more pays for as many multiplications, as a power of two


def source(machine: Machine, dtype: Any) -> str:
    """IR of a function of the address of these numbers.

    ``a, stride, turned, b, stride, turned, c, stride, rows, columns, depth``, and room for panels
    of a and of b; `turned` says that it is columns that are contiguous in memory, and not rows.
    """
    module = ir.Module(NAME)
    module.triple = machine.triple
    size = np.dtype(dtype).itemsize
    scalar = ir.FloatType() if size == 4 else ir.DoubleType()
    lanes, rows = machine.lanes(size), most_rows(machine)
    tile = Tile(rows, 2, lanes, 1, rows)
    kernel = emit_kernel(module, "tile", scalar, tile)
    packing = {
        (side, turned): emit_packing(module, f"pack.{side}.{turned}", scalar, width, turned)
        for side, width in (("a", rows), ("b", tile.width))
        for turned in (False, True)
    }
    for made in packing.values():
        made.linkage = "internal"
        made.attributes.add("noinline")
    made = ir.Function(module, ir.FunctionType(VOID, [POINTER]), NAME)
    b = Builder(made.append_basic_block("entry"))
    kinds = [POINTER, I64, I64, POINTER, I64, I64, POINTER, *[I64] * 4, POINTER, POINTER]
    x, x_stride, x_turned, y, y_stride, y_turned, c, c_stride, m, n, depth, x_panels, y_panels = (
        b.load(b.offset(made.args[0], 8 * i), typ=kind) for i, kind in enumerate(kinds)
    )
    corner = b.alloca(ir.ArrayType(scalar, rows * tile.width))
    deep, high, broad, *_ = _blocks(machine, size)

    def element(base: Any, stride: Any, turned: Any, row: Any, column: Any) -> Any:
        first, second = b.select(turned, column, row), b.select(turned, row, column)
        return b.at(base, first, stride, second, size)

    def pack(side: str, turned: Any, *arguments: Any) -> None:
        with b.if_else(turned) as (then, otherwise):
            with then:
                b.call(packing[side, True], arguments)
            with otherwise:
                b.call(packing[side, False], arguments)

    x_is_turned = b.icmp_signed("!=", x_turned, I64(0))
    y_is_turned = b.icmp_signed("!=", y_turned, I64(0))

    def columns(j: Any) -> None:
        breadth = b.smaller(I64(broad), b.sub(n, j))

        def steps(k: Any) -> None:
            length = b.smaller(I64(deep), b.sub(depth, k))
            add = b.zext(b.icmp_signed(">", k, I64(0)), I64)
            begin = element(y, y_stride, y_is_turned, k, j)
            pack("b", y_is_turned, begin, y_stride, length, breadth, y_panels)

            def rows_of_block(i: Any) -> None:
                height = b.smaller(I64(high), b.sub(m, i))
                begin = element(x, x_stride, x_is_turned, i, k)
                # The panels of x run along its rows: they are those of its transpose.
                pack("a", b.not_(x_is_turned), begin, x_stride, length, height, x_panels)

                def panel(q: Any) -> None:
                    right = b.offset(y_panels, b.mul(b.mul(q, length), I64(size)))

                    def one(p: Any) -> None:
                        left = b.offset(x_panels, b.mul(b.mul(p, length), I64(size)))
                        at = b.at(c, b.add(i, p), c_stride, b.add(j, q), size)
                        left_rows, left_columns = b.sub(height, p), b.sub(breadth, q)
                        fits = b.and_(
                            b.icmp_signed(">=", left_rows, I64(rows)),
                            b.icmp_signed(">=", left_columns, I64(tile.width)),
                        )
                        with b.if_else(fits) as (then, otherwise):
                            with then:
                                b.call(kernel, [left, right, at, length, c_stride, add])
                            with otherwise:
                                b.call(
                                    kernel, [left, right, corner, length, I64(tile.width), I64(0)]
                                )
                                _put(b, scalar, corner, tile.width, at, c_stride, add,
                                     b.smaller(left_rows, I64(rows)),
                                     b.smaller(left_columns, I64(tile.width)))  # fmt: skip

                    b.loop(I64(0), height, rows, one)

                b.loop(I64(0), breadth, tile.width, panel)

            b.loop(I64(0), m, high, rows_of_block)

        b.loop(I64(0), depth, deep, steps)

    b.loop(I64(0), n, broad, columns)
    b.ret_void()
    return str(module)


def _put(
    b: Builder, scalar: Any, corner: Any, width: int, at: Any, stride: Any, add: Any,
    rows: Any, columns: Any,
) -> None:  # fmt: skip
    """Put the part of a tile that is inside the result there."""
    size = itemsize(scalar)
    adding = b.icmp_signed("!=", add, I64(0))

    def row(r: Any) -> None:
        def one(q: Any) -> None:
            target = b.at(at, r, stride, q, size)
            x = b.load(b.at(corner, r, I64(width), q, size), typ=scalar, align=size)
            more = b.fadd(x, b.load(target, typ=scalar, align=size))
            b.store(b.select(adding, more, x), target, align=size)

        b.loop(I64(0), columns, 1, one)

    b.loop(I64(0), rows, 1, row)


@cache
def _blocks(machine: Machine, size: int) -> tuple[int, int, int, int, int]:
    """The depth of blocks, the height and the breadth of those left and right, and a tile's."""
    rows, width = most_rows(machine), 2 * machine.lanes(size)
    return BLOCK // size, HEIGHT // rows * rows, BREADTH // width * width, rows, width


@cache
def _function(machine: Machine, dtype: Any) -> Any:
    code = compiled(source(machine, dtype), machine)
    return code, code.address(NAME)


def _layout(x: Any) -> tuple[int, int] | None:
    """Elements between rows or columns, and whether it is columns that are contiguous."""
    first, second = x.strides
    size = x.itemsize
    if second == size and first >= 0 and first % size == 0:
        return first // size, 0
    if first == size and second >= 0 and second % size == 0:
        return second // size, 1
    return None


class _Room(threading.local):
    """Memory for panels, of each thread that asks for a product.

    Attributes:
        begin, size: Its address and bytes.
    """

    begin, size, memory = 0, 0, None

    def of(self, size: int) -> int:
        """The address of so many bytes."""
        if size > self.size:
            self.memory = np.empty(size + 64, np.uint8)
            begin = address(self.memory)
            self.begin, self.size = begin + -begin % 64, size
        return self.begin


_room = _Room()


def product(x: Any, y: Any, out: Any = None, machine: Machine | None = None) -> Any:
    """``x @ y`` of two matrices; None if they are not such as this is good at.

    Args:
        x: Of `float32` or `float64`.
        y: Of the same.
        out: Where to put the result; a new array if None.
        machine: The processor to make code for, if not this one.
    """
    dtype = x.dtype
    if (
        y.ndim != 2
        or x.shape[1] != y.shape[0]
        or dtype != y.dtype
        or dtype.char not in "fd"
        or not dtype.isnative
    ):
        return None
    left, right = _layout(x), _layout(y)
    if left is None or right is None:
        return None
    (m, depth), n, size = x.shape, y.shape[1], dtype.itemsize
    machine = machine or host()
    if out is None:
        # Without wide vectors NumPy's library, which may be the maker's own, does better.
        if min(m, n, depth) < 4 or machine.bits < 256:
            return None
        out = memory.empty((m, n), dtype)
    _, function = _function(machine, dtype)
    deep, high, broad, rows, width = _blocks(machine, size)
    # The larger side is what is cut, into whole tiles.
    side, tile = (m, rows) if m >= n else (n, width)
    tiles = -(-side // tile)
    count = max(1, min(threads.count(), tiles, m * n * depth >> _WORTH))
    length = min(deep, depth) * size
    # A row of a panel more, and whole lines of the cache.
    for_x = (min(high, m) + rows) * length + 63 & -64
    for_y = (min(broad, n) + width) * length + 63 & -64
    place = _room.of(count * (for_x + for_y))
    at_x, at_y = address(x.T if left[1] else x), address(y.T if right[1] else y)
    at_out, to_next = address(out), out.strides[0]
    numbers: list[int] = []
    for i in range(count):
        begin, end = tiles * i // count * tile, min(side, tiles * (i + 1) // count * tile)
        if m >= n:
            a, b, c = at_x + begin * x.strides[0], at_y, at_out + begin * to_next
            shape = end - begin, n
        else:
            a, b, c = at_x, at_y + begin * y.strides[1], at_out + begin * size
            shape = m, end - begin
        numbers += (a, *left, b, *right, c, to_next // size, *shape, depth, place, place + for_x)
        place += for_x + for_y
    own = (ctypes.c_int64 * len(numbers))(*numbers)
    threads.pool.run(function, ctypes.addressof(own), 8 * len(numbers) // count, count)
    return out
