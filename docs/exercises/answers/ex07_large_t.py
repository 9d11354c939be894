"""Chapter 7. Large t: predict what happens to a gradient, before you run anything."""

import math

import numpy as np

VANISHING, EXPLODING, HEALTHY = "vanishing", "exploding", "healthy"


def predictions():
    """What does each cell do to its gradient? HEALTHY is: within 0.9 and 1.1 for each step.

    Returns:
        A dict with one of the three words above for each of these, h of size 2, 40 steps:

        "shrinking":  h_t = 0.8 h_{t-1} + x_t
        "growing":    h_t = 1.2 h_{t-1} + x_t
        "rotating":   h_t = R h_{t-1} + x_t, R a rotation by 30 degrees
        "saturated":  h_t = tanh(1.2 h_{t-1} + 5)
        "stretching": h_t = [[0.5, 4], [0, 0.5]] h_{t-1} + x_t, and 4 is a lot
        "residual":   h_t = h_{t-1} + 0.01 tanh(h_{t-1} + x_t)
    """
    return {
        "shrinking": VANISHING,
        "growing": EXPLODING,
        "rotating": HEALTHY,  # a rotation stretches nothing
        "saturated": VANISHING,  # tanh is flat where the states are
        "stretching": VANISHING,  # the eigenvalues decide in the long run
        "residual": HEALTHY,  # 1 plus something small
    }


def steps_until(rate, left):
    """After how many steps is at most the fraction `left` of a gradient left?

    Args:
        rate: What each step multiplies by, below 1.
        left: The fraction, such as 0.01.

    Returns:
        The smallest whole number of steps.
    """
    return math.ceil(math.log(left) / math.log(rate))


def bound(W, steps):
    """The largest that |dh_t/dh_{t-steps}| can be, for h_t = tanh(W h_{t-1} + x_t). W: (n, n)."""
    return np.linalg.norm(W, 2) ** steps


def largest_gain(T, limit):
    """The largest singular value of W for which that bound over T steps stays within `limit`."""
    return limit ** (1 / T)
