"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinygradrnn.errors import ShapeError
from tinygradrnn.op import composite, op
from tinygradrnn.ops.reduce import axes_of


@op(promotes=True, contracts="x2")
def matmul(xp: Any, x1: Any, x2: Any, /) -> Any:
    """The matrix product ``x1 @ x2``, in all of the array standard's broadcasting forms.

    A one-dimensional argument is a row on the left and a column on the right, and disappears.

    >>> tgr.tensor([[1.0, 2.0]]) @ tgr.tensor([[3.0], [4.0]])
    tensor([[11.]])
    """
    return xp.matmul(x1, x2)


def _matmul_x1(xp: Any, g: Any, x2: Any, x1_shape: Sequence[int]) -> Any:
    if len(x2.shape) == 1:
        return xp.expand_dims(g, axis=-1) * x2
    if len(x1_shape) == 1:
        return xp.squeeze(xp.matmul(x2, xp.expand_dims(g, axis=-1)), axis=-1)
    return xp.matmul(g, xp.matrix_transpose(x2))


def _matmul_x2(xp: Any, g: Any, x1: Any, x2_shape: Sequence[int]) -> Any:
    if len(x1.shape) == 1:
        if len(x2_shape) == 1:
            return g * x1
        return xp.expand_dims(x1, axis=-1) * xp.expand_dims(g, axis=-2)
    if len(x2_shape) == 1:
        return outer_sum(xp, x1, xp.expand_dims(g, axis=-1))[..., 0]
    if len(x2_shape) == 2:
        return outer_sum(xp, x1, g)
    return xp.matmul(xp.matrix_transpose(x1), g)


def outer_sum(xp: Any, a: Any, b: Any) -> Any:
    """The sum over all leading axes of the outer products of the last ones: a weight's gradient.

    One contraction, so that for operands stacked over time it sums over time by itself.
    """
    if len(a.shape) != 2:
        # Not -1: a zero-size array has no size from which to infer it.
        rows = math.prod(a.shape[:-1])
        a = xp.reshape(a, (rows, a.shape[-1]))
        b = xp.reshape(b, (rows, b.shape[-1]))
    return xp.matmul(xp.matrix_transpose(a), b)


matmul.vjp(x1=_matmul_x1, x2=_matmul_x2)


@op(promotes=True, contracts="weight")
def linear(xp: Any, x: Any, weight: Any, bias: Any = None, /) -> Any:
    """``x @ weight.T + bias`` over the last axis, with PyTorch's ``(out, in)`` weight.

    Shapes: x ``(..., in)``, weight ``(out, in)``, bias ``(out,)``; result ``(..., out)``.

    >>> tgr.linear(tgr.tensor([[1.0, 2.0]]), tgr.tensor([[3.0, 4.0]]), tgr.tensor([0.5]))
    tensor([[11.5]])
    """
    if len(weight.shape) != 2 or len(x.shape) < 1 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"'x' of shape {tuple(x.shape)} does not fit 'weight' of shape {tuple(weight.shape)}; "
            "expected (..., in) and (out, in)"
        )
    y = xp.matmul(x, xp.matrix_transpose(weight))
    return y if bias is None else y + bias


linear.vjp(
    x=lambda xp, g, weight: xp.matmul(g, weight),
    weight=lambda xp, g, x: (
        outer_sum(xp, g, x)
        if len(g.shape) > 1
        else xp.expand_dims(g, axis=-1) * xp.expand_dims(x, axis=-2)
    ),
    bias=lambda xp, g: g,
)


@composite
def vecdot(xp: Any, x1: Any, x2: Any, /, axis: int = -1) -> Any:
    """The sum of products along one axis.

    >>> tgr.vecdot(tgr.tensor([1.0, 2.0]), tgr.tensor([3.0, 4.0]))
    tensor(11.)
    """
    for name, x in (("x1", x1), ("x2", x2)):
        if len(x.shape) == 0:
            raise ShapeError(f"vecdot: {name!r} has no axis; expected at least one dimension")
        axes_of(axis, len(x.shape))
    n, m = x1.shape[axis], x2.shape[axis]
    if n != m:
        raise ShapeError(f"vecdot: sizes {n} and {m} along axis {axis}; expected equal")
    return xp.sum(x1 * x2, axis=axis)


@composite
def tensordot(
    xp: Any, x1: Any, x2: Any, /, axes: int | tuple[Sequence[int], Sequence[int]] = 2
) -> Any:
    """The sum of products over pairs of axes: a number of them, or a list for each argument.

    >>> tgr.tensordot(tgr.ones((2, 3)), tgr.ones((3, 4)), axes=1).shape
    (2, 4)
    """
    n1, n2 = len(x1.shape), len(x2.shape)
    if isinstance(axes, int):
        if not 0 <= axes <= min(n1, n2):
            raise ShapeError(f"tensordot: axes={axes} for {n1} and {n2} dimensions")
        over1, over2 = tuple(range(n1 - axes, n1)), tuple(range(axes))
    else:
        over1, over2 = axes_of(tuple(axes[0]), n1), axes_of(tuple(axes[1]), n2)
    sizes1, sizes2 = [x1.shape[a] for a in over1], [x2.shape[a] for a in over2]
    if sizes1 != sizes2:
        raise ShapeError(
            f"tensordot: sizes {sizes1} of x1 {tuple(x1.shape)} and {sizes2} of x2 "
            f"{tuple(x2.shape)}; expected equal"
        )
    free1 = tuple(i for i in range(n1) if i not in over1)
    free2 = tuple(i for i in range(n2) if i not in over2)
    shape1, shape2 = [x1.shape[i] for i in free1], [x2.shape[i] for i in free2]
    inner = math.prod(sizes1)
    a = xp.reshape(xp.permute_dims(x1, (*free1, *over1)), (math.prod(shape1), inner))
    b = xp.reshape(xp.permute_dims(x2, (*over2, *free2)), (inner, math.prod(shape2)))
    return xp.reshape(xp.matmul(a, b), (*shape1, *shape2))
