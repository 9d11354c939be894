"""The NumPy backend: arrays in the host's memory. The default, and the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np

from tinygradrnn.backend import Backend
from tinygradrnn.errors import BackendError


def _sigmoid(xp: Any, x: Any) -> Any:
    # tanh is vectorised and needs no guard against overflow; in place it is one pass and no more.
    if x.ndim == 0:
        return 0.5 * np.tanh(0.5 * x) + 0.5
    y = 0.5 * x
    np.tanh(y, out=y)
    y *= 0.5
    y += 0.5
    return y


class NumpyBackend(Backend):
    """Arrays are ``numpy.ndarray``, the device is the CPU."""

    xp = np
    checks_indices = True
    overrides: ClassVar[Mapping[str, Callable[..., Any]]] = {"sigmoid": _sigmoid}

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
        np.add.at(out, indices, updates)
        return out

    def quiet(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore")
