"""One call of a compiled scan: its program run forward, and backward as plans ask for it.

On the way back a loop is walked in stretches: from one cut of a truncation plan to the next, and
where there is checkpointing from one remembered state to the next. Every plan is made of such
stretches, and each is the same backward program on a part of the time axis. Gates that let
something pass are a factor in that program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tinygradrnn.backend import Array
from tinygradrnn.loop import Var
from tinygradrnn.ops.gates import clip_cotangent
from tinygradrnn.scan.eager import Loop
from tinygradrnn.scan.program import StepProgram, Way
from tinygradrnn.scan.schedule import run
from tinygradrnn.scan.segments import Checkpoint, Report, bounds
from tinygradrnn.scan.stacked import Steps
from tinygradrnn.scan.truncation import Schedule
from tinygradrnn.tape import Value, nbytes


class Stretch(NamedTuple):
    """Some steps of a loop, in the order in which they run."""

    start: int
    stop: int
    carried: list[Array]  # what enters the first of them
    values: Steps | None  # what the way back needs; None to compute it again
    parts: Sequence[int]  # how a stretch that is computed again is divided


class Job:
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
        self.gated = _gated(loop.schedule)
        self.columns = [x.raw for x in loop.columns]
        if loop.lengths is not None:
            self.columns.append(loop.lengths.going.raw)
        self.captured = [x.raw if isinstance(x, Value) else x for x in captured]
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
            step = sum(map(self.program.bytes_of, self.program.kept))
            fixed = sum(map(nbytes, self.captured))
            self.report = self.plan.report = self.plan.divide(self.time, size, step, fixed)
            parts = self.report.segments
        stretches: list[Stretch] = []
        rows: list[Steps] = []
        carried = begin
        where = bounds(0, self.time, parts[0]) if parts else [(0, self.time)]
        for a, b in where:
            entered = carried
            values, carried = self.forward(a, b, carried, self.with_states)
            keep = b == self.time and len(parts) < 2
            stretches.append(
                Stretch(a, b, entered, self._kept(values) if keep else None, parts[1:])
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
        same = self.program.needed_constants
        kept.constant = {v: x for v, x in values.constant.items() if v in same}
        return kept

    def _measure(self, stretches: list[Stretch]) -> None:
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
        self, stretches: list[Stretch], slots: list[Any], wanted: set[int]
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
            self.gated,
        )
        total = Gradients(self, way)
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

    def gates(self, v: Var, start: int, stop: int) -> Array:
        """The factors of the gates before some steps, for each of them and each sequence."""
        import numpy

        assert self.schedule is not None
        factors = [factor or 1.0 for factor in self.schedule.gates[start:stop]]
        rows = numpy.asarray(factors[::-1] if self.reverse else factors, dtype="float64")
        host = numpy.broadcast_to(rows.reshape(-1, *(1 for _ in v.shape)), (len(rows), *v.shape))
        made = self.backend.from_host(numpy.ascontiguousarray(host))
        return self.backend.xp.astype(made, v.dtype)

    def _only(self, g: Array, steps: list[int]) -> Array:
        """The cotangents of some steps; zeros for the others."""
        xp = self.backend.xp
        out = xp.zeros_like(g)
        for s in steps:
            t = self.time - 1 - s if self.reverse else s
            out[t, ...] = g[t, ...]
        return out


class Gradients:
    """What walks back through a loop have added up so far."""

    def __init__(self, job: Job, way: Way) -> None:
        self.job, self.way = job, way
        self.xs: list[Any] = [None] * len(way.xs)
        self.captured: list[Any] = [None] * len(way.captured)
        self.begin: list[Any] = [None] * len(way.entering)
        self.states: list[Any] = [None] * len(way.entering)

    def sweep(
        self,
        stretches: list[Stretch],
        lowest: int,
        highest: int,
        given: Sequence[Any],
        last: Sequence[Any],
    ) -> None:
        """Walk back from step `highest` to `lowest`, with the cotangents `given` of each step."""
        schedule = self.job.schedule
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
        self, stretches: Sequence[Stretch], lowest: int, highest: int
    ) -> Iterator[Stretch]:
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
                inner: list[Stretch] = []
                carried = s.carried
                for a, b in bounds(s.start, s.stop, s.parts[0]):
                    entered = carried
                    values, carried = job.forward(a, b, carried, with_states=False)
                    keep = b == s.stop and len(s.parts) < 2
                    kept = job._kept(values) if keep else None
                    inner.append(Stretch(a, b, entered, kept, s.parts[1:]))
                yield from self._stretches(inner, lowest, highest)

    def _stops(self, start: int, stop: int) -> Iterator[int]:
        """Where on the way back something is done to the state's cotangent, and the beginning."""
        schedule = self.job.schedule
        if schedule is not None:
            clips = schedule.max_norm is not None or schedule.max_value is not None
            for i in range(stop - 1, start, -1):
                factor = schedule.gates[i]
                if clips or factor == 0 or (factor != 1 and not self.job.gated):
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
        return g if factor == 1 or self.job.gated else g * factor

    def _steps(
        self, stretch: Stretch, start: int, stop: int, given: Sequence[Any], carry: list[Any]
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
        for v in way.gates:
            if v is not None:
                values.stacked[v] = job.gates(v, start, stop)
        enter: dict[Var, Array] = {}
        like = next(iter((*job.columns, *job.captured)))
        for v, g in zip(way.entering, carry, strict=True):
            if v is not None:
                enter[v] = xp.zeros(v.shape, dtype=v.dtype, device=like.device) if g is None else g
        left = run(way.plan, job.backend, values, enter, not job.reverse)
        reached, alive = job.program.reach.back(
            stop - start,
            [
                i
                for i, (v, g) in enumerate(zip(way.seeds, given, strict=False))
                if v and g is not None
            ],
            [i for i, g in enumerate(carry) if g is not None],
        )
        xs = [v if i in reached else None for i, v in enumerate(way.xs)]
        captured = [v if len(xs) + i in reached else None for i, v in enumerate(way.captured)]
        totals = {v: values.total(v, way.plan.totals) for v in {*captured} if v is not None}
        for i, v in enumerate(captured):
            if v is not None:
                self.captured[i] = _sum(self.captured[i], totals[v])
        low, high = (time - stop, time - start) if job.reverse else (start, stop)
        for found, variables in ((self.xs, xs), (self.states, way.states)):
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
        carry = [
            None if v is None or i not in alive else left[v] for i, v in enumerate(way.entering)
        ]
        for i, v in enumerate(way.first):
            if v is not None and i in alive:
                carry[i] = values.full(v)[stop - start - 1 if job.reverse else 0, ...]
        return carry


def _gated(schedule: Schedule | None) -> bool:
    """Whether the loop itself multiplies the state's cotangent at the gates before its steps.

    A cut ends a stretch all the same, so that what is behind it has no gradient, and not a zero;
    and where cotangents are clipped, that comes first.
    """
    if schedule is None or schedule.max_norm is not None or schedule.max_value is not None:
        return False
    return any(factor not in (0, 1) for factor in schedule.gates)


def _sum(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b
