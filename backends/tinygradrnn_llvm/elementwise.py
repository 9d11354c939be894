"""Operations of each element as instructions, for vectors and for single values alike.

Where an element is not a number, and for signs of zero, they do as NumPy does.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir

from tinygradrnn_llvm import vector_math
from tinygradrnn_llvm.blocks import Builder
from tinygradrnn_llvm.lower import COMPARISONS, Node

_SIGNS = {
    "equal": "==", "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=",
}  # fmt: skip


class Emitter:
    """Emits operations on values of `lanes` elements."""

    def __init__(self, builder: Builder, lanes: int) -> None:
        self.builder, self.lanes = builder, lanes

    def type(self, dtype: np.dtype[Any]) -> Any:
        """The type of a value: a vector, or of one element that element's."""
        scalar = {
            np.dtype(np.float32): ir.FloatType(),
            np.dtype(np.float64): ir.DoubleType(),
            np.dtype(np.bool): ir.IntType(1),
        }[dtype]
        return ir.VectorType(scalar, self.lanes) if self.lanes > 1 else scalar

    def number(self, value: Any, dtype: np.dtype[Any]) -> Any:
        """A constant."""
        x: Any = bool(value) if dtype.kind == "b" else float(np.asarray(value, dtype))
        return ir.Constant(self.type(dtype), [x] * self.lanes if self.lanes > 1 else x)

    def cast(self, x: Any, have: np.dtype[Any], want: np.dtype[Any]) -> Any:
        """A value in another type."""
        if have == want:
            return x
        to = self.type(want)
        if want.kind == "b":
            return self.builder.fcmp_unordered("!=", x, self.number(0.0, have))
        if have.kind == "b":
            return self.builder.uitofp(x, to)
        wider = want.itemsize > have.itemsize
        return (self.builder.fpext if wider else self.builder.fptrunc)(x, to)

    def call(self, name: str, *values: Any) -> Any:
        """One of LLVM's own functions."""
        return self.builder.intrinsic(name.removeprefix("llvm."), *values)

    def operate(self, node: Node, values: list[Any]) -> Any:
        """The node's result from its inputs: each a value, or a number as it was given."""
        op, out = node.op, node.dtype
        if op == "number":
            return self.number(node.inputs[0], out)
        pairs = list(zip(node.inputs, values, strict=True))
        arrays = [x.dtype for x in node.inputs if isinstance(x, Node)]
        common = np.result_type(*arrays) if arrays else out

        def take(i: int, dtype: np.dtype[Any]) -> Any:
            x, value = pairs[i]
            if isinstance(x, Node):
                return self.cast(value, x.dtype, dtype)
            return self.number(x, dtype)

        if op in COMPARISONS:
            return self.compare(op, take(0, common), take(1, common), common)
        boolean = np.dtype(np.bool)
        b = self.builder
        if op.startswith("logical_"):
            some = [take(i, boolean) for i in range(len(pairs))]
            if op == "logical_not":
                return b.not_(some[0])
            return {"logical_and": b.and_, "logical_or": b.or_, "logical_xor": b.xor}[op](*some)
        if op == "where":
            if out.kind == "b" and not all(d.kind == "b" for d in arrays):
                raise ValueError("where of booleans and numbers")
            return b.select(take(0, boolean), take(1, out), take(2, out))
        if op == "astype":
            return take(0, out)
        x = take(0, common if op in ("isnan", "isinf", "isfinite") else out)
        if op == "isnan":
            return b.fcmp_unordered("uno", x, x)
        if op in ("isinf", "isfinite"):
            size = self.call("llvm.fabs", x)
            return b.fcmp_ordered(
                "==" if op == "isinf" else "<", size, self.number(math.inf, common)
            )
        if len(pairs) > 1:
            if op == "pow":
                return self.power(x, node.inputs[1], out)
            return self.two(op, x, take(1, out))
        return self.one(op, x, node, out)

    def compare(self, op: str, x: Any, y: Any, dtype: np.dtype[Any]) -> Any:
        """A comparison of two values of one type."""
        if dtype.kind == "b":
            return self.builder.icmp_unsigned("!=" if op == "not_equal" else _SIGNS[op], x, y)
        if op == "not_equal":
            return self.builder.fcmp_unordered("!=", x, y)
        return self.builder.fcmp_ordered(_SIGNS[op], x, y)

    def two(self, op: str, x: Any, y: Any) -> Any:
        """An operation of two values."""
        b = self.builder
        if op in ("maximum", "minimum"):
            chosen = b.select(b.fcmp_ordered(">=" if op == "maximum" else "<=", x, y), x, y)
            return b.select(b.fcmp_unordered("uno", x, x), x, chosen)
        return {"add": b.fadd, "subtract": b.fsub, "multiply": b.fmul, "divide": b.fdiv}[op](x, y)

    def power(self, x: Any, exponent: float, dtype: np.dtype[Any]) -> Any:
        """A whole power, or a root."""
        if exponent == 0.5:
            return self.call("llvm.sqrt", x)
        one = self.number(1.0, dtype)
        n, result, square = abs(int(exponent)), one, x
        while n:
            if n & 1:
                result = square if result is one else self.builder.fmul(result, square)
            n >>= 1
            square = self.builder.fmul(square, square) if n else square
        return self.builder.fdiv(one, result) if exponent < 0 else result

    def one(self, op: str, x: Any, node: Node, dtype: np.dtype[Any]) -> Any:
        """An operation of one value."""
        b, number = self.builder, lambda value: self.number(value, dtype)
        if op == "negative":
            return b.fneg(x)
        if op == "square":
            return b.fmul(x, x)
        if op == "relu":
            return b.select(b.fcmp_ordered("<=", x, number(0.0)), number(0.0), x)
        if op == "sign":
            whole = b.select(b.fcmp_ordered(">", x, number(0.0)), number(1.0), number(-1.0))
            zero = b.fcmp_unordered("ueq", x, number(0.0))  # also where it is not a number
            kept = b.select(b.fcmp_unordered("uno", x, x), x, number(0.0))
            return b.select(zero, kept, whole)
        if op == "clip":
            low, high = node.params.get("min"), node.params.get("max")
            if low is not None:
                x = b.select(b.fcmp_ordered("<", x, number(low)), number(low), x)
            if high is not None:
                x = b.select(b.fcmp_ordered(">", x, number(high)), number(high), x)
            return x
        if op == "softplus":
            large = b.select(b.fcmp_ordered(">", x, number(0.0)), x, number(0.0))
            small = self.function("exp", b.fneg(self.call("llvm.fabs", x)))
            return b.fadd(large, self.function("log1p", small))
        own = {
            "sqrt": "sqrt",
            "abs": "fabs",
            "floor": "floor",
            "ceil": "ceil",
            "round": "roundeven",
        }
        if op in own:
            return self.call(f"llvm.{own[op]}", x)
        return self.function(op, x)

    def function(self, name: str, x: Any) -> Any:
        """One of the transcendental functions, in a function of its own that is inlined."""
        module = self.builder.module
        short = str(x.type).translate(str.maketrans("", "", "<> "))
        full = f"tgr.{name}.{short}"
        found = module.globals.get(full)
        if found is None:
            found = ir.Function(module, ir.FunctionType(x.type, [x.type]), full)
            found.linkage = "internal"
            found.attributes.add("alwaysinline")
            inner = Builder(found.append_basic_block("entry"))
            inner.ret(vector_math.emit(name, inner, found.args[0]))
        return self.builder.call(found, [x])

    def splat(self, x: Any) -> Any:
        """A value in every element."""
        return self.builder.splat(x, self.lanes)
