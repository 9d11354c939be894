"""Chapter 10. Clipping: of the gradient, and of the cotangent, but never of the state."""

import numpy as np

import tinygradrnn as tgr


def clip_norm(gradients, limit):
    """Scale all gradients by one factor, so that together they are no longer than `limit`.

    Args:
        gradients: A list of NumPy arrays of any shapes: one for each weight.
        limit: The largest norm of all of them as one long vector.

    Returns:
        A new list.
    """
    raise NotImplementedError


def clip_value(gradients, limit):
    """Limit every element to -limit ... limit. A new list."""
    raise NotImplementedError


def keeps_direction():
    """Which of the two keeps the direction of the gradient as a whole? "norm" or "value"."""
    raise NotImplementedError


def famous_error(x, h, w, limit):
    """A step h_t = w h_{t-1} + x whose COTANGENT is limited to -limit ... limit on its way back.

    A published library had this very error: it limits something else. Repair it.
    (`tgr.clip` limits a value. `tgr.clip_cotangent(x, max_value=...)` returns x as it is.)
    """
    h = tgr.clip(h, -limit, limit)
    return w * h + x


def limit_for(longest, lr):
    """With plain gradient descent, w <- w - lr g, no update is to be longer than `longest`.

    Which limit must clip_norm have?
    """
    raise NotImplementedError
