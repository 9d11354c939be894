"""Regions: a stretch of the tape that the tape around it sees as one node.

The walk back through a region is the same walk as everywhere else, over the region's own nodes.
Folding them into one node allows two things that a flat tape does not:

- *forgetting* them: the region then runs again when the walk back reaches it, which trades time for
  memory (checkpointing; Griewank 1992, Chen et al. 2016);
- walking through them *several times*, each time from some of the outputs and up to a stop, which
  is how a plan that treats each loss differently is computed (a window of steps back from every
  k-th loss).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, cast

from tinygradrnn import op as engine
from tinygradrnn.backend import current_backend, use_backend
from tinygradrnn.convert import kind_of
from tinygradrnn.errors import GradientError
from tinygradrnn.random import noted_draws, repeated_draws
from tinygradrnn.tape import (
    Edge,
    Leaf,
    Node,
    Output,
    Trial,
    enable_grad,
    execution_order,
    no_grad,
    now,
    origin,
    recording,
)


class Sweep(NamedTuple):
    """One walk through a region.

    Attributes:
        outputs: Which of the region's results, as the function returned them, it starts from.
        stop: The mark of the :func:`~tinygradrnn.ops.gates.boundary` it does not cross, or None.
    """

    outputs: frozenset[int]
    stop: Any


class _Kind:
    """What a region has in place of an operation: a name, and that there are several outputs."""

    many = True

    def __init__(self, name: str) -> None:
        self.name = name


class _RegionRecipe:
    """What a region has in place of an operation's recipe: no rules of its own."""

    rules = ()

    def __init__(self, name: str) -> None:
        self.op = _Kind(name)


class Region(Node):
    """A stretch of the tape as one node with several outputs.

    Attributes:
        since: The instant at which it begins: nodes recorded before are outside.
        sweeps: The walks through it; None for the usual single one from all outputs.
    """

    __slots__ = ("_again", "_edges", "since", "sweeps")
    _again: _Again | None
    _edges: list[Edge | None] | None
    since: int
    sweeps: list[Sweep] | None

    def edges(self) -> tuple[int, list[Edge | None]]:
        """Where its stretch of tape begins, and the place of each output on it.

        Runs the region again if its nodes were forgotten.

        Raises:
            GradientError: It was freed, or what it depends on has changed in between.
        """
        if self.saved is None:
            raise GradientError(
                f"backward: {self.name} was already freed by an earlier backward. Pass "
                "retain_graph=True to that earlier call, or compute the result again"
            )
        if self._edges is not None:
            return self.since, self._edges
        assert self._again is not None
        return self._again.run(self)

    def within(self) -> Iterator[Node]:
        """The nodes of its stretch of tape, also of regions in it; none if they were forgotten."""
        for node in execution_order((e for e in self._edges or () if e), self.since):
            if isinstance(node, Node):
                yield node
                yield from node.within()

    def shares(
        self, slots: list[Any], wanted: set[int]
    ) -> tuple[Sequence[Any], dict[int, Any]] | None:
        """A shorter way back, if there is one: without a walk over the nodes in it.

        Args:
            slots: The cotangent of each output, or None.
            wanted: Outputs whose gradient is asked for, all that comes of them inside included.

        Returns:
            The share of each input, and the gradients of outputs that differ from their cotangent.
        """
        return None

    @property
    def forgotten(self) -> bool:
        """Whether it must run again for its gradient."""
        return self._edges is None

    def free(self) -> None:
        """Let go of all that is needed for the walk."""
        self.saved = self._edges = self._again = None


class _Again:
    """How to run a region a second time, so that nothing differs from the first."""

    def __init__(
        self,
        f: Callable[[], Sequence[Any]],
        draws: dict[Any, Any],
        name: str,
        outputs: list[int],
        witnesses: list[Any],
    ) -> None:
        self.f, self.draws, self.name, self.outputs = f, draws, name, outputs
        self.witnesses = [value.raw for value in witnesses]
        self.backend = current_backend()
        self.step = recording.step

    def run(self, region: Region) -> tuple[int, list[Edge | None]]:
        """Record the region anew."""
        for edge in region.inputs:
            leaf = None if edge is None else origin(edge)
            if type(leaf) is Leaf and leaf.changed > region.index:
                raise GradientError(
                    f"backward: {self.name} must run again for its gradient, but "
                    f"{leaf.name or 'a parameter'} was replaced after it ran. Call backward before "
                    "the optimiser's step, or do without checkpointing"
                )
        with ExitStack() as stack:
            stack.enter_context(use_backend(self.backend))
            stack.enter_context(enable_grad())
            stack.enter_context(repeated_draws(self.draws))
            stack.callback(setattr, recording, "step", recording.step)
            recording.step = self.step
            since = now()
            results = self.f()
            self._compare(results)
        return since, [results[i].edge for i in self.outputs]

    def _compare(self, results: Sequence[Any]) -> None:
        last = results[len(results) - len(self.witnesses) :]
        for new, b in zip(last, self.witnesses, strict=True):
            a, xp = new.raw, new.backend.xp
            # Equal, but for products that may round differently in a second run.
            if kind_of(b.dtype) == "f" and 0 not in b.shape:
                with new.backend.quiet():
                    apart = xp.abs(a - b) > 64 * xp.finfo(b.dtype).eps * xp.max(xp.abs(b))
            else:
                apart = a != b
            if a.shape != b.shape or bool(xp.any(apart)):
                raise self._differs()

    def _differs(self) -> GradientError:
        return GradientError(
            f"backward: {self.name} ran again for its gradient and gave another result than "
            "before: it depends on something that has changed in between (a random draw that is "
            "not from tinygradrnn's generators, an attribute, train and eval). Make it a function "
            "of its inputs, or do without checkpointing"
        )


