"""The tape: what was computed, in what order, at which step in time.

Every recorded operation leaves a :class:`Node`. A node knows its inputs, what it saved for its
gradient, and the :class:`Step` in which it was recorded. Nodes point only to what they were
computed from, so a result that is dropped takes its nodes with it; :class:`Tape` is the view that
gathers the nodes behind a result and lists them in execution order. Walking that list from its end
is back-propagation, and because loops have been unrolled on it, back-propagation through time.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import ContextDecorator
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, cast, final

from tinygradrnn.backend import Array, Backend
from tinygradrnn.errors import GradientError

if TYPE_CHECKING:
    from tinygradrnn.recipe import Recipe


class Recording(threading.local):
    """What this thread is doing: whether operations are recorded, and in which step."""

    enabled: bool = True
    step: StepMark | None = None
    trial: Trial | None = None
    trace: Any = None  # what takes note of every operation while a step is traced (scan/trace.py)
    watch: Any = None  # what is told of every operation that has run (watch.py)


recording = Recording()
_clock = count()
_last_change = -1


def now() -> int:
    """An instant: what is recorded from here on has an index of at least this."""
    return next(_clock)


class _GradMode(ContextDecorator):
    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._previous: list[tuple[bool, Trial | None]] = []

    def __enter__(self) -> None:
        if self._enabled and recording.trial is not None:
            raise GradientError("enable_grad: nothing can be recorded in a trial run")
        self._previous.append((recording.enabled, recording.trial))
        recording.enabled, recording.trial = self._enabled, None

    def __exit__(self, *exc: object) -> None:
        recording.enabled, recording.trial = self._previous.pop()


def no_grad() -> _GradMode:
    """Record nothing in a ``with`` block, or in a function it decorates; in the calling thread.

    >>> w = tgr.tensor([1.0], requires_grad=True)
    >>> with tgr.no_grad():
    ...     (w * 2).requires_grad
    False
    """
    return _GradMode(False)


def enable_grad() -> _GradMode:
    """Record again inside a :func:`no_grad` block.

    >>> w = tgr.tensor([1.0], requires_grad=True)
    >>> with tgr.no_grad(), tgr.enable_grad():
    ...     (w * 2).requires_grad
    True
    """
    return _GradMode(True)


# --------------------------------------------------------------------------------------------- time


class StepMark:
    """One time step of one loop: shared by all nodes recorded in it.

    Attributes:
        t: The step's number in its loop.
        loop: The loop's name.
        parent: The step of the enclosing loop, or None.
    """

    __slots__ = ("loop", "parent", "t")

    def __init__(self, t: int, loop: str, parent: StepMark | None) -> None:
        self.t, self.loop, self.parent = t, loop, parent

    @property
    def path(self) -> tuple[int, ...]:
        """The numbers of this step and all that enclose it, outermost first."""
        return (*(self.parent.path if self.parent else ()), self.t)

    def __repr__(self) -> str:
        return ".".join(map(str, self.path))


class step:  # a context manager reads as a verb: ``with tgr.step(t):``
    """Mark what is recorded in a ``with`` block as time step `t` of a loop.

    Args:
        t: The step's number.
        loop: The loop's name, for reading the tape.

    >>> h = tgr.tensor([0.5], requires_grad=True)
    >>> for t in range(3):
    ...     with tgr.step(t):
    ...         h = tgr.tanh(h)
    >>> [s.t for s in tgr.Tape(h).steps]
    [0, 1, 2]
    """

    __slots__ = ("_mark", "_previous")

    def __init__(self, t: int, loop: str = "") -> None:
        self._mark = StepMark(t, loop, recording.step)
        self._previous: list[StepMark | None] = []

    def __enter__(self) -> StepMark:
        self._previous.append(recording.step)
        recording.step = self._mark
        return self._mark

    def __exit__(self, *exc: object) -> None:
        recording.step = self._previous.pop()


# -------------------------------------------------------------------------------------------- nodes


@final
class Leaf:
    """Where a tape begins: a tensor that was not computed but asked for its gradient.

    The gradient lives here and not on the Tensor, so that a Tensor and its Leaf are no cycle.

    Attributes:
        index: Its place in execution order.
        changed: When its values were last replaced, on the same clock.
    """

    __slots__ = ("__weakref__", "backend", "changed", "dtype", "grad", "index", "name", "shape")
    inputs: tuple[()] = ()

    def __init__(self, shape: tuple[int, ...], dtype: Any, backend: Backend) -> None:
        self.shape, self.dtype, self.backend = shape, dtype, backend
        self.index = self.changed = next(_clock)
        self.grad: Any = None  # a Tensor, once there is one
        self.name = ""

    def touch(self) -> None:
        """Note that the values were replaced: a tape recorded before belongs to the old ones."""
        global _last_change
        self.changed = _last_change = next(_clock)

    def __repr__(self) -> str:
        return f"<leaf {self.name or self.index}: {self.dtype} {self.shape}>"


class Trial:
    """Where a tensor stands that would be on a tape if this were not a trial run.

    A region that will forget its tape (see :mod:`tinygradrnn.region`) runs without one, and still
    has to know which of its results would have had a history, and what of the tape outside it uses.

    Attributes:
        used: The places outside that were used.
    """

    __slots__ = ("backend", "dtype", "index", "shape", "used")
    inputs: tuple[()] = ()

    def __init__(self) -> None:
        self.index = next(_clock)
        self.used: dict[Edge, None] = {}

    def use(self, edges: Iterable[Edge | None]) -> None:
        """Note places outside."""
        for edge in edges:
            if edge is not None and edge is not self:
                self.used[edge] = None

    @property
    def place(self) -> Edge:
        """This, where a place on a tape is expected: only regions and the walk back look closer."""
        return cast("Edge", self)


class Node:
    """One recorded operation.

    Attributes:
        recipe: The operation with its gradient rules for the inputs that need one.
        inputs: For each array argument where it came from, or None if it needs no gradient.
        saved: What the rules will need; None once it has been freed.
        params: The operation's other arguments, such as ``axis``.
        shape, dtype: The output's; tuples of them if the operation has several outputs.
        backend: Where it was computed.
        step: The time step in which it was recorded, or None.
        index: Its place in execution order.
    """

    __slots__ = (
        "__weakref__",
        "backend",
        "dtype",
        "index",
        "inputs",
        "params",
        "recipe",
        "saved",
        "shape",
        "step",
    )

    def __init__(
        self,
        recipe: Recipe,
        inputs: tuple[Edge | None, ...],
        saved: tuple[Any, ...] | None,
        params: dict[str, Any],
        shape: Any,
        dtype: Any,
        backend: Backend,
        step: StepMark | None,
    ) -> None:
        self.recipe = recipe
        self.inputs = inputs
        self.saved = saved
        self.params = params
        self.shape = shape
        self.dtype = dtype
        self.backend = backend
        self.step = step
        self.index = next(_clock)

    @property
    def name(self) -> str:
        """The operation's name."""
        return self.recipe.op.name

    @property
    def parents(self) -> list[Node | Leaf]:
        """The nodes and leaves this one was computed from, without repeats."""
        return list(dict.fromkeys(origin(edge) for edge in self.inputs if edge is not None))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays saved for the gradient; one saved twice counts once."""
        return unique_bytes([self])

    def cut(self) -> None:
        """Cut the tape here: what is behind this node is not reached from it any more."""
        self.inputs = (None,) * len(self.inputs)
        self.recipe = self.recipe.inactive

    def within(self) -> Iterable[Node]:
        """The nodes folded into this one: those of a region that keeps its tape."""
        return ()

    def saved_arrays(self) -> Iterator[Array]:
        """The arrays among what was saved."""
        for value in self.saved or ():
            if hasattr(value, "dtype") and hasattr(value, "shape"):
                yield value

    def __repr__(self) -> str:
        return f"<node {self.index}: {self.name} {self.shape}>"


@final
class Output(NamedTuple):
    """One of the outputs of a node that has several."""

    node: Node
    slot: int

    @property
    def shape(self) -> tuple[int, ...]:
        """This output's shape."""
        return self.node.shape[self.slot]

    @property
    def dtype(self) -> Any:
        """This output's data type."""
        return self.node.dtype[self.slot]


