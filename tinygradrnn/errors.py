"""Every error the library raises on purpose.

Each class also derives from the builtin a Python programmer would expect, so ``except ValueError``
keeps working, and all share one base, so the command line can turn them into one line.
"""

from __future__ import annotations


class TinygradrnnError(Exception):
    """The base of all errors raised on purpose by tinygradrnn."""


class ShapeError(TinygradrnnError, ValueError):
    """Shapes that do not fit the operation, or an argument value it cannot take."""


class DtypeError(TinygradrnnError, TypeError):
    """A data type, or a kind of object, that the operation cannot take."""


class IndexRangeError(TinygradrnnError, IndexError):
    """An index that lies outside its axis."""


class DeviceError(TinygradrnnError, RuntimeError):
    """Tensors of two backends in one operation, or an implicit copy between devices."""


class GradientError(TinygradrnnError, RuntimeError):
    """A gradient that cannot be had: no tape, a freed tape, or an operation without a rule."""


class UntraceableError(TinygradrnnError, RuntimeError):
    """A step cannot be compiled, and why."""


class GradcheckError(TinygradrnnError, AssertionError):
    """A gradient that differs from finite differences, or cannot be compared with them."""


class ImmutableError(TinygradrnnError, TypeError):
    """An attempt to change a Tensor in place."""


class BackendError(TinygradrnnError, RuntimeError):
    """A backend that is unknown, claimed twice, or not usable on this machine."""


class DataError(TinygradrnnError, ValueError):
    """A text file, corpus or prompt that cannot be used."""


class CheckpointError(TinygradrnnError, ValueError):
    """A file of weights or a checkpoint that cannot be read, or does not fit the model."""
