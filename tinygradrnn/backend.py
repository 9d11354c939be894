"""Backends: where arrays live and who computes with them.

A backend is an array namespace that follows the Python Array API standard, a device, and the few
things the standard lacks: moving to and from the host, index-add, random numbers, synchronisation.
It contains no gradients. Backends are plugins found through the entry-point group
``tinygradrnn.backends``; the built-in ones take the same door as a stranger's.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tinygradrnn.errors import BackendError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from tinygradrnn.loop import Body, Runner
    from tinygradrnn.random import Generator

Array = Any
"""An array of some backend. Its type is the backend's own; the array standard is all we assume."""

GROUP = "tinygradrnn.backends"


class Backend(ABC):
    """An array namespace, a device, and the few things the array standard lacks.

    A plugin derives from this class and names the derived class in the entry-point group
    ``tinygradrnn.backends``. ``tgr.testing.check_backend(name)`` tells its author what is missing.

    Attributes:
        name: The entry point's name, set by the library.
        xp: The array namespace (``numpy``, or one made by ``array_api_compat``).
        device: The device as a short string, e.g. ``"cpu"`` or ``"cuda:0"``.
        overrides: Faster forward functions for named operations, called as
            ``f(*arrays, **parameters)``. Never a gradient.
        checks_indices: Whether ``xp.take`` and ``xp.take_along_axis`` raise on an index out of
            range by themselves. Where they do not, the library checks first.
        fuses_from: In a compiled loop, work on the elements of one step costs calls, and saves
            going through all steps' elements before or after the loop. The number of elements of
            a step's largest result from which on it is worth it; None for never.
    """

    name: str
    xp: Any
    device: str
    overrides: ClassVar[Mapping[str, Callable[..., Array]]] = {}
    checks_indices: ClassVar[bool] = False
    fuses_from: ClassVar[int | None] = None
    namespace: Any = None  # what forward functions see as ``xp``: made of this by op.py, once

    @abstractmethod
    def is_array(self, value: object) -> bool:
        """Whether `value` is an array of this backend on this device."""

    @abstractmethod
    def from_host(self, array: Array) -> Array:
        """Copy a NumPy array to the device. The result never shares memory with `array`."""

    @abstractmethod
    def to_host(self, array: Array) -> Array:
        """Copy an array of this backend to a NumPy array. The result never shares memory."""

    @abstractmethod
    def index_add(self, x: Array, indices: Array, updates: Array) -> Array:
        """Return a copy of `x` with ``updates[i]`` added at ``x[indices[i]]``; repeats add up.

        `indices` is one-dimensional and within range (the library has checked, and negative
        indices have been resolved); `updates` has shape ``(len(indices), *x.shape[1:])``.
        """

    def empty(self, shape: tuple[int, ...], like: Array, dtype: Any = None) -> Array:
        """An array of any content, on the device of `like`, whose dtype is the default."""
        return self.xp.empty(shape, dtype=dtype or like.dtype, device=like.device)

    def compile_loop(self, body: Body) -> Runner | None:
        """Make a function that runs a loop's body over time; None if there is no way.

        What makes a scan compiled on this backend. By default there is none, and cells run eagerly.
        See :mod:`tinygradrnn.loop`.
        """
        return None

    def synchronize(self) -> None:
        """Wait until the device has finished all work. A host backend has nothing to wait for."""
        return

    def quiet(self) -> AbstractContextManager[Any]:
        """A context in which arithmetic does not warn: gradients at a kink may well be infinite."""
        return nullcontext()

    def rng(self, seed: int | None = None) -> Generator:
        """Make a random generator that draws on the host, so a seed means the same everywhere."""
        from tinygradrnn.random import Generator

        return Generator(self, seed)

    def __repr__(self) -> str:
        return f"<backend {self}>"

    def __str__(self) -> str:
        return f"{self.name}:{self.device}"

    def __reduce__(self) -> Any:
        return get_backend, (f"{self.name}:{self.device}",)


# ------------------------------------------------------------------------------------ finding them


@dataclass(frozen=True)
class BackendInfo:
    """What :func:`backends` says about one plugin.

    Attributes:
        name: The name to give to :func:`use_backend`.
        distribution: The installed distribution, with its version, that registers it.
        usable: Whether it can be used on this machine now.
        reason: Why not, and the cure; an empty string if usable.
    """

    name: str
    distribution: str
    usable: bool
    reason: str

    def __str__(self) -> str:
        state = "usable" if self.usable else f"not usable: {self.reason}"
        return f"{self.name:<10} {self.distribution:<24} {state}"


