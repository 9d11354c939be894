"""Cells whose gates do not see the state, so that a whole sequence is one linear recurrence.

Feng et al. 2024, "Were RNNs all we needed?". Step by step they are run by
:func:`tinygradrnn.scan`, as any cell; ``parallel`` computes the same from all of the sequence at
once: one product for all steps, and then :func:`tinygradrnn.linear_recurrence`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from tinygradrnn.errors import ShapeError
from tinygradrnn.nn.layers import Linear
from tinygradrnn.nn.simple_cells import HiddenCell, check_step
from tinygradrnn.ops.elementwise import sigmoid, softplus
from tinygradrnn.ops.recurrence import linear_recurrence
from tinygradrnn.ops.shape import split
from tinygradrnn.random import Generator
from tinygradrnn.tensor import Tensor


class _ParallelCell(HiddenCell):
    """``h' = keep * h + new``, with `keep` and `new` computed from x alone."""

    parts: ClassVar[int]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.linear = Linear(input_size, self.parts * hidden_size, bias, rng=rng, dtype=dtype)

    def coefficients(self, x: Any) -> tuple[Tensor, Tensor]:
        """`keep` and `new`, of every step in `x`."""
        raise NotImplementedError

    def forward(self, x: Any, state: Any) -> tuple[Tensor, Tensor]:
        """The new h, as output and as state."""
        check_step(self, x, state)
        keep, new = self.coefficients(x)
        h = keep * state + new
        return h, h

    def parallel(self, xs: Any, h0: Any = None) -> tuple[Tensor, Tensor]:
        """What ``scan(cell, xs, h0)`` returns, computed for all steps at once.

        Shapes: xs ``(time, batch, input_size)``, h0 ``(batch, hidden_size)``, by default zeros;
        outputs ``(time, batch, hidden_size)``, and the last of them.

        Raises:
            ShapeError: There are no steps; xs and h0 do not fit.
        """
        if xs.ndim < 2 or xs.shape[0] == 0:
            raise ShapeError(
                f"{type(self).__name__}.parallel: xs has shape {tuple(xs.shape)}; expected "
                f"(time, ..., {self.input_size}) with a step at least"
            )
        if h0 is not None:
            check_step(self, xs[0], h0)
        keep, new = self.coefficients(xs)
        hs = linear_recurrence(new, keep, h0)
        return hs, hs[-1]

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return super().extra_repr() + ("" if self.linear.bias is not None else ", bias=False")


class MinGRUCell(_ParallelCell):
    """The minimal GRU of Feng et al. 2024, section 3.1: no reset, and a gate that sees x alone.

    ::

        z = sigmoid(W_z x + b_z)
        n = W_n x + b_n
        h' = (1 - z) * h + z * n

    Mind that here, as in the paper, z lets in the new state.

    Shapes: x ``(batch, input_size)``, state and output h ``(batch, hidden_size)``, linear.weight
    ``(2*hidden_size, input_size)``; parts z, n.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether there are biases.
        rng: Where the initial values are drawn from: uniform within 1/sqrt(input_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size makes no sense; shapes of x and h do not fit.

    >>> cell, xs = tgr.nn.MinGRUCell(3, 4), tgr.ones((5, 2, 3))
    >>> hs, h = cell.parallel(xs)
    >>> float(tgr.max(tgr.abs(hs - tgr.scan(cell, xs)[0]))) < 1e-6
    True
    """

    parts = 2

    def coefficients(self, x: Any) -> tuple[Tensor, Tensor]:
        """``1 - z`` and ``z * n``."""
        z, n = split(self.linear(x), 2, axis=-1)
        z = sigmoid(z)
        return 1 - z, z * n


class MinLSTMCell(_ParallelCell):
    """The minimal LSTM of Feng et al. 2024, section 3.2: gates see x alone, and sum to one.

    ::

        f = sigmoid(W_f x + b_f)
        i = sigmoid(W_i x + b_i)
        n = W_n x + b_n
        h' = f / (f + i) * h + i / (f + i) * n

    There is no memory cell beside h, and no output gate.

    Shapes: x ``(batch, input_size)``, state and output h ``(batch, hidden_size)``, linear.weight
    ``(3*hidden_size, input_size)``; parts f, i, n.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether there are biases.
        rng: Where the initial values are drawn from: uniform within 1/sqrt(input_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size makes no sense; shapes of x and h do not fit.

    >>> cell, xs = tgr.nn.MinLSTMCell(3, 4), tgr.ones((5, 2, 3))
    >>> hs, h = cell.parallel(xs)
    >>> float(tgr.max(tgr.abs(hs - tgr.scan(cell, xs)[0]))) < 1e-6
    True
    """

    parts = 3

    def coefficients(self, x: Any) -> tuple[Tensor, Tensor]:
        """``f / (f + i)`` and ``i / (f + i) * n``."""
        f, i, n = split(self.linear(x), 3, axis=-1)
        # f / (f + i) = sigmoid(log f - log i), which is no 0 / 0 where both gates are shut.
        d = softplus(-i) - softplus(-f)
        return sigmoid(d), sigmoid(-d) * n
