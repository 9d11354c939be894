"""Arithmetic and functions of each element. Subgradients at kinks and ties are PyTorch's."""

from __future__ import annotations

import math
from typing import Any

from tinygradrnn.convert import Scalar, describe, kind_of, resolve_dtype
from tinygradrnn.errors import DtypeError
from tinygradrnn.namespace import Namespace
from tinygradrnn.op import op

# ------------------------------------------------------------------------------------ arithmetic


@op(promotes=True, elementwise=True)
def add(xp: Any, x1: Any, x2: Any, /) -> Any:
    """The sum ``x1 + x2``.

    >>> tgr.tensor([1.0, 2.0]) + 1.0
    tensor([2., 3.])
    """
    return x1 + x2


add.vjp(x1=lambda xp, g: g, x2=lambda xp, g: g)


@op(promotes=True, elementwise=True)
def subtract(xp: Any, x1: Any, x2: Any, /) -> Any:
    """The difference ``x1 - x2``.

    >>> 1.0 - tgr.tensor([1.0, 2.0])
    tensor([ 0., -1.])
    """
    return x1 - x2


subtract.vjp(x1=lambda xp, g: g, x2=lambda xp, g: -g)


@op(promotes=True, elementwise=True)
def multiply(xp: Any, x1: Any, x2: Any, /) -> Any:
    """The product ``x1 * x2``.

    >>> tgr.tensor([1.0, 2.0]) * tgr.tensor([3.0, 4.0])
    tensor([3., 8.])
    """
    return x1 * x2


multiply.vjp(x1=lambda xp, g, x2: g * x2, x2=lambda xp, g, x1: g * x1)


@op(promotes=True, elementwise=True)
def divide(xp: Any, x1: Any, x2: Any, /) -> Any:
    """The quotient ``x1 / x2`` of floating-point numbers.

    >>> 1.0 / tgr.tensor([2.0, 4.0])
    tensor([0.5 , 0.25])
    """
    return x1 / x2


divide.vjp(x1=lambda xp, g, x2: g / x2, x2=lambda xp, g, x2, out: -g * out / x2)


@op(promotes=True, elementwise=True)
def remainder(xp: Any, x1: Any, x2: Any, /) -> Any:
    """The remainder ``x1 % x2``, with the sign of `x2`; its jumps have no gradient.

    >>> tgr.tensor([5.0, -5.0]) % 3.0
    tensor([2., 1.])
    """
    return x1 % x2


remainder.vjp(x1=lambda xp, g: g, x2=lambda xp, g, x1, x2: -g * xp.floor(x1 / x2))


@op(promotes=True, elementwise=True)
def floor_divide(xp: Any, x1: Any, x2: Any, /) -> Any:
    """The quotient ``x1 // x2`` rounded down; piecewise constant, so its gradient is zero.

    >>> tgr.tensor([5.0, -5.0]) // 3.0
    tensor([ 1., -2.])
    """
    return x1 // x2


floor_divide.vjp(x1=lambda xp, g: xp.zeros_like(g), x2=lambda xp, g: xp.zeros_like(g))


@op(elementwise=True)
def negative(xp: Any, x: Any, /) -> Any:
    """The negative ``-x``.

    >>> -tgr.tensor([1.0, -2.0])
    tensor([-1.,  2.])
    """
    return -x


negative.vjp(x=lambda xp, g: -g)


@op(elementwise=True)
def positive(xp: Any, x: Any, /) -> Any:
    """The element itself, ``+x``: an identity that is a node on the tape.

    >>> +tgr.tensor([1.0])
    tensor([1.])
    """
    return +x


positive.vjp(x=lambda xp, g: g)


@op(promotes=True, elementwise=True)
def pow(xp: Any, x1: Any, x2: Any, /) -> Any:
    """The power ``x1 ** x2``.

    The gradient is 0 for exponent 0, and for the exponent where the base is 0 and the exponent not
    negative (PyTorch's choice); it is NaN for the exponent of a negative base.

    >>> tgr.tensor([2.0, 3.0]) ** 2
    tensor([4., 9.])
    """
    return x1**x2


