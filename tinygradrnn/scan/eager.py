"""Unrolling a cell over time, with every operation visible on the tape."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from tinygradrnn import tree
from tinygradrnn.errors import DtypeError, ShapeError, UntraceableError
from tinygradrnn.op import as_value
from tinygradrnn.ops.gates import clip_cotangent, gate, trajectory
from tinygradrnn.ops.shape import stack, unstack
from tinygradrnn.region import Region, Sweep, region
from tinygradrnn.scan.contract import Contract, refuse_outgrown
from tinygradrnn.scan.lengths import Lengths
from tinygradrnn.scan.segments import Checkpoint, Report, bounds, plan_of
from tinygradrnn.scan.truncation import Schedule, Truncation
from tinygradrnn.tape import (
    Node,
    Trial,
    execution_order,
    nbytes,
    now,
    origin,
    recording,
    step,
    unique_bytes,
)
from tinygradrnn.tensor import Tensor

StepFunction = Callable[[Any, Any], tuple[Any, Any]]
Rows = list[list[Tensor]]  # the leaves at each step


def scan(
    cell: StepFunction,
    xs: Any,
    state: Any = None,
    *,
    lengths: Any = None,
    reverse: bool = False,
    truncation: Truncation | None = None,
    checkpoint: Checkpoint | str | int | None = None,
    mode: str = "auto",
    return_states: bool = False,
) -> Any:
    """Run ``output, state = cell(x, state)`` over time; return stacked outputs and the last state.

    Shapes: each leaf of xs ``(time, batch, ...)``; the cell sees ``(batch, ...)``; each leaf of the
    outputs ``(time, batch, ...)``. What `xs`, the state and the outputs are made of is up to the
    cell: any nesting of tuples, named tuples, lists, dicts and dataclasses of Tensors.

    A cell is compiled where that is possible: its step is recorded once, forward and backward, and
    run as a program (see :func:`explain`); the tape then holds the loop as one node. Eagerly, each
    step's operations are on the tape under that step's time, in a loop named after the cell.

    Args:
        cell: A :class:`~tinygradrnn.nn.Cell`, or any function ``(x, state) -> (output, state)``.
        xs: Time-major Tensors or NumPy arrays, also of integers.
        state: The state before the first step; by default ``cell.initial_state(batch_size)``.
        lengths: The number of steps of each sequence of a right-padded batch, ``(batch,)``. From
            there on a sequence's state stands still, its outputs are zero, and what is in xs is
            ignored. Every leaf of state and outputs must then begin with the batch.
        reverse: Go from the end to the start, with `lengths` from each sequence's own end. The
            outputs are in the order of xs all the same.
        truncation: Where gradients stop on their way back: a plan of ``tgr.bptt``. Forward stays
            as it is. By default nothing is cut.
        checkpoint: What is remembered for the way back, and what is computed again:
            ``"sqrt"``, a number of segments, a limit such as ``"64MB"``, or a
            :class:`~tinygradrnn.bptt.Checkpoint`, which reports. The gradient is the same, eagerly
            bit for bit. By default everything is remembered.
        mode: ``"auto"``: compiled if the cell can be compiled, otherwise eager. ``"eager"``: every
            operation of every step is on the tape. ``"compiled"``: raises if it cannot be.
        return_states: Return the state after every step, too, stacked like the outputs. Asked for
            the gradient with respect to these, :func:`~tinygradrnn.grad` gives ``dL/dh_t``.

    Returns:
        ``(outputs, state)``, or ``(outputs, state, states)`` with `return_states`.

    Raises:
        ShapeError: No leaves or no steps in xs, leaves of unequal time, lengths that do not fit; a
            cell whose output or state changes its structure or shape: names the leaf and the step.
        DtypeError: An output or state changes its dtype or is no Tensor; lengths not integers.
        GradientError: The state was computed with weights that were replaced since.
        UntraceableError: `mode` is ``"compiled"`` and the cell cannot be compiled: says why.

    >>> def total(x, state):
    ...     return state + x, state + x
    >>> tgr.scan(total, tgr.tensor([[1.0], [2.0], [3.0]]), tgr.zeros((1,)))
    (tensor([[1.],
            [3.],
            [6.]]), tensor([6.]))
    """
    if mode not in ("auto", "eager", "compiled"):
        raise ShapeError(f"scan: mode={mode!r}; expected 'auto', 'eager' or 'compiled'")
    if truncation is not None and not isinstance(truncation, Truncation):
        raise DtypeError(
            f"scan: truncation is {truncation!r}; expected a plan such as tgr.bptt.Chunk(32)"
        )
    plan = None if checkpoint is None else plan_of(checkpoint)
    loop = Loop(cell, xs, state, lengths=lengths, reverse=reverse)
    refuse_outgrown(loop.begin, loop.carried.structure)
    if truncation is not None:
        loop.follow(truncation.schedule(loop.time))
    if plan is not None:
        plan.check(loop.time)
    watch = recording.watch
    loop.along = return_states or watch is not None
    if mode != "eager" and not (mode == "auto" and watch and watch.eagerly):
        from tinygradrnn.scan.compiled import scan_compiled

        try:
            return scan_compiled(loop, plan, return_states)
        except UntraceableError as why:
            if mode == "compiled":
                raise UntraceableError(f"scan: {loop.name} cannot be compiled: {why}") from None
    with collecting_less:
        return loop.stacked(*loop.run(plan, return_states), return_states)


class Loop:
    """A cell about to be run over time: arguments checked, everything in its place.

    Attributes:
        time: The number of steps.
        columns: The leaves of xs.
        state: The state before the next step.
        along: Whether the state after every step is looked at.
    """

    def __init__(
        self, cell: Any, xs: Any, state: Any, *, lengths: Any = None, reverse: bool = False
    ) -> None:
        if not callable(cell) or isinstance(cell, type):
            raise DtypeError(
                f"scan: cell is {cell!r}; expected a cell, or a function (x, state) -> (output, "
                "state)"
            )
        self.cell, self.name = cell, getattr(cell, "__name__", None) or type(cell).__name__
        leaves, self.inputs = tree.flatten(xs)
        paths = self.inputs.paths("xs")
        columns = [cast("Tensor", as_value(leaf)) for leaf in leaves]
        self.time = _check_time(columns, paths)
        if state is None:
            state = _initial_state(cell, self.name, columns[0])
        leaves, structure = tree.flatten(state)
        self.begin: list[Tensor] = [cast("Tensor", as_value(leaf)) for leaf in leaves]
        self.state = structure.unflatten(self.begin)
        self.lengths = None
        if lengths is not None:
            self.lengths = Lengths(lengths, columns, paths)
            columns = [self.lengths.apply(x) for x in columns]
        self.columns = columns
        self._rows: list[tuple[Tensor, ...]] | None = None
        self.reverse = reverse
        self.along = False
        self.carried = Contract("state", self.begin, structure)
        self.produced: Contract | None = None
        self.schedule: Schedule | None = None
        self.marks: tuple[Any, ...] = ()
        self.report: Report | None = None  # of checkpointing
        self._first: list[Node] = []  # what the first steps left on the tape
        self._regions: weakref.WeakSet[Region] = weakref.WeakSet()

    @property
    def rows(self) -> list[tuple[Tensor, ...]]:
        """The leaves of x at each step."""
        if self._rows is None:
            self._rows = [unstack(x) for x in self.columns]
        return self._rows

    def follow(self, schedule: Schedule) -> None:
        """Set gates at the steps' boundaries."""
        self.schedule = schedule
        schedule.check(self.time)
        if schedule.reach is not None:
            self.marks = tuple([_Mark(t) for t in range(self.time)])

    # ------------------------------------------------------------------------------- the steps

    def steps(self, start: int, stop: int, state: Any) -> tuple[Rows, Rows, Any]:
        """Run the steps from `start` up to `stop`, in the order in which they run.

        Returns the leaves of the outputs and of the states at each step, and the last state.
        """
        cell, rows, carried, lengths = self.cell, self.rows, self.carried, self.lengths
        single = rows[0] if self.inputs is tree.LEAF else None
        outputs: Rows = []
        states: Rows = []
        for i in range(start, stop):
            t = self.time - 1 - i if self.reverse else i
            x = self.inputs.unflatten([row[t] for row in rows]) if single is None else single[t]
            begun = now()
            with step(t, self.name):
                if self.schedule is not None:
                    state = self._gated(i, state)
                result = cell(x, state)
                if type(result) is not tuple or len(result) != 2:
                    many = type(result) is tuple
                    found = f"{len(result)} values" if many else type(result).__name__
                    raise ShapeError(
                        f"scan: {self.name} returned {found}; expected (output, state)"
                    )
                output, new_state = result
                state_leaves = carried.check(new_state, t)
                produced = self.produced
                if produced is None:
                    produced = self.produced = Contract("output", *tree.flatten(output))
                output_leaves = produced.check(output, t)
                if lengths is not None and t >= lengths.shortest:
                    old = carried.structure.leaves(state)
                    state_leaves = lengths.choose(t, state_leaves, old, carried)
                    output_leaves = lengths.choose(t, output_leaves, None, produced)
                    new_state = carried.structure.unflatten(state_leaves)
                if self.along:
                    entered = carried.structure.leaves(state)
                    state_leaves = _own_places(state_leaves, entered, begun)
                    new_state = carried.structure.unflatten(state_leaves)
                state = new_state
                if recording.watch is not None:
                    paths = carried.structure.paths("state")
                    recording.watch.left(recording.step, paths, state_leaves)
            outputs.append(output_leaves)
            states.append(state_leaves)
        if self.report is not None:
            self.report.steps_run += stop - start
        return outputs, states, state

    def _gated(self, i: int, state: Any) -> Any:
        """The state that enters step `i`, as far as gradients are concerned."""
        schedule = self.schedule
        assert schedule is not None
        factor = schedule.gates[i]
        mark = self.marks[i] if self.marks else None
        clips = schedule.max_norm is not None or schedule.max_value is not None

        def gated(x: Tensor) -> Tensor:
            if x.edge is None:
                return x
            if factor == 0:
                return x.detach()
            if factor != 1 or mark is not None:
                x = gate(x, factor, mark)
            return clip_cotangent(x, schedule.max_norm, schedule.max_value) if clips else x

        return tree.map(gated, state) if factor != 1 or mark or clips else state

    # ------------------------------------------------------------------------------ as regions

    def run(self, plan: Checkpoint | None = None, with_states: bool = True) -> tuple[Rows, Rows]:
        """Run all steps; return the leaves of outputs and states, and set `state` to the last."""
        schedule = self.schedule
        if schedule is None or schedule.reach is None or not recording.enabled:
            outputs, states, self.state = self._divided(plan, with_states)
            return outputs, states

        # Losses that reach equally far back are one walk through a region of the tape.
        def everything() -> tuple[Rows, Rows, Any]:
            outputs, states, last = self._divided(plan, with_states)
            return outputs, states if with_states else [], last

        seen = self._folded(
            everything,
            self.time,
            self.state,
            sweeps=lambda: self._sweeps(with_states),
        )
        outputs, states, self.state = seen
        return outputs, states

    def _divided(self, plan: Checkpoint | None, with_states: bool) -> tuple[Rows, Rows, Any]:
        if plan is None or not recording.enabled or self.time < 4:
            return self.steps(0, self.time, self.state)
        # The first steps are not like the others: their state may be on no tape, and they are the
        # first to save the weights. What the third adds to the bytes saved is what every step will.
        since = now()
        outputs, states, state = self.steps(0, 2, self.state)
        two = unique_bytes(_tape([*outputs[1], *states[1]], since))
        more = self.steps(2, 3, state)
        outputs, states, state = outputs + more[0], states + more[1], more[2]
        self._first = _tape([*outputs[2], *states[2]], since)
        three = unique_bytes(self._first)
        size = sum(nbytes(x.raw) for x in states[2])
        self.report = plan.report = plan.divide(self.time, size, three - two, three)
        self.report.steps_run = 3
        more = self._segments(3, self.time, state, self.report.segments, with_states)
        return outputs + more[0], states + more[1], more[2]

    def _segments(
        self, start: int, stop: int, state: Any, parts: Sequence[int], with_states: bool
    ) -> tuple[Rows, Rows, Any]:
        """Run steps in parts, of which all but the last forget their tape."""
        if not parts:
            return self.steps(start, stop, state)
        outputs: Rows = []
        states: Rows = []
        for a, b in bounds(start, stop, parts[0]):
            more = self._segments if b == stop else self._forgetful
            done = more(a, b, state, parts[1:], with_states)
            outputs += done[0]
            states += done[1]
            state = done[2]
        return outputs, states, state

    def _forgetful(
        self, start: int, stop: int, state: Any, parts: Sequence[int], with_states: bool
    ) -> tuple[Rows, Rows, Any]:
        """Run steps that keep nothing but the state they begin with."""
        again = False

        def segment() -> tuple[Rows, Rows, Any]:
            nonlocal again
            since = now()
            with collecting_less:
                done = self._segments(start, stop, state, parts, with_states)
            report = self.report
            if again and report is not None and not report.measured_bytes and not parts:
                tape = _tape([*done[0][-1], *done[1][-1]], since)
                report.measured_bytes = unique_bytes([*self._first, *self._regions, *tape])
            again = True
            return done if with_states else (done[0], [], done[2])

        return self._folded(segment, stop - start, state, forget=True)

    def _folded(
        self, f: Callable[[], tuple[Rows, Rows, Any]], steps: int, state: Any, **options: Any
    ) -> tuple[Rows, Rows, Any]:
        """What `f` returns, its stretch of tape folded into one node."""
        widths: list[int] = []

        def flat() -> list[Tensor]:
            outputs, states, last = f()
            widths[:] = [len(outputs[0]), len(states[0]) if states else 0]
            leaves = self.carried.structure.leaves(last)
            # States first, so that the last ones are a step's outputs and the state after it.
            return [x for rows in (states, outputs) for row in rows for x in row] + leaves

        keeps = self.carried.structure.leaves(state)
        compare = len(keeps) + (len(self.produced.looks) if self.produced else 0)
        results, node = region(
            flat, f"{self.name} over {steps} steps", keeps=keeps, compare=compare, **options
        )
        if node is not None:
            self._regions.add(node)
        a, b = widths
        states = [results[i * b : (i + 1) * b] for i in range(steps)] if b else []
        rest = results[steps * b :]
        outputs = [rest[i * a : (i + 1) * a] for i in range(steps)]
        return outputs, states, self.carried.structure.unflatten(rest[steps * a :])

    def _sweeps(self, with_states: bool) -> list[Sweep]:
        """The walks back: each from the losses that reach to the same step."""
        assert self.schedule is not None and self.schedule.reach is not None
        assert self.produced is not None
        a, b = len(self.produced.looks), len(self.carried.looks)
        n = self.time
        found: dict[int, list[int]] = {}
        for t, reach in enumerate(self.schedule.reach):
            starts = found.setdefault(reach, [])
            starts.extend(range(t * b, (t + 1) * b) if with_states else ())
            first = (n * b if with_states else 0) + t * a
            starts.extend(range(first, first + a))
        end = n * a + (n * b if with_states else 0)
        found[self.schedule.reach[-1]].extend(range(end, end + b))  # the last state
        return [
            Sweep(frozenset(starts), self.marks[reach] if reach else None)
            for reach, starts in sorted(found.items(), reverse=True)
        ]

    # --------------------------------------------------------------------------------- results

    def stacked(self, outputs: Rows, states: Rows, return_states: bool) -> Any:
        """What ``scan`` returns."""
        assert self.produced is not None
        made = self.produced.structure.unflatten(self._columns(outputs, stack))
        if not return_states:
            return made, self.state
        along = self._columns(states, trajectory)
        return made, self.state, tree.flatten(self.state)[1].unflatten(along)

    def _columns(self, rows: Rows, join: Callable[..., Tensor]) -> Iterator[Tensor]:
        ordered = rows[::-1] if self.reverse else rows
        return (join(column) for column in zip(*ordered, strict=True))


