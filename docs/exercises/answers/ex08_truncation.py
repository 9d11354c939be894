"""Chapter 8. Truncation: three masks, a truncated walk, and the right plan for a task."""

import numpy as np


def chunk_mask(T, k):
    """Row t, column i: 1 if the loss at step t reaches step i in chunks of k, else 0. (T, T)."""
    return np.array([[float(i <= t and i // k == t // k) for i in range(T)] for t in range(T)])


def depth_mask(T, k):
    """The same where every loss reaches k steps: its own, and the k - 1 before."""
    return np.array([[float(0 <= t - i < k) for i in range(T)] for t in range(T)])


def window_mask(T, k1, k2):
    """The same where after every k1 steps one walks k2 steps back from there."""
    mask = np.zeros((T, T))
    for t in range(T):
        end = (t // k1 + 1) * k1  # of the window in which step t lies
        mask[t, max(0, end - k2) : t + 1] = 1.0
    return mask


def truncated_gradient(w, xs, dl_dh, h, k):
    """dL/dw of h_t = w h_{t-1} + x_t in chunks of k, in ONE walk back.

    Args:
        w: The weight, a number.
        xs: The inputs, a list.
        dl_dh: What each step's loss says to its own state, a list.
        h: The state before the first step.
        k: The length of a chunk.
    """
    before = []
    for x in xs:
        before.append(h)
        h = w * h + x
    gradient, delta = 0.0, 0.0
    for t in reversed(range(len(xs))):
        delta += dl_dh[t]
        gradient += delta * before[t]
        delta = 0.0 if t % k == 0 else delta * w  # the first step of a chunk passes nothing on
    return gradient


def smallest_k(lag):
    """A network is to say what it read `lag` steps ago. Which k do Depth(k) and Chunk(k) need?

    Returns:
        Two numbers: the smallest k for which Depth(k), and for which Chunk(k), has any pair that
        teaches it.
    """
    return lag + 1, lag + 1


def work(T, k1, k2):
    """How many steps are walked back in all, for T steps in windows (k1, k2)?

    T is a multiple of k1. The first walks are shorter, as there is nothing before; ignore that.
    """
    return T // k1 * k2