Edge = Node | Leaf | Output
"""A place on the tape that a Tensor can be at. A node with one output stands for that output."""


def origin(edge: Edge) -> Node | Leaf:
    """The node or leaf that an edge leads to."""
    return edge.node if type(edge) is Output else edge


class Value:
    """An array and its place on a tape. :class:`~tinygradrnn.Tensor` adds the operators."""

    __slots__ = ("__weakref__", "backend", "edge", "raw")

    raw: Array
    backend: Backend
    edge: Edge | None

    def __init__(self, array: Array, backend: Backend, edge: Edge | None = None) -> None:
        self.raw = array
        self.backend = backend
        self.edge = edge


def nbytes(array: Array) -> int:
    """Bytes of an array, from its shape and dtype alone: the array standard has no ``nbytes``."""
    digits = "".join(c for c in str(array.dtype).rpartition(".")[2] if c.isdigit())
    size = 1
    for n in array.shape:
        size *= n
    return size * int(digits or 8) // 8


# --------------------------------------------------------------------------------------- the tape


def execution_order(edges: Iterable[Edge], since: int = -1, stop: Any = None) -> list[Node | Leaf]:
    """Every node and leaf behind `edges`, oldest first. No recursion: a tape has no depth limit.

    Args:
        edges: Where to begin.
        since: The instant before which nothing is listed.
        stop: The mark of a boundary behind which nothing is listed.
    """
    seen: set[Node | Leaf] = {node for edge in edges if (node := origin(edge)).index >= since}
    stack = list(seen)
    while stack:
        node = stack.pop()
        if stop is not None and type(node) is Node and node.params.get("mark") is stop:
            continue
        for edge in node.inputs:
            if edge is not None:
                if type(edge) is Output:
                    edge = edge.node
                if edge not in seen and edge.index >= since:
                    seen.add(edge)
                    stack.append(edge)
    return sorted(seen, key=_by_index)


