"""Recurrent layers: cells run over time, one layer above the other, and in both directions.

A layer is cells run by :func:`tinygradrnn.scan` and nothing else: it has no loop over time and no
gradient of its own. Arguments, results, and the names, shapes, order and initial values of
parameters are PyTorch's, so weights move between the two.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

from tinygradrnn import tree
from tinygradrnn.errors import ShapeError
from tinygradrnn.nn import init
from tinygradrnn.nn.cells import (
    GatedCell,
    GRUCell,
    LSTMCell,
    LSTMState,
    RNNCell,
    check_projection,
)
from tinygradrnn.nn.layers import Dropout, check_sizes
from tinygradrnn.nn.module import Module
from tinygradrnn.op import as_value
from tinygradrnn.ops.shape import concat, expand_dims, moveaxis, squeeze, stack, unstack
from tinygradrnn.random import Generator
from tinygradrnn.scan import scan
from tinygradrnn.scan.contract import refuse_outgrown
from tinygradrnn.tensor import Tensor

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


class RecurrentLayer(Module):
    """What the layers share: how cells of one `kind` are stacked, and what goes in and comes out.

    The parameters are the layer's own: ``weight_ih_l0`` is that of the lowest layer, and
    ``weight_ih_l0_reverse`` that of its way from the end to the start.
    """

    kind: ClassVar[type[GatedCell]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        name = type(self).__name__
        check_sizes(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        check_projection(name, proj_size, hidden_size)
        if proj_size and not issubclass(self.kind, LSTMCell):
            raise ShapeError(f"{name}: proj_size={proj_size}; only an LSTM has a projection")
        number = isinstance(dropout, int | float) and not isinstance(dropout, bool)
        if not number or not 0 <= dropout <= 1:
            raise ShapeError(f"{name}: dropout={dropout!r}; expected a probability from 0 to 1")
        self.input_size, self.hidden_size, self.proj_size = input_size, hidden_size, proj_size
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.bidirectional, rng = bool(bidirectional), init.generator(rng)
        for layer in range(num_layers):
            for place in self._places(layer):
                size = self._size_below(layer)
                cell = self.kind(size, hidden_size, bias, rng=rng, dtype=dtype, **self._settings())
                for key in NAMES:
                    setattr(self, f"{key}_{place}", getattr(cell, key, None))
        self.dropout = Dropout(dropout, rng=rng) if dropout else None

    def forward(
        self, x: Any, state: Any = None, *, lengths: Any = None, **options: Any
    ) -> tuple[Tensor, Any]:
        """Run all layers over time.

        Args:
            x: ``(time, batch, input_size)``, with `batch_first` ``(batch, time, input_size)``, or
                a single sequence, ``(time, input_size)``.
            state: The first state of each layer and direction, ``(num_layers * directions, batch,
                size)``, or ``(num_layers * directions, size)`` for a single sequence; for an LSTM a
                pair of these. Never batch first. Zeros by default.
            lengths: The number of steps of each sequence of a right-padded batch, ``(batch,)``, in
                any order. Outputs from there on are zero.
            options: Handed on to every :func:`~tinygradrnn.scan`: `truncation`, `checkpoint`,
                `mode`.

        Returns:
            The uppermost layer's output, shaped as x with ``directions * size`` features; and the
            last state, shaped as `state`: for each layer that of the way onward, then that of the
            way back. With `lengths` it is that after each sequence's own last step.

        Raises:
            ShapeError: x, `state` or `lengths` do not fit: names which, what was found and what
                was expected.
        """
        name = type(self).__name__
        x = cast("Tensor", as_value(x))
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes = "batch, time" if self.batch_first else "time, batch"
            n = self.input_size
            raise ShapeError(
                f"{name}: x has shape {tuple(x.shape)}; expected ({axes}, {n}) or (time, {n})"
            )
        single = x.ndim == 2
        if single:
            if lengths is not None:
                raise ShapeError(f"{name}: lengths given, but x is a single sequence: {x.shape}")
            x = expand_dims(x, axis=1)
        elif self.batch_first:
            x = moveaxis(x, 0, 1)
        for option in ("reverse", "return_states"):
            if option in options:
                raise ShapeError(f"{name}: {option} is an option of tgr.scan alone")
        first = self._first(state, x.shape[1], single)
        last: list[Any] = []
        for layer in range(self.num_layers):
            if layer and self.dropout is not None:
                x = self.dropout(x)
            outputs: list[Tensor] = []
            for place in self._places(layer):
                y, end = scan(
                    self._cell(layer, place),
                    x,
                    first[len(last)],
                    lengths=lengths,
                    reverse=place.endswith("reverse"),
                    **options,
                )
                outputs.append(y)
                last.append(end)
            x = concat(outputs, axis=-1) if self.bidirectional else outputs[0]
        final = tree.map(lambda *rows: stack(rows), *last)
        if single:
            return squeeze(x, axis=1), tree.map(lambda leaf: squeeze(leaf, axis=1), final)
        return (moveaxis(x, 0, 1) if self.batch_first else x), final

    # ---------------------------------------------------------------------------------- its parts

    def cell(self, layer: int = 0, reverse: bool = False) -> GatedCell:
        """The cell that runs one layer one way, with the layer's own parameters.

        Raises:
            ShapeError: There is no such layer or direction.
        """
        place = f"l{layer}_reverse" if reverse else f"l{layer}"
        if not 0 <= layer < self.num_layers or place not in self._places(layer):
            raise ShapeError(f"{type(self).__name__}: cell({layer}, reverse={reverse}); not there")
        return self._cell(layer, place)

    def _places(self, layer: int) -> list[str]:
        """What the names of a layer's parameters end with, for each direction."""
        return [f"l{layer}", f"l{layer}_reverse"][: 1 + self.bidirectional]

    def _size_below(self, layer: int) -> int:
        """The number of features that go into a layer."""
        if layer == 0:
            return self.input_size
        return (self.proj_size or self.hidden_size) * (1 + self.bidirectional)

    def _settings(self) -> dict[str, Any]:
        """What only this kind of cell takes, and keeps under the same name."""
        return {}

    def _cell(self, layer: int, place: str) -> GatedCell:
        """A cell of the layer's own parameters.

        Made anew for each scan and without ``__init__`` or ``__setattr__``, as it owns nothing: the
        layer keeps finding each parameter once, under its own name, whatever may replace it.
        """
        cell = object.__new__(self.kind)
        vars(cell).update(
            self._settings(),
            __name__=f"{type(self).__name__}.{place}",  # the loop's on the tape
            input_size=self._size_below(layer),
            hidden_size=self.hidden_size,
            **{key: getattr(self, f"{key}_{place}") for key in NAMES},
        )
        return cell

    def _first(self, state: Any, batch: int, single: bool) -> list[Any]:
        """The first state of each scan; None for zeros."""
        n = self.num_layers * (1 + self.bidirectional)
        if state is None:
            return [None] * n
        size: Any = self.proj_size or self.hidden_size
        if issubclass(self.kind, LSTMCell):
            size = LSTMState(size, self.hidden_size)
        sizes, structure = tree.flatten(size)
        name = type(self).__name__
        try:
            leaves = [cast("Tensor", as_value(leaf)) for leaf in structure.leaves(state, "state")]
        except tree.StructureError as error:
            raise ShapeError(f"{name}: {error}") from None
        refuse_outgrown(leaves, structure)  # scan sees new tensors, cut from these
        rows: list[Any] = []
        for path, leaf, size in zip(structure.paths("state"), leaves, sizes, strict=True):
            expected = (n, size) if single else (n, batch, size)
            if tuple(leaf.shape) != expected:
                raise ShapeError(
                    f"{name}: {path} has shape {tuple(leaf.shape)}; expected {expected}, "
                    f"(num_layers * directions, {'' if single else 'batch, '}size)"
                )
            rows.append(unstack(expand_dims(leaf, axis=1) if single else leaf))
        return [structure.unflatten(row) for row in zip(*rows, strict=True)]

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        given = f"{self.input_size}, {self.hidden_size}"
        for name, default in _DEFAULTS.items():
            value = getattr(self, name, default)
            if value != default:
                given += f", {name}={value!r}"
        return given


