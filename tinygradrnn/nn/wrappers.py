"""Cells made of cells: stacks, shortcuts, learned first states; and both directions of time.

A wrapper knows nothing of what the state of the cell within is made of, so wrappers go around
each other in any order.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

from tinygradrnn import tree
from tinygradrnn.errors import DtypeError, ShapeError
from tinygradrnn.nn.cells import Cell
from tinygradrnn.nn.layers import Dropout
from tinygradrnn.nn.module import Module
from tinygradrnn.nn.parameter import Parameter
from tinygradrnn.ops.shape import broadcast_to, concat
from tinygradrnn.random import Generator
from tinygradrnn.scan import scan
from tinygradrnn.tensor import Tensor


def output_size(cell: Any) -> int | None:
    """The last size of a cell's output: its output_size, else its hidden_size, None without both.

    >>> output_size(tgr.nn.LSTMCell(3, 4)), output_size(tgr.nn.LSTMCell(3, 4, proj_size=2))
    (4, 2)
    """
    for name in ("output_size", "hidden_size"):
        if hasattr(cell, name):
            return getattr(cell, name)
    return None


def is_unit(leaf: Any) -> bool:
    """Whether a leaf of a state holds numbers that are computed, not a mask or a count.

    >>> is_unit(tgr.ones((2, 3))), is_unit(tgr.tensor([True]))
    (True, False)
    """
    return isinstance(leaf, Tensor) and "float" in str(leaf.dtype)


class CellWrapper(Cell):
    """A cell around a cell: by itself it does what that one does.

    Args:
        cell: The cell within.

    >>> class Doubled(tgr.nn.CellWrapper):
    ...     def forward(self, x, state):
    ...         return self.cell(2 * x, state)
    >>> tgr.scan(Doubled(tgr.nn.GRUCell(3, 4)), tgr.ones((5, 2, 3)))[0].shape
    (5, 2, 4)
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    @property
    def input_size(self) -> int:
        """That of the cell within."""
        return cast("Any", self.cell).input_size

    @property
    def hidden_size(self) -> int:
        """That of the cell within."""
        return cast("Any", self.cell).hidden_size

    @property
    def output_size(self) -> int | None:
        """That of the cell within, or its hidden_size."""
        return output_size(self.cell)

    def initial_state(self, batch_size: int) -> Any:
        """That of the cell within."""
        return self.cell.initial_state(batch_size)

    def forward(self, x: Any, state: Any) -> tuple[Any, Any]:
        """What the cell within computes."""
        return self.cell(x, state)


class Residual(CellWrapper):
    """A shortcut around a cell: its output is ``output + x`` (He et al. 2016; Wu et al. 2016).

    Args:
        cell: A cell whose output has the shape of its input.

    Raises:
        ShapeError: Output and x differ in shape.

    >>> cell = tgr.nn.Residual(tgr.nn.GRUCell(3, 3))
    >>> tgr.scan(cell, tgr.ones((5, 2, 3)))[0].shape
    (5, 2, 3)
    """

    def forward(self, x: Any, state: Any) -> tuple[Tensor, Any]:
        """The cell's output plus x, and its state."""
        output, state = self.cell(x, state)
        if not isinstance(output, Tensor) or not hasattr(x, "shape"):
            found = type(output if hasattr(x, "shape") else x).__name__
            raise DtypeError(f"Residual: x or the cell's output is a {found}; expected Tensors")
        if tuple(output.shape) != tuple(x.shape):
            raise ShapeError(
                f"Residual: the output of {type(self.cell).__name__} has shape "
                f"{tuple(output.shape)}, x has {tuple(x.shape)}; expected the same"
            )
        return output + x, state


