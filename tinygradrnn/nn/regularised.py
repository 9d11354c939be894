"""Noise on what cells carry and exchange, as wrappers: dropout over time, and zoneout.

All draw from a generator of their own, and only while training. Leaves of a state that are no
floating-point numbers, such as masks, are never dropped, so the wrappers go around each other.

``p`` for a state is a number, or a nesting with the state's structure that holds one per leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from tinygradrnn import tree
from tinygradrnn.errors import ShapeError
from tinygradrnn.nn import init
from tinygradrnn.nn.cells import Cell
from tinygradrnn.nn.wrappers import CellWrapper, is_unit, output_size
from tinygradrnn.ops.elementwise import astype, where
from tinygradrnn.random import Generator
from tinygradrnn.tensor import Tensor


def _check_rates(name: str, **rates: Any) -> None:
    """Raise a ShapeError for what is no probability, or a nesting with one that is not."""
    for key, rate in rates.items():
        leaves, structure = tree.flatten(rate)
        for p, path in zip(leaves, structure.paths(key), strict=True):
            if not isinstance(p, (int, float)) or not 0 <= p <= 1:
                raise ShapeError(f"{name}: {path}={p!r}; expected a probability from 0 to 1")


def _unit_rates(wrapper: str, p: Any, cell: Cell, memory: bool) -> list[float]:
    """One rate per unit leaf of the cell's state; a number is 0 for a leaf c without `memory`.

    Asked of the cell once: the state that comes at a step may be a plain tuple, without names.
    """
    leaves, structure = tree.flatten(cell.initial_state(1))
    paths = structure.paths("state")
    if isinstance(p, (int, float)):
        spared = () if memory else (".c", "['c']")
        rates = [0.0 if path.endswith(spared) else float(p) for path in paths]
    else:
        try:
            rates = structure.leaves(p, "p")
        except tree.StructureError as error:
            raise ShapeError(f"{wrapper}: rates do not fit the state: {error}") from None
    return [rate for rate, leaf in zip(rates, leaves, strict=True) if is_unit(leaf)]


def _map_units(wrapper: str, f: Any, rows: Sequence[Any], *states: Any) -> Any:
    """``f(row, *leaves)`` in place of the unit leaves of states, in the last one's structure."""
    leaves, structure = tree.flatten(states[-1])
    try:
        columns = [structure.leaves(state, "state") for state in states]
    except tree.StructureError as error:
        raise ShapeError(f"{wrapper}: {error}") from None
    units = [i for i, leaf in enumerate(leaves) if is_unit(leaf)]
    if len(units) != len(rows):
        raise ShapeError(
            f"{wrapper}: the state has {len(units)} floating-point Tensors; expected {len(rows)}, "
            "as in the cell's initial_state"
        )
    for i, row in zip(units, rows, strict=True):
        leaves[i] = f(row, *(column[i] for column in columns))
    return structure.unflatten(leaves)


