"""Relatives of the gated recurrent unit: Cho's own, the minimal one, and one with layer norm.

In :class:`GRUCell` and its relatives here, z is the part of the old state that is kept. Papers
differ in that; it is the same family of functions, as ``1 - sigmoid(a) = sigmoid(-a)``.
"""

from __future__ import annotations

from typing import Any

from tinygradrnn.nn.cells import GatedCell
from tinygradrnn.nn.layers import LayerNorm
from tinygradrnn.nn.simple_cells import check_step
from tinygradrnn.ops.elementwise import sigmoid, tanh
from tinygradrnn.ops.linalg import linear
from tinygradrnn.ops.shape import split
from tinygradrnn.random import Generator
from tinygradrnn.tensor import Tensor


class ChoGRUCell(GatedCell):
    """The gated recurrent unit of Cho et al. 2014, which resets h before the product.

    ::

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)              (equation 5)
        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)              (equation 6)
        n = tanh(W_in x + b_in + W_hn (r * h) + b_hn)           (equation 8)
        h' = z * h + (1 - z) * n                                (equation 7)

    So z keeps the old state, as in the paper and in :class:`GRUCell`. That one has ``r * (W_hn h +
    b_hn)`` instead, which is the same where r is 1. Parameters have the same names and shapes.

    Shapes: x ``(batch, input_size)``, state and output h ``(batch, hidden_size)``, weight_ih
    ``(3*hidden_size, input_size)``, weight_hh ``(3*hidden_size, hidden_size)``; gates r, z, n.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether there are biases. The paper leaves them out.
        rng: Where the initial values are drawn from: uniform within 1/sqrt(hidden_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size makes no sense; shapes of x and h do not fit.

    >>> tgr.scan(tgr.nn.ChoGRUCell(3, 4), tgr.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

    gates = ("r", "z", "n")

    def forward(self, x: Any, state: Any) -> tuple[Tensor, Tensor]:
        """The new h, as output and as state."""
        from_x, from_h, candidate = _reset_before(self, x, state)
        r_x, z_x, n_x = split(from_x, 3, axis=-1)
        r_h, z_h = split(from_h, 2, axis=-1)
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        n = candidate(n_x, r * state)
        h = n + z * (state - n)  # one product less than as written above
        return h, h


class MinimalGatedCell(GatedCell):
    """The minimal gated unit (Zhou et al. 2016): a GRU whose two gates are one.

    ::

        f = sigmoid(W_if x + b_if + W_hf h + b_hf)
        n = tanh(W_in x + b_in + W_hn (f * h) + b_hn)
        h' = (1 - f) * h + f * n

    Mind that here, as in the paper, the gate multiplies the candidate n, not the old state.

    Shapes: x ``(batch, input_size)``, state and output h ``(batch, hidden_size)``, weight_ih
    ``(2*hidden_size, input_size)``, weight_hh ``(2*hidden_size, hidden_size)``; parts f, n.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether there are biases.
        rng: Where the initial values are drawn from: uniform within 1/sqrt(hidden_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size makes no sense; shapes of x and h do not fit.

    >>> tgr.scan(tgr.nn.MinimalGatedCell(3, 4), tgr.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

    gates = ("f", "n")

    def forward(self, x: Any, state: Any) -> tuple[Tensor, Tensor]:
        """The new h, as output and as state."""
        from_x, from_h, candidate = _reset_before(self, x, state)
        f_x, n_x = split(from_x, 2, axis=-1)
        f = sigmoid(f_x + from_h)
        h = state + f * (candidate(n_x, f * state) - state)
        return h, h


def _reset_before(cell: GatedCell, x: Any, h: Any) -> tuple[Tensor, Tensor, Any]:
    """What x and h give to the gates, and the function that makes the candidate, the last part."""
    check_step(cell, x, h)
    sizes = [(len(cell.gates) - 1) * cell.hidden_size, cell.hidden_size]
    w_gates, w_n = split(cell.weight_hh, sizes)
    b_gates, b_n = (None, None) if cell.bias_hh is None else split(cell.bias_hh, sizes)

    def candidate(n_x: Tensor, scaled: Tensor) -> Tensor:
        return tanh(n_x + linear(scaled, w_n, b_n))

    return linear(x, cell.weight_ih, cell.bias_ih), linear(h, w_gates, b_gates), candidate


class LayerNormGRUCell(GatedCell):
    """The gated recurrent unit with layer norm inside (Ba et al. 2016, supplementary material).

    ::

        r, z = sigmoid(LN(W_hg h) + LN(W_ig x))                 (g: the two gates as one vector)
        n = tanh(LN(W_in x) + r * LN(W_hn h))
        h' = (1 - z) * n + z * h

    Each LN has its own gain and bias, so the products have none. As in :class:`GRUCell` z keeps the
    old state; in the paper it lets in the new one.

    Shapes: x ``(batch, input_size)``, state and output h ``(batch, hidden_size)``, weight_ih
    ``(3*hidden_size, input_size)``, weight_hh ``(3*hidden_size, hidden_size)``; gates r, z, n.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether the layer norms have biases.
        eps: That of the layer norms.
        rng: Where the weights are drawn from: uniform within 1/sqrt(hidden_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size makes no sense; shapes of x and h do not fit.

    >>> tgr.scan(tgr.nn.LayerNormGRUCell(3, 4), tgr.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

    gates = ("r", "z", "n")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        eps: float = 1e-5,
        *,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        super().__init__(input_size, hidden_size, bias=False, rng=rng, dtype=dtype)
        self.norm_ig = LayerNorm(2 * hidden_size, eps, bias=bias, dtype=dtype)
        self.norm_hg = LayerNorm(2 * hidden_size, eps, bias=bias, dtype=dtype)
        self.norm_in = LayerNorm(hidden_size, eps, bias=bias, dtype=dtype)
        self.norm_hn = LayerNorm(hidden_size, eps, bias=bias, dtype=dtype)

    def forward(self, x: Any, state: Any) -> tuple[Tensor, Tensor]:
        """The new h, as output and as state."""
        from_x, from_h = self.projections(x, state)
        sizes = [2 * self.hidden_size, self.hidden_size]
        gates_x, n_x = split(from_x, sizes, axis=-1)
        gates_h, n_h = split(from_h, sizes, axis=-1)
        r, z = split(sigmoid(self.norm_ig(gates_x) + self.norm_hg(gates_h)), 2, axis=-1)
        n = tanh(self.norm_in(n_x) + r * self.norm_hn(n_h))
        h = n + z * (state - n)
        return h, h

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        bias = "" if self.norm_in.bias is not None else ", bias=False"
        return f"{self.input_size}, {self.hidden_size}{bias}"
