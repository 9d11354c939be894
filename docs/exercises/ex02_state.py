"""Chapter 2. State: what must be remembered, and no more?

A cell is a function (x, state) -> (output, state). Use ordinary arithmetic, `tgr.maximum` and the
like; x is a Tensor with one number. A state is anything made of Tensors: one, a tuple, a dict.
"""

import tinygradrnn as tgr


def numbers_needed():
    """How many numbers must a state hold at least, for each task? Think before you write cells.

    Returns:
        A dict with a number for each of:
        "maximum": say the largest input so far;
        "delay": say the input of two steps ago (0 for the first two);
        "variance": say the variance of all inputs so far, mean((x - mean(x))^2);
        "parity": inputs are 0 or 1; say whether the number of ones so far is odd.
    """
    raise NotImplementedError


def maximum(x, state):
    """Say the largest input so far. The first state is the number -1000."""
    raise NotImplementedError


def delay(x, state):
    """Say the input of two steps ago. The first state is (0, 0), a tuple."""
    raise NotImplementedError


def variance(x, state):
    """Say the variance of all inputs so far. The first state is (0, 0, 0).

    Use mean(x^2) - mean(x)^2. Try it on paper with 1 and 3: the variance is 1.
    """
    raise NotImplementedError


def owed_to_start(w, steps):
    """How much does h_{steps-1} change with h_{-1}, if h_t = w h_{t-1} + x_t?

    After one step, for example, h_0 = w h_{-1} + x_0, and the answer is w.
    """
    raise NotImplementedError
