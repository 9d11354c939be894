"""RMSprop: steps divided by a running size of the gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinygradrnn.backend import Array
from tinygradrnn.nn.parameter import Parameter
from tinygradrnn.optim.optimizer import Optimizer, State, check


class RMSprop(Optimizer):
    """RMSprop (Tieleman & Hinton 2012; centred: Graves 2013, equations 38 to 45), as in PyTorch.

    ``s = alpha * s + (1 - alpha) * g**2``; ``d = g / (sqrt(s) + eps)``; ``p = p - lr * d``. With
    `centered` the square of a running mean of g is taken from s under the root; with `momentum`
    ``v = momentum * v + d`` stands for d.

    Args:
        parameters: Parameters, for example ``model.parameters()``.
        lr: The learning rate.
        alpha, eps, momentum, centered: As above.
        weight_decay: This times p is added to g.

    Raises:
        ShapeError: No parameters, one given twice, or a number that makes no sense.

    >>> w = tgr.nn.Parameter([1.0])
    >>> optimizer = tgr.optim.RMSprop([w], lr=0.01)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> round(w.item(), 4)
    0.9
    """

    settings = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(parameters, lr)
        self.alpha = check("RMSprop: alpha", alpha, 0)
        self.eps = check("RMSprop: eps", eps, 0)
        self.weight_decay = check("RMSprop: weight_decay", weight_decay, 0)
        self.momentum = check("RMSprop: momentum", momentum, 0)
        self.centered = centered

    def slots(self) -> tuple[str, ...]:
        """The running mean square, and as asked the running mean and the velocity."""
        mean = ("mean",) if self.centered else ()
        return ("square", *mean, "velocity") if self.momentum else ("square", *mean)

    def update(self, xp: Any, p: Array, g: Array, state: State, t: int) -> Array:
        """The equations above."""
        if self.weight_decay:
            g = g + self.weight_decay * p
        s = state["square"] = self.alpha * state["square"] + (1 - self.alpha) * g * g
        if self.centered:
            m = state["mean"] = state["mean"] + (1 - self.alpha) * (g - state["mean"])
            s = s - m * m
        d = g / (xp.sqrt(s) + self.eps)
        if self.momentum:
            d = state["velocity"] = self.momentum * state["velocity"] + d
        return p - self.lr * d
