"""Chapter 11. Gates."""

import math

import tinygradrnn as tgr


def gru_step(x, h, W, U, b, d):
    """One step of the GRU, from its equations.

    ::

        r = sigmoid(W_r x + b_r + U_r h + d_r)
        z = sigmoid(W_z x + b_z + U_z h + d_z)
        n = tanh(W_n x + b_n + r * (U_n h + d_n))
        h = (1 - z) * n + z * h

    Args:
        x: (batch, inputs).
        h: (batch, hidden).
        W: A dict with "r", "z", "n", each (hidden, inputs).
        U: The same, each (hidden, hidden).
        b: The same, each (hidden,).
        d: The same, each (hidden,).

    Returns:
        The new h. Use tgr.sigmoid, tgr.tanh and @; a matrix W is used as x @ W.T.
    """
    raise NotImplementedError


def bias_for(steps, left):
    """The bias of a forget gate that keeps the fraction `left` over so many steps.

    All else is zero, so that f = sigmoid(bias) at every step, and f^steps = left.
    """
    raise NotImplementedError


def useless(x, h):
    """A cell (x, h) -> (output, h) with dh_T/dh_0 = 1 for ever that can learn nothing.

    The gradient of its state neither vanishes nor explodes, and yet no loss at its outputs says
    anything to any input. Which gates of an LSTM would be stuck, and how?
    """
    raise NotImplementedError


def carries():
    """Which part of an LSTM's state carries a gradient over many steps, "h" or "c"?"""
    raise NotImplementedError


def coupled(x, c, f, g):
    """A cell state whose two gates are one: what is not kept is replaced.

    Args:
        x: Not used.
        c: The cell state.
        f: The forget gate, after its sigmoid.
        g: The candidate, after its tanh.

    Returns:
        The new c. If c and g lie between -1 and 1, so must it.
    """
    raise NotImplementedError
