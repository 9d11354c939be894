"""Chapter 12. A cell of your own: from a description to a trained network."""

import tinygradrnn as tgr


class Described(tgr.nn.Cell):
    """Write this cell from its description.

    "From the state and the input, put end to end as [h, x], one linear map makes a keeping gate f
    (by a sigmoid) and another a candidate n (by tanh). The new state keeps the fraction f of the
    old one, and takes the rest from the candidate. The output is the new state."

    Attributes:
        gate, candidate: The two maps, tgr.nn.Linear from hidden + inputs to hidden.
    """

    def __init__(self, inputs, hidden, *, rng=None, dtype="float32"):
        self.input_size = inputs
        self.gate = tgr.nn.Linear(hidden + inputs, hidden, rng=rng, dtype=dtype)
        self.candidate = tgr.nn.Linear(hidden + inputs, hidden, rng=rng, dtype=dtype)

    def initial_state(self, batch_size):
        """Zeros, (batch_size, hidden), of the dtype of the weights."""
        raise NotImplementedError

    def forward(self, x, h):
        """The output and the new state."""
        raise NotImplementedError


def open_gate(cell, steps):
    """Prepare a `Described` cell to remember for about so many steps: set the bias of its gate.

    Change cell.gate.bias by `.assign(...)`, a NumPy array or a Tensor of the same shape and dtype.
    """
    raise NotImplementedError


class Verified(tgr.nn.Cell):
    """This cell passes verify_cell, and is still wrong. Repair its `forward`.

    It is to count: its state is the sum of all inputs so far, times a learnt weight, and its
    output is the *mean* of the inputs so far, times that weight. State: (total, count).
    """

    input_size = 1

    def __init__(self, dtype="float64"):
        self.weight = tgr.nn.Parameter(tgr.ones((), dtype))

    def initial_state(self, batch_size):
        zero = tgr.zeros((batch_size, 1), self.weight.dtype)
        return zero, zero

    def forward(self, x, state):
        total, count = state
        total, count = self.weight * (total + x), count + 1
        return total / count, (total, count)


def what_verify_cell_checks():
    """What has been shown when `verify_cell` is content? Choose one letter.

    a) that the cell does what its description says;
    b) that the gradient is that of what the cell computes;
    c) that the cell will learn.
    """
    raise NotImplementedError
