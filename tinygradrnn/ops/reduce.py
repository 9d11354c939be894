"""Reductions along axes, and running sums. Names and arguments as in the array standard."""

from __future__ import annotations

import math
from typing import Any

from tinygradrnn.errors import ShapeError
from tinygradrnn.op import op

Axis = int | tuple[int, ...] | None


def axes_of(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes that an `axis` argument names, each in ``range(ndim)``."""
    if axis is None:
        return tuple(range(ndim))
    named = axis if isinstance(axis, tuple) else (axis,)
    for a in named:
        if not -ndim <= a < ndim:
            raise ShapeError(f"axis {a} is out of range for {ndim} dimensions")
    return tuple(a % ndim for a in named)


def restore(xp: Any, y: Any, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Any:
    """Bring what was reduced back to `shape`, by repeating it along the reduced axes."""
    if not keepdims:
        reduced = axes_of(axis, len(shape))
        y = xp.reshape(y, tuple(1 if i in reduced else n for i, n in enumerate(shape)))
    return xp.broadcast_to(y, shape)


def _count(shape: tuple[int, ...], axis: Axis) -> int:
    return math.prod(shape[a] for a in axes_of(axis, len(shape)))


def _numbers(xp: Any, x: Any) -> Any:
    return xp.astype(x, xp.int64) if "bool" in str(x.dtype) else x


@op
def sum(xp: Any, x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """The sum along `axis` (all axes by default); booleans are counted.

    >>> tgr.sum(tgr.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    tensor([4., 6.])
    """
    return xp.sum(_numbers(xp, x), axis=axis, keepdims=keepdims)


sum.vjp(x=lambda xp, g, x_shape, axis, keepdims: restore(xp, g, x_shape, axis, keepdims))


@op(promotes=True)
def mean(xp: Any, x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """The arithmetic mean along `axis`.

    >>> tgr.mean(tgr.tensor([1.0, 2.0, 3.0]))
    tensor(2.)
    """
    return xp.mean(x, axis=axis, keepdims=keepdims)


def _mean_x(xp: Any, g: Any, x_shape: Any, axis: Axis, keepdims: bool) -> Any:
    return restore(xp, g, x_shape, axis, keepdims) * (1 / max_(_count(x_shape, axis), 1))


max_ = max  # the builtin: below, the name is the operation's
mean.vjp(x=_mean_x)


@op
def prod(xp: Any, x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """The product along `axis`; its gradient is exact also where elements are zero.

    >>> tgr.prod(tgr.tensor([2.0, 3.0]))
    tensor(6.)
    """
    return xp.prod(_numbers(xp, x), axis=axis, keepdims=keepdims)


def _others(xp: Any, x: Any) -> Any:
    """For each element the product of all others along the last axis, by a tree of pairs."""
    n = x.shape[-1]
    if n <= 1:
        return xp.ones_like(x)
    odd = n % 2
    if odd:
        x = xp.concat([x, xp.ones_like(x[..., :1])], axis=-1)
    pairs = xp.reshape(x, (*x.shape[:-1], (n + odd) // 2, 2))
    outside = _others(xp, pairs[..., 0] * pairs[..., 1])
    both = xp.expand_dims(outside, axis=-1) * xp.flip(pairs, axis=-1)
    return xp.reshape(both, x.shape)[..., :n]


def _prod_x(xp: Any, g: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    reduced = axes_of(axis, len(x.shape))
    kept = tuple(i for i in range(len(x.shape)) if i not in reduced)
    order = kept + reduced
    moved = xp.permute_dims(x, order)
    flat = xp.reshape(moved, (*moved.shape[: len(kept)], _count(x.shape, axis)))
    others = xp.reshape(_others(xp, flat), moved.shape)
    back = tuple(order.index(i) for i in range(len(order)))
    return restore(xp, g, x.shape, axis, keepdims) * xp.permute_dims(others, back)


prod.vjp(x=_prod_x)


@op
def max(xp: Any, x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """The largest element along `axis`; equal ones share the gradient evenly.

    >>> tgr.max(tgr.tensor([1.0, 3.0, 2.0]))
    tensor(3.)
    """
    return xp.max(x, axis=axis, keepdims=keepdims)


@op
def min(xp: Any, x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """The smallest element along `axis`; equal ones share the gradient evenly.

    >>> tgr.min(tgr.tensor([1.0, 3.0, 2.0]))
    tensor(1.)
    """
    return xp.min(x, axis=axis, keepdims=keepdims)


def _extreme_x(xp: Any, g: Any, x: Any, out: Any, axis: Axis, keepdims: bool) -> Any:
    hit = x == restore(xp, out, x.shape, axis, keepdims)
    ties = xp.sum(xp.astype(hit, g.dtype), axis=axis, keepdims=keepdims)
    share = restore(xp, g / ties, x.shape, axis, keepdims)
    return share * xp.astype(hit, g.dtype)  # not where: beside a NaN the gradient is NaN too


max.vjp(x=_extreme_x)
min.vjp(x=_extreme_x)


@op(promotes=True)
def var(
    xp: Any, x: Any, /, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
) -> Any:
    """The variance along `axis`, divided by ``n - correction`` (0 by default, as in the standard).

    >>> tgr.var(tgr.tensor([1.0, 3.0]))
    tensor(1.)
    """
    return xp.var(x, axis=axis, correction=correction, keepdims=keepdims)


def _scale(shape: tuple[int, ...], axis: Axis, correction: float) -> float:
    n = _count(shape, axis) - correction
    return 1 / n if n > 0 else math.nan


def _centred(xp: Any, x: Any, axis: Axis) -> Any:
    return x - xp.mean(x, axis=axis, keepdims=True)


def _var_x(xp: Any, g: Any, x: Any, axis: Axis, correction: float, keepdims: bool) -> Any:
    scale = 2 * _scale(x.shape, axis, correction)
    return restore(xp, g, x.shape, axis, keepdims) * (scale * _centred(xp, x, axis))


var.vjp(x=_var_x)


@op(promotes=True)
def std(
    xp: Any, x: Any, /, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
) -> Any:
    """The standard deviation along `axis`; its gradient is 0 where all elements are equal.

    >>> tgr.std(tgr.tensor([1.0, 3.0]))
    tensor(1.)
    """
    return xp.std(x, axis=axis, correction=correction, keepdims=keepdims)


def _std_x(xp: Any, g: Any, x: Any, out: Any, axis: Axis, correction: float, keepdims: bool) -> Any:
    flat = out == 0
    slope = xp.where(flat, 0.0, g / xp.where(flat, 1.0, out)) * _scale(x.shape, axis, correction)
    return restore(xp, slope, x.shape, axis, keepdims) * _centred(xp, x, axis)


std.vjp(x=_std_x)


@op(promotes=True)
def standardize(xp: Any, x: Any, /, axis: Axis = -1, eps: float = 1e-5) -> Any:
    """Mean 0 and variance 1 along `axis`: ``(x - mean) / sqrt(var + eps)``.

    Layer normalisation without gain and bias (Ba et al. 2016, equation 4).

    >>> tgr.standardize(tgr.tensor([1.0, 3.0]), eps=0.0)
    tensor([-1.,  1.])
    """
    return _standardized(xp, x, axis, eps)[0]


def _standardized(xp: Any, x: Any, axis: Axis, eps: float) -> tuple[Any, Any]:
    centred = _centred(xp, x, axis)
    spread = xp.sqrt(xp.mean(xp.square(centred), axis=axis, keepdims=True) + eps)
    return centred / spread, spread


def _standardize_x(xp: Any, g: Any, x: Any, axis: Axis, eps: float) -> Any:
    # What comes of g directly, through the mean, and through the variance. In a compiled loop
    # the forward step has computed both y and the spread, and they are taken from there.
    y, spread = _standardized(xp, x, axis, eps)
    along_y = xp.mean(g * y, axis=axis, keepdims=True)
    return (g - xp.mean(g, axis=axis, keepdims=True) - y * along_y) / spread


standardize.vjp(x=_standardize_x)


def largest(xp: Any, x: Any, axis: Axis) -> Any:
    """What to take from exponents so that none overflows; of nothing 0, the sum of nothing."""
    return (xp.sum if 0 in x.shape else xp.max)(x, axis=axis, keepdims=True)


@op(promotes=True)
def logsumexp(xp: Any, x: Any, /, axis: Axis = None, keepdims: bool = False) -> Any:
    """``log(sum(exp(x)))`` along `axis`, without overflow; ``-inf`` for a sum over nothing.

    Where all elements are ``-inf`` the gradient is 0, so that a row that is masked out altogether
    does no harm. (PyTorch gives NaN.)

    >>> tgr.logsumexp(tgr.tensor([0.0, 0.0]))
    tensor(0.6931472)
    """
    shift = largest(xp, x, axis)
    shift = xp.where(xp.isfinite(shift), shift, 0.0)
    with xp.backend.quiet():  # log(0) is the right answer for a sum over nothing but -inf
        y = xp.log(xp.sum(xp.exp(x - shift), axis=axis, keepdims=True)) + shift
    return y if keepdims else xp.squeeze(y, axis=axes_of(axis, len(x.shape)))


def _logsumexp_x(xp: Any, g: Any, x: Any, out: Any, axis: Axis, keepdims: bool) -> Any:
    out = xp.where(out == -math.inf, 0.0, out)
    weights = xp.exp(x - restore(xp, out, x.shape, axis, keepdims))
    return restore(xp, g, x.shape, axis, keepdims) * weights


logsumexp.vjp(x=_logsumexp_x)


@op
def cumulative_sum(
    xp: Any, x: Any, /, axis: int | None = None, include_initial: bool = False
) -> Any:
    """The running sum along `axis`, which may be left out for one dimension.

    >>> tgr.cumulative_sum(tgr.tensor([1.0, 2.0, 3.0]))
    tensor([1., 3., 6.])
    """
    if len(x.shape) == 0:
        raise ShapeError("no dimensions; expected at least one to sum along")
    if axis is None and len(x.shape) != 1:
        raise ShapeError(f"axis is needed for {len(x.shape)} dimensions")
    return xp.cumulative_sum(x, axis=axis or 0, include_initial=include_initial)


def _cumulative_sum_x(xp: Any, g: Any, axis: int | None, include_initial: bool) -> Any:
    axis = axis or 0
    back = xp.flip(xp.cumulative_sum(xp.flip(g, axis=axis), axis=axis), axis=axis)
    if include_initial:
        ndim = len(back.shape)
        back = back[(slice(None),) * (axis % ndim) + (slice(1, None), ...)]
    return back


cumulative_sum.vjp(x=_cumulative_sum_x)
