"""Chapter 6. The lemma: a_t = b_t + c_t a_{t-1}."""

import numpy as np


def closed(b, c, t):
    """a_t by the closed form, from lists of numbers b and c, without computing a_0 ... a_{t-1}."""
    raise NotImplementedError


def closed_matrices(B, C, t):
    """The same where each B[i] is a vector (n,) and each C[j] a matrix (n, n): NumPy arrays.

    a_t = B_t + C_t a_{t-1}. Mind the order of the products.
    """
    raise NotImplementedError


def backward(b, c, g):
    """The slopes of L by every b_t and every c_t, for L = sum_t g_t a_t. Numbers, one walk back.

    Returns:
        Two lists as long as b: dL/db and dL/dc.
    """
    raise NotImplementedError


def worth(rates, year):
    """Outside of networks: you pay 1 into an account at the end of year `year`.

    In every year t the account grows by its rate, 0.03 for 3%, before anything is paid in:
    a_t = paid_t + (1 + rates[t]) a_{t-1}. What is your payment worth at the end of the last year?
    """
    raise NotImplementedError
