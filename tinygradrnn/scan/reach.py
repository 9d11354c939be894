"""Which inputs a loss has anything to do with, over many steps.

The tape of single steps knows: where no path leads there is no gradient, which is something else
than a gradient of zero (an optimiser leaves such a parameter alone). A program computes all steps
alike; whether a path leads back through them follows from the step's own paths.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tinygradrnn.tape import Leaf, Value, execution_order


def depends_on(results: Sequence[Value]) -> list[set[Any]]:
    """For each result the leaves on the tape behind it."""
    return [
        set() if x.edge is None else {n for n in execution_order([x.edge]) if type(n) is Leaf}
        for x in results
    ]


class Reach:
    """The paths of one step.

    Args:
        inputs: What may be reached besides the states.
        states: What enters the step.
        outputs, new_states: What leaves it.
    """

    def __init__(
        self,
        inputs: Sequence[Value],
        states: Sequence[Value],
        outputs: Sequence[Value],
        new_states: Sequence[Value],
    ) -> None:
        ends = depends_on([*outputs, *new_states])
        self._inputs = [{i for i, x in enumerate(inputs) if x.edge in found} for found in ends]
        self._states = [{i for i, x in enumerate(states) if x.edge in found} for found in ends]
        self._outputs = len(outputs)

    def back(
        self, steps: int, given: Collection[int], alive: Collection[int]
    ) -> tuple[set[int], set[int]]:
        """Go back through some steps.

        Args:
            steps: How many.
            given: Outputs (and behind them states) that have a cotangent of their own at each step.
            alive: States that leave the last of the steps and have a cotangent.

        Returns:
            The inputs that are reached at all, and the states that are reached at the beginning.
        """
        now = set(alive)
        reached: set[int] = set()
        for _ in range(steps):
            ends = [*given, *(self._outputs + i for i in now)]
            reached.update(*(self._inputs[e] for e in ends))
            before = set[int]().union(*(self._states[e] for e in ends))
            if before == now:
                break
            now = before
        return reached, now
