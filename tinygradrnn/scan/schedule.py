"""Sorting the calls of a step: what runs once, before, in and after the loop.

The same for a forward and for a backward step. A Var is the same at every step, or known for all
steps before the loop begins, or depends on what is carried from step to step. In the loop stays
only what the next step needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tinygradrnn.backend import Array, Backend
from tinygradrnn.loop import Body, Call, Runner, Var
from tinygradrnn.namespace import registry
from tinygradrnn.scan.rewrite import behind
from tinygradrnn.scan.stacked import Steps

_PASSING = frozenset(["add", "expand_dims", "negative", "reshape", "squeeze", "subtract"])
_OF_ROWS = frozenset(["sum", "mean", "max", "min", "concat", "expand_dims", "squeeze"])


def is_light(call: Call) -> bool:
    """Whether a call is a pass over the elements of each row: cheapest where they are at hand."""
    if getattr(registry[call.op], "elementwise", False):
        return True
    v = next(iter(call.vars), call.output)
    ndim = len(v.shape)
    if call.op in _OF_ROWS:
        axis = call.params["axis"]
        return ndim > 1 and axis in (-1, ndim - 1, (-1,), (ndim - 1,))
    if call.op in ("getitem", "place"):
        key = call.params["key"]
        shape = v.shape if call.op == "getitem" else call.output.shape
        return len(shape) > 1 and key[:1] in ((slice(None),), (slice(0, shape[0], 1),))
    return False


@dataclass
class Sorted:
    """The calls of a step by where they run.

    Attributes:
        once: Of constants only: once for each call of ``scan``.
        before: On all steps at once, before the loop.
        body: What runs in the loop; None if nothing is carried.
        after: On all steps at once, after the loop.
        totals: Put off until a sum over time asks for them.
        sums: Vars whose sum over time is wanted.
        entering: Pairs as in ``body.carried``, of which the first is also needed for all steps.
        added: What the loop adds up over time, by the Var that carries the sum from step to step.
    """

    once: list[Call]
    before: list[Call]
    body: Body | None
    after: list[Call]
    totals: dict[Var, Call]
    sums: list[Var]
    entering: list[tuple[Var, Var]]
    runner: Runner | None = None
    added: dict[Var, Var] = field(default_factory=dict[Var, Var])


def sort(
    calls: Sequence[Call],
    *,
    constants: Iterable[Var],
    stacked: Iterable[Var],
    carried: Sequence[tuple[Var, Var]],
    results: Iterable[Var],
    sums: Iterable[Var] = (),
    fuses_from: int | None = None,
    name: str = "",
) -> Sorted:
    """Sort the calls that anything wanted needs.

    Args:
        calls: Calls in order; those that nothing needs are left out.
        constants: Vars that are the same at every step.
        stacked: Vars that are known for all steps.
        carried: Pairs of what enters and what leaves a step.
        results: Vars wanted for all steps.
        sums: Vars of which the sum over time is wanted.
        fuses_from: As the backend's attribute.
        name: For reading generated source.
    """
    same, known = set(constants), set(stacked)
    made = {c.output: c for c in calls if c.output not in same and c.output not in known}
    results, sums = list(results), list(sums)
    leaving = [b for _, b in carried]
    needed = behind(made, [*results, *sums, *leaving])
    order = [call for call in made.values() if call.output in needed]

    constant, recurrent = set(same), {a for a, _ in carried}
    for call in order:
        if all(v in constant for v in call.vars):
            constant.add(call.output)
        elif any(v in recurrent for v in call.vars):
            recurrent.add(call.output)
    required = {v for v in behind(made, leaving) if v in recurrent}
    inside = {call.output for call in order if call.output in required}
    largest = max((math.prod(call.output.shape) for call in order), default=0)
    fuses = fuses_from is not None and largest >= fuses_from
    if carried:
        if fuses:
            inside |= _at_hand(order, constant, recurrent, required)
        inside |= {
            call.output for call in order if call.op == "concat" and inside.issuperset(call.vars)
        }
    loop = [call for call in order if call.output in inside]

    # After the loop is what depends on it; a sum over time puts off what only it needs.
    late: set[Var] = set(inside) | {a for a, _ in carried}
    before: list[Call] = []
    after: list[Call] = []
    for call in order:
        if call.output in constant or call.output in inside:
            continue
        if any(v in late for v in call.vars):
            late.add(call.output)
            after.append(call)
        else:
            before.append(call)
    stacked_ones = behind(made, [*results, *leaving, *(v for c in loop for v in c.vars)])
    totals = {c.output: c for c in (*before, *after) if c.output not in stacked_ones}
    before = [c for c in before if c.output not in totals]
    after = [c for c in after if c.output not in totals]

    body = None
    entering: list[tuple[Var, Var]] = []
    added: dict[Var, Var] = {}
    if carried:
        alone = _only_summed(totals, sums) if fuses else set[Var]()
        apart = [
            c
            for v, c in totals.items()
            if v in alone and c.op == "sum" and inside.issuperset(c.vars)
        ]
        for v in dict.fromkeys(v for c in apart for v in c.vars):
            enters, leaves = Var(v.shape, v.dtype, "sum"), Var(v.shape, v.dtype, "sum")
            loop.append(Call("add", (enters, v), {}, leaves))
            added[enters] = v
            carried = [*carried, (enters, leaves)]
            inside.add(leaves)
        others = [c for c in totals.values() if c not in apart]
        outside = {v for c in (*after, *others) for v in c.vars} | {*results, *sums}
        entering = [(a, b) for a, b in carried if a in outside]
        stored = {v: None for c in loop if (v := c.output) in outside}
        first = {a for a, _ in carried}
        for a, b in entering:
            if a is not b:  # what another part of the state was comes from no earlier step's result
                stored[a if b in first else b] = None
        stored = {v: None for v in stored if v in inside or v in first}
        used = {v: None for c in loop for v in c.vars} | dict.fromkeys(leaving)
        mine = inside | {a for a, _ in carried}
        body = Body(
            calls=loop,
            inputs=[v for v in used if v not in mine and v not in constant],
            constants=[v for v in used if v in constant],
            carried=list(carried),
            outputs=list(stored),
            name=name,
        )
    once = [call for call in order if call.output in constant and call.output not in same]
    return Sorted(once, before, body, after, totals, sums, entering, added=added)


def _only_summed(totals: dict[Var, Call], sums: Sequence[Var]) -> set[Var]:
    """Of what was put off, that of which nothing but the sum over time is asked for."""
    found, stack = set(sums), list(sums)
    passing: set[Call] = set()
    while stack:
        call = totals.get(stack.pop())
        shapes = {getattr(x, "shape", None) for x in call.inputs} if call else set()
        if call and call not in passing and call.op in _PASSING and len(shapes) == 1:
            passing.add(call)
            found.update(call.vars)
            stack.extend(call.vars)
    return found - {v for c in totals.values() if c not in passing for v in c.vars}


def _at_hand(
    order: list[Call],
    constant: set[Var],
    recurrent: set[Var],
    required: set[Var],
) -> set[Var]:
    """The outputs of light calls whose inputs are at hand in the loop."""
    heavy_needs: set[Var] = set()  # what a product outside the loop, before it, is made of
    for call in reversed(order):
        out = call.output
        if out in constant or out in recurrent:
            continue
        if not is_light(call) or out in heavy_needs:
            heavy_needs.update(call.vars)
            heavy_needs.add(out)
    found: set[Var] = set(required)
    late: set[Var] = set()  # what comes of a product after the loop
    for call in order:
        out = call.output
        if out in constant or out in required:
            continue
        if out in recurrent:
            if is_light(call) and not any(v in late for v in call.vars):
                found.add(out)
            else:
                late.add(out)
        elif out not in heavy_needs:
            if any(v in late for v in call.vars):
                late.add(out)
            else:
                found.add(out)
    return found


# -------------------------------------------------------------------------------------- running


def run(
    plan: Sorted,
    backend: Backend,
    values: Steps,
    carried: dict[Var, Array],
    backwards: bool,
) -> dict[Var, Array]:
    """Run a sorted step for all steps.

    Args:
        plan: The sorted calls.
        backend: Where the arrays are.
        values: The constants and the stacked Vars; the results are added to it.
        carried: What enters the first step.
        backwards: Whether the first step is the last in time.

    Returns:
        What leaves the last step, by the Var of what enters it.
    """
    for call in plan.once:
        values.call_once(call)
    for call in plan.before:
        values.call(call)
    left: dict[Var, Array] = {}
    body, time, xp = plan.body, values.time, backend.xp
    if body is not None:
        assert plan.runner is not None
        outputs: dict[Var, Array] = {}
        like = next(iter(carried.values()))
        zeros = {a: xp.zeros(a.shape, dtype=a.dtype, device=like.device) for a in plan.added}
        carried = {**carried, **zeros}
        shifted = {b: a for a, b in plan.entering if a is not b}
        for v in body.outputs:
            a = shifted.get(v)
            if a is None:
                outputs[v] = backend.empty((time, *v.shape), like, v.dtype)
                continue
            # One buffer, a step longer: what enters a step is what left the one before.
            room = backend.empty((time + 1, *v.shape), like, v.dtype)
            room[time if backwards else 0, ...] = carried[a]
            outputs[v] = room[:time, ...] if backwards else room[1:, ...]
            values.stacked[a] = room[1:, ...] if backwards else room[:time, ...]
        order = range(time - 1, -1, -1) if backwards else range(time)
        result = plan.runner(
            [values.full(v) for v in body.inputs],
            [values.constant[v] for v in body.constants],
            [carried[a] for a, _ in body.carried],
            list(outputs.values()),
            order,
        )
        left = {a: end for (a, _), end in zip(body.carried, result, strict=True)}
        values.stacked.update(outputs)
        values.added.update((v, left[a]) for a, v in plan.added.items())
        for a, b in plan.entering:
            if a is b:
                values.stacked[a] = xp.broadcast_to(carried[a], (time, *a.shape))
            elif a not in values.stacked:  # what leaves a step was known before the loop
                rows = values.full(b)
                first = xp.expand_dims(carried[a], axis=0)
                parts = [rows[1:, ...], first] if backwards else [first, rows[: time - 1, ...]]
                values.stacked[a] = xp.concat(parts, axis=0)
    for call in plan.after:
        values.call(call)
    return left
