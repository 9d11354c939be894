"""Initial values of parameters: PyTorch's, drawn from an explicit generator."""

from __future__ import annotations

import math
from typing import Any

from tinygradrnn.backend import current_backend
from tinygradrnn.errors import ShapeError
from tinygradrnn.random import Generator
from tinygradrnn.tensor import Tensor

Shape = tuple[int, ...]


def generator(rng: Generator | None = None) -> Generator:
    """`rng` itself, or a new generator of the current backend, seeded with fresh entropy."""
    return current_backend().rng() if rng is None else rng


def uniform(
    shape: Shape,
    low: float = 0.0,
    high: float = 1.0,
    *,
    rng: Generator | None = None,
    dtype: str = "float32",
) -> Tensor:
    """Draw uniformly from ``[low, high)``.

    >>> tgr.nn.init.uniform((2, 3), rng=tgr.current_backend().rng(0)).shape
    (2, 3)
    """
    rng = generator(rng)
    return Tensor(rng.uniform(shape, low, high, dtype=dtype), rng.backend)


def normal(
    shape: Shape,
    mean: float = 0.0,
    std: float = 1.0,
    *,
    rng: Generator | None = None,
    dtype: str = "float32",
) -> Tensor:
    """Draw from a normal distribution.

    >>> tgr.nn.init.normal((2, 3), std=0.1).shape
    (2, 3)
    """
    rng = generator(rng)
    drawn = Tensor(rng.normal(shape, dtype=dtype), rng.backend)
    return drawn if (mean, std) == (0.0, 1.0) else mean + std * drawn


def fan_in_uniform(
    shape: Shape, fan_in: int, *, rng: Generator | None = None, dtype: str = "float32"
) -> Tensor:
    """Draw uniformly from ``[-1/sqrt(fan_in), 1/sqrt(fan_in))``: PyTorch's for recurrent weights.

    There `fan_in` is the hidden size, for all four parameters.

    >>> w = tgr.nn.init.fan_in_uniform((100,), 4)
    >>> bool(tgr.all(tgr.abs(w) <= 0.5))
    True
    """
    bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0
    return uniform(shape, -bound, bound, rng=rng, dtype=dtype)


def kaiming_uniform(
    shape: Shape,
    a: float = math.sqrt(5),
    *,
    rng: Generator | None = None,
    dtype: str = "float32",
) -> Tensor:
    """Draw uniformly from ``[-b, b)``, ``b = sqrt(6 / ((1 + a**2) * fan_in))`` (He et al. 2015).

    `a` is the negative slope of the activation that follows. Its default is that of PyTorch's
    Linear, which makes the bound ``1/sqrt(fan_in)``. The fan-in of a ``(out, in)`` weight is `in`.

    Raises:
        ShapeError: Fewer than two axes, so that there is no fan-in.

    >>> w = tgr.nn.init.kaiming_uniform((100, 4))
    >>> bool(tgr.all(tgr.abs(w) <= 0.5))
    True
    """
    if len(shape) < 2:
        raise ShapeError(f"kaiming_uniform: shape {shape}; expected at least two axes, (out, in)")
    fan_in = math.prod(shape[1:])
    bound = math.sqrt(6 / ((1 + a * a) * fan_in)) if fan_in > 0 else 0.0
    return uniform(shape, -bound, bound, rng=rng, dtype=dtype)


def orthogonal(
    shape: Shape, gain: float = 1.0, *, rng: Generator | None = None, dtype: str = "float32"
) -> Tensor:
    """Draw an orthogonal matrix, uniformly among all of them (Saxe et al. 2014), times `gain`.

    Where it is not square, its rows or its columns, whichever are fewer, are orthonormal. More than
    two axes are seen as a matrix ``(shape[0], rest)``, as in PyTorch. For the stacked weights of a
    gated cell, make one matrix per gate and :func:`~tinygradrnn.concat` them.

    Raises:
        ShapeError: Fewer than two axes.

    >>> w = tgr.nn.init.orthogonal((3, 3), dtype="float64")
    >>> bool(tgr.all(tgr.abs(w @ w.T - tgr.eye(3, dtype="float64")) < 1e-12))
    True
    """
    from numpy import diagonal, where
    from numpy.linalg import qr

    if len(shape) < 2:
        raise ShapeError(f"orthogonal: shape {shape}; expected at least two axes, (out, in)")
    rows, columns = shape[0], math.prod(shape[1:])
    longer, shorter = max(rows, columns), min(rows, columns)
    rng = generator(rng)
    drawn: Any = Tensor(rng.normal((longer, shorter), dtype="float64"), rng.backend).numpy()
    q, r = qr(drawn)
    # QR alone prefers some matrices; with a positive diagonal of r it is unique, and q uniform
    # (Mezzadri 2007).
    q = q * where(diagonal(r) < 0, -gain, gain)
    q = (q if rows >= columns else q.T).reshape(shape).astype(dtype)
    return Tensor(rng.backend.from_host(q), rng.backend)


def forget_gate_bias_(cell: Any, value: float = 1.0) -> None:
    """Set the bias of an LSTM's forget gate, so that it remembers from the start.

    Where there are two biases, as in PyTorch, the other one's part is set to zero: what counts is
    the sum (Gers et al. 2000; Jozefowicz et al. 2015, who recommend 1).

    Args:
        cell: An LSTM cell, or another whose `gates` names the stacked parts of its weights, and
            `forget_gate` one of them. For a wrapper or a stack, call it for each cell within.
        value: The new bias.

    Raises:
        ShapeError: The cell has no forget gate, or no bias.

    >>> cell = tgr.nn.LSTMCell(3, 2)
    >>> tgr.nn.init.forget_gate_bias_(cell, 1.0)
    >>> (cell.bias_ih + cell.bias_hh)[2:4]
    tensor([1., 1.], requires_grad=True)
    """
    name, gates = type(cell).__name__, tuple(getattr(cell, "gates", ()))
    if getattr(cell, "forget_gate", None) not in gates:
        raise ShapeError(f"forget_gate_bias_: {name} has no forget gate; expected an LSTM cell")
    held = [getattr(cell, key, None) for key in ("bias_ih", "bias", "bias_hh")]
    biases = [bias for bias in held if bias is not None]
    if not biases:
        raise ShapeError(f"forget_gate_bias_: {name} has no bias; expected one")
    for bias, new in zip(biases, (value, 0.0), strict=False):
        host = bias.numpy().copy()
        size, gate = host.shape[0] // len(gates), gates.index(cell.forget_gate)
        host[gate * size : (gate + 1) * size] = new
        bias.assign(host)