def _entry_points() -> dict[str, list[EntryPoint]]:
    # Imported here: importlib.metadata costs as much as the rest of our import together.
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        rivals = found.setdefault(point.name, [])
        # An editable install can list one distribution twice (build folder and metadata).
        if all((point.value, _distribution(point)) != (r.value, _distribution(r)) for r in rivals):
            rivals.append(point)
    return found


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed distribution"


def _load(name: str) -> type[Backend]:
    points = _entry_points()
    if name not in points:
        known = ", ".join(sorted(points)) or "none; is tinygradrnn installed?"
        raise BackendError(
            f"backend {name!r} is not known; installed are: {known}. A backend is a plugin: "
            "install the distribution that provides it"
        )
    if len(points[name]) > 1:
        rivals = " and ".join(sorted(_distribution(p) for p in points[name]))
        raise BackendError(f"backend {name!r} is claimed by {rivals}: uninstall one of them")
    (point,) = points[name]
    try:
        return point.load()
    except ImportError as error:
        raise BackendError(
            f"backend {name!r} of {_distribution(point)} cannot be imported ({error}); "
            f"try: pip install --force-reinstall {point.dist.name if point.dist else name}"
        ) from error


_instances: dict[str, Backend] = {}
_lock = threading.Lock()


def get_backend(spec: str | Backend) -> Backend:
    """Return the one Backend object for a name such as ``"numpy"``, ``"cupy"`` or ``"cupy:1"``.

    Args:
        spec: An entry-point name, optionally followed by a colon and a device.

    Raises:
        BackendError: Unknown, claimed by two distributions, or not usable on this machine.

    >>> get_backend("numpy")
    <backend numpy:cpu>
    """
    if isinstance(spec, Backend):
        return spec
    if not isinstance(spec, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BackendError(f"a backend is given by name; found a {type(spec).__name__}")
    found = _instances.get(spec)
    if found is not None:
        return found
    name, _, device = spec.partition(":")
    factory = _load(name)
    with _lock:
        backend = factory(device) if device else factory()  # type: ignore[call-arg]
        backend.name = name
        # "cupy" and "cupy:cuda:0" are one object: operations compare backends by identity.
        backend = _instances.setdefault(str(backend), backend)
        _instances[spec] = backend
    return backend


def backends() -> list[BackendInfo]:
    """List every installed backend, its distribution, and whether it can be used here.

    >>> [b.name for b in backends() if b.usable and b.name == "numpy"]
    ['numpy']
    """
    infos: list[BackendInfo] = []
    for name, points in sorted(_entry_points().items()):
        try:
            get_backend(name)
            reason = ""
        except BackendError as error:
            reason = str(error)
        dists = ", ".join(sorted(_distribution(p) for p in points))
        infos.append(BackendInfo(name, dists, not reason, reason))
    return infos


# --------------------------------------------------------------------------------- the current one


class _Current(threading.local):
    backend: Backend | None = None


_current = _Current()


class _Restore:
    """What :func:`use_backend` returns: as a context manager it puts the previous one back."""

    def __init__(self, backend: Backend, previous: Backend | None) -> None:
        self.backend = backend
        self._previous = previous

    def __enter__(self) -> Backend:
        return self.backend

    def __exit__(self, *exc: object) -> None:
        _current.backend = self._previous

    def __repr__(self) -> str:
        return f"<using backend {self.backend}>"


def use_backend(spec: str | Backend) -> _Restore:
    """Make new tensors on this backend, from now on or for the length of a ``with`` block.

    Holds for the calling thread. Without it, the environment variable ``TINYGRADRNN_BACKEND``
    names the backend, and without that it is ``numpy``.

    Args:
        spec: A name as for :func:`get_backend`, or a Backend.

    Raises:
        BackendError: Unknown, or not usable here; the current backend stays as it was.

    >>> with use_backend("numpy") as backend:
    ...     backend.device
    'cpu'
    """
    backend, previous = get_backend(spec), _current.backend
    _current.backend = backend
    return _Restore(backend, previous)


def current_backend() -> Backend:
    """Return the backend on which new tensors are made.

    >>> current_backend().name
    'numpy'
    """
    if _current.backend is None:
        _current.backend = get_backend(os.environ.get("TINYGRADRNN_BACKEND") or "numpy")
    return _current.backend
