"""Where things stand in a picture: the operations inside a box, and which steps get a column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tinygradrnn.viz.unrolled import Box, Unrolled

PILL = 92, 22  # the width and height of an operation
GAP = 10, 18
MANY = 60
"""More operations than this are listed, and not drawn as a graph."""


class Inside(NamedTuple):
    """The operations of a box of one kind, drawn.

    Attributes:
        width, height: Of it all.
        places: The centre of each operation, in the order of ``box.items``.
        wires: Pairs of positions in ``box.items``: from, to.
    """

    width: int
    height: int
    places: list[tuple[int, int]]
    wires: list[tuple[int, int]]


class Column(NamedTuple):
    """One step, or a run of steps that share a column.

    Attributes:
        first, last: The numbers of the steps.
    """

    first: int
    last: int

    @property
    def single(self) -> bool:
        """Whether it is one step."""
        return self.first == self.last


def inside(unrolled: Unrolled, box: Box) -> Inside:
    """Draw the operations of a box: what is computed from others stands above them."""
    place = {n: i for i, n in enumerate(box.items)}
    wires = sorted(
        {
            (place[ref[0]], i)
            for i, n in enumerate(box.items)
            for ref in unrolled.items[n].inputs
            if ref is not None and ref[0] in place
        }
    )
    count = len(box.items)
    if count > MANY:
        wires = []
        rows = [list(range(i, min(i + 6, count))) for i in range(0, count, 6)]
    else:
        level = [0] * count
        for a, b in wires:  # sorted, and what is used comes first
            level[b] = max(level[b], level[a] + 1)
        rows = [
            [i for i in range(count) if level[i] == n] for n in range(max(level, default=0) + 1)
        ]
    across = max((len(row) for row in rows), default=1)
    step_x, step_y = PILL[0] + GAP[0], PILL[1] + GAP[1]
    width, height = across * step_x + GAP[0], len(rows) * step_y + GAP[1]
    places = [(0, 0)] * count
    for n, row in enumerate(rows):
        left = (width - len(row) * step_x) // 2
        for k, i in enumerate(row):
            places[i] = (
                left + k * step_x + step_x // 2,
                height - n * step_y - step_y // 2 - GAP[1] // 2,
            )
    return Inside(width, height, places, wires)


def columns(times: Sequence[int], most: int, wanted: Sequence[int] = ()) -> list[Column]:
    """The columns of a picture: all steps if they are few, else the ends and those `wanted`."""
    if len(times) <= most:
        return [Column(t, t) for t in times]
    ends = max(1, (most - 1) // 2)
    shown = sorted({*times[:ends], *times[-ends:], *(t for t in wanted if t in set(times))})
    found: list[Column] = []
    for t in shown:
        if found and t > found[-1].last + 1:
            found.append(Column(found[-1].last + 1, t - 1))
        found.append(Column(t, t))
    return found
