"""Analytic gradients against central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tinygradrnn as tgr
from tinygradrnn.errors import DtypeError, GradcheckError
from tinygradrnn.nn import Parameter
from tinygradrnn.tensor import Tensor

Function = Callable[..., Any]
UNIT = float(np.finfo(np.float64).eps)


def gradcheck(
    f: Function, inputs: Tensor | Sequence[Any], *, eps: float = 1e-6, rtol: float = 1e-6
) -> bool:
    """Compare the whole Jacobian of `f` with central differences, element by element.

    An element passes if
    ``|analytic - numeric| <= rtol * max(|analytic|, |numeric|) + noise``.
    There is no fixed absolute tolerance under which a small wrong gradient could hide: `noise` is
    what rounding can do to the two numbers compared, from the magnitudes of this very function's
    inputs, outputs, slope and curvature, and the step. (It does not see inside: a function whose
    intermediate values are far larger than its result can fail for rounding alone.)

    Args:
        f: A function of the inputs that returns a Tensor, or a tuple of them, of any shape.
        inputs: Tensors. Those that require a gradient must be float64; others are passed on. A
            Parameter is changed in its place, so the weights of a module can be checked.
        eps: The step, relative for inputs larger than 1.
        rtol: The relative error that passes.

    Returns:
        True; everything else is an exception.

    Raises:
        GradcheckError: A gradient is wrong (the message has the worst element), of another shape or
            dtype than its input, not finite, not the same twice, or `f` changed an input; or the
            point sits on a kink, where no central difference can be the judge.
        DtypeError: An input is not float64, or none requires a gradient.

    >>> x = tgr.tensor([0.3, -0.7], dtype="float64", requires_grad=True)
    >>> tgr.testing.gradcheck(tgr.tanh, x)
    True
    """
    given: list[Any] = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    places = [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
    for i in places:
        if "float64" not in str(given[i].dtype):
            raise DtypeError(
                f"gradcheck: inputs[{i}] is {given[i].dtype}; expected float64, since differences "
                "in less precision say little"
            )
    if not places:
        raise DtypeError("gradcheck: no input requires a gradient")
    before = [x.numpy() if isinstance(x, Tensor) else None for x in given]

    first, again = _analytic(f, given, places), _analytic(f, given, places)
    for a, b in zip(_flat(first), _flat(again), strict=True):
        if not np.array_equal(a, b, equal_nan=True):
            raise GradcheckError("gradcheck: two runs gave different results; is `f` random?")
    for i, (x, old) in enumerate(zip(given, before, strict=True)):
        if old is not None and not np.array_equal(x.numpy(), old, equal_nan=True):
            raise GradcheckError(f"gradcheck: `f` or its gradient changed inputs[{i}]")

    values, jacobians = first
    for column, i in enumerate(places):
        _compare(f, given, i, values, [rows[column] for rows in jacobians], eps, rtol)
    return True


def _analytic(f: Function, given: list[Any], places: list[int]) -> tuple[Any, Any]:
    """The outputs' values, and for each output and input the Jacobian as a matrix."""
    outs = _outputs(f(*given))
    jacobians: list[list[Any]] = []
    for out in outs:
        rows: list[list[Any]] = [[] for _ in places]
        for k in range(out.size):
            seed = np.zeros(out.shape, np.float64)
            seed.flat[k] = 1
            up = tgr.tensor(seed, dtype=str(out.dtype).rpartition(".")[2], backend=out.backend)
            found: Sequence[Any] = [None] * len(places)
            if out.requires_grad:
                wanted = [given[i] for i in places]
                found = tgr.grad(out, wanted, up, retain_graph=True, allow_unused=True)
            for row, i, g in zip(rows, places, found, strict=True):
                if g is not None and (g.shape, g.dtype) != (given[i].shape, given[i].dtype):
                    raise GradcheckError(
                        f"gradcheck: the gradient of inputs[{i}] is {g.dtype} {g.shape}; "
                        f"expected {given[i].dtype} {given[i].shape}"
                    )
                row.append(np.zeros(given[i].size) if g is None else g.numpy().ravel())
        sizes = [given[i].size for i in places]
        jacobians.append(
            [np.reshape(np.asarray(r), (out.size, n)) for r, n in zip(rows, sizes, strict=True)]
        )
    return [out.numpy().ravel() for out in outs], jacobians


def _outputs(result: Any) -> list[Tensor]:
    outs = list(result) if isinstance(result, (tuple, list)) else [result]
    for out in outs:
        if not isinstance(out, Tensor):
            raise DtypeError(f"gradcheck: `f` returned a {type(out).__name__}; expected Tensors")
    return outs


def _flat(result: tuple[Any, Any]) -> list[Any]:
    values, jacobians = result
    return [*values, *(j for rows in jacobians for j in rows)]


