"""Chapter 1: the slopes of a neuron, and a walk along a tape."""

import math

import ex01_neuron as ex
from words import same, wrong

import tinygradrnn as tgr


def test_slopes():
    x, target = 2.0, 1.0
    for w, b in [(0.0, 0.0), (0.5, -2.0), (-1.0, 0.25)]:
        leaves = [tgr.tensor(v, dtype="float64", requires_grad=True) for v in (w, b)]
        y = tgr.sigmoid(leaves[0] * x + leaves[1])
        expected = [g.item() for g in tgr.grad(0.5 * (y - target) ** 2, leaves)]
        out = y.item()
        hints = [
            (
                [(out - target) * x, out - target],
                "The slope of the sigmoid, y (1 - y), is missing.",
            ),
            (
                [(out - target) * (1 - out**2) * x, (out - target) * (1 - out**2)],
                "1 - y^2 is the slope of tanh; this is a sigmoid.",
            ),
            ([expected[1], expected[1]], "dL/dw and dL/db differ: a = w x + b, so da/dw = x."),
        ]
        same(ex.slopes(w, b, x, target), expected, f"(dL/dw, dL/db) for w={w}, b={b}", hints)


def test_twice():
    for w, x in [(0.5, 1.0), (2.0, -0.3)]:
        inner = math.tanh(w * x)
        through = w * (1 - inner**2) * x
        hints = [
            (inner, "That is the part of the outer w. The w inside of tanh moves y as well."),
            (through, "That is the part of the w inside of tanh. The outer w moves y as well."),
        ]
        same(ex.twice(w, x), inner + through, f"dy/dw for w={w}, x={x}", hints)


def test_cotangents():
    chain = [("a", {"w": 2.0, "b": 1.0}), ("y", {"a": 1.0}), ("L", {"y": -1.0})]
    found = ex.cotangents(chain, "L")
    if not isinstance(found, dict):
        wrong(f"expected a dict, your function returned {found!r}")
    for name, expected in {"L": 1.0, "y": -1.0, "a": -1.0, "w": -2.0, "b": -1.0}.items():
        if name not in found:
            wrong(f"{name!r} is on the tape, but not in your dict")
        same(found[name], expected, f"dL/d{name} on the tape of chapter 1")


def test_cotangents_of_what_is_used_twice():
    square = [("p", {"w": 5.0}), ("y", {"w": 15.0, "p": 3.0})]  # y = w * (w * 5) at w = 3
    hints = [
        (15.0, "w is used in two lines. Add what arrives from both; the last one does not win."),
        (45.0, "w was multiplied together from its two uses. What arrives is to be added."),
    ]
    same(ex.cotangents(square, "y")["w"], 30.0, "dy/dw of y = w * (w * 5) at w = 3", hints)


def test_cotangents_wait_for_all_uses():
    # h is used by o and by the next state; only when both have spoken may h speak to w.
    tape = [("h", {"w": 1.0}), ("o", {"h": 2.0}), ("k", {"h": 10.0}), ("L", {"o": 1.0, "k": 1.0})]
    hint = "h told w what it knew before all its uses were visited. Go strictly backwards."
    same(ex.cotangents(tape, "L")["w"], 12.0, "dL/dw", [(2.0, hint), (10.0, hint), (14.0, hint)])


def test_what_leads_nowhere_says_nothing():
    tape = [("a", {"w": 2.0}), ("unused", {"a": 7.0}), ("L", {"a": 1.0})]
    same(ex.cotangents(tape, "L")["w"], 2.0, "dL/dw, where a result is not used in L")
