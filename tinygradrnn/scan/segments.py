"""Checkpointing: remember the state here and there, and run the steps in between again.

Memory-efficient back-propagation through time (Gruslys et al. 2016). The tape of a long loop is
many times larger than its states. So the loop is divided into segments that keep nothing but the
state they begin with; on the way back one segment at a time runs again, now with its tape. With
the square root of T segments both the states and the one tape are of order sqrt(T) (Chen et al.
2016). If that is still too much, segments are divided again.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from tinygradrnn.errors import ShapeError

_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
_UNITS |= {"KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}


@dataclass
class Report:
    """What checkpointing was expected to do, and did, in one loop.

    Attributes:
        steps: The number of steps.
        segments: Into how many parts the loop, its segments, their segments ... are divided.
        full_bytes: What the whole tape would save, going by its first step.
        predicted_bytes: What should be saved at most at any one time: the states at the beginnings
            of segments and one segment's tape.
        measured_bytes: What was saved at most, forward and, once that has run, backward.
        predicted_factor: How many times a step should run, on average.
        steps_run: How many steps have run so far, forward and backward.
    """

    steps: int
    segments: tuple[int, ...]
    full_bytes: int
    predicted_bytes: int
    measured_bytes: int = 0
    predicted_factor: float = 1.0
    steps_run: int = 0

    @property
    def factor(self) -> float:
        """How many times a step has run, on average."""
        return self.steps_run / self.steps

    def __str__(self) -> str:
        kept = 1 - self.measured_bytes / max(self.full_bytes, 1)
        return (
            f"{self.steps} steps in segments {' x '.join(map(str, self.segments))}: "
            f"{_human(self.measured_bytes)} saved at most (predicted "
            f"{_human(self.predicted_bytes)}) instead of {_human(self.full_bytes)}, {kept:.1%} "
            f"less; each step run {self.factor:.2f} times (predicted {self.predicted_factor:.2f})"
        )


class Checkpoint:
    """A plan for what a loop remembers, for ``scan(checkpoint=...)``.

    Args:
        spec: ``"sqrt"`` for the square root of T segments; a number of segments; or the bytes that
            may be saved, such as ``"64MB"``: then as few segments as will do.

    Attributes:
        report: After a scan what was predicted, and after the backward what was measured.

    Raises:
        ShapeError: `spec` is none of these, or there are fewer steps than segments, or not even
            single steps would fit into the bytes.

    >>> plan = tgr.bptt.Checkpoint("sqrt")
    >>> outputs, _ = tgr.scan(tgr.nn.RNNCell(3, 4), tgr.ones((100, 2, 3)), checkpoint=plan)
    >>> outputs.sum().backward()
    >>> plan.report.segments, round(plan.report.factor, 2)
    ((10,), 1.9)
    """

    def __init__(self, spec: str | int) -> None:
        self.spec = spec
        self.report: Report | None = None
        self._bytes = self._segments = None
        if isinstance(spec, str) and spec == "sqrt":
            return
        if isinstance(spec, int) and not isinstance(spec, bool) and spec >= 1:
            self._segments = spec
            return
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?i?B)\s*", str(spec), re.IGNORECASE)
        if not isinstance(spec, str) or not found:
            raise ShapeError(
                f"checkpoint={spec!r}; expected 'sqrt', a number of segments, or bytes such as "
                "'64MB'"
            )
        self._bytes = float(found[1]) * _UNITS[found[2].upper()]

    def check(self, steps: int) -> None:
        """Raise a ShapeError if a loop has fewer steps than there are to be segments."""
        if self._segments is not None and self._segments > steps:
            raise ShapeError(f"checkpoint={self.spec!r}: there are only {steps} steps")

    def divide(self, steps: int, state: int, step: int, first: int) -> Report:
        """Choose the division of a loop.

        Args:
            steps: Their number.
            state: Bytes of the state.
            step: Bytes that a step saves.
            first: Bytes that the first steps saved, with the weights, and that stay.
        """
        if self._segments is not None:
            parts: tuple[int, ...] = (self._segments,)
        elif self._bytes is None:
            parts = (max(1, round(math.sqrt(steps))),)
        else:
            parts = self._within(self._bytes - first, steps, state, step, first)
        size, kept, factor = steps, first, 1.0
        for n in parts:
            size = math.ceil(size / n)
            kept += n * state
            factor += (n - 1) / n  # the last part is walked first and keeps its tape
        return Report(
            steps, parts, first + steps * step, kept + size * step, predicted_factor=factor
        )

    def _within(
        self, budget: float, steps: int, state: int, step: int, first: int
    ) -> tuple[int, ...]:
        """The fewest levels, and on each the fewest parts, with which a loop fits into a budget."""
        if steps * step <= budget:
            return (1,)
        least = math.inf
        for levels in range(1, max(2, math.ceil(math.log2(steps)) + 1)):
            for n in range(2, math.ceil(steps ** (1 / levels)) + 1):
                needed = levels * n * state + math.ceil(steps / n**levels) * step
                least = min(least, needed)
                if needed <= budget:
                    return (n,) * levels
        raise ShapeError(
            f"checkpoint={self.spec!r}: {steps} steps, each saving {_human(step)}, with a state of "
            f"{_human(state)}, need at least {_human(least + first)}"
        )


def bounds(start: int, stop: int, parts: int) -> list[tuple[int, int]]:
    """A stretch of steps in so many parts of nearly equal size."""
    size = math.ceil((stop - start) / parts)
    return [(a, min(a + size, stop)) for a in range(start, stop, size)]


def _human(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"


def plan_of(checkpoint: Any) -> Checkpoint:
    """The plan that ``scan(checkpoint=...)`` was given, or given the words for."""
    return checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
