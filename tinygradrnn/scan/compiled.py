"""Running a cell over time as a program, and the one node that stands for it on the tape."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tinygradrnn import tree
from tinygradrnn.backend import Array, Backend
from tinygradrnn.errors import GradientError, TinygradrnnError
from tinygradrnn.loop import Var
from tinygradrnn.ops.gates import clip_cotangent, trajectory
from tinygradrnn.ops.shape import stack
from tinygradrnn.region import Region, again, region_recipe
from tinygradrnn.scan.contract import Contract
from tinygradrnn.scan.eager import Loop
from tinygradrnn.scan.fingerprint import Fingerprint, TooMuch
from tinygradrnn.scan.program import Look, StepProgram, Way, trace_step
from tinygradrnn.scan.schedule import run
from tinygradrnn.scan.segments import Checkpoint, Report, bounds
from tinygradrnn.scan.stacked import Steps
from tinygradrnn.scan.trace import Untraceable
from tinygradrnn.tape import Leaf, Output, Value, nbytes, no_grad, recording
from tinygradrnn.tensor import Tensor

# ------------------------------------------------------------------------------------ programs


class _Entry(NamedTuple):
    program: StepProgram | None
    positions: list[int]  # of what was captured, among the tensors of the fingerprint
    reason: str
    kept: Any


_programs: dict[Any, _Entry] = {}
_lock = threading.RLock()
LIMIT = 256
"""Programs to keep; the one used longest ago makes room for a new one."""


def program_of(loop: Loop) -> tuple[StepProgram, list[Any]]:
    """The program of a loop's cell, and what it takes from outside, as it is now.

    Raises:
        Untraceable: There is none, and why.
    """
    backend = loop.columns[0].backend
    if recording.trace is not None:
        raise Untraceable("it runs inside a step that is being traced")
    try:
        print_ = Fingerprint(loop.cell)
    except TooMuch:
        raise Untraceable("it refers to more objects than are looked through") from None
    going = loop.lengths is not None
    key = (
        print_.key,
        backend,
        recording.enabled,
        going,
        loop.inputs,
        tuple([(x.array.shape[1:], x.array.dtype, x.edge is not None) for x in loop.columns]),
        loop.carried.structure,
        tuple([(x.array.shape, x.array.dtype, x.edge is not None) for x in loop.begin]),
    )
    entry = _programs.get(key)
    if entry is None:
        with _lock:
            entry = _programs.get(key) or _make(loop, backend)
            _programs[key] = entry
            while len(_programs) > LIMIT:
                del _programs[next(iter(_programs))]
    if entry.program is None:
        raise Untraceable(entry.reason)
    return entry.program, [print_.tensors[i] for i in entry.positions]


def _make(loop: Loop, backend: Backend) -> _Entry:
    before = Fingerprint(loop.cell, undo=True)

    def looks(leaves: Sequence[Tensor], skip: int) -> list[Look]:
        active = recording.enabled
        return [
            Look(x.array.shape[skip:], x.array.dtype, active and x.edge is not None)
            for x in leaves
        ]

    state = loop.carried.structure
    batch = None if loop.lengths is None else loop.lengths.batch
    try:
        program = trace_step(
            loop.cell,
            backend,
            (loop.inputs, looks(loop.columns, 1)),
            (state, looks(loop.begin, 0)),
            batch,
            before.tensors,
            loop.name,
        )
        if Fingerprint(loop.cell).key != before.key:
            raise Untraceable("a step changes an attribute or another object that the cell uses")
        places = {id(x): i for i, x in enumerate(before.tensors)}
        positions = [places[id(program.trace.captured[v])] for v in program.captured]
        program.trace.let_go()
    except Untraceable as why:
        return _Entry(None, [], str(why), before.kept)
    except Exception as error:
        # Eagerly the same error comes up where the user expects it, if it does.
        return _Entry(None, [], f"{type(error).__name__}: {error}", before.kept)
    finally:
        before.restore()
    return _Entry(program, positions, "", before.kept)


# -------------------------------------------------------------------------------------- the node


class _Stretch(NamedTuple):
    """Some steps of a loop, in the order in which they run."""

    start: int
    stop: int
    carried: list[Array]  # what enters the first of them
    values: Steps | None  # what the way back needs; None to compute it again
    parts: Sequence[int]  # how a stretch that is computed again is divided


class CompiledScan(Region):
    """A whole loop as one node, which runs backward as a program.

    For a gradient of a gradient it runs again eagerly, as a region that has forgotten its tape.
    """

    __slots__ = ("_job", "_stretches")
    _job: _Job
    _stretches: list[_Stretch] | None

    def shares(
        self, slots: list[Any], wanted: set[int]
    ) -> tuple[Sequence[Any], dict[int, Array]] | None:
        """The gradients of the inputs, and of the states that are wanted."""
        if self.saved is None or self._stretches is None:
            raise GradientError(
                f"backward: {self.name} was already freed by an earlier backward. Pass "
                "retain_graph=True to that earlier call, or compute the result again"
            )
        return self._job.backward(self._stretches, slots, wanted)

    def free(self) -> None:
        """Let go of all that is needed for the walk."""
        super().free()
        self._stretches = None


class _Job:
    """One call of ``scan``, compiled."""

    def __init__(
        self,
        loop: Loop,
        program: StepProgram,
        captured: list[Any],
        plan: Checkpoint | None,
        with_states: bool,
    ) -> None:
        self.program, self.reverse, self.time = program, loop.reverse, loop.time
        self.backend = loop.columns[0].backend
        self.schedule, self.with_states = loop.schedule, with_states
        self.columns = [x.array for x in loop.columns]
        if loop.lengths is not None:
            self.columns.append(loop.lengths.going.array)
        self.captured = [x.array if isinstance(x, Value) else x for x in captured]
        self.plan = plan if program.active and loop.time >= 4 else None
        self.report: Report | None = None

    # -------------------------------------------------------------------------------- forward

    def between(self, array: Array, start: int, stop: int) -> Array:
        """The part of a stacked array that belongs to some steps, counted as they run."""
        if stop - start == self.time:
            return array
        if self.reverse:
            start, stop = self.time - stop, self.time - start
        return array[start:stop, ...]

    def forward(
        self, start: int, stop: int, carried: list[Array], with_states: bool
    ) -> tuple[Steps, list[Array]]:
        """Run some steps; returns all values and the state after them."""
        program = self.program
        values = Steps(self.backend, stop - start)
        values.constant = dict(zip(program.captured, self.captured, strict=True))
        values.constant.update(program.trace.made)
        values.stacked = {
            v: self.between(x, start, stop)
            for v, x in zip(program.stacked, self.columns, strict=True)
        }
        enter = {a: x for (a, _), x in zip(program.carried, carried, strict=True)}
        left = run(program.forward(with_states), self.backend, values, enter, self.reverse)
        if self.report is not None:
            self.report.steps_run += stop - start
        return values, [left[a] for a, _ in program.carried]

    def run(self, begin: list[Array]) -> tuple[list[Array], list[Array], list[Array], list[Any]]:
        """All steps: the outputs, the last state, the states and what is kept for the way back."""
        parts: Sequence[int] = ()
        if self.plan is not None:
            size = sum(nbytes(x) for x in begin)
            step = self._step_bytes()
            fixed = sum(map(nbytes, self.captured))
            self.report = self.plan.report = self.plan.divide(self.time, size, step, fixed)
            parts = self.report.segments
        stretches: list[_Stretch] = []
        rows: list[Steps] = []
        carried = begin
        where = bounds(0, self.time, parts[0]) if parts else [(0, self.time)]
        for a, b in where:
            entered = carried
            values, carried = self.forward(a, b, carried, self.with_states)
            keep = b == self.time and len(parts) < 2
            stretches.append(
                _Stretch(a, b, entered, self._kept(values) if keep else None, parts[1:])
            )
            rows.append(values)
        if self.report is not None:
            self._measure(stretches)
        program = self.program
        outputs = [self._joined(rows, v) for v in program.outputs]
        states = [self._joined(rows, b) for _, b in program.carried] if self.with_states else []
        return outputs, carried, states, stretches

    def _joined(self, rows: list[Steps], v: Var) -> Array:
        parts = [values.full(v) for values in rows]
        if len(parts) == 1:
            return parts[0]
        return self.backend.xp.concat(parts[::-1] if self.reverse else parts, axis=0)

    def _kept(self, values: Steps) -> Steps:
        """The values that the way back needs."""
        kept = Steps(self.backend, values.time)
        wanted = self.program.saved
        kept.stacked = {v: values.stacked[v] for v in wanted if v in values.stacked}
        kept.constant = {
            v: x
            for v, x in values.constant.items()
            if v in values.constant and (v in self.program.needed_constants)
        }
        return kept

    def _step_bytes(self) -> int:
        program = self.program
        theirs = set(program.stacked)
        same = program.needed_constants
        total = 0
        for v in program.saved:
            if v not in theirs and v not in same:
                size = 1
                for n in v.shape:
                    size *= n
                total += size * nbytes(self.backend.xp.empty((1,), dtype=v.dtype))
        return total

    def _measure(self, stretches: list[_Stretch]) -> None:
        assert self.report is not None
        theirs = set(self.program.stacked)
        size = sum(nbytes(x) for s in stretches for x in s.carried) + sum(
            map(nbytes, self.captured)
        )
        for s in stretches:
            if s.values is not None:
                size += sum(nbytes(x) for v, x in s.values.stacked.items() if v not in theirs)
        self.report.measured_bytes = max(self.report.measured_bytes, size)

    # ------------------------------------------------------------------------------- backward

    def backward(
        self, stretches: list[_Stretch], slots: list[Any], wanted: set[int]
    ) -> tuple[list[Any], dict[int, Array]]:
        """The gradients of columns, first state and captured; and of the states in `wanted`."""
        program = self.program
        r = program.recorded
        count = len(r.outputs), len(r.new_states)
        outputs, last = slots[: count[0]], slots[count[0] : sum(count)]
        states = slots[sum(count) :]
        way = program.way(
            tuple([g is not None for g in outputs]),
            tuple([g is not None for g in states]),
            any(i >= count[0] for i in wanted),
        )
        total = _Gradients(self, way)
        schedule = self.schedule
        if schedule is None or schedule.reach is None:
            total.sweep(stretches, 0, self.time, [*outputs, *states], last)
        else:
            losses: dict[int, list[int]] = {}
            for s, reach in enumerate(schedule.reach):
                losses.setdefault(reach, []).append(s)
            for reach, steps in sorted(losses.items(), reverse=True):
                ends = last if steps[-1] == self.time - 1 else [None] * len(last)
                given = [None if g is None else self._only(g, steps) for g in (*outputs, *states)]
                total.sweep(stretches, reach, steps[-1] + 1, given, ends)
        found: dict[int, Array] = {}
        at = 0 if self.reverse else self.time - 1
        for i in wanted:
            j = i - count[0]
            if j >= 0:
                rows = total.states[j % count[1]]
                if rows is not None:
                    found[i] = rows if j >= count[1] else rows[at, ...]
        return [*total.xs, *total.begin, *total.captured], found

    def _only(self, g: Array, steps: list[int]) -> Array:
        """The cotangents of some steps; zeros for the others."""
        xp = self.backend.xp
        out = xp.zeros_like(g)
        for s in steps:
            t = self.time - 1 - s if self.reverse else s
            out[t, ...] = g[t, ...]
        return out


class _Gradients:
    """What walks back through a loop have added up so far."""

    def __init__(self, job: _Job, way: Way) -> None:
        self.job, self.way = job, way
        self.xs: list[Any] = [None] * len(way.xs)
        self.captured: list[Any] = [None] * len(way.captured)
        self.begin: list[Any] = [None] * len(way.entering)
        self.states: list[Any] = [None] * len(way.entering)

    def sweep(
        self,
        stretches: list[_Stretch],
        lowest: int,
        highest: int,
        given: Sequence[Any],
        last: Sequence[Any],
    ) -> None:
        """Walk back from step `highest` to `lowest`, with the cotangents `given` of each step."""
        job, schedule = self.job, self.job.schedule
        carry: list[Any] = list(last)
        for stretch in self._stretches(stretches, lowest, highest):
            top = min(stretch.stop, highest)
            for a in self._stops(max(stretch.start, lowest), top):
                carry = self._steps(stretch, a, top, given, carry)
                top = a
                if schedule is not None:
                    carry = [self._gated(g, a) for g in carry]
        if lowest == 0:
            self.begin = [_sum(x, g) for x, g in zip(self.begin, carry, strict=True)]

    def _stretches(
        self, stretches: Sequence[_Stretch], lowest: int, highest: int
    ) -> Iterator[_Stretch]:
        """Those that reach into a range, from the last to the first, with their values."""
        job = self.job
        for s in reversed(stretches):
            if s.start >= highest or s.stop <= lowest:
                continue
            if s.values is not None:
                yield s
            elif not s.parts:
                values, _ = job.forward(s.start, s.stop, s.carried, with_states=False)
                made = s._replace(values=job._kept(values))
                if job.report is not None:
                    job._measure([*stretches[:-1], made])
                yield made
            else:
                inner: list[_Stretch] = []
                carried = s.carried
                for a, b in bounds(s.start, s.stop, s.parts[0]):
                    entered = carried
                    values, carried = job.forward(a, b, carried, with_states=False)
                    keep = b == s.stop and len(s.parts) < 2
                    kept = job._kept(values) if keep else None
                    inner.append(_Stretch(a, b, entered, kept, s.parts[1:]))
                yield from self._stretches(inner, lowest, highest)

    def _stops(self, start: int, stop: int) -> Iterator[int]:
        """Where on the way back something is done to the state's cotangent, and the beginning."""
        schedule = self.job.schedule
        if schedule is not None:
            clips = schedule.max_norm is not None or schedule.max_value is not None
            for i in range(stop - 1, start, -1):
                if clips or schedule.gates[i] != 1:
                    yield i
        yield start

    def _gated(self, g: Any, step: int) -> Any:
        """The cotangent of the state that enters a step, as its gate lets it through."""
        schedule = self.job.schedule
        assert schedule is not None
        factor = schedule.gates[step]
        if g is None or factor == 0:
            return None
        rule = clip_cotangent.rules["x"]
        if schedule.max_norm is not None or schedule.max_value is not None:
            g = rule(self.job.backend.namespace, g, schedule.max_norm, schedule.max_value)
        return g if factor == 1 else g * factor

    def _steps(
        self, stretch: _Stretch, start: int, stop: int, given: Sequence[Any], carry: list[Any]
    ) -> list[Any]:
        """Walk back through some steps of a stretch."""
        job, way = self.job, self.way
        xp, time = job.backend.xp, job.time
        assert stretch.values is not None
        values = Steps(job.backend, stop - start)
        values.constant = dict(stretch.values.constant)
        values.constant.update(job.program.trace.made)
        a, b = start - stretch.start, stop - stretch.start
        length = stretch.stop - stretch.start
        low, high = (length - b, length - a) if job.reverse else (a, b)
        whole = stop - start == length
        for v, x in stretch.values.stacked.items():
            values.stacked[v] = x if whole else x[low:high, ...]
        for v, g in zip(way.seeds, given, strict=False):
            if v is not None and g is not None:
                values.stacked[v] = job.between(g, start, stop)
        enter: dict[Var, Array] = {}
        like = next(iter((*job.columns, *job.captured)))
        for v, g in zip(way.entering, carry, strict=True):
            if v is not None:
                enter[v] = (
                    xp.zeros(v.shape, dtype=v.dtype, device=like.device) if g is None else g
                )
        left = run(way.plan, job.backend, values, enter, not job.reverse)
        made = {**way.plan.totals}
        for i, v in enumerate(way.captured):
            if v is not None:
                self.captured[i] = _sum(self.captured[i], values.total(v, made))
        low, high = (time - stop, time - start) if job.reverse else (start, stop)
        for found, variables in ((self.xs, way.xs), (self.states, way.states)):
            for i, v in enumerate(variables):
                if v is None:
                    continue
                rows = values.full(v)
                if stop - start == time:
                    found[i] = rows if found[i] is None else found[i] + rows
                    continue
                if found[i] is None:
                    shape = (time, *v.shape)
                    found[i] = xp.zeros(shape, dtype=v.dtype, device=like.device)
                found[i][low:high, ...] += rows
        return [None if v is None else left[v] for v in way.entering]