def _own_places(leaves: Sequence[Tensor], entered: Sequence[Tensor], begun: int) -> list[Tensor]:
    """The leaves of a state, each at a place on the tape that is no other state's.

    Or the gradient at a state that a step hands on as it came would count the uses before it, too.
    """
    found: list[Tensor] = []
    taken = {id(x) for x in entered}
    for x in leaves:
        edge = x.edge
        older = edge is not None and type(edge) is not Trial and origin(edge).index < begun
        found.append(gate(x) if older or (edge is not None and id(x) in taken) else x)
        taken.add(id(x))
    return found


class _Mark:
    """The name of a boundary between two steps of one loop."""

    __slots__ = ("t",)

    def __init__(self, t: int) -> None:
        self.t = t

    def __repr__(self) -> str:
        return f"before step {self.t}"


def _tape(ends: Sequence[Tensor], since: int) -> list[Node]:
    order = execution_order((x.edge for x in ends if x.edge), since)
    return [n for n in order if isinstance(n, Node)]


class CollectingLess:
    """Python's garbage collection, made rarer in a ``with`` block.

    It looks again and again at objects that live on, and a tape is many of them and has no cycles
    to be collected: that took a third of the time of small steps, and more than half in long loops.
    The thresholds are the whole process's, so the first loop sets them, the last restores them.
    """

    def __init__(self) -> None:
        self._lock, self._depth, self._before = threading.Lock(), 0, (0, 0, 0)

    def __enter__(self) -> None:
        with self._lock:
            if not self._depth:
                self._before = gc.get_threshold()
                young, middle, _ = self._before
                if young:  # 0: somebody has turned it off altogether
                    gc.set_threshold(max(young, 100_000), max(middle, 100), 1 << 30)
            self._depth += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                if not gc.get_freeze_count():
                    # To the oldest generation, unseen: freezing and thawing are two list splices.
                    gc.freeze()
                    gc.unfreeze()
                gc.set_threshold(*self._before)


collecting_less = CollectingLess()


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
