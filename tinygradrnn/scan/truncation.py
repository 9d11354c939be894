"""Plans for where gradients stop on their way back through time.

A plan acts on the cotangent of the state where one step hands it to the next, and nowhere else:
what is computed forward stays as it is. It says two things, for a loop of `steps` steps: by what
the cotangent of the state that enters a step is multiplied (1 passes, 0 cuts, more makes up for
what was cut elsewhere), and how far back the loss of each step reaches. Steps are counted in the
order in which they run.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tinygradrnn.backend import current_backend
from tinygradrnn.errors import DtypeError, ShapeError
from tinygradrnn.random import Generator


@dataclass(frozen=True)
class Schedule:
    """What a plan does in one loop.

    Attributes:
        gates: For each step the factor of the cotangent of the state that enters it.
        reach: For each step the first step that its loss reaches back to; None if all reach as far
            as the gates let them.
        max_norm, max_value: The limits of ``tgr.clip_cotangent`` at each step.
    """

    gates: tuple[float, ...]
    reach: tuple[int, ...] | None = None
    max_norm: float | None = None
    max_value: float | None = None

    def check(self, steps: int) -> None:
        """Raise a ShapeError if this is no schedule for so many steps."""
        found = len(self.gates), len(self.reach or self.gates)
        if found != (steps, steps):
            raise ShapeError(
                f"Schedule: {found[0]} gates, {found[1]} reaches; expected one of each of {steps} "
                "steps"
            )
        for t, factor in enumerate(self.gates):
            if not isinstance(factor, (int, float)) or not math.isfinite(factor):
                raise ShapeError(f"Schedule: gates[{t}] is {factor!r}; expected a finite number")
        for t, reach in enumerate(self.reach or ()):
            if not isinstance(reach, int) or not 0 <= reach <= t:
                raise ShapeError(f"Schedule: reach[{t}] is {reach!r}; expected 0 to {t}")

    def mask(self) -> Any:
        """The weight of each step in the gradient of each step's loss: see `Truncation.mask`.

        Raises:
            ShapeError: There is clipping, which is not linear, so that no weights stand for it.
        """
        import numpy

        if self.max_norm is not None or self.max_value is not None:
            raise ShapeError("Clip: how much is clipped depends on the cotangents; it has no mask")

        steps = len(self.gates)
        weights = numpy.zeros((steps, steps))
        for s in range(steps):
            weight = 1.0
            for i in range(s, (0 if self.reach is None else self.reach[s]) - 1, -1):
                weights[s, i] = weight
                weight *= self.gates[i]
        return weights


class Truncation(ABC):
    """A plan for where gradients stop on their way back: derive, and define `schedule`.

    >>> class EverySecond(tgr.bptt.Truncation):
    ...     def schedule(self, steps):
    ...         return tgr.bptt.Schedule(gates=tuple(float(t % 2) for t in range(steps)))
    >>> EverySecond().mask(3)
    array([[1., 0., 0.],
           [1., 1., 0.],
           [0., 0., 1.]])
    """

    @abstractmethod
    def schedule(self, steps: int) -> Schedule:
        """The gates and the reach for a loop of so many steps; drawn anew if they are random."""

    def mask(self, steps: int) -> Any:
        """The ``(steps, steps)`` weights the plan stands for, as a NumPy array.

        Entry ``[s, i]`` is the weight of step i, of what its parameters and its input did to the
        state, in the gradient of the loss at step s. Zero for ``i > s``.
        """
        return self.schedule(_count("mask: steps", steps)).mask()


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ShapeError(f"{name}={value!r}; expected a positive number of steps")
    return value


@dataclass(frozen=True)
class Full(Truncation):
    """The whole gradient: nothing is cut (Rumelhart et al. 1986; Werbos 1990).

    >>> tgr.bptt.Full().mask(2)
    array([[1., 0.],
           [1., 1.]])
    """

    def schedule(self, steps: int) -> Schedule:
        """Gates of 1."""
        return Schedule((1.0,) * steps)


@dataclass(frozen=True)
class Chunk(Truncation):
    """Cut before every k-th step: each chunk of k steps on its own.

    What training on consecutive chunks with a carried, detached state does: truncated
    back-propagation through time as it is most used (d2l.ai, section 9.7). Biased: a loss at the
    beginning of a chunk reaches hardly back at all.

    Raises:
        ShapeError: `k` is no positive integer.

    >>> tgr.bptt.Chunk(2).mask(4)
    array([[1., 0., 0., 0.],
           [1., 1., 0., 0.],
           [0., 0., 1., 0.],
           [0., 0., 1., 1.]])
    """

    k: int

    def __post_init__(self) -> None:
        _count("Chunk: k", self.k)

    def schedule(self, steps: int) -> Schedule:
        """A gate of 0 before every k-th step."""
        return Schedule(tuple(float(t == 0 or t % self.k != 0) for t in range(steps)))


@dataclass(frozen=True)
class Window(Truncation):
    """After every k1 steps, walk back k2 steps from there: BPTT(k2; k1) of Williams & Peng (1990).

    The losses of the k1 newest steps reach back to k2 steps before the end of their window. With
    ``k1 = k2`` it is :class:`Chunk`, with ``k1 = 1`` it is :class:`Depth`. If the loop ends within
    a window, its losses reach back as if it went on.

    Args:
        k1: Steps between two walks.
        k2: Steps of one walk, at least k1.

    Raises:
        ShapeError: They are no positive integers, or k2 is smaller than k1, so that some losses
            would reach nothing.

    >>> tgr.bptt.Window(2, 3).mask(4)
    array([[1., 0., 0., 0.],
           [1., 1., 0., 0.],
           [0., 1., 1., 0.],
           [0., 1., 1., 1.]])
    """

    k1: int
    k2: int

    def __post_init__(self) -> None:
        if _count("Window: k2", self.k2) < _count("Window: k1", self.k1):
            raise ShapeError(
                f"Window: k1={self.k1}, k2={self.k2}; expected k2 of at least k1, or the first "
                "losses of a window would reach nothing"
            )

    def schedule(self, steps: int) -> Schedule:
        """The reach of each loss."""
        ends = [(t // self.k1 + 1) * self.k1 for t in range(steps)]
        return Schedule((1.0,) * steps, tuple(max(0, end - self.k2) for end in ends))


@dataclass(frozen=True)
class Depth(Truncation):
    """From the loss of every step, k steps back (Jaeger 2002: truncation after tau steps).

    The loss of step t reaches the steps t, t-1, ..., t-k+1.

    Raises:
        ShapeError: `k` is no positive integer.

    >>> tgr.bptt.Depth(2).mask(4)
    array([[1., 0., 0., 0.],
           [1., 1., 0., 0.],
           [0., 1., 1., 0.],
           [0., 0., 1., 1.]])
    """

    k: int

    def __post_init__(self) -> None:
        _count("Depth: k", self.k)

    def schedule(self, steps: int) -> Schedule:
        """The reach of each loss."""
        return Schedule((1.0,) * steps, tuple(max(0, t - self.k + 1) for t in range(steps)))


class Random(Truncation):
    """Cut at random, and let the rest count for more, so that the mean is the full gradient.

    ARTBP (Tallec & Ollivier 2017, "Unbiasing truncated backpropagation through time"): before each
    step the cotangent is cut with probability c, and else multiplied by ``1/(1-c)``. Drawn anew for
    every loop, once for the whole batch.

    Args:
        p: The probability c; or a function that gives it for the number of steps since the last
            cut (1, 2, ...), for any distribution of lengths: see :meth:`power_law`.
        rng: A generator or a seed, for the draws.

    Raises:
        ShapeError: A probability is not at least 0 and below 1; with 1, nothing could make up for
            what is cut.

    >>> tgr.bptt.Random(0.5, rng=3).mask(3)
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 2., 1.]])
    """

    def __init__(
        self, p: float | Callable[[int], float], *, rng: Generator | int | None = None
    ) -> None:
        self.p = p
        if not callable(p):
            _probability(p)
        if not (rng is None or isinstance(rng, (int, Generator))):
            raise DtypeError(f"Random: rng is {rng!r}; expected a seed, or backend.rng(seed)")
        self.rng = rng if isinstance(rng, Generator) else current_backend().rng(rng)

    @classmethod
    def power_law(
        cls, length: float, alpha: float = 4.0, *, rng: Generator | int | None = None
    ) -> Random:
        """Lengths with mean `length` and a tail of power `alpha`, which keeps the variance finite.

        ``c = alpha / ((alpha - 1) * length + d)``, d steps after the last cut (Tallec & Ollivier
        2017, section 4).

        Raises:
            ShapeError: `alpha` is not above 1 or `length` not above 1.

        >>> tgr.bptt.Random.power_law(16, rng=0).mask(4).shape
        (4, 4)
        """
        if not (_is_number(alpha) and _is_number(length)) or not (alpha > 1 and length > 1):
            raise ShapeError(f"Random: length={length!r}, alpha={alpha!r}; expected both above 1")
        return cls(lambda d: alpha / ((alpha - 1) * length + d), rng=rng)

    def schedule(self, steps: int) -> Schedule:
        """Gates of 0 and of ``1/(1-c)``."""
        gates, since = [1.0], 0
        draws = self.rng.backend.to_host(self.rng.uniform((steps,), dtype="float64"))
        for t in range(1, steps):
            since += 1
            c = _probability(self.p(since) if callable(self.p) else self.p)
            if draws[t] < c:
                gates.append(0.0)
                since = 0
            else:
                gates.append(1 / (1 - c))
        return Schedule(tuple(gates[:steps]))

    def __repr__(self) -> str:
        return f"Random({self.p!r})"


def plans_by_name(plans: Any, caller: str) -> list[tuple[str, Truncation]]:
    """A plan, a list of plans or a dict of them, each with a name of its own.

    Raises:
        DtypeError: They are none of these.
        ShapeError: Two have the same name.
    """
    if isinstance(plans, Truncation):
        plans = [plans]
    if isinstance(plans, Mapping):
        pairs = [(str(name), plan) for name, plan in plans.items()]
    elif not isinstance(plans, Iterable):
        raise DtypeError(f"{caller}: plans is {plans!r}; expected a list of plans, or a dict")
    else:
        pairs = [(re.sub(r"<function .*>", "function", repr(plan)), plan) for plan in plans]
    for _, plan in pairs:
        if not isinstance(plan, Truncation):
            raise DtypeError(f"{caller}: {plan!r} is no plan; expected such as tgr.bptt.Chunk(8)")
    names = [name for name, _ in pairs]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ShapeError(
            f"{caller}: two plans are called {double[0]!r}; give a dict of names to plans"
        )
    return pairs


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def _probability(c: Any) -> float:
    if not _is_number(c) or not 0 <= c < 1:
        raise ShapeError(f"Random: a probability of {c!r}; expected at least 0 and below 1")
    return float(c)


@dataclass(frozen=True)
class Clip(Truncation):
    """Clip the state's cotangent at each step; forward is untouched (Graves 2013; Pascanu et al.).

    Unlike clipping the whole gradient afterwards, this keeps one exploding step from drowning all
    others.

    Args:
        max_norm: The largest norm of one sequence's cotangent, for each leaf of the state.
        max_value: The largest absolute value of an element.
        plan: Another plan to follow as well.

    Raises:
        ShapeError: No limit, or one that is not positive.

    >>> x, h = tgr.ones((5, 1)), tgr.tensor([1.0], requires_grad=True)
    >>> def triple(x, h):
    ...     return h, 3 * h
    >>> _, last = tgr.scan(triple, x, h, truncation=tgr.bptt.Clip(max_value=1.0))
    >>> tgr.grad(last.sum(), h)
    (tensor([1.]),)
    """

    max_norm: float | None = None
    max_value: float | None = None
    plan: Truncation = Full()

    def __post_init__(self) -> None:
        limits = [x for x in (self.max_norm, self.max_value) if x is not None]
        if not isinstance(self.plan, Truncation) or isinstance(self.plan, Clip):
            raise DtypeError(f"Clip: plan is {self.plan!r}; expected another plan, and no Clip")
        if not limits or not all(_is_number(x) and x > 0 for x in limits):
            raise ShapeError(
                f"Clip: max_norm={self.max_norm!r}, max_value={self.max_value!r}; expected one or "
                "both to be positive numbers"
            )

    def schedule(self, steps: int) -> Schedule:
        """The other plan's, with the limits."""
        inner = self.plan.schedule(steps)
        return Schedule(inner.gates, inner.reach, self.max_norm, self.max_value)
