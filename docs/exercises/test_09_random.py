"""Chapter 9: random gates."""

import math

import ex09_random as ex
import numpy as np
from words import same

import tinygradrnn as tgr


def test_gates():
    hints = [
        ([0, 1, 1], "What passes must make up for what was cut: more than 1."),
        ([0, 2, 4], "1/c is for the other case: what passes does so with probability 1 - c."),
    ]
    found = ex.gates([True, False, False], [0.5, 0.5, 0.25])
    same(found, [0, 2, 4 / 3], "gates for cut, pass, pass with c = 0.5, 0.5, 0.25", hints)


def test_mean_of_product():
    for cs in ([0.5], [0.5, 0.5], [0.1, 0.7, 0.3]):
        same(ex.mean_of_product(cs), 1.0, f"the mean over all outcomes for c = {cs}")


def test_the_gates_matter():
    """A mean of 1 that does not come from the gates is no proof."""
    before = ex.gates
    try:
        ex.gates = lambda coins, cs: [2 * g for g in before(coins, cs)]
        hint = "Your mean_of_product does not use your gates: it says 1 whatever they do."
        same(
            ex.mean_of_product([0.5, 0.2]),
            4.0,
            "the mean, if every gate were doubled",
            [(1.0, hint)],
        )
    finally:
        ex.gates = before


def test_variance_of_product():
    for c, d in [(0.5, 1), (0.5, 3), (0.2, 2)]:
        hints = [
            ((1 - c) ** -d, "That is the mean of the square. Take away the square of the mean."),
            (
                ((1 - c) ** -1 - 1) * d,
                "Variances add up in sums. This is a product.",
            ),
        ]
        same(ex.variance_of_product(c, d), (1 - c) ** -d - 1, f"c={c}, {d} gates", hints)
    plan = tgr.bptt.Random(0.5, rng=0)
    drawn = np.array([plan.mask(3)[2, 0] for _ in range(20000)])
    same(
        ex.variance_of_product(0.5, 2),
        drawn.var(),
        "the variance of drawn masks, 2 gates",
        tolerance=0.1,
    )


def test_draws_needed():
    for deviation, error in [(2.0, 0.5), (1.8, 0.01)]:
        hints = [
            (math.ceil(deviation / error), "Four times as many draws halve the error, not twice."),
        ]
        expected = math.ceil((deviation / error) ** 2)
        same(ex.draws_needed(deviation, error), expected, f"from {deviation} to {error}", hints)


def test_largest_c():
    for w in (0.5, 0.9):
        hints = [(1 - w, "The variance goes with the square of the term: w^2.")]
        same(ex.largest_c(w), 1 - w * w, f"w={w}", hints)
