"""Operations on the way back: forward they change nothing, backward they act on the cotangent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygradrnn.errors import ShapeError
from tinygradrnn.op import op


@op
def gate(xp: Any, x: Any, /, factor: float = 1.0, mark: Any = None) -> Any:
    """`x` itself, whose cotangent is multiplied by `factor` on the way back.

    The gate of truncated back-propagation through time: 1 lets a state's cotangent pass, 0 stops
    it, and ``1/(1-c)`` makes up for those that a random truncation stops with probability c (Tallec
    & Ollivier 2017). `mark` names the place to walks that end here.

    >>> x = tgr.tensor([1.0, 2.0], requires_grad=True)
    >>> tgr.gate(x, 0.5).sum().backward()
    >>> x.grad
    tensor([0.5, 0.5])
    """
    return x


gate.vjp(x=lambda xp, g, factor: g if factor == 1 else g * factor)


@op
def clip_cotangent(
    xp: Any, x: Any, /, max_norm: float | None = None, max_value: float | None = None
) -> Any:
    """`x` itself, whose cotangent is clipped on the way back.

    `max_norm` is the largest Euclidean norm of one sequence's cotangent (of all of it, if x has
    fewer than two axes); a longer one is scaled down (Pascanu et al. 2013). By `max_value` each
    element is limited to ``[-max_value, max_value]`` (Graves 2013).

    Raises:
        ShapeError: A limit is not positive.

    >>> x = tgr.tensor([3.0, 4.0], requires_grad=True)
    >>> (tgr.clip_cotangent(x, max_norm=2.5) * tgr.tensor([3.0, 4.0])).sum().backward()
    >>> x.grad
    tensor([1.5, 2. ])
    """
    for name, limit in (("max_norm", max_norm), ("max_value", max_value)):
        if limit is not None and not limit > 0:
            raise ShapeError(f"{name}={limit!r}; expected a positive number")
    return x


def _clip(xp: Any, g: Any, max_norm: float | None, max_value: float | None) -> Any:
    if max_value is not None:
        g = xp.clip(g, -max_value, max_value)
    if max_norm is None:
        return g
    axes = tuple(range(1 if len(g.shape) > 1 else 0, len(g.shape)))
    square = xp.sum(g * g, axis=axes, keepdims=True)
    long = square > max_norm * max_norm
    # The root only where it is needed: that of a zero has no gradient.
    return g * xp.where(long, max_norm / xp.sqrt(xp.where(long, square, 1.0)), 1.0)


clip_cotangent.vjp(x=_clip)


@op
def hold(xp: Any, new: Any, old: Any, going: Any, /) -> Any:
    """`new` where a sequence is still `going`, and else `old`: a state that stands still.

    Like ``where(going, new, old)``, and more: asked for the gradient with respect to it,
    :func:`tgr.grad <tinygradrnn.grad>` counts what `new` does in its own step, too. It is the state
    of that step, and only for the sequences that have ended another tensor.

    Shapes: new and old ``(batch, features)``, going ``(batch, 1)``.

    >>> tgr.hold(tgr.tensor([1.0, 2.0]), tgr.tensor([3.0, 4.0]), tgr.tensor([True, False]))
    tensor([1., 4.])
    """
    return xp.where(going, new, old)


hold.vjp(
    new=lambda xp, g, going: xp.where(going, g, 0.0),
    old=lambda xp, g, going: xp.where(going, 0.0, g),
)


@op(variadic=True)
def trajectory(xp: Any, states: Sequence[Any], /) -> Any:
    """The values of a state at every step, stacked along a new first axis, time.

    Like ``stack``, and more: asked for the gradient with respect to it, :func:`tgr.grad
    <tinygradrnn.grad>` answers with the gradient with respect to the state at each step, all later
    steps included: ``dL/dh_t``.

    Shapes: states ``(batch, features)`` each; result ``(time, batch, features)``.

    >>> h = tgr.tensor([1.0], requires_grad=True)
    >>> first = h * 2.0
    >>> second = first * 3.0
    >>> states = tgr.trajectory([first, second])
    >>> tgr.grad(states.sum(), states)[0].tolist()
    [[4.0], [1.0]]
    """
    return xp.stack(states, axis=0)


trajectory.vjp(states=lambda xp, g: xp.unstack(g))
