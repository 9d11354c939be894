"""Cells: one step of a recurrent network, as a function ``(x, state) -> (output, state)``.

:func:`tinygradrnn.scan` runs a cell over time. Parameters are named, shaped, ordered and
initialised as in PyTorch, so weights move between the two; what differs is the call. PyTorch's
cells return the new state alone, ``h`` or ``(h, c)``; ours return ``(output, state)``, as every
cell does whatever its state is made of. The output of the cells here is the hidden state `h`.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from tinygradrnn.creation import zeros
from tinygradrnn.errors import DtypeError, ShapeError
from tinygradrnn.nn import init
from tinygradrnn.nn.layers import check_sizes
from tinygradrnn.nn.module import Module
from tinygradrnn.nn.parameter import Parameter
from tinygradrnn.ops.elementwise import relu, sigmoid, tanh
from tinygradrnn.ops.linalg import linear
from tinygradrnn.ops.shape import split
from tinygradrnn.random import Generator
from tinygradrnn.tensor import Tensor


class Cell(Module):
    """One step of a recurrent network: derive from it to write your own.

    The state is any nesting of tuples, named tuples, lists, dicts and dataclasses of Tensors. Its
    structure, shapes and dtypes must not change from step to step.

    >>> class Elman(tgr.nn.Cell):
    ...     def __init__(self, input_size, hidden_size):
    ...         self.input = tgr.nn.Linear(input_size, hidden_size)
    ...         self.hidden = tgr.nn.Linear(hidden_size, hidden_size, bias=False)
    ...     def initial_state(self, batch_size):
    ...         return tgr.zeros((batch_size, self.hidden.weight.shape[0]))
    ...     def forward(self, x, h):
    ...         h = tgr.tanh(self.input(x) + self.hidden(h))
    ...         return h, h
    >>> outputs, h = tgr.scan(Elman(3, 4), tgr.ones((10, 2, 3)))
    >>> outputs.shape, h.shape
    ((10, 2, 4), (2, 4))
    """

    def initial_state(self, batch_size: int) -> Any:
        """The state before the first step."""
        raise NotImplementedError(
            f"{type(self).__name__} defines no initial_state; define it, or give scan a state"
        )

    def forward(self, x: Any, state: Any) -> tuple[Any, Any]:
        """The output and the next state."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")


class GatedCell(Cell):
    """What PyTorch's three cells share: two weights and two biases over `gates` stacked parts.

    Shapes: x ``(batch, input_size)``, or with more leading axes or none, which h must have too.
    """

    gates: ClassVar[tuple[str, ...]] = ("h",)
    proj_size: int = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        check_sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size = input_size, hidden_size
        rows, rng = len(self.gates) * hidden_size, init.generator(rng)

        def draw(*shape: int) -> Parameter:
            return Parameter(init.fan_in_uniform(shape, hidden_size, rng=rng, dtype=dtype))

        self.weight_ih = draw(rows, input_size)
        self.weight_hh = draw(rows, self.output_size)
        self.bias_ih = draw(rows) if bias else None
        self.bias_hh = draw(rows) if bias else None

    @property
    def output_size(self) -> int:
        """The size of h, which is `proj_size` if h is projected and else `hidden_size`."""
        return self.proj_size or self.hidden_size

    def initial_state(self, batch_size: int) -> Any:
        """Zeros, on the parameters' backend and of their dtype."""
        return self._zeros(batch_size, self.output_size)

    def _zeros(self, *shape: int) -> Tensor:
        return zeros(shape, self.weight_hh.dtype, backend=self.weight_hh.backend)

    def projections(self, x: Any, h: Any) -> tuple[Tensor, Tensor]:
        """``x @ weight_ih.T + bias_ih`` and ``h @ weight_hh.T + bias_hh``.

        Raises:
            ShapeError: `x` or h has another last size than the cell, or they do not go together.
            DtypeError: `h` is no Tensor.
        """
        if not hasattr(h, "shape"):
            raise DtypeError(f"{type(self).__name__}: h is a {type(h).__name__}; expected a Tensor")
        if h.shape[-1:] != (self.output_size,) or h.shape[:-1] != x.shape[:-1]:
            raise ShapeError(
                f"{type(self).__name__}: x has shape {tuple(x.shape)}, the state's h "
                f"{tuple(h.shape)}; expected (..., {self.input_size}) and (..., {self.output_size})"
            )
        from_x = linear(x, self.weight_ih, self.bias_ih)
        return from_x, linear(h, self.weight_hh, self.bias_hh)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        bias = "" if self.bias_ih is not None else ", bias=False"
        return f"{self.input_size}, {self.hidden_size}{bias}"


