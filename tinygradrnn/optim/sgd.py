"""Gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinygradrnn.backend import Array
from tinygradrnn.errors import ShapeError
from tinygradrnn.nn.parameter import Parameter
from tinygradrnn.optim.optimizer import Optimizer, State, check


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al. 2013; PyTorch's form of it).

    ``v = momentum * v + (1 - dampening) * g``, at first ``v = g``; ``p = p - lr * v``, and with
    `nesterov` ``p = p - lr * (g + momentum * v)``.

    Args:
        parameters: Parameters, for example ``model.parameters()``.
        lr: The learning rate.
        momentum, dampening: As above.
        weight_decay: This times p is added to g.
        nesterov: As above; needs a momentum and no dampening.

    Raises:
        ShapeError: No parameters, one given twice, or a number that makes no sense.

    >>> w = tgr.nn.Parameter([1.0])
    >>> optimizer = tgr.optim.SGD([w], lr=0.25)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.item()
    0.5
    """

    settings = ("lr", "momentum", "dampening", "weight_decay", "nesterov")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr)
        self.momentum = check("SGD: momentum", momentum, 0)
        self.dampening = check("SGD: dampening", dampening, 0)
        self.weight_decay = check("SGD: weight_decay", weight_decay, 0)
        if nesterov and (not momentum or dampening):
            raise ShapeError("SGD: nesterov=True needs a momentum above 0 and no dampening")
        self.nesterov = nesterov

    def slots(self) -> tuple[str, ...]:
        """The velocity v, if there is momentum."""
        return ("velocity",) if self.momentum else ()

    def update(self, xp: Any, p: Array, g: Array, state: State, t: int) -> Array:
        """The equations above."""
        if self.weight_decay:
            g = g + self.weight_decay * p
        if self.momentum:
            v = g if t == 1 else self.momentum * state["velocity"] + (1 - self.dampening) * g
            state["velocity"] = v
            g = g + self.momentum * v if self.nesterov else v
        return p - self.lr * g
