"""The unrolled tape, sorted for a reader: rows of loops, columns of time, boxes of one step each.

All pictures (text, SVG, page) are drawn from this, and none of them looks at the tape itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Ref = tuple[int, int]
"""A place: the number of an item, and which of its outputs."""


@dataclass
class Item:
    """A node or a leaf.

    Attributes:
        number: Its place in execution order.
        operation: The operation's name; empty for a leaf.
        name: What the program calls the result, or the parameter's name.
        text: The expression, where it is known; else the call.
        written: Whether the text is the author's own.
        where: File, line and function, where known.
        layer: The modules around it, where known.
        step: The path of its step; empty outside of loops.
        inner: The step of a loop inside this one, if it is in such a loop.
        inputs: Where each argument comes from; None for what is on no tape.
        input_names: What the arguments are called; empty for what has no name.
        data: For each argument that is on no tape a summary of it, where it is known.
        values: A summary of each output; None where the numbers are gone.
        gradients: The same of the gradient of each output.
        shape: Of the first output.
        nbytes: Saved for the way back.
        box: The box it is in; None for a leaf.
        uses: How often it is an argument.
    """

    number: int
    operation: str
    name: str
    shape: tuple[int, ...]
    text: str = ""
    written: bool = False
    where: str = ""
    layer: str = ""
    step: str = ""
    inner: str = ""
    inputs: list[Ref | None] = field(default_factory=list)
    input_names: list[str] = field(default_factory=list)
    data: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    gradients: list[Any] = field(default_factory=list)
    nbytes: int = 0
    box: Box | None = None
    uses: int = 0

    @property
    def names(self) -> list[str]:
        """The name of each output."""
        found = self.name.split(", ")
        return found if len(found) == len(self.values) else [self.name] * len(self.values)


@dataclass(frozen=True)
class Feed:
    """What comes into a box from elsewhere; of weights there are no feeds.

    Attributes:
        name: What the box calls it; empty if that is not known.
        kind: ``"state"`` from another step of the loop, ``"cut"`` the same without its history,
            ``"data"`` on no tape, ``"in"`` from elsewhere on the tape.
        users: Who takes it: positions in ``box.items``.
    """

    name: str
    kind: str
    users: tuple[int, ...]


@dataclass(eq=False)
class Box:
    """What one step of a loop left on the tape, or what ran between loops.

    Attributes:
        row: The row it is in.
        t: The step's number; None outside of loops.
        items: The numbers of its nodes.
        feeds: What comes in.
        kind: Boxes of one number have the same operations, wired alike.
    """

    row: Row
    t: int | None
    items: list[int] = field(default_factory=list)
    feeds: list[Feed] = field(default_factory=list)
    kind: int = 0

    @property
    def data(self) -> list[str] | None:
        """The names of what it takes that is on no tape; None if there is no such."""
        found = [f.name for f in self.feeds if f.kind == "data"]
        return [name for name in found if name] if found else None


@dataclass(eq=False)
class Row:
    """A loop, or what ran between two loops.

    Attributes:
        name: The loop's name; empty between loops.
        boxes: In the order in which they ran.
    """

    name: str
    boxes: list[Box] = field(default_factory=list)

    @property
    def is_loop(self) -> bool:
        """Whether it is a loop."""
        return bool(self.boxes) and self.boxes[0].t is not None


@dataclass
class Crossing:
    """What goes from one box to another.

    Attributes:
        first, second: The boxes, in the order in which they ran.
        norm: That of the cotangent which goes back; None where gradients are not known.
        names: What goes across.
        silent: What goes across without its history, so that no cotangent comes back.
        factor: By what a gate has multiplied the cotangent; 0 for a cut.
        mark: Whether walks back from some losses end here.
        clipped: Whether a longer cotangent is clipped here.
    """

    first: Box
    second: Box
    norm: float | None = None
    names: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    factor: float = 1.0
    mark: bool = False
    clipped: bool = False

    @property
    def cut(self) -> bool:
        """Whether nothing can come back."""
        return self.factor == 0

    @property
    def label(self) -> str:
        """What the way back meets here, in a word or two; empty for nothing."""
        if self.factor not in (0, 1):
            return f"gate × {self.factor:g}"
        return "some end here" if self.mark else "clipped" if self.clipped else ""


@dataclass
class Unrolled:
    """The whole picture, in facts.

    Attributes:
        items: Nodes and leaves by number, in execution order.
        leaves: The numbers of the leaves.
        results: What the picture is of.
        rows: The first that ran comes first.
        crossings: Between boxes.
        kinds: One box of each kind.
        visits: The walk back: node, cotangents, and shares with place, share and sum so far.
        notes: What the reader should know.
    """

    items: list[Item]
    leaves: list[int]
    results: list[Ref]
    rows: list[Row]
    crossings: list[Crossing]
    kinds: list[Box]
    visits: list[tuple[int, list[Any], list[tuple[Ref, Any, Any]]]]
    notes: list[str]

    def __post_init__(self) -> None:
        self._crossings = {(id(c.first), id(c.second)): c for c in self.crossings}
        self._at = {id(b): i for row in self.rows for i, b in enumerate(row.boxes)}
        norms: dict[int, float] = {}
        for c in self.crossings:
            if c.norm and c.first.row is c.second.row:
                norms[id(c.first)] = (norms.get(id(c.first), 0.0) ** 2 + c.norm**2) ** 0.5
        self._norms = norms

    @property
    def times(self) -> list[int]:
        """All step numbers, ascending."""
        return sorted({b.t for row in self.rows for b in row.boxes if b.t is not None})

    def between(self, first: Box, second: Box) -> Crossing | None:
        """The crossing between two boxes."""
        return self._crossings.get((id(first), id(second)))

    def adjacent(self, c: Crossing) -> bool:
        """Whether a crossing is from a step to the next one."""
        one_loop = c.first.row is c.second.row and c.first.row.is_loop
        return one_loop and abs(self._at[id(c.first)] - self._at[id(c.second)]) == 1

    def arriving(self, box: Box) -> float:
        """The norm of what comes back to a step from later ones."""
        return self._norms.get(id(box), 0.0)

    def users(self, leaf: int, row: Row) -> list[Box]:
        """The boxes of a row that use a leaf."""
        return [
            box
            for box in row.boxes
            if any(ref and ref[0] == leaf for n in box.items for ref in self.items[n].inputs)
        ]
