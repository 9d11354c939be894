"""A third-party backend over ``array_api_strict``, on a device that is not the CPU.

It refuses implicit host copies and everything the array standard does not promise, so it stands in
for a GPU on machines without one. It is also the shortest complete example of a plugin.
"""

from __future__ import annotations

from typing import Any

import array_api_strict as strict
import numpy as np

from tinygradrnn.backend import Backend
from tinygradrnn.errors import BackendError

_Array: Any = type(strict.zeros(0))  # the class has no public name


class StrictBackend(Backend):
    """Arrays are ``array_api_strict`` arrays on one of its pretended devices."""

    xp = strict

    def __init__(self, device: str = "device1") -> None:
        known = ("device1", "device2")
        if device not in known:
            raise BackendError(f"backend 'strict' has the devices {known}; found {device!r}")
        self.device = device
        self._device = strict.Device(device)
        self._host = strict.Device("CPU_DEVICE")

    def is_array(self, value: object) -> bool:
        array: Any = value
        return isinstance(array, _Array) and array.device == self._device

    def from_host(self, array: Any) -> Any:
        return strict.asarray(np.array(array), device=self._device, copy=True)

    def to_host(self, array: Any) -> Any:
        return np.array(array.to_device(self._host))

    def index_add(self, x: Any, indices: Any, updates: Any) -> Any:
        out = strict.asarray(x, copy=True)
        for i in range(indices.shape[0]):
            out[int(indices[i]), ...] += updates[i, ...]
        return out