def _pow_base(xp: Any, g: Any, x1: Any, x2: Any) -> Any:
    if isinstance(x2, (int, float)):
        if x2 == 2:
            return g * (2 * x1)
        return g * (x2 * x1 ** (x2 - 1)) if x2 != 0 else xp.zeros_like(g)
    # At exponent 0 a positive base gives 0 by itself, and 1 / x1 as the derivative by x2. Another
    # base would give 0 * inf, or has no such derivative.
    inverse = 1 / x1
    smooth = xp.logical_and(inverse >= 0, inverse < math.inf)
    flat = xp.logical_and(x2 == 0, xp.logical_not(smooth))
    return xp.where(flat, 0.0, g * x2 * x1 ** xp.where(flat, 1.0, x2 - 1))


def _pow_exponent(xp: Any, g: Any, x1: Any, x2: Any, out: Any) -> Any:
    base = x1 - xp.zeros_like(x2)  # a number becomes an array of the exponent's dtype; -0.0 stays
    flat = xp.logical_and(base == 0, x2 >= 0)
    return xp.where(flat, 0.0, g * out * xp.log(xp.where(flat, 1.0, base)))


pow.vjp(x1=_pow_base, x2=_pow_exponent)


# ------------------------------------------------------------------------------ smooth functions


@op(promotes=True, elementwise=True)
def exp(xp: Any, x: Any, /) -> Any:
    """The exponential function.

    >>> tgr.exp(tgr.tensor([0.0]))
    tensor([1.])
    """
    return xp.exp(x)


exp.vjp(x=lambda xp, g, out: g * out)


@op(promotes=True, elementwise=True)
def expm1(xp: Any, x: Any, /) -> Any:
    """``exp(x) - 1``, accurate near zero.

    >>> tgr.expm1(tgr.tensor([0.0]))
    tensor([0.])
    """
    return xp.expm1(x)


expm1.vjp(x=lambda xp, g, out: g * (out + 1))


@op(promotes=True, elementwise=True)
def log(xp: Any, x: Any, /) -> Any:
    """The natural logarithm.

    >>> tgr.log(tgr.tensor([1.0]))
    tensor([0.])
    """
    return xp.log(x)


log.vjp(x=lambda xp, g, x: g / x)


@op(promotes=True, elementwise=True)
def log1p(xp: Any, x: Any, /) -> Any:
    """``log(1 + x)``, accurate near zero.

    >>> tgr.log1p(tgr.tensor([0.0]))
    tensor([0.])
    """
    return xp.log1p(x)


log1p.vjp(x=lambda xp, g, x: g / (1 + x))


@op(promotes=True, elementwise=True)
def sqrt(xp: Any, x: Any, /) -> Any:
    """The square root; its gradient at 0 is infinite.

    >>> tgr.sqrt(tgr.tensor([4.0]))
    tensor([2.])
    """
    return xp.sqrt(x)


sqrt.vjp(x=lambda xp, g, out: g / (2 * out))


@op(elementwise=True)
def square(xp: Any, x: Any, /) -> Any:
    """The square ``x * x``.

    >>> tgr.square(tgr.tensor([3.0]))
    tensor([9.])
    """
    return xp.square(x)


square.vjp(x=lambda xp, g, x: g * (2 * x))


@op(promotes=True, elementwise=True)
def sin(xp: Any, x: Any, /) -> Any:
    """The sine of an angle in radians.

    >>> tgr.sin(tgr.tensor([0.0]))
    tensor([0.])
    """
    return xp.sin(x)


sin.vjp(x=lambda xp, g, x: g * xp.cos(x))


@op(promotes=True, elementwise=True)
def cos(xp: Any, x: Any, /) -> Any:
    """The cosine of an angle in radians.

    >>> tgr.cos(tgr.tensor([0.0]))
    tensor([1.])
    """
    return xp.cos(x)


cos.vjp(x=lambda xp, g, x: -g * xp.sin(x))


