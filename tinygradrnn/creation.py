"""Tensors of zeros, ones and ranges, made on the host: the same numbers on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygradrnn.backend import Backend
from tinygradrnn.errors import ShapeError
from tinygradrnn.tensor import Tensor, tensor

Shape = int | tuple[int, ...]
Where = str | Backend | None


def _host(name: str, make: Callable[..., Any], **given: Any) -> Any:
    """What NumPy makes, or its complaint as one of ours."""
    try:
        return make(**given)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        found = ", ".join(f"{k}={v!r}" for k, v in given.items())
        raise ShapeError(f"{name}: {error} (found {found})") from None


def zeros(shape: Shape, dtype: Any = "float32", *, backend: Where = None) -> Tensor:
    """Zeros of a shape.

    >>> tgr.zeros((2,))
    tensor([0., 0.])
    """
    return _filled("zeros", shape, 0, dtype, backend)


def ones(shape: Shape, dtype: Any = "float32", *, backend: Where = None) -> Tensor:
    """Ones of a shape.

    >>> tgr.ones((2,))
    tensor([1., 1.])
    """
    return _filled("ones", shape, 1, dtype, backend)


def full(shape: Shape, value: float, dtype: Any = "float32", *, backend: Where = None) -> Tensor:
    """One number repeated to a shape.

    >>> tgr.full((2,), 0.5)
    tensor([0.5, 0.5])
    """
    return _filled("full", shape, value, dtype, backend)


def _filled(name: str, shape: Shape, value: float, dtype: Any, backend: Where) -> Tensor:
    import numpy

    host = _host(name, numpy.full, shape=shape, fill_value=value)
    return tensor(host, dtype, backend=backend)


def eye(n: int, m: int | None = None, dtype: Any = "float32", *, backend: Where = None) -> Tensor:
    """The identity matrix, or its first columns or rows.

    >>> tgr.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    import numpy

    return tensor(_host("eye", numpy.eye, N=n, M=m), dtype, backend=backend)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: Any = None,
    *,
    backend: Where = None,
) -> Tensor:
    """Evenly spaced numbers from `start` up to but without `stop`; integers if all are.

    >>> tgr.arange(3)
    tensor([0, 1, 2])
    """
    import numpy

    start, stop = (0, start) if stop is None else (start, stop)
    whole = all(isinstance(v, int) for v in (start, stop, step))
    dtype = dtype or ("int64" if whole else "float32")
    host = _host("arange", numpy.arange, start=start, stop=stop, step=step)
    return tensor(host, dtype, backend=backend)


def linspace(
    start: float, stop: float, num: int, dtype: Any = "float32", *, backend: Where = None
) -> Tensor:
    """`num` evenly spaced numbers from `start` to `stop`, both included.

    >>> tgr.linspace(0.0, 1.0, 3)
    tensor([0. , 0.5, 1. ])
    """
    import numpy

    host = _host("linspace", numpy.linspace, start=start, stop=stop, num=num)
    return tensor(host, dtype, backend=backend)
