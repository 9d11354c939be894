"""Running a loop's body with CuPy: generated kernels for what works on elements, else functions.

Planning and the kernels' source need neither CuPy nor a GPU; what does is a :class:`Device`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from tinygradrnn.loop import Body, Runner
from tinygradrnn_cupy.kernels import THREADS, Kernel, TooMany, source, stages
from tinygradrnn_cupy.plan import Function, Plan, Slot


class Machine(Protocol):
    """Where a plan runs."""

    xp: Any

    def load(self, made: list[Kernel]) -> list[Callable[[Sequence[Any]], Any]]:
        """Functions that launch the kernels, given arrays for their slots."""
        ...

    def active(self) -> AbstractContextManager[Any]:
        """In this ``with`` block arrays are made and kernels run there."""
        ...


def compile_loop(body: Body, machine: Machine) -> Runner | None:
    """Make a function that runs `body` over time on a machine."""
    try:
        plan = Plan(body)
        found = stages(plan)
    except TooMany:
        return None
    made = [stage for stage in found if isinstance(stage, Kernel)]
    body.notes["source"] = source(made)
    body.notes["stages"] = [stage.name for stage in found]
    launches = iter(machine.load(made))
    steps = [
        _launch(next(launches), stage) if isinstance(stage, Kernel) else _call(stage, machine.xp)
        for stage in found
    ]
    return _runner(plan, steps, machine)


Stage = Callable[[list[Any]], None]


def _launch(launch: Callable[[Sequence[Any]], Any], kernel: Kernel) -> Stage:
    numbers = [slot.number for slot in kernel.slots]

    def stage(arrays: list[Any]) -> None:
        launch([arrays[n] for n in numbers])

    return stage


def _call(f: Function, xp: Any) -> Stage:
    operands = [(type(x) is Slot, x.number if type(x) is Slot else x) for x in f.operands]
    n, function, params, product = f.slot.number, f.function, f.params, f.product
    kind, dtype = f.slot.kind, f.slot.dtype

    def stage(arrays: list[Any]) -> None:
        values = [arrays[x] if is_slot else x for is_slot, x in operands]
        if product:
            xp.dot(*values, out=arrays[n])
        elif kind == "view":
            arrays[n] = function(*values, **params)
        elif kind == "bound":
            arrays[n] = _contiguous(xp.asarray(function(*values, **params), dtype=dtype))
        else:
            arrays[n][...] = function(*values, **params)

    return stage


def _contiguous(array: Any) -> Any:
    return array if array.flags.c_contiguous else array.copy()


def _rows(array: Any) -> Any:
    """An array whose rows are contiguous; how far they lie apart does not matter."""
    return array if array[:1].flags.c_contiguous else array.copy()


def _runner(plan: Plan, stages: list[Stage], machine: Machine) -> Runner:
    xp = machine.xp
    inputs, constants, entering = plan.given
    by_kind = {
        kind: [s for s in plan.slots if s.kind == kind] for kind in ("fresh", "kept", "zeros")
    }
    leaving = [slot.number for slot in plan.leaving]

    def run(
        given: Sequence[Any],
        same: Sequence[Any],
        carried: Sequence[Any],
        outputs: Sequence[Any],
        order: range,
    ) -> list[Any]:
        with machine.active():
            arrays: list[Any] = [None] * len(plan.slots)
            for s, x in zip((*constants, *entering), (*same, *carried), strict=True):
                arrays[s.number] = _contiguous(x)
            for s in by_kind["kept"]:
                arrays[s.number] = xp.empty(s.shape, dtype=s.dtype)
            for s in by_kind["zeros"]:
                arrays[s.number] = xp.zeros(s.shape, dtype=s.dtype)
            written = [_rows(x) for x in outputs]
            rows = [(s.number, _rows(x)) for s, x in zip(inputs, given, strict=True)]
            rows += [(s.number, x) for s, x in zip(plan.rows, written, strict=True)]
            last = list(carried)
            for t in order:
                for n, whole in rows:
                    arrays[n] = whole[t, ...]
                for s in by_kind["fresh"]:
                    arrays[s.number] = xp.empty(s.shape, dtype=s.dtype)
                for stage in stages:
                    stage(arrays)
                last = [arrays[n] for n in leaving]
                for s, x in zip(entering, last, strict=True):
                    arrays[s.number] = x
            for x, y in zip(outputs, written, strict=True):
                if x is not y:
                    x[...] = y
            return last

    return run


class Device:
    """A GPU, by CuPy.

    Attributes:
        xp: CuPy.
    """

    def __init__(self, cupy: Any, device: Any) -> None:
        self.xp, self._device = cupy, device

    def active(self) -> AbstractContextManager[Any]:
        """In this ``with`` block arrays are made and kernels run there."""
        return self._device

    def load(self, made: list[Kernel]) -> list[Callable[[Sequence[Any]], Any]]:
        """Functions that launch the kernels, given arrays for their slots."""
        if not made:
            return []
        with self._device:
            module = self.xp.RawModule(code=source(made), options=("--std=c++17",))
            return [self._launcher(module.get_function(k.name), k.size) for k in made]

    def _launcher(self, function: Any, size: int) -> Callable[[Sequence[Any]], Any]:
        grid, block = (-(-size // THREADS),), (THREADS,)

        def launch(arrays: Sequence[Any]) -> None:
            function(grid, block, tuple(arrays))

        return launch