class RNNCell(GatedCell):
    """The plain recurrent cell (Elman 1990): ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``.

    Shapes: x ``(batch, input_size)``, state and output h ``(batch, hidden_size)``, weight_ih
    ``(hidden_size, input_size)``, weight_hh ``(hidden_size, hidden_size)``.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether there are biases.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        rng: Where the initial values are drawn from: uniform within 1/sqrt(hidden_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size or `nonlinearity` makes no sense; shapes of x and h do not fit.

    >>> cell = tgr.nn.RNNCell(3, 4)
    >>> output, h = cell(tgr.ones((2, 3)), cell.initial_state(2))
    >>> output.shape
    (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ShapeError(f"RNNCell: nonlinearity={nonlinearity!r}; expected 'tanh' or 'relu'")
        super().__init__(input_size, hidden_size, bias, rng=rng, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(self, x: Any, state: Any) -> tuple[Tensor, Tensor]:
        """The new h, as output and as state."""
        from_x, from_h = self.projections(x, state)
        h = (tanh if self.nonlinearity == "tanh" else relu)(from_x + from_h)
        return h, h

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        relu = "" if self.nonlinearity == "tanh" else ", nonlinearity='relu'"
        return super().extra_repr() + relu


class GRUCell(GatedCell):
    """The gated recurrent unit (Cho et al. 2014), with the reset gate after the product.

    ::

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
        n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h' = (1 - z) * n + z * h

    Cho's own equations reset h before the product, ``W_hn (r * h)``; PyTorch and cuDNN, and so this
    cell, after it, which is why ``b_in`` and ``b_hn`` are two biases.

    Shapes: x ``(batch, input_size)``, state and output h ``(batch, hidden_size)``, weight_ih
    ``(3*hidden_size, input_size)``, weight_hh ``(3*hidden_size, hidden_size)``; gates r, z, n.

    Args:
        input_size, hidden_size: The sizes of x and h.
        bias: Whether there are biases.
        rng: Where the initial values are drawn from: uniform within 1/sqrt(hidden_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size makes no sense; shapes of x and h do not fit.

    >>> cell = tgr.nn.GRUCell(3, 4)
    >>> output, h = cell(tgr.ones((2, 3)), cell.initial_state(2))
    >>> output.shape
    (2, 4)
    """

    gates = ("r", "z", "n")

    def forward(self, x: Any, state: Any) -> tuple[Tensor, Tensor]:
        """The new h, as output and as state."""
        from_x, from_h = self.projections(x, state)
        r_x, z_x, n_x = split(from_x, 3, axis=-1)
        r_h, z_h, n_h = split(from_h, 3, axis=-1)
        r = sigmoid(r_x + r_h)
        z = sigmoid(z_x + z_h)
        n = tanh(n_x + r * n_h)
        h = n + z * (state - n)  # one product less than as written above
        return h, h


def check_projection(layer: str, proj_size: Any, hidden_size: int) -> None:
    """Raise a ShapeError for a proj_size that is neither 0 nor smaller than hidden_size."""
    check_sizes(layer, hidden_size=hidden_size)
    if type(proj_size) is not int or not 0 <= proj_size < hidden_size:
        raise ShapeError(
            f"{layer}: proj_size={proj_size!r}; expected 0, or less than hidden_size={hidden_size}"
        )


class LSTMState(NamedTuple):
    """What an LSTM carries from step to step: the hidden state h and the cell state c."""

    h: Any
    c: Any


class LSTMCell(GatedCell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    ::

        i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)
        f = sigmoid(W_if x + b_if + W_hf h + b_hf)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)
        o = sigmoid(W_io x + b_io + W_ho h + b_ho)
        c' = f * c + i * g
        h' = o * tanh(c')

    Shapes: x ``(batch, input_size)``, the state ``(h, c)`` and the output h ``(batch,
    hidden_size)``, weight_ih ``(4*hidden_size, input_size)``, weight_hh ``(4*hidden_size,
    hidden_size)``; gates i, f, g, o. A plain tuple may be given for the state; an
    :class:`LSTMState` is returned.

    With `proj_size`, h is smaller than c: ``h' = W_hr (o * tanh(c'))`` (Sak et al. 2014,
    arXiv:1402.1128), weight_hr ``(proj_size, hidden_size)``. Then h is ``(batch, proj_size)`` and
    weight_hh ``(4*hidden_size, proj_size)``.

    Args:
        input_size, hidden_size: The sizes of x and c, and of h unless projected.
        bias: Whether there are biases.
        proj_size: The size of h, smaller than `hidden_size`; 0 for no projection.
        rng: Where the initial values are drawn from: uniform within 1/sqrt(hidden_size).
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size makes no sense; shapes of x and h do not fit.

    >>> cell = tgr.nn.LSTMCell(3, 4)
    >>> output, (h, c) = cell(tgr.ones((2, 3)), cell.initial_state(2))
    >>> output.shape, c.shape
    ((2, 4), (2, 4))
    >>> output, (h, c) = tgr.scan(tgr.nn.LSTMCell(3, 4, proj_size=2), tgr.ones((7, 5, 3)))
    >>> output.shape, h.shape, c.shape
    ((7, 5, 2), (5, 2), (5, 4))
    """

    gates = ("i", "f", "g", "o")
    forget_gate: ClassVar[str] = "f"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        proj_size: int = 0,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        check_projection(type(self).__name__, proj_size, hidden_size)
        self.proj_size, rng = proj_size, init.generator(rng)
        super().__init__(input_size, hidden_size, bias, rng=rng, dtype=dtype)
        self.weight_hr: Parameter | None = None
        if proj_size:
            shape = (proj_size, hidden_size)
            drawn = init.fan_in_uniform(shape, hidden_size, rng=rng, dtype=dtype)
            self.weight_hr = Parameter(drawn)

    def initial_state(self, batch_size: int) -> LSTMState:
        """Zeros, on the parameters' backend and of their dtype."""
        h = super().initial_state(batch_size)
        # Tensors are immutable, so one may stand for both.
        return LSTMState(h, self._zeros(batch_size, self.hidden_size) if self.proj_size else h)

    def forward(self, x: Any, state: Any) -> tuple[Tensor, LSTMState]:
        """The new h, and the new state ``(h, c)``."""
        h, c = state
        from_x, from_h = self.projections(x, h)
        i, f, g, o = split(from_x + from_h, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        if self.weight_hr is not None:
            h = linear(h, self.weight_hr)
        return h, LSTMState(h, c)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return super().extra_repr() + (f", proj_size={self.proj_size}" if self.proj_size else "")