class RecurrentDropout(CellWrapper):
    """Dropout on the state that a cell is given, with a new mask at each step.

    ::

        output, h' = cell(x, d(h))                              (d: see Dropout)

    This is the recurrent half of Gal & Ghahramani 2016, equation 7, but with the mask sampled per
    step, a variant that Semeniuta et al. 2016 compare with; a number for `p` leaves memory cells
    (leaves named ``c``) alone, as both do. What Semeniuta et al. propose instead is dropout on the
    candidate, which needs the inside of a cell: :class:`DropoutLSTMCell`. Where a cell carries h on
    by a sum, as a GRU, that path is dropped, too.

    Args:
        cell: The cell within.
        p: The probability, or one for each leaf of the state.
        rng: Where the masks are drawn from.

    Raises:
        ShapeError: `p` is no probability, or does not fit the state.

    >>> cell = tgr.nn.RecurrentDropout(tgr.nn.LSTMCell(3, 4), 0.25)
    >>> tgr.scan(cell, tgr.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

    def __init__(self, cell: Cell, p: Any = 0.5, *, rng: Generator | None = None) -> None:
        _check_rates("RecurrentDropout", p=p)
        super().__init__(cell)
        self.p, self.rng = p, init.generator(rng)
        self.rates = _unit_rates("RecurrentDropout", p, cell, memory=False)

    def forward(self, x: Any, state: Any) -> tuple[Any, Any]:
        """What the cell makes of x and what is left of the state."""

        def drop(p: float, h: Tensor) -> Tensor:
            return _drop(h, _keep(self.rng, h, p), p)

        if self.training:
            state = _map_units("RecurrentDropout", drop, self.rates, state)
        return self.cell(x, state)

    def extra_repr(self) -> str:
        """The rates."""
        return f"p={self.p}"


class Zoneout(CellWrapper):
    """Each unit of the state keeps its old value with probability `p` (Krueger et al. 2017).

    ::

        h' = where(d, h, cell(x, h))                            (training; d is drawn per step)
        h' = p * h + (1 - p) * cell(x, h)                       (evaluation: the expectation)

    For an LSTM the paper has a rate for each leaf: ``tgr.nn.LSTMState(h=0.05, c=0.5)``. Where the
    cell's output is a leaf of its new state, as in the cells here, so is the wrapper's.

    Args:
        cell: The cell within.
        p: The probability, or one for each leaf of the state.
        rng: Where the masks are drawn from.

    Raises:
        ShapeError: `p` is no probability, or does not fit the state.

    >>> cell = tgr.nn.Zoneout(tgr.nn.LSTMCell(3, 4), tgr.nn.LSTMState(h=0.05, c=0.5))
    >>> outputs, (h, c) = tgr.scan(cell, tgr.ones((5, 2, 3)))
    >>> bool(tgr.all(outputs[-1] == h))
    True
    """

    def __init__(self, cell: Cell, p: Any = 0.1, *, rng: Generator | None = None) -> None:
        _check_rates("Zoneout", p=p)
        super().__init__(cell)
        self.p, self.rng = p, init.generator(rng)
        self.rates = _unit_rates("Zoneout", p, cell, memory=True)

    def forward(self, x: Any, state: Any) -> tuple[Any, Any]:
        """The cell's output, and the mixture of the old and the new state."""
        output, new_state = self.cell(x, state)
        mixtures: dict[int, Tensor] = {}

        def mix(p: float, old: Tensor, new: Tensor) -> Tensor:
            if p == 0:
                return new
            if self.training:
                mixed = where(_draw(self.rng, tuple(new.shape), 1 - p, new.backend), old, new)
            else:
                mixed = p * old + (1 - p) * new
            return mixtures.setdefault(id(new), mixed)

        mixed_state = _map_units("Zoneout", mix, self.rates, state, new_state)
        return tree.map(lambda leaf: mixtures.get(id(leaf), leaf), output), mixed_state

    def extra_repr(self) -> str:
        """The rates."""
        return f"p={self.p}"


class VariationalMasks(NamedTuple):
    """What :class:`VariationalDropout` keeps: booleans, shaped as what they mask, or None."""

    input: Any
    output: Any
    state: tuple[Any, ...]


class VariationalState(NamedTuple):
    """The state of :class:`VariationalDropout`: the cell's, and the masks of this sequence."""

    state: Any
    masks: VariationalMasks | None