class LearnedState(CellWrapper):
    """A cell whose first state is learned: the same for every sequence of a batch.

    The parameters, one per leaf of the state, begin as the cell's own first state, which usually is
    zeros. Leaves that are no floating-point numbers, such as masks, stay the cell's own. Of a
    learned state within another the outer one counts.

    Shapes: a parameter ``(...)`` for a leaf ``(batch, ...)``.

    Args:
        cell: Any cell that defines an initial_state.

    Raises:
        ShapeError: A leaf of the first state does not begin with the batch.

    >>> cell = tgr.nn.LearnedState(tgr.nn.LSTMCell(3, 4))
    >>> [p.shape for p in cell.first]
    [(4,), (4,)]
    >>> outputs, state = tgr.scan(cell, tgr.ones((5, 2, 3)))
    >>> outputs.sum().backward()
    >>> cell.first[0].grad.shape
    (4,)
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        leaves, structure = tree.flatten(cell.initial_state(1))
        self.first: list[Parameter] = []
        for leaf, path in zip(leaves, structure.paths("state"), strict=True):
            if is_unit(leaf):
                if leaf.shape[:1] != (1,):
                    raise ShapeError(
                        f"LearnedState: {path} of {type(cell).__name__}'s first state has shape "
                        f"{tuple(leaf.shape)} for a batch of 1; expected (1, ...)"
                    )
                self.first.append(Parameter(leaf[0].detach()))

    def initial_state(self, batch_size: int) -> Any:
        """The parameters, once for each sequence of the batch."""
        first = iter(self.first)

        def learned(leaf: Any) -> Any:
            return broadcast_to(next(first), tuple(leaf.shape)) if is_unit(leaf) else leaf

        return tree.map(learned, self.cell.initial_state(batch_size))


class Stacked(Cell):
    """Cells on top of each other: the output of one is the input of the next, within each step.

    The state is the tuple of theirs.

    Args:
        cells: The cells, from the input on; or one list of them.
        dropout: The probability with which, while training, elements of the outputs between cells
            are zeroed, with a new mask at each step (Zaremba et al. 2014). For one mask per
            sequence, put the cells into a :class:`VariationalDropout` each.
        rng: Where the masks are drawn from.

    Raises:
        ShapeError: No cells; a cell's input is not as large as the output before it; the state is
            not one per cell.

    >>> cell = tgr.nn.Stacked(tgr.nn.GRUCell(3, 4), tgr.nn.LSTMCell(4, 5))
    >>> outputs, (h, (h2, c2)) = tgr.scan(cell, tgr.ones((6, 2, 3)))
    >>> outputs.shape, h.shape, c2.shape
    ((6, 2, 5), (2, 4), (2, 5))
    """

    def __init__(self, *cells: Any, dropout: float = 0.0, rng: Generator | None = None) -> None:
        if len(cells) == 1 and isinstance(cells[0], (list, tuple)):
            cells = tuple(cast("Any", cells[0]))
        if not cells:
            raise ShapeError("Stacked: no cells; expected one at least")
        for i, (below, above) in enumerate(pairwise(cells)):
            size, expected = output_size(below), getattr(above, "input_size", None)
            if None not in (size, expected) and size != expected:
                raise ShapeError(
                    f"Stacked: cells[{i}] gives an output of size {size}, cells[{i + 1}] takes an "
                    f"input of size {expected}; expected the same"
                )
        self.cells: list[Cell] = list(cells)
        self.dropout = Dropout(dropout, rng=rng)

    @property
    def input_size(self) -> int:
        """That of the first cell."""
        return cast("Any", self.cells[0]).input_size

    @property
    def hidden_size(self) -> int:
        """That of the last cell."""
        return cast("Any", self.cells[-1]).hidden_size

    @property
    def output_size(self) -> int | None:
        """That of the last cell, or its hidden_size."""
        return output_size(self.cells[-1])

    def initial_state(self, batch_size: int) -> tuple[Any, ...]:
        """Those of the cells."""
        return tuple(cell.initial_state(batch_size) for cell in self.cells)

    def forward(self, x: Any, state: Any) -> tuple[Any, tuple[Any, ...]]:
        """The output of the last cell, and the states of all."""
        if not isinstance(state, (tuple, list)) or len(cast("Any", state)) != len(self.cells):
            n = f" of {len(cast('Any', state))}" if isinstance(state, (tuple, list)) else ""
            raise ShapeError(
                f"Stacked: the state is a {type(cast('Any', state)).__name__}{n}; "
                f"expected a tuple of {len(self.cells)}, one per cell"
            )
        states: list[Any] = []
        for i, cell in enumerate(self.cells):
            x, new = cell(x if i == 0 else self.dropout(x), cast("Any", state)[i])
            states.append(new)
        return x, tuple(states)


class Bidirectional(Module):
    """Two cells over a sequence, one in each direction of time (Schuster & Paliwal 1997).

    Not a cell: its output at a step depends on the whole sequence.

    Shapes: xs ``(time, batch, input_size)``; outputs ``(time, batch, 2*hidden_size)``, the forward
    cell's first; the state a pair, the backward cell's being that after the first element.

    Args:
        forward_cell, backward_cell: The cells; a cell given twice shares its weights.

    Raises:
        ShapeError: The state is no pair; whatever :func:`tinygradrnn.scan` objects to.

    >>> layer = tgr.nn.Bidirectional(tgr.nn.GRUCell(3, 4), tgr.nn.GRUCell(3, 4))
    >>> outputs, (h, h_back) = layer(tgr.ones((5, 2, 3)), lengths=[5, 2])
    >>> outputs.shape, h.shape
    ((5, 2, 8), (2, 4))
    """

    def __init__(self, forward_cell: Cell, backward_cell: Cell) -> None:
        self.forward_cell, self.backward_cell = forward_cell, backward_cell

    def forward(self, xs: Any, state: Any = None, lengths: Any = None, **scan_options: Any) -> Any:
        """Both outputs side by side, and the pair of last states.

        Args:
            xs: The sequence.
            state: A pair of states, each None for the cell's own first one.
            lengths: The number of steps of each sequence of a right-padded batch.
            scan_options: For both calls of :func:`tinygradrnn.scan`. What ``return_states=True``
                adds comes as a third value, a pair too.
        """
        state = (None, None) if state is None else state
        if not isinstance(state, (tuple, list)) or len(cast("Any", state)) != 2:
            raise ShapeError(
                f"Bidirectional: the state is a {type(cast('Any', state)).__name__}; expected a "
                "pair, (forward, backward)"
            )
        there, back = cast("Any", state)
        scan_options["lengths"] = lengths
        a = scan(self.forward_cell, xs, there, **scan_options)
        b = scan(self.backward_cell, xs, back, reverse=True, **scan_options)
        return concat([a[0], b[0]], axis=-1), *zip(a[1:], b[1:], strict=True)
