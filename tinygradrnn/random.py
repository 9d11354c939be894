"""Random numbers: drawn on the host, so that one seed gives the same stream on every backend."""

from __future__ import annotations

import threading
from collections.abc import Generator as Yields
from contextlib import contextmanager
from copy import copy
from typing import Any

from tinygradrnn.backend import Array, Backend
from tinygradrnn.errors import ShapeError
from tinygradrnn.tape import recording


class _Notes(threading.local):
    """For each place that may have to draw again: where every generator stood before it drew."""

    open: tuple[dict[Any, Any], ...] = ()


_notes = _Notes()


@contextmanager
def noted_draws() -> Yields[dict[Any, Any], None, None]:
    """Note, in a ``with`` block, where each generator stood before its first draw there."""
    before, notes = _notes.open, {}
    _notes.open = (*before, notes)
    try:
        yield notes
    finally:
        _notes.open = before


@contextmanager
def repeated_draws(notes: dict[Any, Any]) -> Yields[None, None, None]:
    """Draw the same numbers again in a ``with`` block; afterwards go on as if nothing was drawn."""
    stood = {host: host.bit_generator.state for host in notes}
    for host, state in notes.items():
        host.bit_generator.state = state
    try:
        yield
    finally:
        for host, state in stood.items():
            host.bit_generator.state = state


class Generator:
    """A stream of random arrays for one backend, drawn by ``numpy.random.Generator`` on the host.

    The same seed gives the same numbers on every backend. The state is a plain dictionary that
    survives JSON, so a stopped training run can go on with the very next number.

    Args:
        backend: Where the drawn arrays are put.
        seed: A non-negative integer, or None for fresh entropy.

    >>> from tinygradrnn import use_backend
    >>> with use_backend("numpy") as backend:
    ...     bool((backend.rng(0).normal((2, 3)) == backend.rng(0).normal((2, 3))).all())
    True
    """

    def __init__(self, backend: Backend, seed: int | None = None) -> None:
        from numpy.random import PCG64
        from numpy.random import Generator as HostGenerator

        if seed is not None and seed < 0:
            raise ShapeError(f"rng: seed is {seed}; expected an integer of 0 or more, or None")
        self.backend = backend
        self._host = HostGenerator(PCG64(seed))

    def on(self, backend: Backend) -> Generator:
        """This very stream, with its arrays put on another backend."""
        if backend is self.backend:
            return self
        other = copy(self)  # shallow: both draw from the same host generator
        other.backend = backend
        return other

    @property
    def _source(self) -> Any:
        """The host's generator, about to be drawn from."""
        if recording.trace is not None:  # before anything is drawn: eagerly it will be drawn again
            raise recording.trace.refuse("it draws random numbers")
        for notes in _notes.open:
            if self._host not in notes:
                notes[self._host] = self._host.bit_generator.state
        return self._host

    def _put(self, drawn: Any, dtype: str) -> Array:
        return self.backend.from_host(drawn.astype(dtype))

    def normal(self, shape: tuple[int, ...], *, dtype: str = "float32") -> Array:
        """Draw from the standard normal distribution."""
        return self._put(self._source.standard_normal(shape), dtype)

    def uniform(
        self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0, *, dtype: str = "float32"
    ) -> Array:
        """Draw uniformly from ``[low, high)``."""
        return self._put(self._source.uniform(low, high, shape), dtype)

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> Array:
        """Draw int64 uniformly from ``[low, high)``."""
        return self._put(self._source.integers(low, high, shape), "int64")

    def bernoulli(self, shape: tuple[int, ...], p: float) -> Array:
        """Draw booleans that are True with probability `p`."""
        return self._put(self._source.random(shape) < p, "bool")

    def choice(self, weights: Any) -> int:
        """Draw one index with probability proportional to the host array `weights`."""
        from numpy import cumsum

        total: Any = cumsum(weights)
        # side="right" never lands on an index of weight zero, also when the draw is exactly 0.
        return int(total.searchsorted(self._source.random() * total[-1], side="right"))

    @property
    def state(self) -> dict[str, Any]:
        """The generator's state as a dictionary of strings and integers."""
        return dict(self._host.bit_generator.state)

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._host.bit_generator.state = state