_DEFAULTS = {
    "num_layers": 1,
    "nonlinearity": "tanh",
    "bias": True,
    "batch_first": False,
    "bidirectional": False,
    "proj_size": 0,
}


class RNN(RecurrentLayer):
    """Layers of :class:`RNNCell`, ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)`` (Elman 1990).

    Shapes: x ``(time, batch, input_size)``, output ``(time, batch, directions * hidden_size)``,
    state ``(num_layers * directions, batch, hidden_size)``; more in ``forward``. As in PyTorch
    `batch_first` applies to x and the output, not to states.

    Args:
        input_size, hidden_size: The sizes of x and h.
        num_layers: How many layers; each takes the outputs of the one below.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        bias: Whether there are biases.
        batch_first: Whether x and the output are ``(batch, time, features)``.
        dropout: The probability that an output of a layer, but of the last one, is zeroed in
            training: see :class:`Dropout`. With a single layer there is nothing to zero.
        bidirectional: Whether a second cell in each layer goes from the end to the start; the
            outputs of both are concatenated (Schuster & Paliwal 1997).
        rng: Where the initial values, uniform within 1/sqrt(hidden_size), are drawn from, and then
            the masks of dropout.
        dtype: The parameters' dtype.

    Raises:
        ShapeError: An argument makes no sense, or a proj_size is given: only an LSTM has one.

    >>> layer = tgr.nn.RNN(3, 4, num_layers=2, bidirectional=True)
    >>> output, h = layer(tgr.ones((7, 5, 3)), lengths=[7, 2, 0, 7, 1])
    >>> output.shape, h.shape
    ((7, 5, 8), (4, 5, 4))
    """

    kind = RNNCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            rng=rng,
            dtype=dtype,
        )

    def _settings(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}


