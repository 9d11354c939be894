"""Gradient clipping, for gradients that explode (Pascanu et al. 2013, algorithm 1).

Only gradients are clipped, after the backward pass. The old ones are replaced, never written to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tinygradrnn.creation import zeros
from tinygradrnn.errors import DeviceError, GradientError, ShapeError
from tinygradrnn.optim.optimizer import check
from tinygradrnn.tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by one factor so that their common norm is at most `max_norm`.

    The norm is that of all gradients as one long vector. As in PyTorch the factor is
    ``min(1, max_norm / (norm + 1e-6))``, so a norm of NaN makes every gradient NaN.

    Args:
        parameters: Tensors; those without a gradient are passed over.
        max_norm: The limit.
        norm_type: The p of the p-norm; ``inf`` for the largest absolute value.
        error_if_nonfinite: Whether to raise, and leave everything as it is, if the norm is NaN or
            infinite.

    Returns:
        The norm before clipping, a Tensor without axes.

    Raises:
        ShapeError: A number makes no sense.
        GradientError: The norm is not finite, and that is to be an error.
        DeviceError: The gradients are not all on one backend.

    >>> w = tgr.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> tgr.optim.clip_grad_norm_([w], 5.0), w.grad
    (tensor(10.), tensor([2.9999995, 3.9999995]))
    """
    max_norm = check("clip_grad_norm_: max_norm", max_norm, 0)
    if not norm_type > 0:
        raise ShapeError(f"clip_grad_norm_: norm_type={norm_type!r}; expected a number above 0")
    held = _with_gradient(parameters)
    if not held:
        return zeros(())
    backend = held[0].backend
    for p in held:
        if p.backend is not backend:
            raise DeviceError(
                f"clip_grad_norm_: gradients on {backend} and {p.backend}; expected one backend"
            )
    xp = backend.xp
    with backend.quiet():
        norm = xp.asarray(_norm(xp, [_gradient(p).raw for p in held], norm_type))
        if error_if_nonfinite and not bool(xp.isfinite(norm)):
            raise GradientError(
                f"clip_grad_norm_: the norm of the gradients is {float(norm)}; they were left alone"
            )
        factor = max_norm / (norm + 1e-6)
        factor = xp.where(factor > 1, xp.ones_like(factor), factor)  # which lets NaN through
        for p in held:
            g = _gradient(p).raw
            p.grad = Tensor(xp.asarray(g * xp.astype(factor, g.dtype)), backend)
    return Tensor(norm, backend)


def _norm(xp: Any, gradients: list[Any], norm_type: float) -> Any:
    if norm_type == math.inf:
        total = xp.zeros_like(xp.sum(gradients[0]))
        for g in gradients:
            if 0 not in g.shape:
                total = xp.maximum(total, xp.max(xp.abs(g)))
        return total
    if norm_type == 2:
        return xp.sqrt(sum(xp.sum(g * g) for g in gradients))
    return sum(xp.sum(xp.abs(g) ** norm_type) for g in gradients) ** (1 / norm_type)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every element of every gradient to ``[-clip_value, clip_value]``.

    Raises:
        ShapeError: `clip_value` is negative.

    >>> w = tgr.tensor([3.0, -0.1], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> tgr.optim.clip_grad_value_([w], 0.5)
    >>> w.grad
    tensor([ 0.5, -0.2])
    """
    limit = check("clip_grad_value_: clip_value", clip_value, 0)
    for p in _with_gradient(parameters):
        clipped = p.backend.xp.clip(_gradient(p).raw, -limit, limit)
        p.grad = Tensor(p.backend.xp.asarray(clipped), p.backend)


def _with_gradient(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    many = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p for p in many if p.grad is not None]


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad
