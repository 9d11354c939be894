"""The CuPy backend: arrays in the memory of an NVIDIA GPU."""

from __future__ import annotations

from typing import Any

from tinygradrnn.backend import Backend
from tinygradrnn.errors import BackendError
from tinygradrnn.loop import Body, Runner


class CupyBackend(Backend):
    """Arrays are ``cupy.ndarray``; the device is ``cuda:0`` unless another is named.

    CuPy is imported here and not with the module, so that listing backends can say what is missing.

    Raises:
        BackendError: CuPy is not installed, or finds no GPU, or not this one.
    """

    def __init__(self, device: str = "cuda:0") -> None:
        try:
            import cupy
            import cupyx
            from array_api_compat import cupy as xp
        except ImportError as error:
            raise BackendError(
                f"backend 'cupy' needs CuPy and array-api-compat ({error}); "
                "pip install 'tinygradrnn[cupy]'"
            ) from error
        number = device.removeprefix("cuda:")
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise BackendError(
                f"backend 'cupy' found CuPy {cupy.__version__} but no GPU it can use ({error}); "
                "it needs an NVIDIA GPU with a driver for CuPy's CUDA version (see nvidia-smi), "
                "or choose the backend 'numpy'"
            ) from error
        if not number.isdigit() or int(number) >= count:
            known = ", ".join(f"cuda:{i}" for i in range(count))
            raise BackendError(f"backend 'cupy' has the devices {known}; found {device!r}")
        self.xp = xp
        self.device = f"cuda:{number}"
        self._cupy, self._cupyx, self._device = cupy, cupyx, cupy.cuda.Device(int(number))

    def is_array(self, value: object) -> bool:
        array: Any = value
        return isinstance(array, self._cupy.ndarray) and array.device == self._device

    def from_host(self, array: Any) -> Any:
        with self._device:
            return self._cupy.array(array)

    def to_host(self, array: Any) -> Any:
        return self._cupy.asnumpy(array)

    def index_add(self, x: Any, indices: Any, updates: Any) -> Any:
        out = x.copy()
        self._cupyx.scatter_add(out, indices, updates)
        return out

    def compile_loop(self, body: Body) -> Runner | None:
        from tinygradrnn_cupy.loops import Device, compile_loop  # when the first cell is compiled

        return compile_loop(body, Device(self._cupy, self._device))

    def synchronize(self) -> None:
        self._device.synchronize()