def outgrown(edge: Edge) -> tuple[Node, Leaf] | None:
    """A node behind `edge` and a leaf behind that whose values were replaced after the node ran.

    Looks for the node a few operations back: enough for a carried state that was masked or moved.
    """
    behind: list[Node] = []
    stack, seen = [origin(edge)], 0
    while stack and seen < 32:
        node = stack.pop()
        seen += 1
        if isinstance(node, Node):
            if node.index < _last_change:
                behind.append(node)
            else:
                stack.extend(node.parents)
    for node in behind:  # none in the usual case
        for leaf in execution_order([node]):
            if type(leaf) is Leaf and leaf.changed > node.index:
                return node, leaf
    return None


def _by_index(node: Node | Leaf) -> int:
    return node.index


class Step:
    """The contiguous run of a tape that is one time step.

    Attributes:
        mark: The step's number, loop and enclosing step.
        nodes: What was recorded in it and in the steps inside it, in execution order.
    """

    def __init__(self, mark: StepMark) -> None:
        self.mark = mark
        self.nodes: list[Node] = []

    @property
    def steps(self) -> list[Step]:
        """The steps of loops that ran inside this one."""
        return _runs(self.nodes, len(self.path))

    @property
    def t(self) -> int:
        """The step's number in its loop."""
        return self.mark.t

    @property
    def loop(self) -> str:
        """The loop's name."""
        return self.mark.loop

    @property
    def path(self) -> tuple[int, ...]:
        """The numbers of this step and all that enclose it, outermost first."""
        return self.mark.path

    @property
    def nbytes(self) -> int:
        """Bytes saved in this step; an array saved twice in it counts once."""
        return unique_bytes(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        return f"<step {self.mark}: {len(self)} nodes, {self.nbytes} bytes>"


def _runs(nodes: Iterable[Node], depth: int) -> list[Step]:
    """Group nodes into contiguous steps of the loops at this nesting depth."""
    steps: list[Step] = []
    for node in nodes:
        mark = node.step
        excess = len(mark.path) - depth - 1 if mark else -1
        if mark is None or excess < 0:
            continue
        for _ in range(excess):
            mark = mark.parent
            assert mark is not None
        if not steps or steps[-1].mark is not mark:
            steps.append(Step(mark))
        steps[-1].nodes.append(node)
    return steps


class Tape:
    """The unrolled graph behind one or more results: nodes in execution order.

    Iterate over it, index it, print it, or ask for its steps.

    Args:
        results: Tensors that require a gradient.

    Raises:
        GradientError: A result has no tape, because nothing it was computed from asks for one.

    >>> x = tgr.tensor([1.0, 2.0], requires_grad=True)
    >>> print(tgr.Tape((x * x).sum()))
    step  node  operation  inputs  shape  saved
    ----  ----  ---------  ------  -----  -----
             0  leaf               (2,)       -
             1  multiply   0 0     (2,)     8 B
             2  sum        1       ()         0
    3 nodes, 0 steps, 8 B saved
    """

    def __init__(self, *results: Value) -> None:
        for r in results:
            if not isinstance(r, Value):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise GradientError(f"Tape: a {type(r).__name__} has no tape; expected a Tensor")
        edges = [r.edge for r in results if r.edge is not None]
        if not edges:
            raise GradientError(
                "Tape: nothing was recorded behind this result. A tape begins at a tensor made "
                "with requires_grad=True, or at a Parameter, and needs to be outside no_grad()"
            )
        order = execution_order(edges)
        folded = [inner for n in order if isinstance(n, Node) for inner in n.within()]
        order = sorted({*order, *folded}, key=_by_index) if folded else order
        self.leaves: list[Leaf] = [n for n in order if isinstance(n, Leaf)]
        self.nodes: list[Node] = [n for n in order if isinstance(n, Node)]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, index: int) -> Node:
        return self.nodes[index]

    @property
    def steps(self) -> list[Step]:
        """The time steps in execution order; what was recorded outside of steps is in none."""
        return _runs(self.nodes, 0)

    @property
    def nbytes(self) -> int:
        """Bytes kept for the gradient; an array saved by several nodes counts once."""
        return unique_bytes(self.nodes)

    def __repr__(self) -> str:
        return f"<tape: {len(self)} nodes, {len(self.steps)} steps, {_human(self.nbytes)} saved>"

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("step", "node", "operation", "inputs", "shape", "saved")]
        number: dict[Node | Leaf, int] = {}
        for node in sorted([*self.leaves, *self.nodes], key=_by_index):
            number[node] = len(number)
            if isinstance(node, Leaf):
                rows.append(("", str(number[node]), node.name or "leaf", "", str(node.shape), "-"))
                continue
            inputs = " ".join("-" if e is None else _label(e, number) for e in node.inputs)
            saved = "freed" if node.saved is None else _human(node.nbytes)
            step = "" if node.step is None else repr(node.step)
            rows.append((step, str(number[node]), node.name, inputs, str(node.shape), saved))
        widths = [max(len(row[i]) for row in rows) for i in range(6)]
        rows.insert(1, tuple("-" * w for w in widths))
        lines = [
            f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  "
            f"{d:<{widths[3]}}  {e:<{widths[4]}}  {f:>{widths[5]}}"
            for a, b, c, d, e, f in rows
        ]
        total = _human(self.nbytes)
        lines.append(f"{len(number)} nodes, {len(self.steps)} steps, {total} saved")
        return "\n".join(lines)


def _label(edge: Edge, number: dict[Node | Leaf, int]) -> str:
    slot = f"[{edge.slot}]" if isinstance(edge, Output) else ""
    return f"{number[origin(edge)]}{slot}"


def unique_bytes(nodes: Iterable[Node]) -> int:
    """Bytes saved by nodes; an array saved by several counts once."""
    return sum(nbytes(a) for a in {id(a): a for n in nodes for a in n.saved_arrays()}.values())


def _human(n: float) -> str:
    if n < 1000:
        return f"{n:.0f} B" if n else "0"
    power = min(int(math.log(n, 1000)), 3)
    return f"{n / 1000**power:.1f} {('B', 'kB', 'MB', 'GB')[power]}"