@op(promotes=True, elementwise=True)
def tanh(xp: Any, x: Any, /) -> Any:
    """The hyperbolic tangent.

    >>> tgr.tanh(tgr.tensor([0.0]))
    tensor([0.])
    """
    return xp.tanh(x)


tanh.vjp(x=lambda xp, g, out: g * (1 - out * out))


@op(promotes=True, elementwise=True)
def sigmoid(xp: Any, x: Any, /) -> Any:
    """The logistic function ``1 / (1 + exp(-x))``, as ``tanh(x/2)/2 + 1/2``, which cannot overflow.

    >>> tgr.sigmoid(tgr.tensor([0.0]))
    tensor([0.5])
    """
    return 0.5 * xp.tanh(0.5 * x) + 0.5


sigmoid.vjp(x=lambda xp, g, out: g * (out - out * out))


@op(promotes=True, elementwise=True)
def softplus(xp: Any, x: Any, /) -> Any:
    """``log(1 + exp(x))``, a smooth relu.

    >>> tgr.softplus(tgr.tensor([0.0]))
    tensor([0.6931472])
    """
    return xp.where(x > 0, x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


softplus.vjp(x=lambda xp, g, x: g * xp.sigmoid(x))

_C = math.sqrt(2 / math.pi)


@op(promotes=True, elementwise=True)
def gelu(xp: Any, x: Any, /) -> Any:
    """The Gaussian error linear unit, in its tanh form (Hendrycks & Gimpel 2016).

    >>> tgr.gelu(tgr.tensor([0.0]))
    tensor([0.])
    """
    return 0.5 * x * (1 + xp.tanh(_C * (x + 0.044715 * x * x * x)))


def _gelu_x(xp: Any, g: Any, x: Any) -> Any:
    t = xp.tanh(_C * (x + 0.044715 * x * x * x))
    return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * _C * (1 + 3 * 0.044715 * x * x))


gelu.vjp(x=_gelu_x)


# ----------------------------------------------------------------------- functions with kinks


@op(elementwise=True)
def abs(xp: Any, x: Any, /) -> Any:
    """The absolute value; its gradient at 0 is 0.

    >>> tgr.abs(tgr.tensor([-1.5]))
    tensor([1.5])
    """
    return xp.abs(x)


abs.vjp(x=lambda xp, g, x: g * xp.sign(x))


@op(elementwise=True)
def sign(xp: Any, x: Any, /) -> Any:
    """-1, 0 or 1; piecewise constant, so its gradient is zero.

    >>> tgr.sign(tgr.tensor([-1.5, 0.0]))
    tensor([-1.,  0.])
    """
    return xp.sign(x)


@op(elementwise=True)
def floor(xp: Any, x: Any, /) -> Any:
    """The next integer below; piecewise constant, so its gradient is zero.

    >>> tgr.floor(tgr.tensor([1.5]))
    tensor([1.])
    """
    return xp.floor(x)


@op(elementwise=True)
def ceil(xp: Any, x: Any, /) -> Any:
    """The next integer above; piecewise constant, so its gradient is zero.

    >>> tgr.ceil(tgr.tensor([1.5]))
    tensor([2.])
    """
    return xp.ceil(x)


@op(elementwise=True)
def round(xp: Any, x: Any, /) -> Any:
    """The nearest integer, halves to even; piecewise constant, so its gradient is zero.

    >>> tgr.round(tgr.tensor([1.5, 2.5]))
    tensor([2., 2.])
    """
    return xp.round(x)


for _flat in (sign, floor, ceil, round):
    _flat.vjp(x=lambda xp, g: xp.zeros_like(g))


