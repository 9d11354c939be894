"""Chapter 6: the closed form, and the way back."""

import ex06_lemma as ex
import numpy as np
from words import same, wrong

import tinygradrnn as tgr

B, C = [1.0, 2.0, 3.0, -1.0], [5.0, 2.0, 10.0, 0.5]


def tensors(*lists):
    return [tgr.tensor(x, dtype="float64", requires_grad=True) for x in lists]


def test_closed():
    a = tgr.linear_recurrence(*tensors(B, C)).tolist()
    for t in range(4):
        hints = [
            (B[t], "That is b_t alone."),
            (
                sum(np.prod(C[i : t + 1]) * B[i] for i in range(t + 1)),
                "The product begins one step too early: b_i is multiplied by what comes AFTER it.",
            ),
            (
                sum(np.prod(C[i + 1 : t]) * B[i] for i in range(t)) + B[t],
                "The product ends one step too early: c_t belongs to it.",
            ),
        ]
        same(ex.closed(B, C, t), a[t], f"a_{t} for b={B}, c={C}", hints)


def test_closed_matrices():
    rng = np.random.default_rng(0)
    b, c = rng.normal(size=(4, 2)), rng.normal(size=(4, 2, 2))
    a, expected = np.zeros(2), []
    for t in range(4):
        a = b[t] + c[t] @ a
        expected.append(a)
    for t in range(4):
        other = np.zeros(2)
        for i in range(t + 1):
            product = np.eye(2)
            for j in range(i + 1, t + 1):
                product = product @ c[j]
            other = other + product @ b[i]
        hint = "The matrices are in the wrong order: what comes later stands on the left."
        same(ex.closed_matrices(b, c, t), expected[t], f"a_{t}", [(other, hint)])


def test_backward():
    g = [1.0, -2.0, 0.5, 3.0]
    b, c = tensors(B, C)
    L = tgr.sum(tgr.linear_recurrence(b, c) * tgr.tensor(g, dtype="float64"))
    db, dc = (x.tolist() for x in tgr.grad(L, [b, c]))
    found = ex.backward(B, C, g)
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        wrong(f"expected two lists, your function returned {found!r}")
    hint = "a_t reaches L by itself and through a_{t+1}, which multiplies it by c_{t+1}, not c_t."
    shifted, d = [], 0.0
    for t in reversed(range(4)):
        d = g[t] + C[t] * d
        shifted.insert(0, d)
    alone = "Those are the g_t alone: a_t also lives on in a_{t+1}."
    same(found[0], db, "dL/db", [(shifted, hint), (g, alone)])
    a = tgr.linear_recurrence(b.detach(), c.detach()).tolist()
    own = [d * x for d, x in zip(db, a, strict=True)]
    same(found[1], dc, "dL/dc", [(own, "c_t multiplies a_{t-1}, not a_t.")])


def test_worth():
    rates = [0.10, 0.20, 0.50]
    for year, expected in enumerate([1.8, 1.5, 1.0]):
        hints = [
            (
                np.prod([1 + r for r in rates[year:]]),
                "Paid at the END of the year: that year's rate comes too early for it.",
            ),
        ]
        same(ex.worth(rates, year), expected, f"paid in year {year}, rates {rates}", hints)
