"""Cells of one hidden state and no gates: the lecture's stacked form, and independent units."""

from __future__ import annotations

from typing import Any

from tinygradrnn.creation import zeros
from tinygradrnn.errors import ShapeError
from tinygradrnn.nn import init
from tinygradrnn.nn.cells import Cell
from tinygradrnn.nn.layers import check_sizes
from tinygradrnn.nn.parameter import Parameter
from tinygradrnn.ops.elementwise import relu, tanh
from tinygradrnn.ops.linalg import linear, matmul
from tinygradrnn.ops.shape import concat
from tinygradrnn.random import Generator
from tinygradrnn.tensor import Tensor


def check_step(cell: Any, x: Any, h: Any) -> None:
    """Raise a ShapeError if `x` and `h` do not go together: they would broadcast, or fail late."""
    if (
        x.shape[-1:] != (cell.input_size,)
        or h.shape[-1:] != (cell.hidden_size,)
        or h.shape[:-1] != x.shape[:-1]
    ):
        raise ShapeError(
            f"{type(cell).__name__}: x has shape {tuple(x.shape)}, the state's h "
            f"{tuple(h.shape)}; expected (..., {cell.input_size}) and (..., {cell.hidden_size})"
        )


class HiddenCell(Cell):
    """What cells have in common whose state and output are one h, whatever their weights.

    Shapes: x ``(batch, input_size)``, h ``(batch, hidden_size)``; both with more leading axes, or
    none.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        check_sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size = input_size, hidden_size

    def initial_state(self, batch_size: int) -> Any:
        """Zeros, on the parameters' backend and of their dtype."""
        like = next(self.parameters())
        return zeros((batch_size, self.hidden_size), like.dtype, backend=like.backend)

    def extra_repr(self) -> str:
        """The constructor's first arguments."""
        return f"{self.input_size}, {self.hidden_size}"


class ConcatRNNCell(HiddenCell):
    """The plain recurrent cell in stacked form: ``h' = tanh([h, x] @ W + b)``.

    One weight over the concatenation of h and x, as lectures and textbooks write it. It is
    :class:`RNNCell` with ``W = concat([W_hh, W_ih], axis=1).T``, and with one bias.

    Shapes: x ``(batch, input_size)``, state and output h ``(batch, hidden_size)``, weight
    ``(hidden_size + input_size, hidden_size)``, bias ``(hidden_size,)``.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether there is one.
        rng: Where the initial values are drawn from: uniform within 1/sqrt(hidden_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size makes no sense; shapes of x and h do not fit.

    >>> cell = tgr.nn.ConcatRNNCell(3, 4)
    >>> cell.weight.shape
    (7, 4)
    >>> tgr.scan(cell, tgr.ones((5, 2, 3)))[0].shape
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
        super().__init__(input_size, hidden_size)
        rng = init.generator(rng)

        def draw(*shape: int) -> Parameter:
            return Parameter(init.fan_in_uniform(shape, hidden_size, rng=rng, dtype=dtype))

        self.weight = draw(hidden_size + input_size, hidden_size)
        self.bias = draw(hidden_size) if bias else None

    def forward(self, x: Any, state: Any) -> tuple[Tensor, Tensor]:
        """The new h, as output and as state."""
        check_step(self, x, state)
        y = matmul(concat([state, x], axis=-1), self.weight)
        h = tanh(y if self.bias is None else y + self.bias)
        return h, h

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return super().extra_repr() + ("" if self.bias is not None else ", bias=False")


class IndRNNCell(HiddenCell):
    """Units that hear only themselves (Li et al. 2018, equation 2): ``h' = relu(W x + u * h + b)``.

    The recurrent weight u is a vector, so each unit's gradient through time is a product of numbers
    instead of matrices, and many such layers can be stacked.

    Shapes: x ``(batch, input_size)``, state and output h ``(batch, hidden_size)``, weight_ih
    ``(hidden_size, input_size)``, weight_hh and bias ``(hidden_size,)``.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether there is one.
        nonlinearity: ``"relu"`` or ``"tanh"``.
        rng: Where the initial values are drawn from: weight_hh uniform in [0, 1), as the paper's
            range for relu when the number of steps is not known; the rest within
            1/sqrt(input_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size or `nonlinearity` makes no sense; shapes of x and h do not fit.

    >>> cell = tgr.nn.IndRNNCell(3, 4)
    >>> cell.weight_hh.shape
    (4,)
    >>> tgr.scan(cell, tgr.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "relu",
        *,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        if nonlinearity not in ("relu", "tanh"):
            raise ShapeError(
                f"IndRNNCell: nonlinearity={nonlinearity!r}; expected 'relu' or 'tanh'"
            )
        super().__init__(input_size, hidden_size)
        rng = init.generator(rng)

        def draw(*shape: int) -> Parameter:
            return Parameter(init.fan_in_uniform(shape, input_size, rng=rng, dtype=dtype))

        self.nonlinearity = nonlinearity
        self.weight_ih = draw(hidden_size, input_size)
        self.weight_hh = Parameter(init.uniform((hidden_size,), rng=rng, dtype=dtype))
        self.bias = draw(hidden_size) if bias else None

    def forward(self, x: Any, state: Any) -> tuple[Tensor, Tensor]:
        """The new h, as output and as state."""
        check_step(self, x, state)
        y = linear(x, self.weight_ih, self.bias) + self.weight_hh * state
        h = (relu if self.nonlinearity == "relu" else tanh)(y)
        return h, h

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        bias = "" if self.bias is not None else ", bias=False"
        tanh = "" if self.nonlinearity == "relu" else ", nonlinearity='tanh'"
        return super().extra_repr() + bias + tanh
