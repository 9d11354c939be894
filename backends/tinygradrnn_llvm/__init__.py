"""The LLVM backend: NumPy's arrays, and loops over time as machine code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from tinygradrnn.errors import BackendError
from tinygradrnn.loop import Body, Runner
from tinygradrnn_numpy import NumpyBackend


def _matmul(x: Any, y: Any) -> Any:
    if x.ndim == 2 and x.size * y.shape[-1] > 1 << 18:  # so large that NumPy would take threads
        from tinygradrnn_llvm.product import product

        found = product(x, y)
        if found is not None:
            return found
    return x @ y


class LlvmBackend(NumpyBackend):
    """Arrays are ``numpy.ndarray``; loops and large products run as machine code made for them.

    Raises:
        BackendError: llvmlite is not installed, or another device than the CPU is asked for.
    """

    fuses_from = 1
    overrides: ClassVar[Mapping[str, Callable[..., Any]]] = {
        **NumpyBackend.overrides,
        "matmul": _matmul,
    }

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device)
        try:
            from tinygradrnn_llvm.machine import host

            host()
        except ImportError as error:
            raise BackendError(
                f"backend 'llvm' needs llvmlite ({error}); pip install 'tinygradrnn[llvm]'"
            ) from error

    def compile_loop(self, body: Body) -> Runner | None:
        from tinygradrnn_llvm.loops import Unsupported, compile_loop

        try:
            return compile_loop(body)
        except Unsupported as reason:
            body.notes["fallback"] = str(reason)
            return super().compile_loop(body)
