"""A step of a cell as a program: its calls forward, and backward derived from the same rules."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tinygradrnn import tree
from tinygradrnn.backend import Backend
from tinygradrnn.backprop import backpropagate
from tinygradrnn.convert import kind_of
from tinygradrnn.errors import ShapeError, UntraceableError
from tinygradrnn.loop import Call, Var
from tinygradrnn.ops.compare import zeros_like
from tinygradrnn.ops.elementwise import where
from tinygradrnn.ops.gates import gate, hold
from tinygradrnn.scan.contract import Contract
from tinygradrnn.scan.reach import Reach, depends_on
from tinygradrnn.scan.rewrite import behind, rewrite
from tinygradrnn.scan.schedule import Sorted, sort
from tinygradrnn.scan.stacked import Steps
from tinygradrnn.scan.trace import Trace, Traced
from tinygradrnn.tape import Edge, Leaf, Value, nbytes, recording


class Look(NamedTuple):
    """What a step sees of an array that comes in: nothing of its values."""

    shape: tuple[int, ...]
    dtype: Any
    active: bool


class Recorded(NamedTuple):
    """One run of a cell on traced arrays.

    Attributes:
        trace: Its calls.
        xs, states: What came in: the leaves of x and of the state.
        going: With lengths, whether each sequence is still going on.
        outputs, new_states: What came out.
        produced: The outputs' structure.
        structure: The new state's: a cell may be given a tuple and return a named one.
    """

    trace: Trace
    xs: list[Value]
    states: list[Value]
    going: Value | None
    outputs: list[Value]
    new_states: list[Value]
    produced: Contract
    structure: tree.Structure


def record(
    cell: Callable[[Any, Any], Any],
    backend: Backend,
    xs: tuple[tree.Structure, Sequence[Look]],
    state: tuple[tree.Structure, Sequence[Look]],
    batch: int | None,
    known: Sequence[Any],
    *,
    with_names: bool = False,
) -> Recorded:
    """Run a cell once on traced arrays; `batch` is the number of sequences if there are lengths.

    Raises:
        UntraceableError: It cannot be recorded.
        Exception: Whatever the cell raises.
    """
    trace = Trace(backend, known, with_names=with_names)

    def incoming(looks: Sequence[Look], name: str) -> list[Value]:
        many = len(looks) > 1
        return [
            trace.tensor(trace.fresh(k.shape, k.dtype, f"{name}{i if many else ''}"), k.active)
            for i, k in enumerate(looks)
        ]

    with trace.running():
        x_leaves, state_leaves = incoming(xs[1], "x"), incoming(state[1], "h")
        mark, recording.step = recording.step, None
        try:
            result = cell(xs[0].unflatten(x_leaves), state[0].unflatten(state_leaves))
        finally:
            recording.step = mark
        if trace.refusal:
            raise UntraceableError(trace.refusal)
        if type(result) is not tuple or len(result) != 2:
            raise ShapeError("the cell does not return (output, state)")
        carried = Contract("state", state_leaves, state[0])
        new: list[Any] = carried.check(tree.map(_inside(trace), result[1]), 0)
        made = tree.map(_inside(trace), result[0])
        produced = Contract("output", *tree.flatten(made))
        out: list[Any] = produced.check(made, 0)
        going: Any = None
        if batch is not None:
            going = trace.tensor(trace.fresh((batch,), backend.xp.bool, "going"), False)
            for leaf in (*new, *out):
                if leaf.shape[:1] != (batch,):
                    raise ShapeError("with lengths, a leaf must begin with the batch")
            rows = [going.reshape((batch, *(1,) * (x.ndim - 1))) for x in (*new, *out)]
            pairs = zip(rows, new, state_leaves, strict=False)
            new = [hold(x, old, g) for g, x, old in pairs]
            out = [where(g, x, zeros_like(x)) for g, x in zip(rows[len(new) :], out, strict=True)]
        # A place of its own on the tape for each state that leaves the step.
        taken: set[Edge] = set()
        for i, x in enumerate(new):
            if x.edge is not None and (type(x.edge) is Leaf or x.edge in taken):
                new[i] = gate(x)
            if (edge := new[i].edge) is not None:
                taken.add(edge)
        if trace.refusal:
            raise UntraceableError(trace.refusal)
    structure = tree.flatten(result[1])[1]
    return Recorded(trace, x_leaves, state_leaves, going, out, new, produced, structure)


def _inside(trace: Trace) -> Callable[[Any], Any]:
    """A result as a Tensor of the trace: a cell may return what it was given, or a parameter."""

    def inside(x: Any) -> Any:
        return trace.admit(None, (x,))[0] if isinstance(x, Value) else x

    return inside


class Way(NamedTuple):
    """A backward step for one choice of cotangents that are given and gradients that are wanted.

    Attributes:
        plan: Its calls, sorted.
        seeds: The Vars of the cotangents of the outputs, then of the states, of each step.
        xs: The gradients of the leaves of x; None where there is none.
        captured: The gradients of what was captured, to be summed over time.
        entering: The cotangents of the states that leave a step, which enter it on the way back.
        states: ``dL/dh_t``, if wanted.
        first: The gradients of states that no step gives a gradient, but that may have come in
            with one at the first.
        gates: For each state what multiplies its cotangent where it leaves a step on the way back,
            one number for each sequence; None where there is no gate.
    """

    plan: Sorted
    seeds: list[Var | None]
    xs: list[Var | None]
    captured: list[Var | None]
    entering: list[Var | None]
    states: list[Var | None]
    first: list[Var | None]
    gates: list[Var | None]


class StepProgram:
    """A recorded step, sorted, forward and backward.

    Attributes:
        recorded: The run of the cell.
        captured: The tensors and arrays from outside, in the order of their Vars.
        forward: The sorted forward step.
        saved: Vars of the forward step that a backward step needs.
        reach: Which gradients there are.
    """

    def __init__(self, recorded: Recorded, backend: Backend, name: str) -> None:
        self.recorded, self.backend, self.name = recorded, backend, name
        self.trace = recorded.trace
        self.captured = list(recorded.trace.captured)
        self._tensors = [recorded.trace.inside(v) for v in self.captured]
        self.outputs = [_var(x) for x in recorded.outputs]
        self.carried = [
            (_var(a), _var(b)) for a, b in zip(recorded.states, recorded.new_states, strict=True)
        ]
        incoming = [*recorded.xs, *([recorded.going] if recorded.going is not None else [])]
        self.stacked = [_var(x) for x in incoming]
        # Results that only the way back needs are computed there, by the calls as they were.
        self._calls = rewrite(
            self.trace.calls,
            constants=[*self.captured, *self.trace.made],
            stacked=self.stacked,
            carried=self.carried,
            results=self.outputs,
        )
        self._ways: dict[Any, Way] = {}
        self._lock = threading.Lock()
        leaving = [b for _, b in self.carried]
        produced = {c.output: c for c in self._calls}
        needed = behind(produced, [*self.outputs, *leaving])
        # What the way back may ask for: results of the forward step, which are kept; what only the
        # way back needs is computed there.
        self._kept = {v for v in produced if v in needed}
        self._kept |= {*self.stacked, *(a for a, _ in self.carried)}
        self.saved: list[Var] = []
        if self.active:
            full = self.way(tuple([x.edge is not None for x in recorded.outputs]), (), False)
            self.saved = [v for v in _sources(full.plan) if v in self._kept]
        self.reach = Reach(
            [*recorded.xs, *self._tensors], recorded.states, recorded.outputs, recorded.new_states
        )
        self._forward: dict[bool, Sorted] = {}
        self.needed_constants = self._constants() & {*self.saved, *self.captured}
        self.forward(False)

    @property
    def kept(self) -> list[Var]:
        """What each step keeps for the way back, besides what came in."""
        theirs = {*self.stacked, *self.needed_constants}
        return [v for v in self.saved if v not in theirs]

    def bytes_of(self, v: Var) -> int:
        """The bytes of a Var in one step."""
        return math.prod(v.shape) * nbytes(self.backend.xp.empty((1,), dtype=v.dtype))

    @property
    def active(self) -> bool:
        """Whether any result has a gradient."""
        results = [*self.recorded.outputs, *self.recorded.new_states]
        return any(x.edge is not None for x in results)

    def _sorted(self, calls: Sequence[Call], **how: Any) -> Sorted:
        plan = sort(calls, fuses_from=self.backend.fuses_from, **how)
        if plan.body is not None:
            steps = Steps(self.backend, 0)
            plan.body.functions = {c.op: steps.forward(c.op) for c in plan.body.calls}
            plan.runner = self.backend.compile_loop(plan.body)
            if plan.runner is None:
                raise UntraceableError(f"the backend {self.backend} runs no such loop")
        return plan

    def forward(self, with_states: bool) -> Sorted:
        """The sorted forward step; with the states of all steps among its results if asked for."""
        found = self._forward.get(with_states)
        if found is None:
            leaving = [b for _, b in self.carried]
            found = self._forward[with_states] = self._sorted(
                self._calls,
                constants=[*self.captured, *self.trace.made],
                stacked=self.stacked,
                carried=self.carried,
                results=[*self.outputs, *self.saved, *(leaving if with_states else [])],
                name=f"{self.name} forward",
            )
        return found

    def way(
        self,
        outputs: tuple[bool, ...],
        states: tuple[bool, ...],
        with_states: bool,
        gated: bool = False,
    ) -> Way:
        """The backward step for the cotangents that are given.

        Args:
            outputs: Which outputs have a cotangent.
            states: Which of the stacked states have one; empty for none.
            with_states: Whether ``dL/dh_t`` is wanted.
            gated: Whether a gate multiplies the state's cotangent at each step.
        """
        key = (outputs, states, with_states, gated)
        with self._lock:
            found = self._ways.get(key)
            if found is None:
                found = self._ways[key] = self._way(*key)
        return found

    def _way(
        self, outputs: Sequence[bool], states: Sequence[bool], with_states: bool, gated: bool
    ) -> Way:
        r, trace = self.recorded, self.trace
        with trace.running():
            seeds: list[Traced | None] = []
            starts: list[tuple[Edge, Any]] = []

            def seed(x: Value, name: str) -> Traced:
                g = trace.fresh(x.raw.shape, x.raw.dtype, name)
                assert x.edge is not None
                starts.append((x.edge, g))
                return g

            states = states or (False,) * len(r.new_states)
            for i, (x, given) in enumerate(zip(r.outputs, outputs, strict=True)):
                seeds.append(seed(x, f"dy{i}") if given and x.edge is not None else None)
            for i, (x, given) in enumerate(zip(r.new_states, states, strict=True)):
                seeds.append(seed(x, f"ds{i}") if given and x.edge is not None else None)
            entering = [
                None if x.edge is None else seed(x, f"dh{i}") for i, x in enumerate(r.new_states)
            ]
            captured = self._tensors
            wanted = [x.edge for x in (*r.xs, *r.states, *captured) if x.edge is not None]
            places = [x.edge for x in r.new_states] if with_states else []
            found = backpropagate(
                starts,
                [*wanted, *(p for p in places if p is not None)],
                retain=True,
                create_graph=False,
            )

            def gradient(x: Value) -> Var | None:
                g = None if x.edge is None else found.get(x.edge)
                return None if g is None else g.var

            pairs: list[tuple[Var, Var]] = []
            gates: list[Var | None] = []
            for x, g in zip(r.states, entering, strict=True):
                gates.append(None)
                if g is None:
                    continue
                leaving = gradient(x)
                if leaving is None:  # nothing of the step's state comes from the one before
                    leaving = trace.note("zeros_like", (g,), {}).var
                elif gated:
                    shape = (*x.raw.shape[:1], *(1 for _ in x.raw.shape[1:]))
                    gate = trace.fresh(shape, x.raw.dtype, "gate")
                    gates[-1] = gate.var
                    assert x.edge is not None
                    leaving = trace.note("multiply", (found[x.edge], gate), {}).var
                pairs.append((g.var, leaving))
            first = [
                gradient(x) if g is None else None for x, g in zip(r.states, entering, strict=True)
            ]
            xs, sums = [gradient(x) for x in r.xs], [gradient(x) for x in captured]
            along = [gradient(x) if with_states else None for x in r.new_states]
        given = [s.var for s in seeds if s is not None]
        constants = self._constants()
        stacked = [
            *given,
            *(v for v in gates if v is not None),
            *(v for v in self._kept if v not in constants),
        ]
        results = [v for v in (*xs, *along, *first) if v is not None]
        total = [v for v in sums if v is not None]
        plan = self._sorted(
            rewrite(
                trace.calls,
                constants=constants,
                stacked=stacked,
                carried=pairs,
                results=[*results, *total],
            ),
            constants=constants,
            stacked=stacked,
            carried=pairs,
            results=results,
            sums=total,
            name=f"{self.name} backward",
        )
        variables = [None if s is None else s.var for s in seeds]
        back = [None if g is None else g.var for g in entering]
        return Way(plan, variables, xs, sums, back, along, first, gates)

    def _constants(self) -> set[Var]:
        """What is the same at every step of the forward step."""
        same = {*self.captured, *self.trace.made}
        for call in self._calls:
            if all(v in same for v in call.vars):
                same.add(call.output)
        return same


def _var(x: Value) -> Var:
    return x.raw.var


def _sources(plan: Sorted) -> list[Var]:
    """The Vars that a sorted step takes from outside."""
    body = plan.body.calls if plan.body else []
    calls = [*plan.once, *plan.before, *body, *plan.after, *plan.totals.values()]
    made = {c.output for c in calls}
    used = [v for c in calls for v in c.vars] + plan.sums
    if plan.body:
        used += [*plan.body.inputs, *plan.body.constants, *(b for _, b in plan.body.carried)]
    return list(dict.fromkeys(v for v in used if v not in made))


def trace_step(
    cell: Callable[[Any, Any], Any],
    backend: Backend,
    xs: tuple[tree.Structure, Sequence[Look]],
    state: tuple[tree.Structure, Sequence[Look]],
    batch: int | None,
    known: Sequence[Any],
    name: str,
) -> StepProgram:
    """Record a step twice, compare, and make a program of it.

    Raises:
        UntraceableError: The step cannot be compiled.
    """
    structure, looks = state
    # At first taken for granted of every state of floating-point numbers.
    active = [recording.enabled and kind_of(k.dtype) == "f" for k in looks]
    while True:
        begin = [Look(k.shape, k.dtype, a) for k, a in zip(looks, active, strict=True)]
        first = record(cell, backend, xs, (structure, begin), batch, known)
        # A state has a gradient if it had one at first, or gets one in some step.
        reached = depends_on(first.new_states)
        leaves = [x.edge for x in first.states]
        others = [bool(found - {e for e in leaves if e is not None}) for found in reached]
        grown = [k.active and recording.enabled for k in looks]
        while True:
            more = [
                g
                or others[i]
                or any(grown[j] and leaves[j] in reached[i] for j in range(len(looks)))
                for i, g in enumerate(grown)
            ]
            if more == grown:
                break
            grown = more
        if grown == active:
            break
        active = grown
    second = record(cell, backend, xs, (structure, begin), batch, known)
    difference = first.trace.differs(second.trace)
    if difference:
        raise UntraceableError(f"its steps differ: {difference}")
    return StepProgram(first, backend, name)
