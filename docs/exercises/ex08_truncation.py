"""Chapter 8. Truncation: three masks, a truncated walk, and the right plan for a task."""

import numpy as np


def chunk_mask(T, k):
    """Row t, column i: 1 if the loss at step t reaches step i in chunks of k, else 0. (T, T)."""
    raise NotImplementedError


def depth_mask(T, k):
    """The same where every loss reaches k steps: its own, and the k - 1 before."""
    raise NotImplementedError


def window_mask(T, k1, k2):
    """The same where after every k1 steps one walks k2 steps back from there."""
    raise NotImplementedError


def truncated_gradient(w, xs, dl_dh, h, k):
    """dL/dw of h_t = w h_{t-1} + x_t in chunks of k, in ONE walk back.

    Args:
        w: The weight, a number.
        xs: The inputs, a list.
        dl_dh: What each step's loss says to its own state, a list.
        h: The state before the first step.
        k: The length of a chunk.
    """
    raise NotImplementedError


def smallest_k(lag):
    """A network is to say what it read `lag` steps ago. Which k do Depth(k) and Chunk(k) need?

    Returns:
        Two numbers: the smallest k for which Depth(k), and for which Chunk(k), has any pair that
        teaches it.
    """
    raise NotImplementedError


def work(T, k1, k2):
    """How many steps are walked back in all, for T steps in windows (k1, k2)?

    T is a multiple of k1. The first walks are shorter, as there is nothing before; ignore that.
    """
    raise NotImplementedError
