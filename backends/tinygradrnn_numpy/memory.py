"""Memory for large arrays, used again as soon as nobody holds it.

The operating system hands out large arrays page by page, cleared, at the first touch, and takes
them back when they are freed. For what a loop over time keeps that is a fifth of its whole time. A
buffer that is referred to by nothing but the list of buffers is free: arrays and their views, also
those that a user keeps, refer to it for as long as they live.
"""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np

SMALL = 1 << 17
"""Bytes below which an array is NumPy's own affair: its memory comes back by itself."""
LIMIT = 1 << 29
"""Bytes of free buffers to hold at most."""
_ALIGNMENT = 64

_buffers: list[Any] = []
_lock = threading.Lock()


def _references(buffers: list[Any]) -> list[int]:
    return [sys.getrefcount(buffer) for buffer in buffers]


_FREE = _references([object()])[0]  # what only a list refers to; Pythons count differently


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of any content."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    with _lock:
        buffer = _take(size)
        start = -buffer.ctypes.data % _ALIGNMENT
        return np.ndarray(shape, dtype, buffer, start)


def _take(size: int) -> Any:
    counts = _references(_buffers)
    fitting = [
        buffer
        for buffer, count in zip(_buffers, counts, strict=True)
        if count == _FREE and size + _ALIGNMENT <= buffer.nbytes <= 2 * size + _ALIGNMENT
    ]
    if fitting:
        return min(fitting, key=lambda buffer: buffer.nbytes)
    _make_room(size, counts)
    made = np.empty(size + _ALIGNMENT, np.uint8)
    _buffers.append(made)
    return made


def _make_room(size: int, counts: list[int]) -> None:
    """Let go of the oldest free buffers, so that with one more the limit is kept."""
    free = sum(b.nbytes for b, count in zip(_buffers, counts, strict=True) if count == _FREE)
    over = free + size - LIMIT
    kept: list[Any] = []
    for buffer, count in zip(_buffers, counts, strict=True):
        if count == _FREE and over > 0:
            over -= buffer.nbytes
        else:
            kept.append(buffer)
    _buffers[:] = kept[-256:]  # what somebody keeps for long need not be known here