def _sum(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


# ---------------------------------------------------------------------------------------- scan


def scan_compiled(loop: Loop, plan: Checkpoint | None, return_states: bool) -> Any:
    """What ``scan`` returns.

    Raises:
        Untraceable: The cell has no program, and why.
    """
    program, captured = program_of(loop)
    loop.produced = Contract("output", program.recorded.produced.example)
    backend = loop.columns[0].backend
    job = _Job(loop, program, captured, plan, return_states)
    begin = [x.array for x in loop.begin]
    with no_grad():
        outputs, last, states, stretches = job.run(begin)
    arrays = [*outputs, *last, *states]
    r = program.recorded
    traced = [*r.outputs, *r.new_states, *(r.new_states if return_states else [])]
    if not program.active:
        results = [Tensor(a, backend) for a in arrays]
    else:
        results = _node(loop, job, captured, arrays, traced, stretches)
    first, second = len(outputs), len(outputs) + len(last)
    made = program.recorded.produced.structure.unflatten(results[:first])
    structure = program.recorded.structure
    end = structure.unflatten(results[first:second])
    if not return_states:
        return made, end
    return made, end, structure.unflatten(results[second:])


def _node(
    loop: Loop,
    job: _Job,
    captured: list[Any],
    arrays: list[Array],
    traced: list[Value],
    stretches: list[_Stretch],
) -> list[Tensor]:
    sources: list[Any] = [*loop.columns, *loop.begin, *captured]
    edges = tuple([x.edge if isinstance(x, Value) else None for x in sources])
    program = job.program
    kept = [x for s in stretches if s.values for x in s.values.stacked.values()]
    starts = [x for s in stretches for x in s.carried]
    node = CompiledScan(
        region_recipe(f"{loop.name} over {loop.time} steps"),
        edges,
        (*kept, *starts, *job.captured),
        {},
        tuple([x.shape for x in arrays]),
        tuple([x.dtype for x in arrays]),
        job.backend,
        recording.step,
    )
    begin, with_states = loop.state, job.with_states

    def eagerly() -> list[Tensor]:
        """The same results with every operation on the tape."""
        loop.state = begin
        outputs, states = loop.run(None, with_states)
        turned = loop.reverse
        columns = [stack(c) for c in zip(*(outputs[::-1] if turned else outputs), strict=True)]
        rows = states[::-1] if turned else states
        along = [trajectory(c) for c in zip(*rows, strict=True)] if with_states else []
        return [*columns, *loop.carried.structure.leaves(loop.state), *along]

    again(node, eagerly, list(range(len(arrays))))
    node.sweeps = [] if loop.schedule is not None and loop.schedule.reach is not None else None
    node._job, node._stretches = job, stretches
    return [
        Tensor(a, job.backend, None if x.edge is None else Output(node, i))
        for i, (a, x) in enumerate(zip(arrays, traced, strict=True))
    ]


__all__ = ["CompiledScan", "Leaf", "TinygradrnnError", "Untraceable", "program_of", "scan_compiled"]
