"""Four ways to the gradient of a cell, which must lead to the same number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinygradrnn as tgr
from tinygradrnn import bptt, tree
from tinygradrnn.bptt.jacobians import parameters_of
from tinygradrnn.convert import kind_of
from tinygradrnn.errors import DtypeError, GradcheckError, ShapeError
from tinygradrnn.random import noted_draws, repeated_draws
from tinygradrnn.tape import Leaf
from tinygradrnn.tensor import Tensor


@dataclass(frozen=True)
class Verification:
    """What :func:`verify_cell` found.

    Attributes:
        loss: The loss of the run.
        elements: How many derivatives were compared.
        rtrl, closed_form: The largest difference from back-propagation through time, relative to
            the largest derivative of the parameter or state it is in.
        differences: The same for central differences, relative to the largest derivative of all.
    """

    loss: float
    elements: int
    rtrl: float
    closed_form: float
    differences: float

    def __str__(self) -> str:
        return (
            f"{self.elements} derivatives: BPTT = RTRL within {self.rtrl:.1e}, = closed form "
            f"within {self.closed_form:.1e}, = finite differences within {self.differences:.1e}"
        )


def verify_cell(
    cell: Any,
    xs: Any = None,
    state: Any = None,
    *,
    loss: Callable[[Any, int], Any] | None = None,
    parameters: Sequence[Tensor] | None = None,
    time: int = 4,
    batch: int = 2,
    seed: int = 0,
    rtol: float = 1e-9,
    **options: Any,
) -> Verification:
    """Compute the gradient of a cell over time in four independent ways and compare.

    By back-propagation through time on the tape; by real-time recurrent learning
    (:func:`tgr.bptt.rtrl <tinygradrnn.bptt.rtrl>`); by the closed form, a sum over products of step
    Jacobians (:func:`tgr.bptt.closed_form <tinygradrnn.bptt.closed_form>`); and by central
    differences. With respect to all parameters and the first state; and with respect to xs, for
    which only BPTT and differences are compared. In float64:
    parameters of less precision are more precise while this runs, and as before afterwards.

    Args:
        cell: A cell, or a function ``(x, state) -> (output, state)``; its random draws are repeated
            alike each time.
        xs: Inputs ``(time, batch, ...)``; by default random ones of the cell's ``input_size``.
        state: The first state; by default the cell's own, moved a little at random.
        loss: ``loss(output, t)``; by default random weights on all elements of the outputs and of
            the states of all steps, and on their squares.
        parameters: By what to differentiate; by default all parameters of the cell.
        time: Steps of the default inputs.
        batch: Sequences of the default inputs.
        seed: Of what is drawn by default.
        rtol: The largest relative difference between the first three.
        options: ``lengths``, ``reverse``, ``checkpoint`` or ``mode``, as for
            :func:`tinygradrnn.scan`.

    Raises:
        GradcheckError: Two ways disagree; names them and the parameter.
        ShapeError: There is no `xs`, and no ``input_size`` to make it from.
        DtypeError: Another option.

    >>> print(tgr.testing.verify_cell(tgr.nn.GRUCell(2, 3), time=5).elements)
    89
    """
    unknown = options.keys() - {"lengths", "reverse", "checkpoint", "mode"}
    if unknown:
        raise DtypeError(
            f"verify_cell: unexpected {', '.join(sorted(unknown))}; expected lengths, reverse, "
            "checkpoint or mode (under a truncation BPTT is another gradient on purpose)"
        )
    rng = np.random.default_rng(seed)
    weights = parameters_of(cell, parameters, "verify_cell")
    shared = {k: options[k] for k in ("lengths", "reverse") if k in options}
    measure = loss or _Projection(rng)

    def watched(x: Any, state: Any) -> Any:
        output, state = cell(x, state)  # the state is part of what the loss sees, too
        return (output, state), state

    def total_of(outputs: Any, steps: int) -> Tensor:
        total = tgr.zeros((), "float64")
        for t in range(steps):
            value = loss_at(tree.map(lambda o, t=t: o[t], outputs), t)
            total = total if value is None else total + value
        return total

    def loss_at(output: Any, t: int) -> Any:
        return measure(output, t) if loss is None else measure(output[0], t)

    with _in_float64(weights):
        inputs = tree.map(
            lambda x: _float64(x, requires_grad=True), _inputs(cell, xs, time, batch, rng)
        )
        columns = [x for x in tree.flatten(inputs)[0] if x.requires_grad]
        steps, size = tree.flatten(inputs)[0][0].shape[0], tree.flatten(inputs)[0][0].shape[1:2]
        with noted_draws() as begun:
            offsets, structure = tree.flatten(_offsets(cell, state, size, rng))
        moving = [leaf for leaf in offsets if leaf.requires_grad]
        wanted = [*weights, *moving, *columns]

        def begin() -> Any:
            """The first state: given, or the cell's own and moved a little."""
            with repeated_draws(begun):
                return _begin(cell, state, size, structure.unflatten(offsets))

        def run(*given: Any) -> Tensor:
            with _standing_for(wanted, given or wanted), repeated_draws(draws):
                outputs, _ = tgr.scan(watched, inputs, begin(), **options)
                return total_of(outputs, steps)

        draws: dict[Any, Any] = {}
        with noted_draws() as noted:
            total = run()
        draws.update(noted)
        found: Any = [None] * len(wanted)
        if total.requires_grad:
            found = tgr.grad(total, wanted, allow_unused=True)
        pairs = zip(wanted, found, strict=True)
        tape = [np.zeros(x.shape) if g is None else g.numpy() for x, g in pairs]
        worst: dict[str, float] = {}
        for name, way in (("rtrl", bptt.rtrl), ("closed_form", bptt.closed_form)):
            with repeated_draws(draws):
                other = way(
                    watched, inputs, begin(), loss=loss_at, parameters=[*weights, *moving], **shared
                )
            theirs = [g.numpy() for g in other.parameters]
            worst[name] = _compare(name, tape[: len(theirs)], theirs, wanted, rtol)
        worst["differences"] = _difference(run, tape, wanted, float(total))
    return Verification(float(total), sum(g.size for g in tape), **worst)


