"""Chapter 1. One neuron: slopes by hand, and a tape of your own."""

import math


def slopes(w, b, x, target):
    """The slopes of L = 1/2 (y - target)^2 with y = sigmoid(w x + b).

    Use no library but `math`. The sigmoid is 1 / (1 + exp(-a)), and its slope is y (1 - y).

    Returns:
        dL/dw and dL/db, two numbers.
    """
    y = 1 / (1 + math.exp(-(w * x + b)))
    dL_dy = y - target
    dL_da = dL_dy * y * (1 - y)
    return dL_da * x, dL_da


def twice(w, x):
    """The slope dy/dw of y = w tanh(w x). The weight is used in two places."""
    inner = math.tanh(w * x)
    return inner + w * (1 - inner**2) * x


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
    found = {last: 1.0}
    for result, inputs in reversed(tape):
        if result in found:  # what does not lead to `last` has nothing to pass on
            for name, slope in inputs.items():
                found[name] = found.get(name, 0.0) + found[result] * slope
    return found
