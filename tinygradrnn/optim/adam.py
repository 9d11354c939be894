"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

from tinygradrnn.backend import Array
from tinygradrnn.nn.parameter import Parameter
from tinygradrnn.optim.optimizer import Optimizer, State, check


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1), with eps added after the correction as there.

    ``m = b1 * m + (1 - b1) * g``; ``s = b2 * s + (1 - b2) * g**2``;
    ``p = p - lr * (m / (1 - b1**t)) / (sqrt(s / (1 - b2**t)) + eps)``.

    Args:
        parameters: Parameters, for example ``model.parameters()``.
        lr: The learning rate.
        betas: b1 and b2.
        eps: As above.
        weight_decay: This times p is added to g.

    Raises:
        ShapeError: No parameters, one given twice, or a number that makes no sense.

    >>> w = tgr.nn.Parameter([1.0])
    >>> optimizer = tgr.optim.Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> round(w.item(), 4)
    0.9
    """

    settings = ("lr", "betas", "eps", "weight_decay")
    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr)
        name = type(self).__name__
        b1, b2 = betas
        self.betas = (check(f"{name}: betas[0]", b1, 0, 1), check(f"{name}: betas[1]", b2, 0, 1))
        self.eps = check(f"{name}: eps", eps, 0)
        self.weight_decay = check(f"{name}: weight_decay", weight_decay, 0)

    def slots(self) -> tuple[str, ...]:
        """The running mean m and mean square s."""
        return ("mean", "square")

    def update(self, xp: Any, p: Array, g: Array, state: State, t: int) -> Array:
        """The equations above."""
        b1, b2 = self.betas
        if self.decoupled:
            p = p * (1 - self.lr * self.weight_decay)
        elif self.weight_decay:
            g = g + self.weight_decay * p
        m = state["mean"] = state["mean"] + (1 - b1) * (g - state["mean"])
        s = state["square"] = b2 * state["square"] + (1 - b2) * g * g
        root = xp.sqrt(s) / math.sqrt(1 - b2**t) + self.eps
        return p - (self.lr / (1 - b1**t)) * (m / root)


class AdamW(Adam):
    """Adam whose weight decay does not pass through the moments (Loshchilov & Hutter 2019).

    First ``p = p * (1 - lr * weight_decay)``; the rest is :class:`Adam` without decay.

    Args:
        parameters: Parameters, for example ``model.parameters()``.
        lr: The learning rate.
        betas, eps: As in :class:`Adam`.
        weight_decay: As above; 0.01 by default.

    Raises:
        ShapeError: No parameters, one given twice, or a number that makes no sense.

    >>> w = tgr.nn.Parameter([1.0])
    >>> optimizer = tgr.optim.AdamW([w], lr=0.1, weight_decay=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> round(w.item(), 4)
    0.85
    """

    decoupled = True

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)