class GRU(RecurrentLayer):
    """Layers of :class:`GRUCell`, the gated recurrent unit (Cho et al. 2014).

    Shapes: x ``(time, batch, input_size)``, output ``(time, batch, directions * hidden_size)``,
    state ``(num_layers * directions, batch, hidden_size)``; more in ``forward``. As in PyTorch
    `batch_first` applies to x and the output, not to states.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, rng, dtype:
            As in :class:`RNN`.

    Raises:
        ShapeError: An argument makes no sense, or a proj_size is given: only an LSTM has one.

    >>> layer = tgr.nn.GRU(3, 4, batch_first=True)
    >>> output, h = layer(tgr.ones((5, 7, 3)))
    >>> output.shape, h.shape
    ((5, 7, 4), (1, 5, 4))
    """

    kind = GRUCell


class LSTM(RecurrentLayer):
    """Layers of :class:`LSTMCell`, long short-term memory (Hochreiter & Schmidhuber 1997).

    Shapes: x ``(time, batch, input_size)``, output ``(time, batch, directions * size)``, state h
    ``(num_layers * directions, batch, size)`` and c ``(num_layers * directions, batch,
    hidden_size)``, where size is `proj_size` if given, else `hidden_size`; more in ``forward``.
    As in PyTorch `batch_first` applies to x and the output, not to states. A plain tuple ``(h, c)``
    may be given for the state; an :class:`LSTMState` is returned.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, rng, dtype:
            As in :class:`RNN`.
        proj_size: The size of h, smaller than `hidden_size` (Sak et al. 2014); 0 for no projection.

    Raises:
        ShapeError: An argument makes no sense.

    >>> layer = tgr.nn.LSTM(3, 4, num_layers=2, dropout=0.1)
    >>> output, (h, c) = layer(tgr.ones((7, 5, 3)))
    >>> output.shape, h.shape, c.shape
    ((7, 5, 4), (2, 5, 4), (2, 5, 4))
    """

    kind = LSTMCell

    def _settings(self) -> dict[str, Any]:
        return {"proj_size": self.proj_size}
