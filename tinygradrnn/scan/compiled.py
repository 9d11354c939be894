"""Running a cell over time as a program, and the one node that stands for it on the tape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygradrnn.backend import Array
from tinygradrnn.errors import GradientError
from tinygradrnn.ops.gates import trajectory
from tinygradrnn.ops.shape import stack
from tinygradrnn.region import Region, again, region_recipe
from tinygradrnn.scan.cache import program_of
from tinygradrnn.scan.eager import Loop
from tinygradrnn.scan.job import Job, Stretch
from tinygradrnn.scan.segments import Checkpoint
from tinygradrnn.tape import Output, StepMark, Value, no_grad, recording
from tinygradrnn.tensor import Tensor


class CompiledScan(Region):
    """A whole loop as one node, which runs backward as a program.

    For a gradient of a gradient it runs again eagerly, as a region that has forgotten its tape.

    Attributes:
        last: Its last step.
    """

    __slots__ = ("_job", "_stretches", "last")
    last: StepMark
    _job: Job
    _stretches: list[Stretch] | None

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


def scan_compiled(loop: Loop, plan: Checkpoint | None, return_states: bool) -> Any:
    """What ``scan`` returns.

    Raises:
        UntraceableError: The cell has no program, and why.
    """
    program, captured = program_of(loop)
    backend = loop.columns[0].backend
    job = Job(loop, program, captured, plan, return_states)
    begin = [x.raw for x in loop.begin]
    with no_grad():
        outputs, last, states, stretches = job.run(begin)
    if recording.watch is not None:
        recording.watch.compiled(loop, job)
    arrays = [*outputs, *last, *states]
    r = program.recorded
    traced = [*r.outputs, *r.new_states, *(r.new_states if return_states else [])]
    trial = recording.trial
    if not program.active:
        results = [Tensor(a, backend) for a in arrays]
    elif trial is not None:
        sources = [*loop.columns, *loop.begin, *captured]
        trial.use([x.edge for x in sources if isinstance(x, Value)])
        results = [
            Tensor(a, backend, None if x.edge is None else trial.place)
            for a, x in zip(arrays, traced, strict=True)
        ]
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
    job: Job,
    captured: list[Any],
    arrays: list[Array],
    traced: list[Value],
    stretches: list[Stretch],
) -> list[Tensor]:
    sources: list[Any] = [*loop.columns, *loop.begin, *captured]
    edges = tuple([x.edge if isinstance(x, Value) else None for x in sources])
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
    node.last = StepMark(0 if loop.reverse else loop.time - 1, loop.name, recording.step)
    return [
        Tensor(a, job.backend, None if x.edge is None else Output(node, i))
        for i, (a, x) in enumerate(zip(arrays, traced, strict=True))
    ]
