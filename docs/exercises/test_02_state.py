"""Chapter 2: cells whose states hold what they need."""

import ex02_state as ex
import numpy as np
from words import same, wrong

import tinygradrnn as tgr

XS = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0]


def run(cell, state):
    xs = tgr.tensor(XS, dtype="float64")
    ys = []
    for x in tgr.unstack(xs):
        made = cell(x, state)
        if not isinstance(made, tuple) or len(made) != 2:
            wrong(f"{cell.__name__}: expected (output, state), your cell returned {made!r}")
        y, new = made
        if isinstance(state, tuple) and (not isinstance(new, tuple) or len(new) != len(state)):
            wrong(
                f"{cell.__name__}: the state was a tuple of {len(state)} and has become {new!r}. "
                "A state keeps its form from step to step, or the loop cannot go on."
            )
        state = new
        ys.append(float(y))
    return ys


def zeros(n):
    return tuple(tgr.zeros((), "float64") for _ in range(n))


def test_numbers_needed():
    found = ex.numbers_needed()
    why = {
        "maximum": (1, "Of all that was read only the largest can ever matter again."),
        "delay": (
            2,
            "At each step the last input will be needed in two steps, the one before in "
            "one. Nothing older.",
        ),
        "variance": (3, "The mean of x and the mean of x^2, and both need the count."),
        "parity": (1, "Odd or even: the number of ones itself need not be known."),
    }
    for task, (expected, text) in why.items():
        if not isinstance(found, dict) or task not in found:
            wrong(f"expected a dict with {task!r}, your function returned {found!r}")
        if found[task] != expected:
            wrong(f"{task}: {found[task]} is not the least. {text}")


def test_maximum():
    start = tgr.tensor(-1000.0, dtype="float64")
    same(run(ex.maximum, start), [3, 3, 4, 4, 5, 9], f"the largest so far of {XS}")


def test_delay():
    hints = [
        (
            [0, 3, 1, 4, 1, 5],
            "That is the input of one step ago. The state holds two: which is "
            "said, and which moves up?",
        ),
        (XS, "That is the input itself."),
    ]
    same(run(ex.delay, zeros(2)), [0, 0, 3, 1, 4, 1], f"{XS}, two steps late", hints)


def test_variance():
    expected = [np.var(XS[: t + 1]) for t in range(len(XS))]
    squares = [np.mean(np.square(XS[: t + 1])) for t in range(len(XS))]
    hints = [(squares, "That is mean(x^2); the square of the mean is still to be taken away.")]
    same(run(ex.variance, zeros(3)), expected, f"the variances of {XS}", hints)


def test_owed_to_start():
    for w, steps in [(0.5, 3), (1.1, 10)]:
        hints = [
            (w * steps, "Each step multiplies by w. Multiplying again and again is a power."),
            (w ** (steps - 1), "One factor too few: h_0 already has one."),
        ]
        same(ex.owed_to_start(w, steps), w**steps, f"the share after {steps} steps, w={w}", hints)
