"""The NumPy backend: arrays in the host's memory. The default, and the reference."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np

from tinygradrnn.backend import Backend
from tinygradrnn.errors import BackendError
from tinygradrnn.loop import Body, Runner
from tinygradrnn_numpy import memory

_halves = {np.dtype(t): np.asarray(0.5, t) for t in (np.float32, np.float64)}


def _sigmoid(x: Any) -> Any:
    # tanh is vectorised and needs no guard against overflow. In place, and with a half that NumPy
    # need not convert at each call, it takes half the time on the small arrays of one step.
    half = _halves.get(x.dtype)
    if half is None or not x.shape:
        return 0.5 * np.tanh(0.5 * x) + 0.5
    y = np.multiply(x, half)
    np.tanh(y, y)
    np.multiply(y, half, y)
    return np.add(y, half, y)


def _matmul(x: Any, y: Any) -> Any:
    if x.size < 65_536 or x.ndim != 2 or y.ndim != 2 or x.dtype != y.dtype or x.dtype.kind != "f":
        return x @ y
    return np.dot(x, y, memory.empty((x.shape[0], y.shape[1]), x.dtype))


class NumpyBackend(Backend):
    """Arrays are ``numpy.ndarray``, the device is the CPU."""

    xp = np
    checks_indices = True
    fuses_from = 32_768
    # What happens at every step of a small network goes straight to NumPy's own functions.
    overrides: ClassVar[Mapping[str, Callable[..., Any]]] = {
        "sigmoid": _sigmoid,
        "add": operator.add,
        "subtract": operator.sub,
        "multiply": operator.mul,
        "divide": operator.truediv,
        "negative": operator.neg,
        "matmul": _matmul,
        "matrix_transpose": operator.attrgetter("mT"),
        "tanh": np.tanh,
        "exp": np.exp,
    }

    def __init__(self, device: str = "cpu") -> None:
        if device != "cpu":
            raise BackendError(f"backend 'numpy' has the device 'cpu' only; found {device!r}")
        self.device = device

    def is_array(self, value: object) -> bool:
        return isinstance(value, np.ndarray)

    def from_host(self, array: Any) -> Any:
        return np.array(array)

    def to_host(self, array: Any) -> Any:
        return np.array(array)

    def index_add(self, x: Any, indices: Any, updates: Any) -> Any:
        out = np.array(x)
        if len(indices) == 0 or updates[0].size == 1:
            np.add.at(out, indices, updates)
            return out
        # For rows, np.add.at takes seven times as long as bringing equal indices together.
        order = np.argsort(indices, kind="stable")
        ordered = indices[order]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        out[ordered[starts]] += np.add.reduceat(updates[order], starts, axis=0)
        return out

    def empty(self, shape: tuple[int, ...], like: Any, dtype: Any = None) -> Any:
        return memory.empty(shape, dtype or like.dtype)

    def compile_loop(self, body: Body) -> Runner | None:
        from tinygradrnn_numpy.loops import compile_loop  # loaded when the first cell is compiled

        return compile_loop(body)

    def quiet(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore")
