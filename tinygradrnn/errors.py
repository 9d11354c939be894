"""Every error the library raises on purpose.

Each class also derives from the builtin a Python programmer would expect, so ``except ValueError``
keeps working, and all share one base, so the command line can turn them into one line.
"""

from __future__ import annotations

from typing import Any


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


class AnomalyError(TinygradrnnError, ArithmeticError):
    """A NaN or an infinity, where it was born.

    Attributes:
        direction: ``"forward"`` or ``"backward"``.
        operation: The operation that gave it, or whose gradient rule did.
        loop: The loop it ran in; empty outside of loops.
        step: The step's number in that loop; None outside.
        layers: The modules around it, outermost first.
        gate: What the cell calls the value that was being computed.
        index: The first place of the result that is not finite.
        inputs: What went in: the arrays and numbers, by their names.
        file, line, statement: Where in the program.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.direction: str = facts.pop("direction", "")
        self.operation: str = facts.pop("operation", "")
        self.loop: str = facts.pop("loop", "")
        self.step: int | None = facts.pop("step", None)
        self.layers: tuple[str, ...] = facts.pop("layers", ())
        self.gate: str = facts.pop("gate", "")
        self.index: tuple[int, ...] = facts.pop("index", ())
        self.inputs: dict[str, Any] = facts.pop("inputs", {})
        self.file: str = facts.pop("file", "")
        self.line: int = facts.pop("line", 0)
        self.statement: str = facts.pop("statement", "")


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
