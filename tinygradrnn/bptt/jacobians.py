"""The terms of the lecture's derivation, step by step, and two gradients made of them.

With weights w, ``h_t = f(x_t, h_{t-1}; w)``, ``o_t = g(x_t, h_{t-1}; w)``, ``L = sum_t l(o_t)``,
a step is linearised into ``A_t = df_t/dh_{t-1}``, ``B_t = df_t/dw``, ``q_t = dl_t/dh_{t-1}`` and
``d_t = dl_t/dw``, the last two as if ``h_{t-1}`` and w had nothing to do with each other. Then
``dL/dw = sum_t d_t + q_t dh_{t-1}/dw``, and the recursion

    ``dh_t/dw = B_t + A_t dh_{t-1}/dw``

is either carried forward in time (:func:`rtrl`) or solved (:func:`closed_form`). Both are slow and
need no tape longer than one step; they are here to be looked at, and to check the fast way by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tinygradrnn import tree
from tinygradrnn.autodiff import grad
from tinygradrnn.convert import as_array, kind_of
from tinygradrnn.errors import DtypeError, GradientError, ShapeError
from tinygradrnn.ops.compare import zeros_like
from tinygradrnn.scan.eager import Loop
from tinygradrnn.scan.truncation import Full, Truncation
from tinygradrnn.tape import Leaf, enable_grad
from tinygradrnn.tensor import Tensor, tensor

Loss = Callable[[Any, int], Any]
"""The loss of one step, from its output and its time; None where there is none."""


class StepTerms(NamedTuple):
    """One step, linearised: host arrays, float64 if the cell is.

    Attributes:
        t: The step's time.
        loss: The value of its loss.
        A: ``df_t/dh_{t-1}``, ``(state, state)``; the state's floating-point leaves as one vector.
        B: ``df_t/dw``, ``(state, weights)``; the parameters as one vector.
        q: ``dl_t/dh_{t-1}``, ``(state,)``.
        d: ``dl_t/dw``, ``(weights,)``.
        h: ``h_t``, ``(state,)``.
    """

    t: int
    loss: float
    A: Any
    B: Any
    q: Any
    d: Any
    h: Any


class Gradients(NamedTuple):
    """What :func:`rtrl` and :func:`closed_form` return.

    Attributes:
        loss: The sum of the steps' losses.
        parameters: The gradient of each parameter, a tuple of Tensors.
        state: The gradient of the first state, nested as it is.
    """

    loss: float
    parameters: tuple[Tensor, ...]
    state: Any


def parameters_of(cell: Any, parameters: Sequence[Tensor] | None, caller: str) -> list[Tensor]:
    """The tensors to differentiate by: those given, or all of a module.

    Raises:
        GradientError: None given for a function, or one that is no leaf.
    """
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    if parameters is None:
        if not hasattr(cell, "parameters"):
            name = getattr(cell, "__name__", type(cell).__name__)
            raise GradientError(f"{caller}: {name} is no module; give its parameters=[...]")
        parameters = list(cell.parameters())
    if not isinstance(parameters, Iterable):
        raise DtypeError(f"{caller}: parameters are {parameters!r}; expected a list of Tensors")
    found = list(parameters)
    for i, p in enumerate(found):
        if not isinstance(p, Tensor) or not isinstance(p.edge, Leaf):
            raise GradientError(
                f"{caller}: parameters[{i}] is no leaf; expected a Parameter or a tensor made with "
                "requires_grad=True"
            )
    return found


def loss_of(loss: Loss, output: Any, t: int) -> Tensor | None:
    """The loss of a step, if it is one.

    Raises:
        DtypeError: `loss` cannot be called, or returns something else than a Tensor or None.
        ShapeError: It returns more than one number.
    """
    if not callable(loss):
        raise DtypeError(f"loss is {loss!r}; expected a function (output, t)")
    value = loss(output, t)
    if value is None:
        return None
    if not isinstance(value, Tensor) or kind_of(value.dtype) != "f":
        raise DtypeError(f"loss(output, {t}) is {value!r}; expected a floating-point Tensor")
    if value.size != 1:
        raise ShapeError(f"loss(output, {t}) has shape {value.shape}; expected a scalar")
    return value


def step_terms(
    cell: Any,
    xs: Any,
    state: Any = None,
    *,
    loss: Loss,
    parameters: Sequence[Tensor] | None = None,
    lengths: Any = None,
    reverse: bool = False,
) -> Iterator[StepTerms]:
    """Run a cell over time and linearise each step by itself.

    Args:
        cell: A cell, or a function ``(x, state) -> (output, state)``.
        xs: As for :func:`tinygradrnn.scan`.
        state: As for :func:`tinygradrnn.scan`.
        loss: ``loss(output, t)``: the loss of one step, a scalar, or None for no loss.
        parameters: By what to differentiate; by default all parameters of the cell.
        lengths: As for :func:`tinygradrnn.scan`.
        reverse: As for :func:`tinygradrnn.scan`.

    Raises:
        GradientError: No parameters are known, or they are no leaves.

    >>> cell = tgr.nn.RNNCell(1, 2)
    >>> terms = list(tgr.bptt.step_terms(cell, tgr.ones((3, 1, 1)), loss=lambda o, t: o.sum()))
    >>> len(terms), terms[0].A.shape, terms[0].B.shape
    (3, (2, 2), (2, 10))
    """
    import numpy

    weights = parameters_of(cell, parameters, "step_terms")
    loop = Loop(cell, xs, state, lengths=lengths, reverse=reverse)
    structure = loop.carried.structure
    current = structure.leaves(loop.state)
    for i in range(loop.time):
        t = loop.time - 1 - i if reverse else i
        with enable_grad():
            leaves = [leaf.detach() for leaf in current]
            moving = [k for k, leaf in enumerate(leaves) if kind_of(leaf.dtype) == "f"]
            for k in moving:  # the others, such as a mask, are no numbers to differentiate by
                leaves[k] = tensor(leaves[k], requires_grad=True)
            outputs, states, _ = loop.steps(i, i + 1, structure.unflatten(leaves))
            assert loop.produced is not None
            value = loss_of(loss, loop.produced.structure.unflatten(outputs[0]), t)
        held = [leaves[k] for k in moving]
        before = [*held, *weights]
        size = sum(leaf.size for leaf in held)
        rows = [row for k in moving for row in _rows(states[0][k], before)]
        jacobian = numpy.stack(rows) if rows else numpy.zeros((0, sum(x.size for x in before)))
        slope = numpy.zeros(jacobian.shape[1])
        if value is not None:
            slope = _rows(value, before)[0]
        yield StepTerms(
            t,
            0.0 if value is None else float(value),
            jacobian[:, :size],
            jacobian[:, size:],
            slope[:size],
            slope[size:],
            _vector([states[0][k] for k in moving]),
        )
        current = states[0]


def rtrl(
    cell: Any,
    xs: Any,
    state: Any = None,
    *,
    loss: Loss,
    parameters: Sequence[Tensor] | None = None,
    lengths: Any = None,
    reverse: bool = False,
) -> Gradients:
    """Real-time recurrent learning: the gradient, carried forward in time (Williams & Zipser 1989).

    The influence of every weight on every element of the state, ``dh_t/dw``, goes from step to
    step. Nothing of the past is kept, at the price of ``state * weights`` numbers.

    Args:
        cell: A cell, or a function ``(x, state) -> (output, state)``.
        xs: As for :func:`tinygradrnn.scan`.
        state: As for :func:`tinygradrnn.scan`.
        loss: ``loss(output, t)``: the loss of one step, a scalar, or None for no loss.
        parameters: By what to differentiate; by default all parameters of the cell.
        lengths: As for :func:`tinygradrnn.scan`.
        reverse: As for :func:`tinygradrnn.scan`.

    Raises:
        GradientError: No parameters are known, or they are no leaves.

    >>> cell, xs = tgr.nn.RNNCell(1, 2), tgr.ones((3, 1, 1))
    >>> forward = tgr.bptt.rtrl(cell, xs, loss=lambda output, t: output.sum())
    >>> tgr.scan(cell, xs)[0].sum().backward()
    >>> bool(tgr.all(tgr.abs(forward.parameters[0] - cell.weight_ih.grad) < 1e-5))
    True
    """
    import numpy

    weights = parameters_of(cell, parameters, "rtrl")
    state = Loop(cell, xs, state).state
    influence = _influence(state, weights)
    initial = numpy.eye(len(influence), dtype=influence.dtype)
    total, gradient, first = 0.0, 0.0, 0.0
    options: Any = {"loss": loss, "parameters": weights, "lengths": lengths, "reverse": reverse}
    for term in step_terms(cell, xs, state, **options):
        total += term.loss
        gradient = gradient + term.d + term.q @ influence
        first = first + term.q @ initial
        influence = term.B + term.A @ influence
        initial = term.A @ initial
    return _gradients(state, weights, total, gradient, first)


def closed_form(
    cell: Any,
    xs: Any,
    state: Any = None,
    *,
    loss: Loss,
    parameters: Sequence[Tensor] | None = None,
    lengths: Any = None,
    reverse: bool = False,
    truncation: Truncation | None = None,
) -> Gradients:
    """The gradient by the lecture's closed form, a sum over products of step Jacobians.

    ``dh_t/dw = B_t + sum_{i<t} (A_t A_{t-1} ... A_{i+1}) B_i`` (d2l.ai, equation 9.7.7). Under a
    truncation each term counts with its weight in ``truncation.mask``.

    Args:
        cell: A cell, or a function ``(x, state) -> (output, state)``.
        xs: As for :func:`tinygradrnn.scan`.
        state: As for :func:`tinygradrnn.scan`.
        loss: ``loss(output, t)``: the loss of one step, a scalar, or None for no loss.
        parameters: By what to differentiate; by default all parameters of the cell.
        truncation: A plan of ``tgr.bptt``.
        lengths: As for :func:`tinygradrnn.scan`.
        reverse: As for :func:`tinygradrnn.scan`.

    Raises:
        GradientError: No parameters are known, or they are no leaves.

    >>> cell, xs = tgr.nn.RNNCell(1, 2), tgr.ones((3, 1, 1))
    >>> sums = tgr.bptt.closed_form(cell, xs, loss=lambda output, t: output.sum())
    >>> tgr.scan(cell, xs)[0].sum().backward()
    >>> bool(tgr.all(tgr.abs(sums.parameters[0] - cell.weight_ih.grad) < 1e-5))
    True
    """
    import numpy

    weights = parameters_of(cell, parameters, "closed_form")
    if truncation is not None and not isinstance(truncation, Truncation):
        raise DtypeError(f"closed_form: truncation is {truncation!r}; expected a plan of tgr.bptt")
    state = Loop(cell, xs, state).state
    options: Any = {"loss": loss, "parameters": weights, "lengths": lengths, "reverse": reverse}
    terms = list(step_terms(cell, xs, state, **options))
    schedule = (truncation or Full()).schedule(len(terms))
    mask, begins = schedule.mask(), _influence(state, weights)
    gradient, first = 0.0, 0.0
    for s, term in enumerate(terms):
        gradient = gradient + mask[s, s] * term.d
        product = numpy.eye(len(term.q), dtype=term.A.dtype)  # A_{s-1} ... A_{i+1}
        for i in range(s - 1, -1, -1):
            gradient = gradient + mask[s, i] * (term.q @ product @ terms[i].B)
            product = product @ terms[i].A
        # And the first state, which stands before step 0.
        reaches = mask[s, 0] * schedule.gates[0]
        first = first + reaches * (term.q @ product)
        gradient = gradient + reaches * (term.q @ product @ begins)
    return _gradients(state, weights, sum(term.loss for term in terms), gradient, first)


def _vector(leaves: Sequence[Tensor]) -> Any:
    import numpy

    return numpy.concatenate([leaf.numpy().ravel() for leaf in leaves] or [numpy.zeros(0)])


def _rows(result: Tensor, inputs: Sequence[Tensor]) -> list[Any]:
    """For each element of a result its gradient with respect to all inputs, as one vector."""
    import numpy

    if result.edge is None:
        return [numpy.zeros(sum(x.size for x in inputs), result.numpy().dtype)] * result.size
    rows: list[Any] = []
    for k in range(result.size):
        seed = numpy.zeros(result.shape, result.numpy().dtype)
        seed.flat[k] = 1
        up = Tensor(as_array(seed, result.backend), result.backend)
        found = grad(result, inputs, up, retain_graph=True, allow_unused=True)
        rows.append(
            numpy.concatenate(
                [
                    numpy.zeros(x.size, seed.dtype) if g is None else g.numpy().ravel()
                    for x, g in zip(inputs, found, strict=True)
                ]
            )
        )
    return rows


def _influence(state: Any, weights: Sequence[Tensor]) -> Any:
    """``dh/dw`` of a state before the first step: not zero if it is learned."""
    import numpy

    leaves = [leaf for leaf in tree.flatten(state)[0] if kind_of(leaf.dtype) == "f"]
    rows = [row for leaf in leaves for row in _rows(leaf, weights)]
    return numpy.stack(rows) if rows else numpy.zeros((0, sum(w.size for w in weights)))


def _gradients(
    state: Any, weights: Sequence[Tensor], loss: float, gradient: Any, first: Any
) -> Gradients:
    """The vectors, cut up into what they are made of."""
    leaves, structure = tree.flatten(state)
    made = structure.unflatten(_cut(first, leaves))
    return Gradients(loss, tuple(_cut(gradient, weights)), made)


def _cut(vector: Any, like: Sequence[Tensor]) -> Iterator[Tensor]:
    at = 0
    for x in like:
        if kind_of(x.dtype) != "f":
            yield zeros_like(x)
            continue
        part = vector[at : at + x.size].reshape(x.shape)
        at += x.size
        yield Tensor(as_array(part, x.backend, x.dtype), x.backend)
