"""Chapter 7: predictions against what the anatomy finds."""

import math

import ex07_large_t as ex
import numpy as np
from words import chosen, same

import tinygradrnn as tgr


def measured():
    """The verdict of the anatomy on each cell."""
    w = tgr.tensor(0.0, dtype="float64", requires_grad=True)  # the anatomy wants a parameter
    turn = math.pi / 6
    R = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrices = {"rotating": R, "stretching": np.array([[0.5, 4.0], [0.0, 0.5]])}
    steps = {
        "shrinking": lambda x, h: 0.8 * h + x,
        "growing": lambda x, h: 1.2 * h + x,
        "saturated": lambda x, h: tgr.tanh(1.2 * h + 5.0),
        "residual": lambda x, h: h + 0.01 * tgr.tanh(h + x),
    }
    for name, matrix in matrices.items():
        steps[name] = lambda x, h, m=matrix: h @ tgr.tensor(m).T + x
    xs = tgr.tensor(np.random.default_rng(0).normal(size=(40, 1, 2)))
    found = {}
    for name, step in steps.items():

        def cell(x, h, step=step):
            h = step(x, h) + w
            return h, h

        start = tgr.zeros((1, 2), "float64")
        anatomy = tgr.bptt.anatomy(
            cell, xs, start, loss=lambda output, t: tgr.sum(output), parameters=[w]
        )
        found[name] = anatomy.verdict
    return found


def test_predictions():
    why = {
        "shrinking": "What is 0.8 to the power of 40?",
        "growing": "What is 1.2 to the power of 40?",
        "rotating": "How long is a vector after it was rotated?",
        "saturated": "1.2 is above 1, but where are the states, and how steep is tanh there?",
        "stretching": "Multiply the matrix with itself a few times: what happens to the 0.5?",
        "residual": "The slope is 1 + 0.01 (1 - tanh^2): between 1 and 1.01.",
    }
    chosen(ex.predictions(), measured(), why)


def test_steps_until():
    for rate, left, expected in [(0.5, 0.25, 2), (0.9, 0.01, 44), (0.5, 0.2, 3)]:
        hints = [(expected - 1, "After so many steps there is still more left.")]
        same(ex.steps_until(rate, left), expected, f"rate {rate}, down to {left}", hints)


def test_bound():
    W = np.array([[0.5, 4.0], [0.0, 0.5]])
    hints = [
        (
            0.5**3,
            "Those are the eigenvalues. They say nothing about the first steps; the largest "
            "singular value does: numpy.linalg.norm(W, 2).",
        ),
        (np.linalg.norm(W) ** 3, "That is the Frobenius norm: numpy.linalg.norm needs a 2."),
    ]
    same(ex.bound(W, 3), np.linalg.svd(W, compute_uv=False)[0] ** 3, "the bound, 3 steps", hints)


def test_largest_gain():
    for T, limit in [(100, 10.0), (10, 0.5)]:
        same(ex.largest_gain(T, limit), math.exp(math.log(limit) / T), f"T={T}, limit={limit}")