def _begin(cell: Any, state: Any, size: tuple[int, ...], offsets: Any) -> Any:
    made = cell.initial_state(size[0]) if state is None else tree.map(_float64, state)
    return tree.map(lambda x, d: x + d if kind_of(x.dtype) == "f" else x, made, offsets)


def _offsets(cell: Any, state: Any, size: tuple[int, ...], rng: Any) -> Any:
    """By what the first state is moved: not at all if it is given."""
    if state is None:
        if not hasattr(cell, "initial_state"):
            raise ShapeError("verify_cell: the cell has no initial_state; give the first state")
        made, width = cell.initial_state(size[0]), 0.3
    else:
        made, width = tree.map(_float64, state), 0.0

    def offset(x: Tensor) -> Tensor:
        if kind_of(x.dtype) != "f":
            return x
        return tgr.tensor(width * rng.standard_normal(x.shape), requires_grad=True)

    return tree.map(offset, made)


def _difference(
    run: Callable[..., Tensor], tape: list[Any], wanted: list[Tensor], loss: float
) -> float:
    """Compare with central differences, element by element."""
    largest = max((np.abs(g).max(initial=0.0) for g in tape), default=0.0)
    worst = 0.0
    for i, (x, g) in enumerate(zip(wanted, tape, strict=True)):
        host = x.numpy()
        for k in range(host.size):
            for step in (1e-6, 6e-8):  # a shorter one where a kink may lie within the first
                step *= max(1.0, abs(float(host.flat[k])))
                numeric = _slope(run, wanted, i, k, step)
                apart = abs(numeric - g.flat[k])
                # What a step can tell: rounding of the loss, and the curvature of the curvature.
                noise = 1e-14 * max(1.0, abs(loss)) / step
                if apart <= 1e-6 * np.abs(g).max(initial=0.0) + noise:
                    worst = max(worst, float(apart / (largest or 1.0)))
                    break
            else:
                place = ", ".join(map(str, np.unravel_index(k, host.shape)))
                raise GradcheckError(
                    f"verify_cell: BPTT gives {g.flat[k]:.9g} for {_called(x, i)}[{place}], finite "
                    f"differences {numeric:.9g}. (Close to a kink, as of relu at 0, these would be "
                    "no judge: try another seed.)"
                )
    return worst


