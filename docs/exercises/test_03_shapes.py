"""Chapter 3: the five shapes."""

import ex03_shapes as ex
import numpy as np
from words import chosen, numbers, same, wrong

import tinygradrnn as tgr


def test_shapes():
    expected = {
        "spam": ex.MANY_TO_ONE,
        "caption": ex.ONE_TO_MANY,
        "translate": ex.MANY_TO_MANY,
        "next letter": ex.SYNCED,
        "subtitles": ex.SYNCED,
        "digit": ex.ONE_TO_ONE,
    }
    why = {
        "spam": "Many words go in. How many answers come out?",
        "caption": "The image goes in once. How many words come out?",
        "translate": "Can the first word be written before the last one has been read?",
        "next letter": "There is an answer after every letter.",
        "subtitles": "Nobody waits until the speech is over.",
        "digit": "Everything goes in at once and one answer comes out: is there any time?",
    }
    chosen(ex.shapes(), expected, why)


def measured(has_loss):
    """Which losses of a run reach which states, found by asking for the gradients."""
    cell = tgr.nn.RNNCell(1, 3, rng=tgr.get_backend("numpy").rng(0), dtype="float64")

    def loss(output, t):
        return tgr.sum(output) if has_loss[t] else None

    steps = len(has_loss)
    return tgr.bptt.anatomy(cell, tgr.ones((steps, 1, 1), "float64"), loss=loss).cotangents > 0


def test_reaches():
    cases = [
        (ex.MANY_TO_ONE, 4, 0, [False, False, False, True]),
        (ex.SYNCED, 4, 0, [True] * 4),
        (ex.MANY_TO_MANY, 5, 2, [False, False, True, True, True]),
    ]
    for shape, steps, read, has_loss in cases:
        found = numbers(ex.reaches(shape, steps, read), f"reaches({shape!r})").astype(bool)
        if found.shape != (steps, steps):
            wrong(f"{shape}: expected {steps} rows of {steps}, you returned {found.shape}")
        if np.triu(found, 1).any():
            wrong(f"{shape}: one of your losses depends on a state that comes after it")
        for t, k in np.argwhere(found != measured(has_loss)):
            says = "depends" if found[t, k] else "does not depend"
            loss = "there is a loss" if has_loss[t] else "there is no loss"
            wrong(
                f"{shape}, {steps} steps, {read} of them only read: you say that the loss at step "
                f"{t} {says} on h_{k}. At step {t} {loss}; and every state is made from the ones "
                "before."
            )


def test_write():
    rng = tgr.get_backend("numpy").rng(1)
    cell = tgr.nn.RNNCell(2, 3, rng=rng, dtype="float64")
    g = tgr.nn.Linear(3, 2, rng=rng, dtype="float64")
    h, y = tgr.ones((1, 3), "float64"), tgr.zeros((1, 2), "float64")

    def writer(x, state):
        h, y = state
        output, h = cell(y, h)
        y = g(output)
        return y, (h, y)

    expected, _ = tgr.scan(writer, tgr.zeros((5, 1, 0), "float64"), (h, y))
    found = ex.write(cell, g, h, y, 5)
    deaf, _ = tgr.scan(cell, tgr.zeros((5, 1, 2), "float64"), h)
    hint = "These are the answers of a cell that reads zeros. What it says must be read next."
    same(found, expected.numpy(), "the answers", [(g(deaf).numpy(), hint)])
    weights = list(g.parameters())
    wanted = tgr.grad(tgr.sum(expected), weights)
    if not found.requires_grad:
        wrong("the answers are right, but they have no tape: were they turned into plain numbers?")
    for a, b in zip(tgr.grad(tgr.sum(found), weights), wanted, strict=True):
        if not np.allclose(a.numpy(), b.numpy()):
            wrong(
                "the answers are right, but their gradient is not: what is fed back must stay on "
                "the tape (no detach, no float)"
            )
