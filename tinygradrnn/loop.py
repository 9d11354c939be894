r"""What a backend is given to run: the body of a loop over time.

A compiled scan is sorted into what can run once for all steps, before or after the loop, and what
must run inside it because the next step needs its result. The latter is a :class:`Body`: a list of
calls of this library's operations, in order, on :class:`Var`\ s whose shapes and dtypes are known.
Forward and backward loops are bodies of the same kind, so a backend need not tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Array = Any


class Var:
    """A value inside a step: it has a shape and a dtype, and differs from step to step.

    Compared by identity.

    Attributes:
        shape: Its shape in one step, without a time axis.
        dtype: The backend's own dtype.
        name: For reading generated source.
    """

    __slots__ = ("dtype", "name", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: Any, name: str = "") -> None:
        self.shape, self.dtype, self.name = tuple(shape), dtype, name

    def __repr__(self) -> str:
        return self.name or f"var{id(self):x}"


Operand = Var | float | int | bool | None


@dataclass(frozen=True, eq=False)
class Call:
    """One operation, called inside the loop.

    Attributes:
        op: The operation's name in the registry.
        inputs: Its array arguments: Vars, or plain numbers. Those of a variadic operation
            (``concat``, ``stack``) one after the other.
        params: Its other arguments.
        output: The one result.
    """

    op: str
    inputs: tuple[Operand, ...]
    params: dict[str, Any]
    output: Var

    @property
    def vars(self) -> list[Var]:
        """The inputs that are no numbers."""
        return [v for v in self.inputs if isinstance(v, Var)]

    def __repr__(self) -> str:
        parameters = "".join(f", {k}={v!r}" for k, v in self.params.items())
        return f"{self.output} = {self.op}({', '.join(map(repr, self.inputs))}{parameters})"


@dataclass(eq=False)
class Body:
    """The body of a loop over time.

    Attributes:
        calls: What to compute at each step, in order.
        inputs: Vars that are read at each step from an array ``(time, *shape)``.
        constants: Vars that are the same at every step.
        carried: Pairs of Vars: what enters a step, and what leaves it and enters the next.
        outputs: Vars (computed in the step, or entering it) to be written at each step into an
            array ``(time, *shape)``.
        functions: What each operation computes on the backend's arrays, by its name, called as
            ``functions[call.op](*arrays, **call.params)``: for what a backend has no better way.
        name: For reading generated source.
        notes: What the backend wants to say of it, such as its source or what it cannot run.
    """

    calls: list[Call]
    inputs: list[Var]
    constants: list[Var]
    carried: list[tuple[Var, Var]]
    outputs: list[Var]
    functions: dict[str, Callable[..., Array]] = field(default_factory=dict[str, Any])
    name: str = "loop"
    notes: dict[str, Any] = field(default_factory=dict[str, Any])


Runner = Callable[[Sequence[Array], Sequence[Array], Sequence[Array], Sequence[Array], range], Any]
"""``run(inputs, constants, carried, outputs, order) -> carried``.

Runs the steps of `order` (``range(0, 100)``, ``range(99, -1, -1)``) one after the other: at step t
reads ``inputs[i][t]`` and writes ``outputs[i][t]``. `carried` are what enters the first step; it
returns a list of what leaves the last one. It changes nothing but `outputs`, keeps no reference to
what it is given, and may be called from several threads at once.
"""