def region(
    f: Callable[[], Sequence[Any]],
    name: str,
    *,
    forget: bool = False,
    keeps: Sequence[Any] = (),
    compare: int = 0,
    sweeps: Callable[[], list[Sweep]] | None = None,
) -> tuple[list[Any], Region | None]:
    """Run `f` and fold what it recorded into one node.

    Args:
        f: Takes nothing and returns Tensors. It may close over any Tensor; gradients find their
            way to all of them.
        name: For messages and for reading the tape.
        forget: Keep none of its nodes, and run `f` again on the way back.
        keeps: The Tensors that `f` then needs and would not be there otherwise, for the count of
            bytes saved.
        compare: How many of the last results to keep and compare a second run with.
        sweeps: Gives the walks through it, once `f` has run.

    Returns:
        The Tensors as seen from outside, and the node; None if nothing was recorded.
    """
    if not recording.enabled:
        return list(f()), None
    if forget and recording.trace is not None:
        raise recording.trace.refuse("it forgets a stretch of its tape to save memory (checkpoint)")
    since = now()
    with noted_draws() as draws:
        tried = _without_tape(f) if forget else None
        if tried is not None:
            results, trial = tried
            outside = trial.used
        else:
            with repeated_draws(draws):
                results = list(f())
            trial, outside = None, _outside(results, since)
    mine = [r.edge is trial if trial else _since(r.edge, since) for r in results]
    if not outside or not any(mine):
        return [_off(r, trial) for r in results], None
    # One output for a result that comes twice: shares from all its uses are then added in the same
    # order as on a flat tape. Not where these uses belong to different sweeps.
    key = (lambda i, r: i) if sweeps is not None else (lambda i, r: id(r))
    keys = [
        key(i, r) if own else None for i, (r, own) in enumerate(zip(results, mine, strict=True))
    ]
    firsts = {k: i for i, k in reversed(list(enumerate(keys))) if k is not None}
    slots = {k: slot for slot, k in enumerate(firsts)}
    outputs = [results[i] for i in firsts.values()]
    made = Region(
        cast("Any", _RegionRecipe(name)),
        tuple(outside),
        tuple([x.raw for x in keeps]),
        {},
        tuple([x.raw.shape for x in outputs]),
        tuple([x.raw.dtype for x in outputs]),
        outputs[0].backend,
        recording.step,
    )
    made.since, made.sweeps, made._edges, made._again = since, None, None, None
    if sweeps is not None:
        made.sweeps = [
            Sweep(frozenset(slots[k] for i in s.outputs if (k := keys[i]) is not None), s.stop)
            for s in sweeps()
        ]
    if forget:
        witnesses = results[len(results) - compare :]
        made._again = _Again(f, draws, name, list(firsts.values()), witnesses)
    else:
        made._edges = [x.edge for x in outputs]
    seen = [
        r if k is None else engine.tensor_type(r.raw, r.backend, Output(made, slots[k]))
        for r, k in zip(results, keys, strict=True)
    ]
    return seen, made


def region_recipe(name: str) -> Any:
    """What a region has in place of a recipe."""
    return _RegionRecipe(name)


def again(made: Region, f: Callable[[], Sequence[Any]], outputs: list[int]) -> None:
    """Let a region that kept no tape run `f` where one is needed after all."""
    made.since, made.sweeps, made._edges = now(), None, None
    made._again = _Again(f, {}, made.name, outputs, [])


def _without_tape(f: Callable[[], Sequence[Any]]) -> tuple[list[Any], Trial] | None:
    """The results of `f`, without recording; None if it cannot do without."""
    try:
        with no_grad():
            recording.trial = trial = Trial()
            return list(f()), trial
    except GradientError:  # a cell that takes gradients itself
        return None


def _outside(results: Sequence[Any], since: int) -> dict[Edge, None]:
    """What a stretch of tape uses of the tape before it."""
    found: dict[Edge, None] = {}
    for node in execution_order((r.edge for r in results if r.edge), since):
        if type(node) is Leaf:
            found[node] = None
        for edge in node.inputs:
            if edge is not None and origin(edge).index < since:
                found[edge] = None
    return found


def _since(edge: Edge | None, since: int) -> bool:
    return edge is not None and origin(edge).index >= since


def _off(result: Any, trial: Trial | None) -> Any:
    return result.detach() if trial is not None and result.edge is trial else result
