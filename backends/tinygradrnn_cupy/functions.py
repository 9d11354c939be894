"""Operations of each element as CUDA C++: what one thread computes for one element.

Only text: nothing here needs CuPy or a GPU. The functions are those of NumPy, also where C++ has
other ones of the same name: NaNs go through ``maximum``, a remainder has the divisor's sign.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygradrnn.loop import Call, Operand, Var

TYPES = {
    np.dtype(name): text
    for name, text in {
        "float32": "float",
        "float64": "double",
        "bool": "bool",
        "int8": "signed char",
        "int16": "short",
        "int32": "int",
        "int64": "long long",
        "uint8": "unsigned char",
        "uint16": "unsigned short",
        "uint32": "unsigned int",
        "uint64": "unsigned long long",
    }.items()
}
"""The dtypes that kernels know; what has another one is left to the library's functions."""

PRELUDE = r"""
template <class T> __device__ T maximum_(T a, T b) { return a >= b || a != a ? a : b; }
template <class T> __device__ T minimum_(T a, T b) { return a <= b || a != a ? a : b; }
template <class T> __device__ T sign_(T a) {
    return a > 0 ? T(1) : a < 0 ? T(-1) : a == 0 ? T(0) : a;
}
template <class T> __device__ T abs_(T a) { return a < 0 ? T(-a) : a; }
__device__ inline float abs_(float a) { return fabs(a); }
__device__ inline double abs_(double a) { return fabs(a); }
template <class T> __device__ T softplus_(T a) {
    return (a > 0 ? a : T(0)) + log1p(exp(-abs_(a)));
}
template <class T> __device__ T gelu_(T a) {
    return T(0.5) * a * (T(1) + tanh(T(0.7978845608028654) * (a + T(0.044715) * a * a * a)));
}
template <class T> __device__ T remainder_(T a, T b) {
    if (b == 0 || (T(-1) < T(0) && T(b + T(1)) == 0)) return 0;
    T r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? T(r + b) : r;
}
template <class T> __device__ T floor_divide_(T a, T b) {
    if (b == 0) return 0;
    if (T(b + T(1)) == 0 && T(-1) < T(0)) return T(T(0) - a);
    T q = a / b;
    return q * b != a && (a < 0) != (b < 0) ? T(q - 1) : q;
}
template <class T> __device__ T float_remainder_(T a, T b) {
    T r = fmod(a, b);
    if (b == 0) return r;
    if (r == 0) return copysign(T(0), b);
    return (r < 0) != (b < 0) ? r + b : r;
}
template <class T> __device__ T float_floor_divide_(T a, T b) {
    if (b == 0) return a / b;
    T r = fmod(a, b), q = (a - r) / b;
    if (r != 0 && (r < 0) != (b < 0)) q -= T(1);
    if (q == 0) return copysign(T(0), a / b);
    T whole = floor(q);
    return q - whole > T(0.5) ? whole + T(1) : whole;
}
__device__ inline float remainder_(float a, float b) { return float_remainder_(a, b); }
__device__ inline double remainder_(double a, double b) { return float_remainder_(a, b); }
__device__ inline float floor_divide_(float a, float b) { return float_floor_divide_(a, b); }
__device__ inline double floor_divide_(double a, double b) { return float_floor_divide_(a, b); }
"""

_INFINITY = "(1e300 * 1e300)"

