"""What a step does: which arrays there are, and what is written into them in which order.

What must be in memory is what leaves a step, what a matrix product or another function reads, and
the pieces of a concatenation, which are computed in their place. Everything else happens in
registers: from each element that is to be stored a kernel goes back, through operations of each
element and parts of arrays, to what is in memory. Elements of one shape that can be stored at the
same time are stored by one kernel, so that a step of an LSTM is a matrix product and a kernel.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygradrnn.loop import Body, Call, Var
from tinygradrnn_cupy.functions import TYPES, expression
from tinygradrnn_cupy.indices import (
    VIEWS,
    Affine,
    At,
    Shape,
    broadcast,
    flat,
    identity,
    part,
    regroups,
    strides,
    through,
)

_ASSEMBLED = frozenset(["concat", "stack", "place"])


class Slot(NamedTuple):
    """A place for an array.

    Attributes:
        number: Its place among the arrays of a run.
        kind: ``given``, ``row`` (of an output), ``fresh`` (another array at each step), ``kept``
            (one array for all steps), ``zeros`` (the same, beginning as zeros), ``bound`` (to what
            a function returns) or ``view`` (the same, of any layout).
    """

    number: int
    kind: str
    shape: Shape
    dtype: np.dtype[Any]


class Write(NamedTuple):
    """The elements of a Var are stored in a slot, each at the index that `at` gives for it."""

    var: Var
    slot: Slot
    at: Affine


class Writes(NamedTuple):
    """What one kernel writes.

    Attributes:
        writes: Of Vars of one shape.
        shape: Theirs.
        level: What is in memory at a level below is read, everything else computed.
    """

    writes: list[Write]
    shape: Shape
    level: float


class Function(NamedTuple):
    """A call of a function on arrays.

    Attributes:
        name: Of the operation.
        function: What to call.
        operands: Slots, or numbers.
        params: Its other arguments.
        slot: Where the result goes.
        product: Whether ``dot`` writes it there by itself.
    """

    name: str
    function: Callable[..., Any]
    operands: list[Any]
    params: dict[str, Any]
    slot: Slot
    product: bool = False


class Plan:
    """What to do at each step of a body.

    Attributes:
        stages: Writes and functions, in order.
        home: The slot of each Var that is in memory.
        position: Where in the body a Var is computed.
        slots: All places for arrays.
        given: The slots of the inputs, the constants and what enters a step.
        rows: The slots of the outputs.
        leaving: The slots of what leaves a step.
    """

    def __init__(self, body: Body) -> None:
        self.body = body
        self.made = {call.output: call for call in body.calls}
        self.position = {call.output: i for i, call in enumerate(body.calls)}
        self.slots: list[Slot] = []
        self.home: dict[Var, Slot] = {}
        self.level: dict[Var, float] = {}
        self._arrays: dict[Var, Slot] = {}
        self._writes: dict[tuple[float, Shape], list[Write]] = {}
        self._functions: list[tuple[float, Function]] = []
        entering = [a for a, _ in body.carried]
        self.given = [
            [self._give(v) for v in group] for group in (body.inputs, body.constants, entering)
        ]
        self.rows = [self.slot("row", v.shape, v.dtype) for v in body.outputs]
        self._row = dict(zip(body.outputs, self.rows, strict=True))
        self._store(self._needed())
        self.leaving = [self._left(b) for _, b in body.carried]
        self.stages = self._in_order()

    def slot(self, kind: str, shape: Shape, dtype: Any) -> Slot:
        """A new place."""
        self.slots.append(Slot(len(self.slots), kind, shape, np.dtype(dtype)))
        return self.slots[-1]

    def _give(self, v: Var) -> Slot:
        self.home[v], self.level[v] = self.slot("given", v.shape, v.dtype), -1
        return self.home[v]

    # -------------------------------------------------------------------- what is in memory

    def _sort_of(self, call: Call) -> str:
        if call.op in VIEWS:
            return "view"
        if call.op in _ASSEMBLED and {np.dtype(v.dtype) for v in call.vars} == {
            np.dtype(call.output.dtype)
        }:
            return "assembled" if np.dtype(call.output.dtype) in TYPES else "function"
        return "function" if expression(call, [""] * len(call.inputs)) is None else "element"

    def _needed(self) -> set[Var]:
        """The computed Vars that must be in memory."""
        made = self.made
        self.sort = {v: self._sort_of(call) for v, call in made.items()}
        ends = [*self.body.outputs, *(b for _, b in self.body.carried)]
        needed = {v for v in ends if v in made}
        alive = set(needed)
        for call in reversed(self.body.calls):
            v = call.output
            if v not in alive:
                continue
            alive.update(call.vars)
            sort = self.sort[v]
            if sort in ("function", "assembled"):
                needed.add(v)
            if sort == "function" or (sort == "view" and not self._kernels_know(v)):
                needed.update(self._root(x) for x in call.vars)
            elif sort == "view" and regroups(call):
                needed.update(call.vars)
        return {v for v in needed if v in made}

    def _kernels_know(self, v: Var) -> bool:
        return np.dtype(v.dtype) in TYPES

    def _root(self, v: Var) -> Var:
        """What a view is a view of."""
        while v in self.made and self.sort[v] == "view":
            (v,) = self.made[v].vars
        return v

    def _store(self, needed: set[Var]) -> None:
        """Decide for everything in memory where it is and how it comes there."""
        leaving = {b for _, b in self.body.carried}
        for call in self.body.calls:
            v = call.output
            if v not in needed:
                continue
            sort, away = self.sort[v], v in self._row or v in leaving
            product = _is_product(call)
            kind = "fresh" if v in leaving else "kept"
            if call.op == "place" and sort == "assembled":
                kind, away = "zeros", False  # what surrounds the piece is written just once
            elif sort == "function" and not product and not away:
                kind = "bound"
            home = self._row[v] if away and v in self._row else self.slot(kind, v.shape, v.dtype)
            if sort == "function":
                operands = [self._array(x) if isinstance(x, Var) else x for x in call.inputs]
                level = self._after(call.vars)
                function = self.body.functions[call.op]
                made = Function(call.op, function, operands, call.params, home, product)
                self._functions.append((level, made))
            elif sort == "assembled":
                level = max([self._write(x, home, at) for x, at in _pieces(call)], default=0)
            else:
                level = self._copy(v, home)
            self.home[v], self.level[v] = home, level
        for v, row in self._row.items():
            if self.home[v] is not row:
                self._copy(v, row)

    def _left(self, b: Var) -> Slot:
        home = self.home[b]
        if home.kind not in ("kept", "zeros"):
            return home
        if b in self._row:
            return self._row[b]
        fresh = self.slot("fresh", b.shape, b.dtype)
        self._copy(b, fresh)
        return fresh

    def _after(self, variables: Sequence[Var]) -> float:
        """The level of a function: all of its inputs are there."""
        return max(map(self._ready, variables), default=-1) + 1

    def _ready(self, v: Var) -> float:
        """The level of what is in memory, or of that of which it is a view."""
        while v not in self.level:
            (v,) = self.made[v].vars
        return self.level[v]

    def _array(self, v: Var) -> Slot:
        """A slot that holds the array of a Var, for a function."""
        found = self.home.get(v) or self._arrays.get(v)
        if found is None:
            call = self.made[v]
            (x,) = call.vars
            found = self._arrays[v] = self.slot("view", v.shape, v.dtype)
            made = Function(
                call.op, self.body.functions[call.op], [self._array(x)], call.params, found
            )
            # After what is in memory, before the functions that read it.
            self._functions.append((self._ready(x) + 0.5, made))
        return found

    def _copy(self, v: Var, slot: Slot) -> float:
        """Store all of a Var in a slot."""
        if self._kernels_know(v):
            return self._write(v, slot, (0, strides(v.shape)))
        level = self._after([v])
        self._functions.append((level, Function("copy", _same, [self._array(v)], {}, slot)))
        return level

    def _write(self, v: Var, slot: Slot, at: Affine) -> float:
        """Store a Var in a part of a slot; returns when that can be done."""
        level: float = 0
        itself = identity(v.shape)
        for u, where in self.pull([v], v.shape, math.inf)[1]:
            # An element that is stored at the same place is at hand in the same kernel.
            here = where == itself and u.shape == v.shape and self._computed(u)
            level = max(level, self.level[u] + (not here))
        self._writes.setdefault((level, v.shape), []).append(Write(v, slot, at))
        return level

    def _computed(self, v: Var) -> bool:
        """Whether the elements of a Var are computed by a kernel."""
        return v in self.made and self.sort[v] in ("element", "view")

    def pull(
        self, stored: Sequence[Var], shape: Shape, level: float
    ) -> tuple[dict[Var, dict[At, None]], list[tuple[Var, At]]]:
        """What a kernel computes to store Vars of `shape`, and what it reads.

        Args:
            stored: What is to be stored.
            shape: The kernel's shape.
            level: When it runs: what is in memory before is read.
        """
        zero = (0, (0,) * len(shape))
        wanted: dict[Var, dict[At, None]] = {}
        reads: dict[tuple[Var, At], None] = {}
        todo: list[int] = []

        def want(v: Var, at: At) -> None:
            if self.level.get(v, math.inf) < level:
                reads[v, at] = None
                return
            if v not in wanted:
                wanted[v] = {}
                heapq.heappush(todo, -self.position[v])
            wanted[v][at] = None

        for v in stored:
            want(v, identity(shape))
        while todo:
            call = self.body.calls[-heapq.heappop(todo)]
            for at in wanted[call.output]:
                for x, there in self.behind(call, at, zero):
                    want(x, there)
        return wanted, list(reads)

    def behind(self, call: Call, at: At, zero: Affine) -> list[tuple[Var, At]]:
        """The elements that an element of a result is made of."""
        if call.op in VIEWS:
            return [(call.vars[0], through(call, at, zero))]
        return [(x, broadcast(at, x.shape, zero)) for x in call.vars]

    def _in_order(self) -> list[Writes | Function]:
        found: list[tuple[float, Writes | Function]] = [
            (level, Writes(writes, shape, level))
            for (level, shape), writes in self._writes.items()
            if math.prod(shape)
        ]
        found += self._functions
        return [stage for _, stage in sorted(found, key=lambda pair: pair[0])]


def _same(x: Any) -> Any:
    return x


def _is_product(call: Call) -> bool:
    """Whether ``dot`` computes it into an array that is there."""
    variables = (*call.vars, call.output)
    return (
        call.op == "matmul"
        and len(call.vars) == 2
        and all(len(v.shape) == 2 and math.prod(v.shape) for v in variables)
        and {np.dtype(v.dtype) for v in variables} < {np.dtype("float32"), np.dtype("float64")}
    )


def _pieces(call: Call) -> list[tuple[Var, Affine]]:
    """The pieces of a concatenation, and where they are in the whole."""
    shape, found, start = call.output.shape, [], 0
    for n, x in enumerate(call.vars):
        if call.op == "place":
            key = call.params["key"]
        else:
            axis = call.params["axis"] % len(shape)
            size = x.shape[axis] if call.op == "concat" else 1
            here = slice(start, start + size) if call.op == "concat" else n
            key = (*(slice(None),) * axis, here)
            start += size
        zero = (0, (0,) * len(x.shape))
        found.append((x, flat(part(identity(x.shape), key, shape, zero), shape)))
    return found
