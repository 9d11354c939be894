"""Chapter 6. The lemma: a_t = b_t + c_t a_{t-1}."""

import numpy as np


def closed(b, c, t):
    """a_t by the closed form, from lists of numbers b and c, without computing a_0 ... a_{t-1}."""
    total = 0.0
    for i in range(t + 1):
        product = 1.0
        for j in range(i + 1, t + 1):
            product *= c[j]
        total += product * b[i]
    return total


def closed_matrices(B, C, t):
    """The same where each B[i] is a vector (n,) and each C[j] a matrix (n, n): NumPy arrays.

    a_t = B_t + C_t a_{t-1}. Mind the order of the products.
    """
    total = np.zeros_like(B[0])
    for i in range(t + 1):
        product = np.eye(len(B[0]))
        for j in range(i + 1, t + 1):
            product = C[j] @ product  # later steps stand on the left
        total = total + product @ B[i]
    return total


def backward(b, c, g):
    """The slopes of L by every b_t and every c_t, for L = sum_t g_t a_t. Numbers, one walk back.

    Returns:
        Two lists as long as b: dL/db and dL/dc.
    """
    a, before = 0.0, []
    for b_t, c_t in zip(b, c, strict=True):
        before.append(a)
        a = b_t + c_t * a
    T = len(b)
    db, dc, d = [0.0] * T, [0.0] * T, 0.0
    for t in reversed(range(T)):
        d = g[t] + (c[t + 1] * d if t + 1 < T else 0.0)
        db[t], dc[t] = d, d * before[t]
    return db, dc


def worth(rates, year):
    """Outside of networks: you pay 1 into an account at the end of year `year`.

    In every year t the account grows by its rate, 0.03 for 3%, before anything is paid in:
    a_t = paid_t + (1 + rates[t]) a_{t-1}. What is your payment worth at the end of the last year?
    """
    value = 1.0
    for rate in rates[year + 1 :]:
        value *= 1 + rate
    return value
