"""The numbers behind a gradient through time: who did what to whom, and how much of it arrived."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tinygradrnn import tree
from tinygradrnn.autodiff import grad
from tinygradrnn.bptt.jacobians import Loss, loss_of, parameters_of, step_terms
from tinygradrnn.convert import kind_of
from tinygradrnn.errors import GradientError, ShapeError
from tinygradrnn.scan.eager import Loop
from tinygradrnn.tape import Leaf, enable_grad
from tinygradrnn.tensor import Tensor, tensor


@dataclass(frozen=True)
class Anatomy:
    """What :func:`anatomy` finds; NumPy arrays throughout, steps in the order in which they ran.

    Attributes:
        losses: Each step's loss, ``(T,)``.
        cotangents: The norm of ``dL_t/dh_k`` at ``[t, k]``, ``(T, T)``; zero for ``k > t``.
        shares: For each parameter, by name, each step's share of its gradient, ``(T, *shape)``: the
            part that arrives through the parameter's use in that step; what comes through the first
            state counts with the first step. The shares sum to ``.grad``.
        jacobians: ``dh_t/dh_{t-1}`` of one sequence, ``(T, state, state)``.
    """

    losses: Any
    cotangents: Any
    shares: dict[str, Any]
    jacobians: Any

    @property
    def gradients(self) -> dict[str, Any]:
        """The gradient of each parameter: the sum of its shares."""
        return {name: share.sum(axis=0) for name, share in self.shares.items()}

    @property
    def share_norms(self) -> dict[str, Any]:
        """The norm of each step's share, ``(T,)``."""
        import numpy

        return {
            name: numpy.sqrt((share.reshape(len(share), -1) ** 2).sum(axis=1))
            for name, share in self.shares.items()
        }

    def product(self, t: int, k: int) -> Any:
        """``dh_t/dh_k``, the product of the step Jacobians from t down to k + 1.

        Raises:
            ShapeError: k lies after t, or one of them outside of the loop.
        """
        import numpy

        steps = len(self.losses)
        if not 0 <= k <= t < steps:
            raise ShapeError(f"product: t={t}, k={k}; expected 0 <= k <= t < {steps}")
        found = numpy.eye(self.jacobians.shape[1])
        for j in range(t, k, -1):
            found = found @ self.jacobians[j]
        return found

    @cached_property
    def product_norms(self) -> Any:
        """The largest singular value of ``dh_t/dh_k`` at ``[t, k]``, ``(T, T)``; 1 where t = k."""
        import numpy

        steps, size = self.jacobians.shape[:2]
        found = numpy.zeros((steps, steps))
        for k in range(steps):
            product = numpy.eye(size)
            for t in range(k, steps):
                product = self.jacobians[t] @ product if t > k else product
                found[t, k] = numpy.linalg.norm(product, 2) if size else 0.0
        return found

    @cached_property
    def singular_values(self) -> Any:
        """The singular values of each step's Jacobian, ``(T, state)``, largest first."""
        import numpy

        return numpy.linalg.svd(self.jacobians, compute_uv=False)

    @cached_property
    def product_singular_values(self) -> Any:
        """Those of ``dh_t/dh_0``, from the state after the first step on, ``(T, state)``."""
        import numpy

        products = [numpy.eye(self.jacobians.shape[1])]
        for jacobian in self.jacobians[1:]:
            products.append(jacobian @ products[-1])
        return numpy.linalg.svd(numpy.stack(products), compute_uv=False)

    @cached_property
    def rate(self) -> float:
        """By what one step back multiplies ``|dL_t/dh_k|``: the geometric mean over all t and k.

        1.0 if there is no step back.
        """
        import numpy

        before, after = self.cotangents[:, :-1], self.cotangents[:, 1:]
        there = after > 0  # what is gone stays gone, and says no more about the rate
        logs = numpy.log(numpy.maximum(before[there], 1e-300) / after[there])
        return float(numpy.exp(logs.mean())) if logs.size else 1.0

    def profile(self) -> Any:
        """How much of a loss's gradient is left d steps back, ``(T,)``: 1 at d = 0.

        The mean over t of ``|dL_t/dh_{t-d}|``, over that of the same t at d = 0; or at d = 1, for a
        cell whose output is not computed from the state it returns.
        """
        import numpy

        steps = len(self.losses)
        last = self.cotangents.diagonal()
        last = numpy.where(last > 0, last, numpy.append(0, self.cotangents.diagonal(-1)))
        found = numpy.zeros(steps)
        for d in range(steps):
            base = last[d:].mean()
            found[d] = self.cotangents.diagonal(-d).mean() / base if base > 0 else 0.0
        return found

    def horizon(self, left: float = 1 / math.e) -> int | None:
        """The effective memory: how many steps back less than `left` of the gradient is left.

        None if that does not happen within the sequence.
        """
        below = (self.profile() < left).nonzero()[0]
        return int(below[0]) if len(below) else None

    @property
    def verdict(self) -> str:
        """``"vanishing"``, ``"exploding"`` or ``"healthy"``.

        Healthy is a rate from 0.9 to 1.1 per step that over the whole sequence does not add up to a
        factor of more than 1000 either.
        """
        over_all = self.rate ** max(len(self.losses) - 1, 0) if self.rate < 1e6 else math.inf
        if self.rate < 0.9 or over_all < 1e-3:
            return "vanishing"
        if self.rate > 1.1 or over_all > 1e3:
            return "exploding"
        return "healthy"

    def __str__(self) -> str:
        horizon = self.horizon()
        if horizon is None:
            left = "more than 37% of it reaches the first step"
        else:
            left = f"less than 37% of it is left {horizon} steps back"
        return (
            f"{self.verdict}: one step back multiplies the gradient by {self.rate:.3g} on the "
            f"whole; {left}"
        )