def _slope(run: Callable[..., Tensor], wanted: list[Tensor], i: int, k: int, step: float) -> float:
    """The central difference by one element of one of the tensors."""
    ends: list[float] = []
    for shift in (step, -step):
        moved = wanted[i].numpy()
        moved.flat[k] += shift
        other = tgr.tensor(moved, requires_grad=True, backend=wanted[i].backend)
        ends.append(float(run(*wanted[:i], other, *wanted[i + 1 :])))
    return (ends[0] - ends[1]) / (2 * step)


def _called(x: Tensor, i: int) -> str:
    return (x.edge.name if isinstance(x.edge, Leaf) else "") or f"wanted[{i}]"


def _compare(
    name: str, tape: list[Any], other: list[Any], wanted: list[Tensor], rtol: float
) -> float:
    worst = 0.0
    for i, (a, b) in enumerate(zip(tape, other, strict=True)):
        scale = max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0))
        apart = np.abs(a - b).max(initial=0.0) / (scale or 1.0)
        worst = max(worst, float(apart))
        if not apart <= rtol:
            raise GradcheckError(
                f"verify_cell: BPTT and {name} differ by {apart:.3g} of the largest derivative by "
                f"{_called(wanted[i], i)} of shape {a.shape}; expected at most {rtol:g}"
            )
    return worst


class _Projection:
    """A loss that depends on every element of every output, each in its own way."""

    def __init__(self, rng: Any) -> None:
        self._rng, self._weights = rng, dict[Any, Any]()

    def __call__(self, output: Any, t: int) -> Any:
        total: Any = None
        for i, o in enumerate(tree.flatten(output)[0]):
            if kind_of(o.dtype) != "f":
                continue
            if (t, i) not in self._weights:
                self._weights[t, i] = tgr.tensor(self._rng.standard_normal(o.shape))
            term = tgr.sum(o * self._weights[t, i] + 0.3 * o * o)
            total = term if total is None else total + term
        return total


def _inputs(cell: Any, xs: Any, time: int, batch: int, rng: Any) -> Any:
    if xs is not None:
        return tree.map(_float64, xs)
    size = getattr(cell, "input_size", None)
    if not isinstance(size, int):
        raise ShapeError(
            f"verify_cell: {type(cell).__name__} has no input_size to make inputs by; give xs, of "
            "shape (time, batch, ...)"
        )
    return tgr.tensor(rng.standard_normal((time, batch, size)))


def _float64(x: Any, requires_grad: bool = False) -> Tensor:
    made = x if isinstance(x, Tensor) else tgr.tensor(x)
    if kind_of(made.dtype) != "f":
        return made
    return tgr.tensor(made.detach(), "float64", requires_grad=requires_grad)


@contextmanager
def _standing_for(weights: Sequence[Tensor], others: Sequence[Tensor]) -> Iterator[None]:
    """The weights that the cell holds are the others, within the block."""
    before = [(p.raw, p.edge) for p in weights]
    for p, other in zip(weights, others, strict=True):
        p.raw, p.edge = other.raw, other.edge
    try:
        yield
    finally:
        for p, (array, edge) in zip(weights, before, strict=True):
            p.raw, p.edge = array, edge


@contextmanager
def _in_float64(weights: Sequence[Tensor]) -> Iterator[None]:
    """Weights in double precision within the block, and just as they were after it."""
    precise: list[Tensor] = []
    for p in weights:
        made = _float64(p, requires_grad=True)
        if isinstance(made.edge, Leaf) and isinstance(p.edge, Leaf):
            made.edge.name = p.edge.name
        precise.append(made)
    with _standing_for(weights, precise):
        yield