def _compare(
    f: Function,
    given: list[Any],
    i: int,
    values: list[Any],
    analytic: list[Any],
    eps: float,
    rtol: float,
) -> None:
    """Judge every column of the Jacobians of one input."""
    host = given[i].numpy()

    def at(k: int, shift: float) -> Any:
        moved = host.copy()
        moved.flat[k] += shift
        args = list(given)
        if isinstance(given[i], Parameter):  # a module holds it, so it is moved where it is
            original = given[i].raw
            given[i].assign(moved)
            try:
                outs = _outputs(f(*args))
            finally:
                given[i].assign(tgr.tensor(original, backend=given[i].backend))
        else:
            args[i] = tgr.tensor(moved, requires_grad=True, backend=given[i].backend)
            outs = _outputs(f(*args))
        found = [out.numpy().ravel() for out in outs]
        return np.concatenate(found) if found else np.zeros(0)

    centre = np.concatenate(values)
    whole = np.concatenate(analytic)
    worst: tuple[float, int, int, float, float] = (0.0, 0, 0, 0.0, 0.0)
    for k in range(host.size):
        step = eps * max(1.0, abs(float(host.flat[k])))
        # The step as it is after rounding x + h, or it would be an error of its own.
        step = float(host.flat[k] + step) - float(host.flat[k])
        above, below = at(k, step), at(k, -step)
        numeric = (above - below) / (2 * step)
        column = whole[:, k]
        largest = float(np.abs(np.concatenate([centre, above, below])).max(initial=0.0))
        if not np.isfinite(np.concatenate([numeric, column])).all():
            raise GradcheckError(
                f"gradcheck: not finite at inputs[{i}][{_index(k, host)}] = {host.flat[k]}: "
                f"analytic {column}, numeric {numeric}"
            )
        noise = 64 * UNIT * (largest + abs(float(host.flat[k])) * np.abs(numeric)) / step
        # And what rounding the inputs can do to the analytic gradient, through the curvature.
        curvature = np.abs(above - 2 * centre + below) / step**2
        noise = noise + 64 * UNIT * float(np.abs(host).max()) * curvature
        _refuse_kinks(at, centre, (above, below), (i, k, step, noise), host)
        error = np.abs(column - numeric)
        allowed = rtol * np.maximum(np.abs(column), np.abs(numeric)) + noise
        excess = error / np.maximum(allowed, np.finfo(np.float64).tiny)
        j = int(excess.argmax()) if excess.size else 0
        if excess.size and excess[j] > max(worst[0], 1.0):
            worst = (float(excess[j]), j, k, float(column[j]), float(numeric[j]))
    if worst[0] > 1:
        _, j, k, a, n = worst
        raise GradcheckError(
            f"gradcheck: wrong gradient; worst at output element {j} with respect to "
            f"inputs[{i}][{_index(k, host)}]: analytic {a:.12g}, numeric {n:.12g}, "
            f"{worst[0]:.3g} times the error allowed"
        )


def _refuse_kinks(
    at: Callable[[int, float], Any],
    centre: Any,
    ends: tuple[Any, Any],
    place: tuple[int, int, float, Any],
    host: Any,
) -> None:
    """Raise where the slopes on both sides differ, and go on differing as the step shrinks."""
    i, k, step, noise = place

    def gap(above: Any, below: Any, h: float) -> Any:
        return np.abs((above - centre) - (centre - below)) / h

    wide = gap(*ends, step)
    suspect = wide > 16 * noise
    if not suspect.any():
        return
    h = step / 4
    narrow = gap(at(k, h), at(k, -h), h)
    bent = suspect & (narrow > 0.6 * wide) & (narrow > 16 * noise)
    if bent.any():
        j = int(bent.argmax())
        raise GradcheckError(
            f"gradcheck: a kink at inputs[{i}][{_index(k, host)}] = {host.flat[k]}: the slopes of "
            f"output element {j} on its two sides differ by {narrow[j]:.3g}. Differences cannot "
            "judge here; move the point"
        )


def _index(k: int, host: Any) -> str:
    return ", ".join(map(str, np.unravel_index(k, host.shape)))


def gradgradcheck(
    f: Function, inputs: Tensor | Sequence[Any], *, eps: float = 1e-6, rtol: float = 1e-5
) -> bool:
    """Compare the gradient of the gradient of `f` with central differences.

    The function checked maps the inputs, and a fixed random upstream gradient, to the gradients of
    the inputs, so that both what a rule does with saved values and with its cotangent is covered.

    Args:
        f: As for :func:`gradcheck`.
        inputs: As for :func:`gradcheck`.
        eps: The step.
        rtol: The relative error that passes.

    Raises:
        GradcheckError: As for :func:`gradcheck`.

    >>> x = tgr.tensor([0.3, -0.7], dtype="float64", requires_grad=True)
    >>> tgr.testing.gradgradcheck(tgr.tanh, x)
    True
    """
    given: list[Any] = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    places = [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
    rng = np.random.default_rng(0)
    ups = [
        tgr.tensor(
            np.asarray(rng.uniform(0.5, 1.5, out.shape)), requires_grad=True, backend=out.backend
        )
        for out in _outputs(f(*given))
    ]

    def gradient(*args: Any) -> tuple[Any, ...]:
        own, cotangents = list(args[: len(given)]), args[len(given) :]
        pairs = [
            (out, up)
            for out, up in zip(_outputs(f(*own)), cotangents, strict=True)
            if out.requires_grad
        ]
        wanted = [own[i] for i in places]
        if not pairs:
            return tuple(tgr.zeros_like(x) for x in wanted)
        outs, seeds = zip(*pairs, strict=True)
        found = tgr.grad(outs, wanted, seeds, create_graph=True, allow_unused=True)
        return tuple(
            tgr.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)
        )

    return gradcheck(gradient, [*given, *ups], eps=eps, rtol=rtol)
