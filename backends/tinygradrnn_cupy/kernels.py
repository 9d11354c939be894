"""The source of kernels: CUDA C++ that computes and stores one element of some arrays a thread."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tinygradrnn.loop import Body, Call, Var
from tinygradrnn_cupy.functions import PRELUDE, TYPES, expression
from tinygradrnn_cupy.indices import VIEWS, Affine, At, flat, identity, strides
from tinygradrnn_cupy.plan import Function, Plan, Slot, Writes

THREADS = 256
_MOST_PARAMETERS = 480  # 4 KiB of pointers is what every GPU takes


class TooMany(Exception):
    """A kernel would read from more arrays than it can be given."""


class Kernel(NamedTuple):
    """A generated CUDA function; it takes one pointer for each slot.

    Attributes:
        name: Of the function.
        source: Its text, without what all kernels share.
        size: The number of elements, one thread for each.
        slots: Where to read and write.
    """

    name: str
    source: str
    size: int
    slots: list[Slot]


class _Source:
    """Writes the source of one kernel."""

    def __init__(self, plan: Plan, stage: Writes) -> None:
        self.plan = plan
        self.writes, self.shape, self.level = stage
        self.zero = (0, (0,) * len(self.shape))
        self.lines: list[str] = []
        self.slots: dict[Slot, str] = {}
        self.axes: set[int] = set()
        self.registers: dict[tuple[Var, At], str] = {}

    def kernel(self, name: str) -> Kernel:
        """The kernel."""
        plan, shape = self.plan, self.shape
        stored = list(dict.fromkeys(w.var for w in self.writes))
        wanted, _ = plan.pull(stored, shape, self.level)
        for v in sorted(wanted, key=plan.position.__getitem__):
            for at in wanted[v]:
                self.compute(plan.made[v], at)
        here = identity(shape)
        written: dict[Slot, None] = {}
        for w in self.writes:
            value = self.value(w.var, here)
            self.lines.append(f"{self.pointer(w.slot)}[{self.index(w.at)}] = {value};")
            written[w.slot] = None
        size = math.prod(shape)
        widest = max(size, *(math.prod(slot.shape) for slot in self.slots))
        integer = "int" if widest < 2**31 - THREADS else "long long"
        parameters = ", ".join(
            f"{'' if slot in written else 'const '}{TYPES[slot.dtype]}* __restrict__ {pointer}"
            for slot, pointer in self.slots.items()
        )
        head = [
            f'extern "C" __global__ void {name}({parameters}) {{',
            f"    const {integer} i = ({integer})blockIdx.x * {THREADS} + threadIdx.x;",
            f"    if (i >= {size}) return;",
        ]
        for k in sorted(self.axes):
            before = math.prod(shape[k + 1 :])
            text = "i" if before == 1 else f"i / {before}"
            text += f" % {shape[k]}" if math.prod(shape[:k]) > 1 else ""
            head.append(f"    const {integer} i{k} = {text};")
        source = "\n".join([*head, *(f"    {line}" for line in self.lines), "}", ""])
        return Kernel(name, source, size, list(self.slots))

    def pointer(self, slot: Slot) -> str:
        """The parameter for a slot."""
        return self.slots.setdefault(slot, f"p{len(self.slots)}")

    def index(self, at: Affine) -> str:
        """The source of an index."""
        constant, factors = at
        terms: list[str] = []
        if any(factors) and factors == strides(self.shape):
            terms.append("i")
        else:
            for k, factor in enumerate(factors):
                if factor:
                    self.axes.add(k)
                    terms.append(f"i{k}" if factor == 1 else f"{factor} * i{k}")
        if constant or not terms:
            terms.append(str(constant))
        return " + ".join(terms)

    def value(self, v: Var, at: At) -> str:
        """A register that holds an element."""
        found = self.registers.get((v, at))
        if found is None:
            slot = self.plan.home[v]
            place = f"{self.pointer(slot)}[{self.index(flat(at, v.shape))}]"
            found = self.register(v, at, place)
        return found

    def register(self, v: Var, at: At, text: str) -> str:
        """A new register for an element."""
        name = self.registers[v, at] = f"r{len(self.lines)}"
        kind = TYPES[np.dtype(v.dtype)]
        self.lines.append(f"const {kind} {name} = {text};")
        return name

    def compute(self, call: Call, at: At) -> None:
        """Compute an element of a result."""
        sources = self.plan.behind(call, at, self.zero)
        values = [self.value(x, there) for x, there in sources]
        if call.op in VIEWS:
            self.registers[call.output, at] = values[0]
            return
        left = iter(values)
        names = [next(left) if isinstance(x, Var) else "" for x in call.inputs]
        text = expression(call, names)
        assert text is not None, call
        self.register(call.output, at, text)


def stages(plan: Plan) -> list[Kernel | Function]:
    """What a plan does, in order, with the kernels' source.

    Raises:
        TooMany: An element is made of more arrays than a kernel can be given.
    """
    numbers = itertools.count()

    def written(stage: Writes) -> list[Kernel]:
        name = re.sub(r"\W", "_", f"k{next(numbers)}_{plan.body.name}", flags=re.ASCII)
        kernel = _Source(plan, stage).kernel(name)
        if len(kernel.slots) <= _MOST_PARAMETERS:
            return [kernel]
        half = len(stage.writes) // 2
        if not half:
            raise TooMany
        parts = stage.writes[:half], stage.writes[half:]
        return [k for part in parts for k in written(stage._replace(writes=part))]

    found: list[Kernel | Function] = []
    for stage in plan.stages:
        found += written(stage) if isinstance(stage, Writes) else [stage]
    return found


def kernels(body: Body) -> list[Kernel]:
    """The kernels that a body needs."""
    return [stage for stage in stages(Plan(body)) if isinstance(stage, Kernel)]


def source(made: Sequence[Kernel]) -> str:
    """The text that holds kernels, for one run of the compiler."""
    return "\n".join([PRELUDE, *(kernel.source for kernel in made)])