@op(promotes=True, elementwise=True)
def relu(xp: Any, x: Any, /) -> Any:
    """``max(x, 0)``; its gradient at 0 is 0.

    >>> tgr.relu(tgr.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    return xp.where(x <= 0, 0.0, x)


relu.vjp(x=lambda xp, g, out: xp.where(out <= 0, 0.0, g))


@op(promotes=True, elementwise=True)
def maximum(xp: Any, x1: Any, x2: Any, /) -> Any:
    """The larger of two elements; at a tie each gets half of the gradient.

    >>> tgr.maximum(tgr.tensor([1.0, 5.0]), 3.0)
    tensor([3., 5.])
    """
    return xp.maximum(x1, x2)


@op(promotes=True, elementwise=True)
def minimum(xp: Any, x1: Any, x2: Any, /) -> Any:
    """The smaller of two elements; at a tie each gets half of the gradient.

    >>> tgr.minimum(tgr.tensor([1.0, 5.0]), 3.0)
    tensor([1., 3.])
    """
    return xp.minimum(x1, x2)


def _share(xp: Any, g: Any, loses: Any, ties: Any) -> Any:
    return xp.where(loses, 0.0, xp.where(ties, 0.5 * g, g))


maximum.vjp(
    x1=lambda xp, g, x1, x2: _share(xp, g, x1 < x2, x1 == x2),
    x2=lambda xp, g, x1, x2: _share(xp, g, x2 < x1, x1 == x2),
)
minimum.vjp(
    x1=lambda xp, g, x1, x2: _share(xp, g, x1 > x2, x1 == x2),
    x2=lambda xp, g, x1, x2: _share(xp, g, x2 > x1, x1 == x2),
)


@op(elementwise=True)
def clip(xp: Any, x: Any, /, min: float | None = None, max: float | None = None) -> Any:
    """`x` limited to ``[min, max]``; the gradient passes where ``min <= x <= max``, ends included.

    >>> tgr.clip(tgr.tensor([-2.0, 0.5, 2.0]), -1.0, 1.0)
    tensor([-1. ,  0.5,  1. ])
    """
    for name, bound in (("min", min), ("max", max)):
        if not isinstance(bound, (int, float, type(None))):
            raise DtypeError(
                f"clip: {name!r} is a {type(bound).__name__}; expected a number or None. "
                "For bounds that are tensors use maximum and minimum"
            )
    return xp.clip(x, min, max)


def _clip_x(xp: Any, g: Any, x: Any, min: Any, max: Any) -> Any:
    if min is not None:
        g = xp.where(x >= min, g, 0.0)
    return g if max is None else xp.where(x <= max, g, 0.0)


clip.vjp(x=_clip_x)


@op(elementwise=True)
def where(xp: Any, condition: Any, x1: Any, x2: Any, /) -> Any:
    """`x1` where `condition` holds, `x2` elsewhere; `condition` is boolean.

    >>> tgr.where(tgr.tensor([True, False]), tgr.tensor([1.0, 2.0]), 0.0)
    tensor([1., 0.])
    """
    if isinstance(condition, Scalar) or kind_of(condition.dtype) != "b":
        raise DtypeError(f"where: 'condition' is {describe(condition)}; expected booleans")
    kinds = {kind_of(v.dtype) for v in (x1, x2) if not isinstance(v, Scalar)}
    if len(kinds) > 1 or (kinds == {"i"} and (isinstance(x1, float) or isinstance(x2, float))):
        raise DtypeError(
            f"where: {describe(x1)} beside {describe(x2)}; expected one kind: use .astype(...)"
        )
    if not kinds:
        kind = xp.int64 if isinstance(x1, int) and isinstance(x2, int) else xp.float32
        x1 = xp.asarray(x1, dtype=kind, device=condition.device)
    return xp.where(condition, x1, x2)


where.vjp(
    x1=lambda xp, g, condition: xp.where(condition, g, 0.0),
    x2=lambda xp, g, condition: xp.where(condition, 0.0, g),
)


@op(casts=True, elementwise=True)
def astype(xp: Namespace, x: Any, /, dtype: Any) -> Any:
    """A copy in another data type, given by name or as any library's dtype.

    The gradient comes back in the type of `x`; a copy as integers or booleans has none.

    >>> tgr.astype(tgr.tensor([1.5]), "int64")
    tensor([1])
    """
    return xp.backend.xp.astype(x, resolve_dtype(xp.backend, dtype))


astype.vjp(x=lambda xp, g: g)  # the engine brings a cotangent to its input's dtype
