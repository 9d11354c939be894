"""Comparisons, tests and constants: operations whose result has no gradient."""

from __future__ import annotations

from typing import Any

from tinygradrnn.op import op

plain = op(differentiable=False)
each = op(differentiable=False, elementwise=True)


@each
def equal(xp: Any, x1: Any, x2: Any, /) -> Any:
    """Whether ``x1 == x2``, element by element.

    >>> tgr.tensor([1.0, 2.0]) == 2.0
    tensor([False,  True])
    """
    return x1 == x2


@each
def not_equal(xp: Any, x1: Any, x2: Any, /) -> Any:
    """Whether ``x1 != x2``, element by element.

    >>> tgr.tensor([1.0, 2.0]) != 2.0
    tensor([ True, False])
    """
    return x1 != x2


@each
def less(xp: Any, x1: Any, x2: Any, /) -> Any:
    """Whether ``x1 < x2``, element by element.

    >>> tgr.tensor([1.0, 2.0]) < 2.0
    tensor([ True, False])
    """
    return x1 < x2


@each
def less_equal(xp: Any, x1: Any, x2: Any, /) -> Any:
    """Whether ``x1 <= x2``, element by element.

    >>> tgr.tensor([1.0, 2.0]) <= 1.0
    tensor([ True, False])
    """
    return x1 <= x2


@each
def greater(xp: Any, x1: Any, x2: Any, /) -> Any:
    """Whether ``x1 > x2``, element by element.

    >>> tgr.tensor([1.0, 2.0]) > 1.0
    tensor([False,  True])
    """
    return x1 > x2


@each
def greater_equal(xp: Any, x1: Any, x2: Any, /) -> Any:
    """Whether ``x1 >= x2``, element by element.

    >>> tgr.tensor([1.0, 2.0]) >= 2.0
    tensor([False,  True])
    """
    return x1 >= x2


@each
def logical_and(xp: Any, x1: Any, x2: Any, /) -> Any:
    """Whether both hold.

    >>> tgr.tensor([True, False]) & tgr.tensor([True, True])
    tensor([ True, False])
    """
    return xp.logical_and(x1, x2)


@each
def logical_or(xp: Any, x1: Any, x2: Any, /) -> Any:
    """Whether either holds.

    >>> tgr.tensor([True, False]) | tgr.tensor([False, False])
    tensor([ True, False])
    """
    return xp.logical_or(x1, x2)


@each
def logical_xor(xp: Any, x1: Any, x2: Any, /) -> Any:
    """Whether exactly one holds.

    >>> tgr.tensor([True, False]) ^ tgr.tensor([True, True])
    tensor([False,  True])
    """
    return xp.logical_xor(x1, x2)


@each
def logical_not(xp: Any, x: Any, /) -> Any:
    """Whether it does not hold.

    >>> ~tgr.tensor([True, False])
    tensor([False,  True])
    """
    return xp.logical_not(x)


@each
def isnan(xp: Any, x: Any, /) -> Any:
    """Whether an element is NaN.

    >>> tgr.isnan(tgr.tensor([1.0, float("nan")]))
    tensor([False,  True])
    """
    return xp.isnan(x)


@each
def isinf(xp: Any, x: Any, /) -> Any:
    """Whether an element is infinite.

    >>> tgr.isinf(tgr.tensor([1.0, float("inf")]))
    tensor([False,  True])
    """
    return xp.isinf(x)


@each
def isfinite(xp: Any, x: Any, /) -> Any:
    """Whether an element is neither NaN nor infinite.

    >>> tgr.isfinite(tgr.tensor([1.0, float("inf")]))
    tensor([ True, False])
    """
    return xp.isfinite(x)


@each
def zeros_like(xp: Any, x: Any, /) -> Any:
    """Zeros of the shape, type and device of `x`.

    >>> tgr.zeros_like(tgr.tensor([1.0, 2.0]))
    tensor([0., 0.])
    """
    return xp.zeros_like(x)


@each
def ones_like(xp: Any, x: Any, /) -> Any:
    """Ones of the shape, type and device of `x`.

    >>> tgr.ones_like(tgr.tensor([1.0, 2.0]))
    tensor([1., 1.])
    """
    return xp.ones_like(x)


@plain
def argmax(xp: Any, x: Any, /, axis: int | None = None, keepdims: bool = False) -> Any:
    """The index of the largest element, the first at a tie.

    >>> tgr.argmax(tgr.tensor([1.0, 3.0, 2.0]))
    tensor(1)
    """
    return xp.argmax(x, axis=axis, keepdims=keepdims)


@plain
def argmin(xp: Any, x: Any, /, axis: int | None = None, keepdims: bool = False) -> Any:
    """The index of the smallest element, the first at a tie.

    >>> tgr.argmin(tgr.tensor([1.0, 3.0, 2.0]))
    tensor(0)
    """
    return xp.argmin(x, axis=axis, keepdims=keepdims)


@plain
def any(xp: Any, x: Any, /, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether any element along the axes holds.

    >>> tgr.any(tgr.tensor([True, False]))
    tensor(True)
    """
    return xp.any(x, axis=axis, keepdims=keepdims)


@plain
def all(xp: Any, x: Any, /, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether all elements along the axes hold.

    >>> tgr.all(tgr.tensor([True, False]))
    tensor(False)
    """
    return xp.all(x, axis=axis, keepdims=keepdims)
