"""The registry of operations, and the two namespaces that gradient rules are written over."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from tinygradrnn.backend import Backend

if TYPE_CHECKING:
    from tinygradrnn.op import Composite, Op

registry: dict[str, Op[...] | Composite[...]] = {}
"""Every operation by name: the one list from which tests, docs and namespaces are made."""


class Namespace:
    """The array namespace that forward functions and rules see when they compute.

    It is the backend's own, and beyond it this library's operations as plain functions on arrays,
    so a rule may call ``xp.sigmoid`` or ``xp.softmax`` whether it computes or is recorded.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        ours = registry.get(name)
        override = self.backend.overrides.get(name)
        if override is not None:
            found = override
        elif ours is not None and not ours.standard:
            found = functools.partial(ours.forward, self)
        else:
            found = getattr(self.backend.xp, name)
        setattr(self, name, found)  # the next look-up is a plain attribute
        return found


class Recorded:
    """The namespace of operations on Tensors: given it, a gradient rule is itself recorded."""

    def __getattr__(self, name: str) -> Any:
        if name in registry:
            return registry[name]
        raise AttributeError(
            f"{name!r} is no operation on Tensors, so a gradient rule cannot use it"
        )


recorded = Recorded()


def namespace(backend: Backend) -> Namespace:
    """The backend's Namespace, made once."""
    if backend.namespace is None:
        backend.namespace = Namespace(backend)
    return backend.namespace
