"""Chapter 5. The gradient through time, by hand. Use no library: only numbers, lists and loops.

The network is the one on the sheet of paper::

    h_t = w_h h_{t-1} + w_x x_t     o_t = w_o h_t     l_t = 1/2 (o_t - y_t)^2     L = 1/T sum l_t

with h_{-1} = 0.
"""

import math


def terms_of_w_x(w_h, w_x, w_o, xs, ys):
    """All terms of dL/dw_x: what the loss at step t owes to the use of w_x at step i.

    Returns:
        A dict: (t, i) -> the term, for all i <= t, with the 1/T in it. Their sum is dL/dw_x.
    """
    hs, h = [], 0.0
    for x in xs:
        h = w_h * h + w_x * x
        hs.append(h)
    terms = {}
    for t in range(len(xs)):
        dl_dh = (w_o * hs[t] - ys[t]) * w_o
        for i in range(t + 1):
            terms[t, i] = dl_dh * w_h ** (t - i) * xs[i] / len(xs)
    return terms


def gradient_with_tanh(w_h, w_x, w_o, xs, ys):
    """dL/dw_h for h_t = tanh(w_h h_{t-1} + w_x x_t), walking back once.

    Go backward with one number delta, what all losses from here on say to h_t. No double loop.
    """
    before = [0.0]  # the state that enters each step; behind them the last
    for x in xs:
        before.append(math.tanh(w_h * before[-1] + w_x * x))
    gradient, delta = 0.0, 0.0
    for t in reversed(range(len(xs))):
        h = before[t + 1]
        delta += (w_o * h - ys[t]) * w_o / len(xs)
        into = delta * (1 - h**2)  # what arrives inside of tanh
        gradient += into * before[t]
        delta = into * w_h
    return gradient


def find_the_error(w_h, w_x, w_o, xs, ys):
    """dL/dw_h for the network with tanh once more. There is ONE error in here: find and repair it.

    It is the sum over all pairs, with a product of slopes. Everything runs, and the number is
    not far off.
    """
    before = [0.0]
    for x in xs:
        before.append(math.tanh(w_h * before[-1] + w_x * x))
    gradient = 0.0
    for t in range(len(xs)):
        dl_dh = (w_o * before[t + 1] - ys[t]) * w_o / len(xs)
        product = 1.0
        for i in reversed(range(t + 1)):
            slope = 1 - before[i + 1] ** 2
            gradient += dl_dh * product * slope * before[i]
            product *= slope * w_h
    return gradient
