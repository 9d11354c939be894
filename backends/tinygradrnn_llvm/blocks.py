"""Writing LLVM's IR: loops, addresses, and vectors of which every element is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

I1, I8, I32, I64 = (ir.IntType(n) for n in (1, 8, 32, 64))
POINTER = ir.PointerType()
VOID = ir.VoidType()


def vector_of(scalar: Any, lanes: int) -> Any:
    """The type of a vector; of one lane it is the scalar itself."""
    return ir.VectorType(scalar, lanes) if lanes > 1 else scalar


def everywhere(kind: Any, number: Any) -> Any:
    """A constant with the same number in every lane."""
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


def itemsize(scalar: Any) -> int:
    """The bytes of a float or a double."""
    return 4 if isinstance(scalar, ir.FloatType) else 8


def function(module: Any, name: str, arguments: list[Any], result: Any = VOID) -> Any:
    """A function of the module, declared at its first mention."""
    found = module.globals.get(name)
    return found or ir.Function(module, ir.FunctionType(result, arguments), name)


class Builder(ir.IRBuilder):
    """An IRBuilder with loops and plain addresses."""

    def offset(self, base: Any, count: Any) -> Any:
        """An address some bytes further."""
        if isinstance(count, int):
            if count == 0:
                return base
            count = I64(count)
        return self.gep(base, [count], source_etype=I8)

    def at(self, base: Any, row: Any, stride: Any, column: Any, size: int) -> Any:
        """The address of an element of a matrix."""
        return self.offset(base, self.mul(self.add(self.mul(row, stride), column), I64(size)))

    def loop(self, first: Any, end: Any, step: int, body: Callable[[Any], None]) -> None:
        """``for i in range(first, end, step): body(i)``."""
        before = self.block
        head, inside, after = (self.append_basic_block(n) for n in ("head", "body", "end"))
        self.branch(head)
        self.position_at_end(head)
        i = self.phi(I64)
        i.add_incoming(first, before)
        self.cbranch(self.icmp_signed("<", i, end), inside, after)
        self.position_at_end(inside)
        body(i)
        i.add_incoming(self.add(i, I64(step)), self.block)
        self.branch(head)
        self.position_at_end(after)

    @contextmanager
    def before_end(self, block: Any) -> Iterator[None]:
        """Write at the end of another block, before it branches."""
        here: Any = self.block
        self.position_before(block.terminator)
        yield
        if here.is_terminated:
            self.position_before(here.terminator)
        else:
            self.position_at_end(here)

    def smaller(self, x: Any, y: Any) -> Any:
        """The smaller of two signed numbers."""
        return self.select(self.icmp_signed("<", x, y), x, y)

    def splat(self, x: Any, lanes: int) -> Any:
        """A vector of which every lane is `x`."""
        if lanes == 1:
            return x
        kind = ir.VectorType(x.type, lanes)
        one = self.insert_element(ir.Constant(kind, ir.Undefined), x, I32(0))
        zeros = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        return self.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)

    def intrinsic(self, name: str, *values: Any) -> Any:
        """One of LLVM's own functions from floating-point values of a type to one of the same."""
        kind = values[0].type
        lanes = kind.count if isinstance(kind, ir.VectorType) else 1
        scalar = kind.element if lanes > 1 else kind
        short = f"{f'v{lanes}' if lanes > 1 else ''}f{8 * itemsize(scalar)}"
        called = function(self.module, f"llvm.{name}.{short}", [kind] * len(values), kind)
        return self.call(called, values)

    def clear(self, target: Any, size: Any) -> None:
        """Fill bytes with zeros."""
        called = function(self.module, "llvm.memset.p0.i64", [POINTER, I8, I64, I1])
        self.call(called, [target, I8(0), size, I1(0)])

    def prefetch(self, address: Any, writing: int = 0) -> None:
        """Have what will be read soon brought to the first cache."""
        called = function(self.module, "llvm.prefetch.p0", [POINTER, I32, I32, I32])
        self.call(called, [address, I32(writing), I32(3), I32(1)])

    def copy(self, target: Any, source: Any, size: Any) -> None:
        """Copy bytes from one place to another that does not overlap."""
        arguments = [POINTER, POINTER, I64, I1]
        called = function(self.module, "llvm.memcpy.p0.p0.i64", arguments)
        self.call(called, [target, source, size, I1(0)])
