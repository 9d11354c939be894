"""Training along a sequence too long for one tape: window after window, with a carried state."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from tinygradrnn import tree
from tinygradrnn.autodiff import backward
from tinygradrnn.errors import DtypeError, GradientError
from tinygradrnn.ops.gates import gate
from tinygradrnn.ops.shape import stack
from tinygradrnn.scan.contract import refuse_outgrown
from tinygradrnn.scan.eager import Loop, Rows, collecting_less
from tinygradrnn.scan.truncation import Chunk, Window
from tinygradrnn.tape import Leaf, Node
from tinygradrnn.tensor import Tensor


def detach(state: Any) -> Any:
    """The same state without its history: what is carried from one update to the next.

    Raises:
        DtypeError: A leaf is no Tensor.

    >>> h, c = tgr.bptt.detach((tgr.tensor([1.0], requires_grad=True), tgr.tensor([2.0])))
    >>> h.requires_grad
    False
    """
    leaves, structure = tree.flatten(state)
    for leaf, path in zip(leaves, structure.paths("state"), strict=True):
        if not isinstance(leaf, Tensor):
            raise DtypeError(f"detach: {path} is a {type(leaf).__name__}; expected a Tensor")
    return structure.unflatten(leaf.detach() for leaf in leaves)


class Stretch:
    """A stretch of a long sequence that has just been run, ready for its update.

    Attributes:
        times: Which steps: a slice of the whole sequence.
        outputs: The cell's, at these steps: leaves ``(time, batch, ...)``.
        state: The state after them.
    """

    def __init__(self, times: slice, outputs: Any, state: Any, keep: bool) -> None:
        self.times, self.outputs, self.state = times, outputs, state
        self._keep = keep

    def backward(self, loss: Any) -> None:
        """Add the gradient of `loss`, a scalar made of `outputs`, to every leaf's ``.grad``.

        It reaches back as far as the plan says, also to steps of stretches before.

        Raises:
            GradientError: Called a second time where nothing is kept for it.
        """
        backward(loss, retain_graph=self._keep)


def stream(
    cell: Any, xs: Any, plan: Chunk | Window, state: Any = None, *, lengths: Any = None
) -> Iterator[Stretch]:
    """Run a cell along a long sequence, stretch by stretch, with an update after each.

    With :class:`Chunk` the state is carried from one stretch to the next and its history is cut.
    With :class:`Window` a stretch is k1 new steps, and its gradient reaches back k2 steps; each
    step runs once, and its tape is kept until no window reaches it any more. The gradient through
    steps before an update is that of the weights they ran with, as in Williams & Peng (1990).

    Args:
        cell: A cell, or a function ``(x, state) -> (output, state)``.
        xs: As for :func:`tinygradrnn.scan`.
        plan: ``Chunk(k)`` or ``Window(k1, k2)``.
        state: As for :func:`tinygradrnn.scan`.
        lengths: As for :func:`tinygradrnn.scan`.

    Yields:
        A :class:`Stretch` at a time. Call its ``backward``, then the optimiser.

    Raises:
        DtypeError: Another plan.
        GradientError: xs was computed on a tape, or the state with weights replaced since.

    >>> cell, xs = tgr.nn.RNNCell(1, 2), tgr.ones((100, 1, 1))
    >>> optimizer = tgr.optim.SGD(cell.parameters(), lr=0.5)
    >>> for stretch in tgr.bptt.stream(cell, xs, tgr.bptt.Window(10, 20)):
    ...     loss = tgr.mean(tgr.square(stretch.outputs - 0.5))
    ...     stretch.backward(loss)
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    >>> stretch.times, bool(loss < 0.25)
    (slice(90, 100, None), True)
    """
    if not isinstance(plan, (Chunk, Window)):
        raise DtypeError(f"stream: the plan is {plan!r}; expected Chunk(k) or Window(k1, k2)")
    k1, k2 = (plan.k, plan.k) if isinstance(plan, Chunk) else (plan.k1, plan.k2)
    loop = Loop(cell, xs, state, lengths=lengths)
    refuse_outgrown(loop.begin, loop.carried.structure)
    edges = [x.edge for x in tree.flatten(xs)[0] if isinstance(x, Tensor) and x.edge]
    if not all(isinstance(edge, Leaf) for edge in edges):
        raise GradientError(
            "stream: xs has a history of its own, which the first update would outdate; put what "
            "computes it (an embedding) into the cell, or give xs.detach()"
        )
    starts = range(0, loop.time, k1)
    cuts = {start + k1 - k2 for start in starts}  # how far back each window reaches
    gates: dict[int, list[Node]] = {}

    def gated(x: Tensor, t: int) -> Tensor:
        x = gate(x) if x.edge is not None else x
        if isinstance(x.edge, Node):
            gates[t].append(x.edge)
        return x

    state = loop.state
    for start in starts:
        end = min(start + k1, loop.time)
        outputs: Rows = []
        for a, b in pairwise([start, *sorted(c for c in cuts if start < c < end), end]):
            if a in cuts and a > 0:
                gates[a] = []
                state = tree.map(lambda x, a=a: gated(x, a), state)
            with collecting_less:
                more, _, state = loop.steps(a, b, state)
            outputs += more
        for node in gates.pop(start + k1 - k2, ()):
            node.cut()
        assert loop.produced is not None
        stacked = loop.produced.structure.unflatten(map(stack, zip(*outputs, strict=True)))
        yield Stretch(slice(start, end), stacked, state, keep=k2 > k1 or bool(edges))
