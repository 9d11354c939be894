"""Parameters: the tensors of a model that an optimiser replaces."""

from __future__ import annotations

from typing import Any, cast

from tinygradrnn.backend import Backend, get_backend
from tinygradrnn.errors import DeviceError, DtypeError, ShapeError
from tinygradrnn.op import as_value
from tinygradrnn.tape import Leaf
from tinygradrnn.tensor import Tensor, tensor


class Parameter(Tensor):
    """A tensor at which every tape begins and whose array may be replaced by another.

    Replaced, never written to: a tape may have saved the old array for its gradient.

    Args:
        data: Anything :func:`tinygradrnn.tensor` takes; it is copied.
        dtype: A name such as ``"float64"``; by default that of `data`.
        backend: Where to put it; that of a Tensor, else the current backend, by default.

    Raises:
        DtypeError: Not floating-point numbers.

    >>> w = tgr.nn.Parameter([1.0, 2.0])
    >>> (w * w).sum().backward()
    >>> w.assign(w - 0.5 * w.grad)
    >>> w
    Parameter([0., 0.], requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None, backend: str | Backend | None = None) -> None:
        made = tensor(data, dtype, requires_grad=True, backend=backend)
        super().__init__(made.raw, made.backend, made.edge)

    @property
    def leaf(self) -> Leaf:
        """Its place on the tape, which keeps the gradient."""
        return cast("Leaf", self.edge)

    @property
    def name(self) -> str:
        """Its name on a printed tape: its attribute path in the module that holds it."""
        return self.leaf.name

    @name.setter
    def name(self, name: str) -> None:
        self.leaf.name = name

    def assign(self, value: Any) -> None:
        """Take over the values of a Tensor, which is shared, or of an array, which is copied.

        Tapes recorded before keep the old values, and ``.grad`` stays.

        Raises:
            ShapeError, DtypeError, DeviceError: It differs from what it replaces.
        """
        new = as_value(value, self.backend)
        label = f"assign to parameter {self.name!r}" if self.name else "assign"
        if new.backend is not self.backend:
            raise DeviceError(f"{label}: values on {new.backend}; expected {self.backend}")
        if tuple(new.raw.shape) != tuple(self.shape):
            raise ShapeError(f"{label}: shape {tuple(new.raw.shape)}; expected {self.shape}")
        if new.raw.dtype != self.dtype:
            raise DtypeError(f"{label}: {new.raw.dtype}; expected {self.dtype}")
        self.raw = new.raw
        self.leaf.touch()

    def move(self, backend: str | Backend) -> None:
        """Go to another backend, with the gradient, and stay the same object.

        Tapes recorded before stay where they were.
        """
        target = get_backend(backend)
        if target is self.backend:
            return
        old, moved = self.leaf, self.detach().to(target)
        self.raw, self.backend = moved.raw, target
        self.edge = Leaf(moved.raw.shape, moved.raw.dtype, target)
        self.name = old.name
        if old.grad is not None:
            self.grad = old.grad.detach().to(target)

    def __repr__(self) -> str:
        return super().__repr__().replace("tensor(", "Parameter(", 1).replace("\n  ", "\n     ")

    def __reduce__(self) -> Any:
        return _restore, (self.numpy(), self.backend, self.name)


def _restore(array: Any, backend: Backend, name: str) -> Parameter:
    made = Parameter(array, backend=backend)
    made.name = name
    return made
