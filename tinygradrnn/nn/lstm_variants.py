"""Relatives of the LSTM: peepholes, coupled gates, layer norm, and dropout without memory loss."""

from __future__ import annotations

from typing import Any, ClassVar

from tinygradrnn.creation import zeros
from tinygradrnn.nn import init
from tinygradrnn.nn.cells import GatedCell, LSTMState
from tinygradrnn.nn.layers import Dropout, LayerNorm
from tinygradrnn.nn.parameter import Parameter
from tinygradrnn.ops.elementwise import sigmoid, tanh
from tinygradrnn.ops.shape import split
from tinygradrnn.random import Generator
from tinygradrnn.tensor import Tensor


class _LSTMVariant(GatedCell):
    """What they share: the state ``(h, c)``, and which part is the forget gate."""

    gates = ("i", "f", "g", "o")
    forget_gate: ClassVar[str] = "f"

    def initial_state(self, batch_size: int) -> LSTMState:
        """Zeros, on the parameters' backend and of their dtype."""
        h = super().initial_state(batch_size)
        return LSTMState(h, h)


class PeepholeLSTMCell(_LSTMVariant):
    """An LSTM whose gates see the memory cell (Gers & Schmidhuber 2000; Greff et al. 2017, II.A).

    ::

        i = sigmoid(W_ii x + b_ii + W_hi h + b_hi + p_i * c)
        f = sigmoid(W_if x + b_if + W_hf h + b_hf + p_f * c)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)
        c' = f * c + i * g
        o = sigmoid(W_io x + b_io + W_ho h + b_ho + p_o * c')
        h' = o * tanh(c')

    The output gate looks at the new c. With peepholes of zero it is :class:`LSTMCell`.

    Shapes: x ``(batch, input_size)``, the state ``(h, c)`` and the output h ``(batch,
    hidden_size)``, weight_ih ``(4*hidden_size, input_size)``, weight_hh ``(4*hidden_size,
    hidden_size)``; gates i, f, g, o; peephole_i, peephole_f, peephole_o ``(hidden_size,)``.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether there are biases.
        rng: Where the initial values are drawn from: uniform within 1/sqrt(hidden_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size makes no sense; shapes of x and h do not fit.

    >>> tgr.scan(tgr.nn.PeepholeLSTMCell(3, 4), tgr.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        rng = init.generator(rng)
        super().__init__(input_size, hidden_size, bias, rng=rng, dtype=dtype)

        def draw() -> Parameter:
            return Parameter(init.fan_in_uniform((hidden_size,), hidden_size, rng=rng, dtype=dtype))

        self.peephole_i, self.peephole_f, self.peephole_o = draw(), draw(), draw()

    def forward(self, x: Any, state: Any) -> tuple[Tensor, LSTMState]:
        """The new h, and the new state ``(h, c)``."""
        h, c = state
        from_x, from_h = self.projections(x, h)
        i, f, g, o = split(from_x + from_h, 4, axis=-1)
        i, f = sigmoid(i + self.peephole_i * c), sigmoid(f + self.peephole_f * c)
        c = f * c + i * tanh(g)
        h = sigmoid(o + self.peephole_o * c) * tanh(c)
        return h, LSTMState(h, c)


class CoupledLSTMCell(_LSTMVariant):
    """An LSTM that writes where it forgets, ``i = 1 - f`` (CIFG; Greff et al. 2017, section III).

    ::

        f = sigmoid(W_if x + b_if + W_hf h + b_hf)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)
        o = sigmoid(W_io x + b_io + W_ho h + b_ho)
        c' = f * c + (1 - f) * g
        h' = o * tanh(c')

    A quarter fewer parameters, and c stays between -1 and 1. Without the paper's peepholes.

    Shapes: x ``(batch, input_size)``, the state ``(h, c)`` and the output h ``(batch,
    hidden_size)``, weight_ih ``(3*hidden_size, input_size)``, weight_hh ``(3*hidden_size,
    hidden_size)``; gates f, g, o.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether there are biases.
        rng: Where the initial values are drawn from: uniform within 1/sqrt(hidden_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size makes no sense; shapes of x and h do not fit.

    >>> tgr.scan(tgr.nn.CoupledLSTMCell(3, 4), tgr.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

    gates = ("f", "g", "o")

    def forward(self, x: Any, state: Any) -> tuple[Tensor, LSTMState]:
        """The new h, and the new state ``(h, c)``."""
        h, c = state
        from_x, from_h = self.projections(x, h)
        f, g, o = split(from_x + from_h, 3, axis=-1)
        g = tanh(g)
        c = g + sigmoid(f) * (c - g)
        h = sigmoid(o) * tanh(c)
        return h, LSTMState(h, c)


class LayerNormLSTMCell(_LSTMVariant):
    """An LSTM with layer norm inside (Ba et al. 2016, supplementary material).

    ::

        i, f, g, o = LN(W_h h) + LN(W_i x) + b                  (all four as one vector)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(LN(c'))

    The paper has a bias in the first two LN, too; beside b they would do the same, so that they
    are left out.

    Shapes: x ``(batch, input_size)``, the state ``(h, c)`` and the output h ``(batch,
    hidden_size)``, weight_ih ``(4*hidden_size, input_size)``, weight_hh ``(4*hidden_size,
    hidden_size)``, bias ``(4*hidden_size,)``; gates i, f, g, o.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether there is b (initially 0), and a bias in the last LN.
        eps: That of the layer norms.
        rng: Where the weights are drawn from: uniform within 1/sqrt(hidden_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size makes no sense; shapes of x and h do not fit.

    >>> tgr.scan(tgr.nn.LayerNormLSTMCell(3, 4), tgr.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

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
        self.norm_ih = LayerNorm(4 * hidden_size, eps, bias=False, dtype=dtype)
        self.norm_hh = LayerNorm(4 * hidden_size, eps, bias=False, dtype=dtype)
        self.norm_c = LayerNorm(hidden_size, eps, bias=bias, dtype=dtype)
        self.bias = Parameter(zeros((4 * hidden_size,), dtype)) if bias else None

    def forward(self, x: Any, state: Any) -> tuple[Tensor, LSTMState]:
        """The new h, and the new state ``(h, c)``."""
        h, c = state
        from_x, from_h = self.projections(x, h)
        y = self.norm_hh(from_h) + self.norm_ih(from_x)
        i, f, g, o = split(y if self.bias is None else y + self.bias, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(self.norm_c(c))
        return h, LSTMState(h, c)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.input_size}, {self.hidden_size}{bias}"


class DropoutLSTMCell(_LSTMVariant):
    """An LSTM with dropout on what it writes, so that no memory is lost (Semeniuta et al. 2016).

    ::

        c' = f * c + i * d(g)

    and the rest as in :class:`LSTMCell`, with the same parameters. d is dropout with a new mask at
    each step, scaled as in :class:`Dropout`; a unit dropped keeps what it has.

    Shapes: as :class:`LSTMCell`.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether there are biases.
        p: The probability that a unit's candidate is dropped while training.
        rng: Where the initial values, and later the masks, are drawn from.
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size or `p` makes no sense; shapes of x and h do not fit.

    >>> tgr.scan(tgr.nn.DropoutLSTMCell(3, 4, p=0.25), tgr.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        p: float = 0.5,
        *,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        rng = init.generator(rng)
        self.dropout = Dropout(p, rng=rng)
        super().__init__(input_size, hidden_size, bias, rng=rng, dtype=dtype)

    def forward(self, x: Any, state: Any) -> tuple[Tensor, LSTMState]:
        """The new h, and the new state ``(h, c)``."""
        h, c = state
        from_x, from_h = self.projections(x, h)
        i, f, g, o = split(from_x + from_h, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * self.dropout(tanh(g))
        h = sigmoid(o) * tanh(c)
        return h, LSTMState(h, c)
