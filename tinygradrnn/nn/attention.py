"""A cell that at every step reads from a memory, such as the outputs of an encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from tinygradrnn import tree
from tinygradrnn.errors import DtypeError, ShapeError
from tinygradrnn.nn import init
from tinygradrnn.nn.cells import Cell
from tinygradrnn.nn.layers import Linear, check_sizes
from tinygradrnn.nn.wrappers import CellWrapper, output_size
from tinygradrnn.op import as_value
from tinygradrnn.ops.compare import zeros_like
from tinygradrnn.ops.elementwise import tanh, where
from tinygradrnn.ops.linalg import matmul
from tinygradrnn.ops.losses import softmax
from tinygradrnn.ops.shape import concat, expand_dims, moveaxis
from tinygradrnn.random import Generator
from tinygradrnn.tensor import Tensor


class AttentionOutput(NamedTuple):
    """What comes out of a step of attention.

    Attributes:
        h: The output of the cell within, ``(batch, hidden_size)``.
        context: What was read from the memory, ``(batch, memory_size)``.
        weights: How much from where: ``(batch, source_time)``, which sum to 1.
    """

    h: Any
    context: Any
    weights: Any


def _first_leaf(state: Any) -> Any:
    return tree.flatten(state)[0][0]


class AttentionCell(CellWrapper):
    """A cell with additive attention (Bahdanau et al. 2015, equations 4 to 6 and appendix A.1.2).

    ::

        e_j = v . tanh(W_a h + U_a memory_j)                    (h: of the state before)
        a = softmax(e)
        context = sum_j a_j memory_j
        output, state' = cell([x, context], state)

    The memory is not part of the state: :meth:`over` takes it, and gives the cell to scan.

    Shapes: x ``(batch, input_size)``, memory ``(source_time, batch, memory_size)``.

    Args:
        cell: The cell within, whose input is x and the context.
        memory_size: The last size of the memory.
        attention_size: The size of the space in which h and the memory are compared; by default
            that of h.
        query: Takes h from the state; by default its first leaf, the h of the cells here. For a
            stack you may want ``lambda state: state[-1].h``.
        rng: Where the initial values are drawn from.
        dtype: The parameters' dtype.

    Raises:
        ShapeError: A size makes no sense; the cell does not tell its sizes, or has no place for the
            context.

    >>> encoder, decoder = tgr.nn.GRUCell(3, 4), tgr.nn.GRUCell(5 + 4, 6)
    >>> memory, _ = tgr.scan(encoder, tgr.ones((7, 2, 3)), lengths=[7, 4])
    >>> attention = tgr.nn.AttentionCell(decoder, memory_size=4)
    >>> outputs, h = tgr.scan(attention.over(memory, lengths=[7, 4]), tgr.ones((8, 2, 5)))
    >>> outputs.h.shape, outputs.context.shape, outputs.weights.shape
    ((8, 2, 6), (8, 2, 4), (8, 2, 7))
    >>> bool(tgr.all(outputs.weights[:, 1, 4:] == 0))
    True
    """

    def __init__(
        self,
        cell: Cell,
        memory_size: int,
        attention_size: int | None = None,
        query: Callable[[Any], Any] = _first_leaf,
        *,
        rng: Generator | None = None,
        dtype: str = "float32",
    ) -> None:
        super().__init__(cell)
        query_size, inputs = output_size(cell), getattr(cell, "input_size", None)
        check_sizes("AttentionCell", memory_size=memory_size)
        if query_size is None or inputs is None or inputs <= memory_size:
            raise ShapeError(
                f"AttentionCell: {type(cell).__name__} has input_size {inputs} and hidden_size "
                f"{query_size}; expected an input_size of x's and memory_size={memory_size} "
                "together, and a hidden_size"
            )
        size = query_size if attention_size is None else attention_size
        rng = init.generator(rng)
        self.memory_size, self.query = memory_size, query
        self.of_query = Linear(query_size, size, bias=False, rng=rng, dtype=dtype)
        self.of_memory = Linear(memory_size, size, bias=False, rng=rng, dtype=dtype)
        self.score = Linear(size, 1, bias=False, rng=rng, dtype=dtype)

    @property
    def input_size(self) -> int:
        """The size of x, without the context."""
        return cast("Any", self.cell).input_size - self.memory_size

    def over(self, memory: Any, lengths: Any = None) -> BoundAttention:
        """The cell that reads from `memory`.

        Args:
            memory: ``(source_time, batch, memory_size)``.
            lengths: How much of each sequence of the memory is not padding, ``(batch,)``. What is
                in the padding is ignored.

        Raises:
            ShapeError: The memory has another shape; lengths that do not fit, or of nothing.
            DtypeError: Lengths are not integers.
        """
        return BoundAttention(self, memory, lengths)

    def forward(self, x: Any, state: Any) -> tuple[Any, Any]:
        """There is nothing to read from yet.

        Raises:
            ShapeError: Always.
        """
        raise ShapeError("AttentionCell: no memory given; expected cell.over(memory) to be scanned")


class BoundAttention(Cell):
    """An :class:`AttentionCell` and the memory it reads from: see :meth:`AttentionCell.over`."""

    attention: AttentionCell

    def __init__(self, attention: AttentionCell, memory: Any, lengths: Any = None) -> None:
        # Not an ordinary attribute: it would rename the parameters, at every new memory.
        object.__setattr__(self, "attention", attention)
        memory = cast("Tensor", as_value(memory))
        if memory.ndim != 3 or memory.shape[2] != attention.memory_size or not memory.shape[0]:
            raise ShapeError(
                f"AttentionCell.over: memory has shape {tuple(memory.shape)}; expected "
                f"(source_time, batch, {attention.memory_size}) with a step at least"
            )
        memory = moveaxis(memory, 0, 1)
        self.padding: Tensor | None = None
        if lengths is not None:
            self.padding = _padding(memory, lengths)
            # Nothing of what stands there may come through: a weight of zero times NaN is NaN.
            memory = where(expand_dims(self.padding, axis=-1), zeros_like(memory), memory)
        self.memory = memory  # (batch, source_time, memory_size)
        self.keys = attention.of_memory(memory)  # the same at every step

    @property
    def input_size(self) -> int:
        """The size of x, without the context."""
        return self.attention.input_size

    @property
    def hidden_size(self) -> int:
        """That of the cell within."""
        return self.attention.hidden_size

    @property
    def output_size(self) -> int | None:
        """The size of the output's h."""
        return self.attention.output_size

    def initial_state(self, batch_size: int) -> Any:
        """That of the cell within."""
        return self.attention.initial_state(batch_size)

    def forward(self, x: Any, state: Any) -> tuple[AttentionOutput, Any]:
        """Read by what the state asks for, then step.

        Raises:
            ShapeError: x or the state's h do not go with the memory.
        """
        attention = self.attention
        query = attention.query(state)
        if query.shape[:-1] != self.memory.shape[:1] or x.shape[:-1] != self.memory.shape[:1]:
            raise ShapeError(
                f"AttentionCell: x has shape {tuple(x.shape)}, the query {tuple(query.shape)}; "
                f"expected a batch of {self.memory.shape[0]}, as the memory's"
            )
        hidden = tanh(self.keys + expand_dims(attention.of_query(query), axis=1))
        energies = attention.score(hidden)[..., 0]
        if self.padding is not None:
            energies = where(self.padding, -float("inf"), energies)
        weights = softmax(energies, axis=-1)
        context = matmul(expand_dims(weights, axis=1), self.memory)[:, 0]
        output, state = attention.cell(concat([x, context], axis=-1), state)
        return AttentionOutput(output, context, weights), state


def _padding(memory: Tensor, lengths: Any) -> Tensor:
    """Where a right-padded memory ``(batch, source_time, ...)`` is padding."""
    import numpy

    host = lengths.numpy() if isinstance(lengths, Tensor) else numpy.asarray(lengths)
    batch, time = memory.shape[:2]
    if host.dtype.kind not in "iu":
        raise DtypeError(f"AttentionCell.over: lengths are {host.dtype}; expected integers")
    if host.shape != (batch,):
        raise ShapeError(
            f"AttentionCell.over: lengths have shape {host.shape}; expected ({batch},)"
        )
    for i, length in enumerate(host.tolist()):
        if not 1 <= length <= time:
            raise ShapeError(f"AttentionCell.over: lengths[{i}] is {length}; expected 1 to {time}")
    return Tensor(memory.backend.from_host(numpy.arange(time) >= host[:, None]), memory.backend)
