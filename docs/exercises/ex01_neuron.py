"""Chapter 1. One neuron: slopes by hand, and a tape of your own."""

import math


def slopes(w, b, x, target):
    """The slopes of L = 1/2 (y - target)^2 with y = sigmoid(w x + b).

    Use no library but `math`. The sigmoid is 1 / (1 + exp(-a)), and its slope is y (1 - y).

    Returns:
        dL/dw and dL/db, two numbers.
    """
    raise NotImplementedError


def twice(w, x):
    """The slope dy/dw of y = w tanh(w x). The weight is used in two places."""
    raise NotImplementedError


def cotangents(tape, last):
    """Walk a tape back.

    A tape is a list of lines, in the order in which they were computed. Each line is the name of
    a result and the names of its inputs with the result's slope by each::

        [("a", {"w": 2.0}), ("y", {"a": 1.0}), ("L", {"y": -1.0})]

    says: a = 2 w + ..., so da/dw = 2; dy/da = 1; dL/dy = -1. An input may be used in many lines.

    Args:
        tape: The lines.
        last: The name whose slopes we want: "L".

    Returns:
        A dict: for every name on the tape that `last` depends on, d(last)/d(name); 1 for itself.
    """
    raise NotImplementedError