def anatomy(
    cell: Any,
    xs: Any,
    state: Any = None,
    *,
    loss: Loss,
    parameters: Sequence[Tensor] | Mapping[str, Tensor] | None = None,
    lengths: Any = None,
    reverse: bool = False,
    sequence: int = 0,
) -> Anatomy:
    """Take the gradient of a cell over time apart.

    With ``L = sum_t L_t``: how much each loss depends on each earlier state, how much each step
    contributes to the gradient of each weight, and what one step does to the state's cotangent.

    Args:
        cell: A cell, or a function ``(x, state) -> (output, state)``.
        xs: As for :func:`tinygradrnn.scan`.
        state: As for :func:`tinygradrnn.scan`.
        loss: ``loss(output, t)``: the loss of one step, a scalar, or None for no loss. It may use
            parameters of its own, of a read-out for example.
        parameters: Whose gradient to share out; by default the cell's own. A dict gives them names.
        sequence: Which sequence of the batch the step Jacobians are of; they are of all of xs if
            that has no batch.
        lengths: As for :func:`tinygradrnn.scan`.
        reverse: As for :func:`tinygradrnn.scan`.

    Raises:
        GradientError: No parameters are known, or they are no leaves; or no loss depends on a
            state or a parameter.
        ShapeError: There is no such sequence.

    >>> cell, readout = tgr.nn.RNNCell(2, 3), tgr.nn.Linear(3, 1)
    >>> found = tgr.bptt.anatomy(
    ...     cell,
    ...     tgr.ones((6, 1, 2)),
    ...     loss=lambda output, t: tgr.sum(tgr.square(readout(output))),
    ...     parameters={"w_h": cell.weight_hh, "w_o": readout.weight},
    ... )
    >>> found.cotangents.shape, found.shares["w_h"].shape, found.jacobians.shape
    ((6, 6), (6, 3, 3), (6, 3, 3))
    """
    import numpy

    names, weights = _named(cell, parameters)
    steps: list[tuple[int, Tensor | None, list[Tensor], list[Tensor]]] = []
    with enable_grad(), _stand_ins(weights) as used:  # the first state counts with the first step
        loop = Loop(cell, xs, state, lengths=lengths, reverse=reverse)
        loop.along = True
        # On the tape, so that later states have a place there even if no weight led to them.
        current = tree.map(_on_tape, loop.state)
        steps.append((*_step(loop, 0, current, loss), used))
    for i in range(1, loop.time):
        with enable_grad(), _stand_ins(weights) as used:
            steps.append((*_step(loop, i, loop.state, loss), used))
    losses = [value for _, value, _, _ in steps]
    states = [leaves for _, _, leaves, _ in steps]
    uses = [used for _, _, _, used in steps]
    norms = numpy.zeros((loop.time, loop.time))
    shares = {
        name: numpy.zeros((loop.time, *p.shape)) for name, p in zip(names, weights, strict=True)
    }
    for t, value in enumerate(losses):
        if value is None or value.edge is None:
            continue
        before = [x for k in range(t + 1) for x in states[k] if x.edge is not None]
        places = [k for k in range(t + 1) for x in states[k] if x.edge is not None]
        stands = [u for k in range(t + 1) for u in uses[k]]
        found = grad(value, [*before, *stands], retain_graph=True, allow_unused=True)
        for k, g in zip(places, found, strict=False):
            if g is not None:
                norm = numpy.linalg.norm(g.numpy().astype("float64"))
                norms[t, k] = math.hypot(norms[t, k], norm)
        rest = found[len(before) :]
        for j, g in enumerate(rest):
            if g is not None:
                shares[names[j % len(weights)]][j // len(weights)] += g.numpy()
    if not norms.any() and not any(share.any() for share in shares.values()):
        raise GradientError("anatomy: no loss depends on any state or parameter")
    values = [0.0 if x is None else float(x) for x in losses]
    jacobians = _jacobians(loop, tree.map(_detached, current), lengths, reverse, sequence)
    return Anatomy(numpy.asarray(values), norms, shares, jacobians)


def _named(cell: Any, parameters: Any) -> tuple[list[str], list[Tensor]]:
    """The parameters with their names."""
    if isinstance(parameters, Mapping):
        return list(parameters), parameters_of(cell, list(parameters.values()), "anatomy")
    if parameters is None and hasattr(cell, "named_parameters"):
        pairs = list(cell.named_parameters())
        return [name for name, _ in pairs], [p for _, p in pairs]
    weights = parameters_of(cell, parameters, "anatomy")
    names = [
        (p.edge.name if isinstance(p.edge, Leaf) else "") or str(i) for i, p in enumerate(weights)
    ]
    if len(set(names)) < len(names):
        names = [str(i) for i in range(len(weights))]
    return names, weights


def _step(loop: Loop, i: int, state: Any, loss: Loss) -> tuple[int, Tensor | None, list[Tensor]]:
    """Run a step: its time, its loss and the state after it."""
    outputs, states, loop.state = loop.steps(i, i + 1, state)
    assert loop.produced is not None
    t = loop.time - 1 - i if loop.reverse else i
    value = loss_of(loss, loop.produced.structure.unflatten(outputs[0]), t)
    return t, value, [x for x in states[0] if kind_of(x.dtype) == "f"]


def _jacobians(loop: Loop, first: Any, lengths: Any, reverse: bool, sequence: int) -> Any:
    """The step Jacobians of one sequence."""
    import numpy

    inputs = loop.columns
    if all(x.ndim > 1 for x in inputs):
        batch = inputs[0].shape[1]
        if not isinstance(sequence, int) or not -batch <= sequence < batch:
            raise ShapeError(f"anatomy: sequence={sequence}; the batch has {batch}")
        one = slice(sequence % batch, sequence % batch + 1)
        inputs = [x[:, one] for x in inputs]
        first = tree.map(lambda h: h[one] if h.shape[:1] == (batch,) else h, first)
        lengths = None if lengths is None else numpy.asarray(lengths)[one]
    terms = step_terms(
        loop.cell,
        loop.inputs.unflatten(inputs),
        first,
        loss=lambda output, t: None,
        parameters=[],
        lengths=lengths,
        reverse=reverse,
    )
    return numpy.stack([term.A for term in terms])


def _on_tape(x: Tensor) -> Tensor:
    return x if kind_of(x.dtype) != "f" or x.edge else tensor(x, requires_grad=True)


def _detached(x: Tensor) -> Tensor:
    return x.detach()


@contextmanager
def _stand_ins(weights: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Within the block each weight is at a place of its own on the tape, which is yielded."""
    before = [p.edge for p in weights]
    used: list[Tensor] = []
    for p in weights:
        leaf = Leaf(p.shape, p.dtype, p.backend)
        leaf.name = p.edge.name if isinstance(p.edge, Leaf) else ""
        p.edge = leaf
        used.append(Tensor(p.raw, p.backend, leaf))
    try:
        yield used
    finally:
        for p, edge in zip(weights, before, strict=True):
            p.edge = edge