# The arguments and the result have the result's dtype.
_ARITHMETIC = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "remainder": "remainder_({0}, {1})",
    "floor_divide": "floor_divide_({0}, {1})",
    "negative": "-{0}",
    "square": "{0} * {0}",
    "abs": "abs_({0})",
    "sign": "sign_({0})",
}
_SMOOTH = {
    "pow": "pow({0}, {1})",
    **{
        name: name + "({0})"
        for name in ["exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh"]
    },
    "sigmoid": "{T}0.5 * tanh({T}0.5 * {0}) + {T}0.5",
    "softplus": "softplus_({0})",
    "gelu": "gelu_({0})",
}
_ROUNDING = {"floor": "floor({0})", "ceil": "ceil({0})", "round": "rint({0})"}
_ANY = {
    "positive": "{0}",
    "astype": "{0}",
    "relu": "{0} <= 0 ? {T}0 : {0}",
    "maximum": "maximum_({0}, {1})",
    "minimum": "minimum_({0}, {1})",
    "zeros_like": "0",
    "ones_like": "1",
}
# The arguments have the dtype to which they are promoted together; the result is a bool.
_TESTS = {
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "logical_and": "{0} != 0 && {1} != 0",
    "logical_or": "{0} != 0 || {1} != 0",
    "logical_xor": "({0} != 0) != ({1} != 0)",
    "logical_not": "{0} == 0",
    "isnan": "{0} != {0}",
    "isinf": "fabs((double){0}) == " + _INFINITY,
    "isfinite": "fabs((double){0}) < " + _INFINITY,
}
_VALUES = _ARITHMETIC | _SMOOTH | _ROUNDING | _ANY
OPERATIONS = {*_VALUES, *_TESTS, "clip", "where"}


def literal(value: Any, dtype: np.dtype[Any]) -> str:
    """A number as a constant of `dtype`.

    Raises:
        OverflowError: It does not fit.
    """
    if dtype.kind == "b":
        return "true" if value else "false"
    if dtype.kind == "f":
        value = float(value)
        if math.isnan(value):
            text = f"({_INFINITY} - {_INFINITY})"
        elif math.isinf(value):
            text = _INFINITY if value > 0 else "-" + _INFINITY
        else:
            text = repr(value)
        return f"({TYPES[dtype]}){text}"
    limits = np.iinfo(dtype)
    if value != int(value) or not limits.min <= value <= limits.max:
        raise OverflowError(f"{value} as {dtype}")
    text = f"{int(value)}ULL" if value >= 0 else f"({int(value) + 1}LL - 1)"
    return f"({TYPES[dtype]}){text}"


def _kind(x: Operand) -> Any:
    return np.dtype(x.dtype) if isinstance(x, Var) else x


def expression(call: Call, operands: list[str]) -> str | None:
    """The C++ expression of a call's result.

    Args:
        call: A call of an operation of each element.
        operands: A name for each input that is a Var; what stands for a number is not looked at.

    Returns:
        The expression; None if a kernel does not compute it as NumPy does.
    """
    kinds = {np.dtype(v.dtype) for v in (*call.vars, call.output)}
    if call.op not in OPERATIONS or not kinds <= TYPES.keys():
        return None
    try:
        return _expression(call, operands)
    except OverflowError:  # a number that no element could be
        return None


def _expression(call: Call, names: list[str]) -> str | None:
    out = np.dtype(call.output.dtype)

    def cast(dtype: np.dtype[Any]) -> list[str]:
        """The arguments as `dtype`: what is made of them needs no brackets."""
        return [
            literal(x, dtype)
            if not isinstance(x, Var)
            else name
            if np.dtype(x.dtype) == dtype
            else f"({TYPES[dtype]}){name}"
            for x, name in zip(call.inputs, names, strict=True)
        ]

    op = call.op
    if op == "where":
        _, chosen, other = cast(out)
        return f"{names[0]} ? {chosen} : {other}"
    if op in _TESTS:
        common = np.result_type(*map(_kind, call.inputs))
        return _TESTS[op].format(*cast(common)) if common in TYPES else None
    if op in _ARITHMETIC and out.kind == "b":
        return None
    if op in _SMOOTH and any(np.dtype(v.dtype).kind != "f" for v in (*call.vars, call.output)):
        return None
    if op == "pow" and call.inputs[1] == 2:
        op = "square"
    if op in _ROUNDING and out.kind != "f":
        op = "positive"
    if op == "clip":
        (text,) = cast(out)
        for name, bound in (("maximum_", call.params["min"]), ("minimum_", call.params["max"])):
            if bound is not None:
                text = f"{name}({text}, {literal(bound, out)})"
        return text
    return _VALUES[op].format(*cast(out), T=f"({TYPES[out]})")
