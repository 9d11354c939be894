"""Chapter 11: gates."""

import math

import ex11_gates as ex
import numpy as np
from words import same, wrong

import tinygradrnn as tgr


def parts(tensor):
    return dict(zip("rzn", tgr.split(tensor, 3, axis=0), strict=True))


def test_gru_step():
    rng = tgr.get_backend("numpy").rng(0)
    cell = tgr.nn.GRUCell(2, 3, rng=rng, dtype="float64")
    x, h = rng.normal((4, 2), dtype="float64"), rng.normal((4, 3), dtype="float64")
    W, U = parts(cell.weight_ih), parts(cell.weight_hh)
    b, d = parts(cell.bias_ih), parts(cell.bias_hh)
    expected = cell(x, h)[1].numpy()

    def variant(reset_first=False, swapped=False):
        r = tgr.sigmoid(x @ W["r"].T + b["r"] + h @ U["r"].T + d["r"])
        z = tgr.sigmoid(x @ W["z"].T + b["z"] + h @ U["z"].T + d["z"])
        inner = (r * h) @ U["n"].T + d["n"] if reset_first else r * (h @ U["n"].T + d["n"])
        n = tgr.tanh(x @ W["n"].T + b["n"] + inner)
        return (z * n + (1 - z) * h if swapped else (1 - z) * n + z * h).numpy()

    hints = [
        (
            variant(reset_first=True),
            "The reset gate stands before the product with U_n. In these "
            "equations it comes after; papers differ in this.",
        ),
        (variant(swapped=True), "z and 1 - z are the wrong way round: z is what is KEPT."),
    ]
    same(ex.gru_step(x, h, W, U, b, d), expected, "the new h", hints)


def test_bias_for():
    for steps, left in [(40, 0.5), (1, 0.5), (1000, 0.1)]:
        f = left ** (1 / steps)
        hints = [
            (f, "That is f itself. The bias is what the sigmoid makes f of."),
            (math.log(steps), "log T is the rule of thumb; here the fraction is given."),
        ]
        found = ex.bias_for(steps, left)
        same(found, math.log(f / (1 - f)), f"the bias for {left} after {steps} steps", hints)


def test_useless():
    xs = tgr.tensor(np.ones((30, 1)), requires_grad=True)
    h = tgr.tensor(np.array([0.5]), requires_grad=True)
    outputs, last = tgr.scan(ex.useless, xs, h)
    dx, dh = tgr.grad(tgr.sum(last), [xs, h], retain_graph=True, allow_unused=True)
    same(0.0 if dh is None else dh.item(), 1.0, "dh_29/dh_{-1}")
    if dx is not None and abs(dx.numpy()).max() > 0:
        wrong("the last state still depends on an input, so something could be learnt")
    if outputs.requires_grad:
        (dx,) = tgr.grad(tgr.sum(outputs), [xs], allow_unused=True)
        if dx is not None and abs(dx.numpy()).max() > 0:
            wrong("a loss at the outputs still says something to an input")


def test_carries():
    if ex.carries() != "c":
        wrong("look at the maps in chapter 11: which one hardly fades?")


def test_coupled():
    f, c, g = (tgr.tensor(v, dtype="float64") for v in (0.75, -0.4, 0.8))
    hints = [
        (0.75 * 0.8 + 0.25 * -0.4, "f is what is KEPT of c; the rest is replaced."),
        (0.75 * -0.4 + 0.8, "The sum may leave -1 ... 1: only what is not kept is replaced."),
    ]
    same(ex.coupled(None, c, f, g), -0.1, "the new c for f=0.75, c=-0.4, g=0.8", hints)
