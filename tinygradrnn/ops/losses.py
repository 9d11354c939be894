"""Softmax and the losses made of it."""

from __future__ import annotations

from typing import Any

from tinygradrnn.convert import describe, kind_of
from tinygradrnn.errors import DtypeError, IndexRangeError, ShapeError
from tinygradrnn.op import composite, op
from tinygradrnn.ops.reduce import largest


@op(promotes=True)
def softmax(xp: Any, x: Any, /, axis: int = -1) -> Any:
    """Positive numbers that sum to one along `axis`, in proportion to ``exp(x)``.

    >>> tgr.softmax(tgr.tensor([0.0, 0.0]))
    tensor([0.5, 0.5])
    """
    y = xp.exp(x - largest(xp, x, axis))
    return y / xp.sum(y, axis=axis, keepdims=True)


softmax.vjp(
    x=lambda xp, g, out, axis: out * (g - xp.sum(g * out, axis=axis, keepdims=True)),
)


@op(promotes=True)
def log_softmax(xp: Any, x: Any, /, axis: int = -1) -> Any:
    """The logarithm of :func:`softmax`, without its loss of accuracy.

    >>> tgr.log_softmax(tgr.tensor([0.0, 0.0]))
    tensor([-0.6931472, -0.6931472])
    """
    if 0 in x.shape:
        return xp.softmax(x, axis=axis)
    y = x - largest(xp, x, axis)
    return y - xp.log(xp.sum(xp.exp(y), axis=axis, keepdims=True))


log_softmax.vjp(
    x=lambda xp, g, out, axis: g - xp.exp(out) * xp.sum(g, axis=axis, keepdims=True),
)


def _reduced(xp: Any, losses: Any, reduction: str, name: str) -> Any:
    if reduction == "none":
        return losses
    if reduction == "mean":
        return xp.mean(losses)
    if reduction == "sum":
        return xp.sum(losses)
    raise ShapeError(f"{name}: reduction={reduction!r}; expected 'mean', 'sum' or 'none'")


@composite
def cross_entropy(xp: Any, logits: Any, target: Any, /, reduction: str = "mean") -> Any:
    """The negative log-probability, in nats, of integer classes under ``softmax(logits)``.

    Shapes: logits ``(..., classes)``, target ``(...)``, e.g. ``(time, batch)``. The classes are the
    last axis, also for more than two dimensions (PyTorch: the second). `reduction` is ``"mean"``,
    ``"sum"`` or ``"none"``.

    Raises:
        ShapeError: The shapes do not fit.
        DtypeError: The target is not of integers.
        IndexRangeError: A class is out of range.

    >>> tgr.cross_entropy(tgr.tensor([[0.0, 0.0]]), tgr.tensor([1]))
    tensor(0.6931472)
    """
    if len(logits.shape) < 1 or tuple(target.shape) != tuple(logits.shape[:-1]):
        raise ShapeError(
            f"cross_entropy: 'target' has shape {tuple(target.shape)}, 'logits' "
            f"{tuple(logits.shape)}; expected (...) and (..., classes)"
        )
    if kind_of(target.dtype) != "i":
        raise DtypeError(f"cross_entropy: 'target' is {describe(target)}; expected integers")
    if bool(xp.any(target < 0)):
        raise IndexRangeError("cross_entropy: 'target' has a negative class; expected 0 or more")
    log_p = xp.log_softmax(logits, axis=-1)
    try:
        picked = xp.take_along_axis(log_p, xp.expand_dims(target, axis=-1), axis=-1)
    except IndexRangeError:
        raise IndexRangeError(
            f"cross_entropy: 'target' has index {int(xp.max(target))}, out of range for the "
            f"classes of 'logits', an axis of size {logits.shape[-1]}"
        ) from None
    return _reduced(xp, -xp.squeeze(picked, axis=-1), reduction, "cross_entropy")


@composite
def mse(xp: Any, prediction: Any, target: Any, /, reduction: str = "mean") -> Any:
    """The squared error between two tensors of one shape.

    >>> tgr.mse(tgr.tensor([1.0, 2.0]), tgr.tensor([1.0, 4.0]))
    tensor(2.)
    """
    if tuple(prediction.shape) != tuple(target.shape):
        raise ShapeError(
            f"mse: 'prediction' has shape {tuple(prediction.shape)}, 'target' "
            f"{tuple(target.shape)}; expected equal"
        )
    return _reduced(xp, xp.square(prediction - target), reduction, "mse")
