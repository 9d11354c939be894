"""Unrolling a cell over time, with every operation visible on the tape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from tinygradrnn import tree
from tinygradrnn.errors import DtypeError, ShapeError
from tinygradrnn.op import as_value
from tinygradrnn.ops.compare import zeros_like
from tinygradrnn.ops.elementwise import where
from tinygradrnn.ops.shape import stack, unstack
from tinygradrnn.tape import step
from tinygradrnn.tensor import Tensor

StepFunction = Callable[[Any, Any], tuple[Any, Any]]


def scan(
    cell: StepFunction,
    xs: Any,
    state: Any = None,
    *,
    lengths: Any = None,
    reverse: bool = False,
    return_states: bool = False,
) -> Any:
    """Run ``output, state = cell(x, state)`` over time; return stacked outputs and the last state.

    Shapes: each leaf of xs ``(time, batch, ...)``; the cell sees ``(batch, ...)``; each leaf of the
    outputs ``(time, batch, ...)``. What `xs`, the state and the outputs are made of is up to the
    cell: any nesting of tuples, named tuples, lists, dicts and dataclasses of Tensors.

    Each step's operations are on the tape under that step's time, in a loop named after the cell.

    Args:
        cell: A :class:`~tinygradrnn.nn.Cell`, or any function ``(x, state) -> (output, state)``.
        xs: Time-major Tensors or NumPy arrays, also of integers.
        state: The state before the first step; by default ``cell.initial_state(batch_size)``.
        lengths: The number of steps of each sequence of a right-padded batch, ``(batch,)``. From
            there on a sequence's state stands still, its outputs are zero, and what is in xs is
            ignored. Every leaf of state and outputs must then begin with the batch.
        reverse: Go from the end to the start, with `lengths` from each sequence's own end. The
            outputs are in the order of xs all the same.
        return_states: Return the state after every step, too, stacked like the outputs.

    Returns:
        ``(outputs, state)``, or ``(outputs, state, states)`` with `return_states`.

    Raises:
        ShapeError: No leaves or no steps in xs, leaves of unequal time, lengths that do not fit; a
            cell whose output or state changes its structure or shape: names the leaf and the step.
        DtypeError: An output or state changes its dtype or is no Tensor; lengths not integers.

    >>> def total(x, state):
    ...     return state + x, state + x
    >>> tgr.scan(total, tgr.tensor([[1.0], [2.0], [3.0]]), tgr.zeros((1,)))
    (tensor([[1.],
            [3.],
            [6.]]), tensor([6.]))
    """
    name = _name(cell)
    leaves, inputs = tree.flatten(xs)
    paths = inputs.paths("xs")
    columns = [cast("Tensor", as_value(leaf)) for leaf in leaves]
    time = _check_time(columns, paths)
    if state is None:
        state = _initial_state(cell, name, columns[0])
    state = tree.map(as_value, state)
    mask = None
    if lengths is not None:
        mask = _Mask(lengths, columns, paths)
        columns = [mask.apply(x) for x in columns]
    rows = [unstack(x) for x in columns]
    times = range(time)[::-1] if reverse else range(time)
    carried, produced = _Contract("state", state), None
    outputs: list[list[Tensor]] = []  # the leaves at each step
    states: list[list[Tensor]] = []
    for t in times:
        x = rows[0][t] if inputs is tree.LEAF else inputs.unflatten([row[t] for row in rows])
        with step(t, name):
            result = cell(x, state)
            if type(result) is not tuple or len(result) != 2:
                found = f"{len(result)} values" if type(result) is tuple else type(result).__name__
                raise ShapeError(f"scan: {name} returned {found}; expected (output, state)")
            output, new_state = result
            state_leaves = carried.check(new_state, t)
            if produced is None:
                produced = _Contract("output", output)
            output_leaves = produced.check(output, t)
            if mask is not None and t >= mask.shortest:
                state_leaves = mask.choose(
                    t, state_leaves, carried.structure.leaves(state), carried
                )
                output_leaves = mask.choose(t, output_leaves, None, produced)
                new_state = carried.structure.unflatten(state_leaves)
            state = new_state
        outputs.append(output_leaves)
        if return_states:
            states.append(state_leaves)
    assert produced is not None
    stacked = _stacked(outputs, produced.structure, reverse)
    if not return_states:
        return stacked, state
    return stacked, state, _stacked(states, tree.flatten(state)[1], reverse)


def _stacked(steps: list[list[Tensor]], structure: tree.Structure, reverse: bool) -> Any:
    if reverse:
        steps.reverse()
    return structure.unflatten(stack(column) for column in zip(*steps, strict=True))


def _name(cell: Any) -> str:
    return getattr(cell, "__name__", None) or type(cell).__name__


def _check_time(columns: Sequence[Tensor], paths: Sequence[str]) -> int:
    """The number of steps, which all leaves of xs share."""
    if not columns:
        raise ShapeError(
            "scan: xs has no leaves, so there is no time in it; for a cell without input "
            "pass the times themselves, tgr.arange(steps)"
        )
    for x, path in zip(columns, paths, strict=True):
        if x.ndim == 0:
            raise ShapeError(f"scan: {path} has no axes; expected (time, ...)")
        if x.shape[0] != columns[0].shape[0]:
            raise ShapeError(
                f"scan: {path} has {x.shape[0]} steps, {paths[0]} has {columns[0].shape[0]}; "
                "expected as many"
            )
    if columns[0].shape[0] == 0:
        raise ShapeError(f"scan: {paths[0]} of shape {columns[0].shape} has no steps")
    return columns[0].shape[0]


def _initial_state(cell: Any, name: str, x: Tensor) -> Any:
    make = getattr(cell, "initial_state", None)
    if make is None:
        raise ShapeError(
            f"scan: {name} has no initial_state, so the state before the first step must be given; "
            "pass () if it has none"
        )
    if x.ndim < 2:
        raise ShapeError(
            f"scan: xs of shape {x.shape} has no batch axis, from which to make the state before "
            "the first step; expected (time, batch, ...), or a state given"
        )
    return make(x.shape[1])


class _Contract:
    """What a state or an output must look like at every step: structure, shapes and dtypes.

    Looked at after each step, as a wrong one would otherwise broadcast, or fail much later.
    """

    def __init__(self, what: str, example: Any) -> None:
        leaves, self.structure = tree.flatten(example)
        self.what = what
        self.looks = [
            (leaf.array.shape, leaf.array.dtype) if isinstance(leaf, Tensor) else ((), None)
            for leaf in leaves
        ]

    def check(self, value: Any, t: int) -> list[Tensor]:
        """The leaves of `value`, if it is as it should be."""
        try:
            leaves = self.structure.leaves(value, self.what)
        except tree.StructureError as error:
            raise ShapeError(f"scan: step {t}: {error}") from None
        for i, leaf in enumerate(leaves):
            shape, dtype = self.looks[i]
            if not isinstance(leaf, Tensor):
                path = self.path(i)
                found = type(leaf).__name__
                raise DtypeError(f"scan: step {t}: {path} is a {found}; expected a Tensor")
            if leaf.array.shape != shape:
                raise ShapeError(
                    f"scan: step {t}: {self.path(i)} has shape {leaf.shape}; before it was {shape}"
                )
            if leaf.array.dtype != dtype:
                raise DtypeError(
                    f"scan: step {t}: {self.path(i)} is {leaf.dtype}; before it was {dtype}. "
                    "Give xs and the first state the cell's dtype, with .astype(...)"
                )
        return leaves

    def path(self, i: int) -> str:
        """The path of a leaf."""
        return self.structure.paths(self.what)[i]


class _Mask:
    """Which sequences of a right-padded batch are still going on, at each step."""

    def __init__(self, lengths: Any, columns: Sequence[Tensor], paths: Sequence[str]) -> None:
        import numpy

        host = lengths.numpy() if isinstance(lengths, Tensor) else numpy.asarray(lengths)
        if host.dtype.kind not in "iu":
            raise DtypeError(f"scan: lengths are {host.dtype}; expected integers")
        for x, path in zip(columns, paths, strict=True):
            if host.ndim != 1 or x.shape[1:2] != host.shape:
                raise ShapeError(
                    f"scan: lengths have shape {host.shape}, {path} has {x.shape}; "
                    "expected (batch,) and (time, batch, ...)"
                )
        time = columns[0].shape[0]
        for i, length in enumerate(host.tolist()):
            if not 0 <= length <= time:
                raise ShapeError(f"scan: lengths[{i}] is {length}; expected 0 to {time}")
        self.batch = host.shape[0]
        self.shortest = int(host.min(initial=time))
        backend = columns[0].backend
        going = numpy.arange(time)[:, None] < host
        self._going = Tensor(backend.from_host(going), backend)
        self._rows: dict[int, tuple[Tensor, ...]] = {}

    def _fit(self, ndim: int) -> Tensor:
        return self._going.reshape((*self._going.shape, *(1,) * (ndim - 1)))

    def apply(self, x: Tensor) -> Tensor:
        """Zeros where xs is padding: whatever stands there, NaN or -1, must not reach the cell.

        Choosing the old state afterwards would not be enough: a gradient of zero times NaN is NaN.
        """
        return where(self._fit(x.ndim - 1), x, zeros_like(x))

    def choose(
        self, t: int, leaves: list[Tensor], others: list[Tensor] | None, contract: _Contract
    ) -> list[Tensor]:
        """The leaves of sequences that go on at step `t`, and of the rest the others, or zeros."""
        chosen: list[Tensor] = []
        for i, leaf in enumerate(leaves):
            if leaf.shape[:1] != (self.batch,):
                raise ShapeError(
                    f"scan: step {t}: with lengths, {contract.path(i)} must begin with the batch; "
                    f"found {leaf.shape}, expected ({self.batch}, ...)"
                )
            if leaf.ndim not in self._rows:
                self._rows[leaf.ndim] = unstack(self._fit(leaf.ndim))
            other = zeros_like(leaf) if others is None else others[i]
            chosen.append(where(self._rows[leaf.ndim][t], leaf, other))
        return chosen
