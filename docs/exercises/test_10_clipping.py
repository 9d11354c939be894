"""Chapter 10: clipping."""

import ex10_clipping as ex
import numpy as np
from words import same, wrong

import tinygradrnn as tgr


def flat(arrays):
    if not isinstance(arrays, (list, tuple)):
        wrong(f"expected a list of arrays, your function returned {arrays!r}")
    return np.concatenate([np.ravel(a) for a in arrays])


def test_clip_norm():
    g = [np.array([3.0]), np.array([[4.0, 0.0]])]
    each = [1.0, 1.0, 0.0]
    hint = (
        "Each array was clipped by itself. The norm is that of all of them as one long vector; "
        "else the direction changes."
    )
    same(flat(ex.clip_norm(g, 1.0)), [0.6, 0.8, 0.0], "(3), (4, 0) clipped to 1", [(each, hint)])


def test_clip_norm_leaves_short_gradients_alone():
    g = [np.array([0.3]), np.array([[0.4, 0.0]])]
    hint = "It was made longer. Clipping is a limit: what is short already stays as it is."
    same(flat(ex.clip_norm(g, 1.0)), [0.3, 0.4, 0.0], "(0.3), (0.4, 0)", [([0.6, 0.8, 0.0], hint)])
    with np.errstate(all="ignore"):
        same(flat(ex.clip_norm([np.zeros(2)], 1.0)), [0.0, 0.0], "a gradient of zero")


def test_clip_value():
    g = [np.array([3.0, -0.5]), np.array([[-4.0]])]
    same(flat(ex.clip_value(g, 1.0)), [1.0, -0.5, -1.0], "(3, -0.5), (-4) clipped to 1")


def test_neither_writes_into_what_it_was_given():
    for name in ("clip_norm", "clip_value"):
        g = [np.array([3.0, 4.0])]
        getattr(ex, name)(g, 1.0)
        if not np.array_equal(g[0], [3.0, 4.0]):
            wrong(f"{name} changed the arrays it was given; return new ones")


def test_keeps_direction():
    if ex.keeps_direction() != "norm":
        wrong("(3, 4) becomes (0.6, 0.8) by one and (1, 1) by the other: which is parallel to it?")


def test_famous_error_forward():
    h = tgr.tensor(5.0, dtype="float64")
    found = ex.famous_error(1.0, h, tgr.tensor(2.0, dtype="float64"), 0.5)
    hints = [
        (
            2.0,
            "The state itself was clipped. Clipping belongs to the way back; forward the step "
            "must be what it was: 2 * 5 + 1.",
        ),
    ]
    same(found, 11.0, "the step at h = 5, w = 2, x = 1", hints)


def test_famous_error_backward():
    h = tgr.tensor(5.0, dtype="float64", requires_grad=True)
    out = ex.famous_error(1.0, h, tgr.tensor(2.0, dtype="float64"), 0.5)
    (found,) = tgr.grad(out, h)
    hints = [
        (2.0, "Nothing limits the cotangent now."),
        (0.0, "Where a value is clipped its slope is zero: nothing at all goes back."),
        (
            1.0,
            "The cotangent was limited before the product with w. It must be within the limit "
            "where it leaves the step: at h_{t-1}.",
        ),
    ]
    same(found, 0.5, "the cotangent of h, limit 0.5", hints)


def test_limit_for():
    hints = [(0.1, "The update is lr times the gradient.")]
    same(ex.limit_for(0.1, 0.01), 10.0, "updates of at most 0.1 at lr = 0.01", hints)
