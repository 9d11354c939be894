"""Initial values of parameters: PyTorch's, drawn from an explicit generator."""

from __future__ import annotations

import math

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