class VariationalDropout(CellWrapper):
    """Dropout with the same masks at every step of a sequence (Gal & Ghahramani 2016, equation 7).

    ::

        output, h' = cell(m_input * x, m_state * h);  output * m_output

    The masks are drawn by ``initial_state`` and are part of the state, so that the cell is a
    function of x and state alone. They stay as long as the state is handed on: across the pieces of
    a truncated sequence, too. In evaluation nothing is drawn or masked.

    A number for `state` leaves memory cells (leaves named ``c``) alone, as the paper does. Where a
    cell carries h on by a sum, as a GRU, that path is masked, too, and since what is kept is scaled
    by ``1/(1-p)`` at each step, it may grow.

    Shapes: x ``(batch, input_size)``, the cell's output ``(batch, hidden_size)``.

    Args:
        cell: The cell within. It has to have an input_size to mask the input, and a hidden_size
            and just one Tensor for an output to mask that.
        input, output: The probabilities.
        state: The probability, or one for each leaf of the state.
        rng: Where the masks are drawn from.

    Raises:
        ShapeError: A rate is no probability; the state given has no masks; shapes do not fit.

    >>> cell = tgr.nn.VariationalDropout(tgr.nn.LSTMCell(3, 4), input=0.2, state=0.2)
    >>> outputs, (state, masks) = tgr.scan(cell, tgr.ones((5, 2, 3)))
    >>> masks.input.shape, masks.output, state.h.shape
    ((2, 3), None, (2, 4))

    To begin with another state:

    >>> first = cell.initial_state(2)._replace(state=state)
    >>> outputs, last = tgr.scan(cell, tgr.ones((5, 2, 3)), first)
    """

    def __init__(
        self,
        cell: Cell,
        input: float = 0.0,
        output: float = 0.0,
        state: Any = 0.0,
        *,
        rng: Generator | None = None,
    ) -> None:
        _check_rates("VariationalDropout", input=input, output=output, state=state)
        for rate, size, name in (
            (input, getattr(cell, "input_size", None), "input_size"),
            (output, output_size(cell), "hidden_size"),
        ):
            if rate > 0 and size is None:
                raise ShapeError(
                    f"VariationalDropout: {type(cell).__name__} has no {name}, from which to make "
                    "the mask; give it one, or a rate of 0"
                )
        super().__init__(cell)
        self.p_input, self.p_output, self.p_state = input, output, state
        self.rng = init.generator(rng)
        self.rates = _unit_rates("VariationalDropout", state, cell, memory=False)

    def initial_state(self, batch_size: int) -> VariationalState:
        """The cell's first state, and while training new masks."""
        inner = self.cell.initial_state(batch_size)
        if not self.training:
            return VariationalState(inner, None)
        units = [leaf for leaf in tree.flatten(inner)[0] if is_unit(leaf)]

        def of_size(p: float, size: Any) -> Tensor | None:
            shape = (batch_size, cast("int", size))
            return _draw(self.rng, shape, p, units[0].backend) if p > 0 else None

        masks = VariationalMasks(
            of_size(self.p_input, getattr(self.cell, "input_size", None)),
            of_size(self.p_output, output_size(self.cell)),
            tuple(_keep(self.rng, h, p) for h, p in zip(units, self.rates, strict=True)),
        )
        return VariationalState(inner, masks)

    def forward(self, x: Any, state: Any) -> tuple[Any, VariationalState]:
        """The cell's output, masked, and its state with the same masks."""
        if not isinstance(state, VariationalState) or (self.training and state.masks is None):
            found = "one without masks" if isinstance(state, VariationalState) else ""
            raise ShapeError(
                f"VariationalDropout: the state is {found or type(state).__name__}; expected a "
                "VariationalState with masks: initial_state(batch_size) draws them while training, "
                "and initial_state(batch_size)._replace(state=...) puts in another state"
            )
        inner, masks = state
        if not self.training or masks is None:
            output, inner = self.cell(x, inner)
            return output, VariationalState(inner, masks)
        rows = list(zip(masks.state, self.rates, strict=True))
        inner = _map_units("VariationalDropout", lambda row, h: _drop(h, *row), rows, inner)
        output, inner = self.cell(_drop(x, masks.input, self.p_input), inner)
        return _drop(output, masks.output, self.p_output), VariationalState(inner, masks)

    def extra_repr(self) -> str:
        """The rates."""
        return f"input={self.p_input}, output={self.p_output}, state={self.p_state}"


def _draw(rng: Generator, shape: tuple[int, ...], p: float, backend: Any) -> Tensor:
    """Booleans that are False with probability `p`."""
    return Tensor(rng.on(backend).bernoulli(shape, 1 - p), backend)


def _keep(rng: Generator, leaf: Any, p: float) -> Any:
    """Which elements of a leaf to keep; None for all, without drawing."""
    return _draw(rng, tuple(leaf.shape), p, leaf.backend) if p > 0 else None


def _drop(x: Any, keep: Any, p: float) -> Any:
    """`x` where `keep`, scaled so that the mean stays the same, and else zeros."""
    if keep is None:
        return x
    if tuple(x.shape) != tuple(keep.shape):
        raise ShapeError(
            f"VariationalDropout: a mask of shape {tuple(keep.shape)} for a value of shape "
            f"{tuple(x.shape)}; expected the same: masks are drawn for one size of batch"
        )
    return x * (astype(keep, x.dtype) * (1 / (1 - p) if p < 1 else 0.0))
