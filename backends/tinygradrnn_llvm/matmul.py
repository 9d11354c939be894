"""The product of a few rows with a constant matrix: its tiles, packing and inner loop.

The matrix is packed once for each run into panels: columns that fit a tile, one row of them after
the other, so that the inner loop reads one stream. A tile of the result stays in registers from the
first to the last row of the panel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tinygradrnn_llvm.machine import Machine


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


def most_rows(machine: Machine) -> int:
    """The tallest tile that leaves room for two vectors of a panel beside each other."""
    return 12 if machine.registers >= 32 else 6


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


def emit_kernel(
    ir: Any, module: Any, name: str, scalar: Any, p: Panels, rows: int, lda: int, ldc: int
) -> Any:
    """A function ``(a, panel, c)`` that computes one tile: `rows` rows by one panel."""
    vector = ir.VectorType(scalar, p.lanes) if p.lanes > 1 else scalar
    size = 4 if scalar == ir.FloatType() else 8
    pointer, i64 = ir.PointerType(), ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer] * 3), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    a, b, c = function.args
    for arg in function.args:
        arg.add_attribute("noalias")
    muladd = intrinsic(ir, module, "llvm.fmuladd", vector, 3)

    # Every accumulator waits for its last sum: fewer than eight would leave the units idle.
    tile = rows * p.vectors
    sets = min(p.depth, max(1, math.ceil(8 / tile)))
    step = sets * max(1, min(p.depth // sets, 8 // (sets * tile) or 1, 4))
    if step < 2 <= p.depth and tile <= 16:
        step = 2
    zero = ir.Constant(vector, [0.0] * p.lanes if p.lanes > 1 else 0.0)

    entry = ir.IRBuilder(function.append_basic_block("entry"))
    loop, end = function.append_basic_block("loop"), function.append_basic_block("end")
    trips = p.depth // step
    entry.branch(loop if trips else end)

    def one(builder: Any, a_at: Any, b_at: Any, j: int, sums: list[Any]) -> None:
        columns = [
            builder.load(at(builder, b_at, (j * p.width + v * p.lanes) * size), typ=vector, align=size)
            for v in range(p.vectors)
        ]
        for r in range(rows):
            x = builder.load(at(builder, a_at, (r * lda + j) * size), typ=scalar, align=size)
            x = splat(ir, builder, x, vector)
            for v in range(p.vectors):
                sums[r * p.vectors + v] = builder.call(muladd, [x, columns[v], sums[r * p.vectors + v]])

    def at(builder: Any, base: Any, offset: int) -> Any:
        return builder.gep(base, [i64(offset)], source_etype=ir.IntType(8)) if offset else base

    sums: list[list[Any]] = [[zero] * tile for _ in range(sets)]
    a_end, b_end = a, b
    if trips:
        builder = ir.IRBuilder(loop)
        count, a_at, b_at = builder.phi(i64), builder.phi(pointer), builder.phi(pointer)
        phis = [[builder.phi(vector) for _ in range(tile)] for _ in range(sets)]
        sums = [list(s) for s in phis]
        for j in range(step):
            one(builder, a_at, b_at, j, sums[j % sets])
        more = builder.add(count, i64(1))
        a_end, b_end = at(builder, a_at, step * size), at(builder, b_at, step * p.width * size)
        for phi, first, later in (
            (count, i64(0), more),
            (a_at, a, a_end),
            (b_at, b, b_end),
            *((q, zero, s) for qs, ss in zip(phis, sums, strict=True) for q, s in zip(qs, ss, strict=True)),
        ):
            phi.add_incoming(first, entry.block)
            phi.add_incoming(later, loop)
        builder.cbranch(builder.icmp_unsigned("<", more, i64(trips)), loop, end)
    builder = ir.IRBuilder(end)
    for j in range(p.depth - trips * step):
        one(builder, a_end, b_end, j, sums[j % sets])
    for i in range(tile):
        total = sums[0][i]
        for s in sums[1:]:
            total = builder.fadd(total, s[i])
        r, v = divmod(i, p.vectors)
        builder.store(total, at(builder, c, (r * ldc + v * p.lanes) * size), align=size)
    builder.ret_void()
    return function


def splat(ir: Any, builder: Any, x: Any, vector: Any) -> Any:
    """A vector of which every element is `x`."""
    if not isinstance(vector, ir.VectorType):
        return x
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), x, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def intrinsic(ir: Any, module: Any, name: str, kind: Any, arity: int) -> Any:
    """One of LLVM's own functions from `arity` values of a type to one of the same type."""
    vector = isinstance(kind, ir.VectorType)
    scalar = kind.element if vector else kind
    short = "f32" if scalar == ir.FloatType() else "f64"
    full = f"{name}.v{kind.count}{short}" if vector else f"{name}.{short}"
    found = module.globals.get(full)
    return found or ir.Function(module, ir.FunctionType(kind, [kind] * arity), full)
