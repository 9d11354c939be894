"""Where things stand in a picture: the operations inside a box, and which steps get a column.

Inside a box what is computed from others stands above them, in rows. A wire that passes a row gets
a place of its own there, so that no wire runs behind an operation. The order within a row follows
the means of the neighbours' places (Sugiyama, Tagawa & Toda 1981), and so do the places themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from tinygradrnn.viz.unrolled import Box, Feed, Unrolled
from tinygradrnn.viz.words import label

TALL = 22
"""The height of an operation."""

GAP = 10, 18
HEAD = 22
"""The height of a box's or a frame's title."""

MANY = 80
"""More operations than this are listed, and not drawn as a graph."""

CROWD = 600
"""More than this are small squares."""

Point = tuple[int, int]
Spot = tuple[int, int, int]
"""The centre of something, and its width."""


class Inside(NamedTuple):
    """The operations of a box of one kind, drawn.

    Attributes:
        width, height: Of it all.
        tall: The height of an operation.
        places: Of each operation, in the order of ``box.items``.
        ports: What comes in: the place, the name and the kind (see :class:`Feed`).
        wires: Each a line through these points, upwards, or to the right.
        frames: Steps of loops inside: left, top, width, height and title.
    """

    width: int
    height: int
    tall: int
    places: list[Spot]
    ports: list[tuple[Spot, str, str]]
    wires: list[list[Point]]
    frames: list[tuple[int, int, int, int, str]]


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


def columns(times: Sequence[int], most: int, wanted: Sequence[int] = ()) -> list[Column]:
    """The columns of a picture: all steps if they are few, else the ends and those `wanted`."""
    if len(times) <= most:
        return [Column(t, t) for t in times]
    ends = max(1, (most - 1) // 2)
    known = set(times)
    shown = sorted({*times[:ends], *times[-ends:], *(t for t in wanted if t in known)})
    found: list[Column] = []
    for t in shown:
        if found and t > found[-1].last + 1:
            found.append(Column(found[-1].last + 1, t - 1))
        found.append(Column(t, t))
    return found


def inside(unrolled: Unrolled, box: Box) -> Inside:
    """Draw the operations of a box."""
    if len(box.items) > MANY:
        return _listed(unrolled, box)
    feeds = _shown(box)
    place = {n: i for i, n in enumerate(box.items)}
    items = [unrolled.items[n] for n in box.items]
    first = len(feeds)  # ports are numbered before operations
    links = sorted(
        {
            (first + place[ref[0]], first + i)
            for i, item in enumerate(items)
            for ref in item.inputs
            if ref is not None and ref[0] in place
        }
        | {(k, first + i) for k, feed in enumerate(feeds) for i in feed.users}
    )
    widths = [_wide(feed.name or "data", 6.2) for feed in feeds]
    widths += [_wide(label(item)) for item in items]
    spots: dict[int, Spot] = {}
    bends: dict[tuple[int, int], list[Point]] = {}
    frames: list[tuple[int, int, int, int, str]] = []
    runs = _runs([item.inner for item in items], first)
    strips = [[_Graph(part, widths, links) for _, part in run] for run in runs]
    spans = [sum(g.width + GAP[0] for g in strip) for strip in strips]
    width, top = max(spans) + GAP[0], 0
    # From the last to the first: the first that runs stands lowest.
    for run, strip, span in reversed(list(zip(runs, strips, spans, strict=True))):
        framed = bool(run[0][0])
        height = max(g.height for g in strip) + (HEAD + GAP[1] if framed else 0)
        left = (width - span) // 2 + GAP[0] // 2
        for (name, _), graph in zip(run, strip, strict=True):
            low = top + height - graph.height - (GAP[1] // 2 if framed else 0)
            for n, (x, y) in graph.places.items():
                spots[n] = left + x, low + y, widths[n]
            for link, points in graph.bends.items():
                bends[link] = [(left + x, low + y) for x, y in points]
            if framed:
                frames.append((left, top + GAP[1] // 2, graph.width, height - GAP[1], name))
            left += graph.width + GAP[0]
        top += height
    wires: list[list[Point]] = []
    for a, b in links:
        (x1, y1, w1), (x2, y2, w2) = spots[a], spots[b]
        if y2 < y1:
            wires.append([(x1, y1 - TALL // 2), *bends.get((a, b), ()), (x2, y2 + TALL // 2)])
        else:  # to the next step of a loop inside
            wires.append([(x1 + w1 // 2, y1), (x2 - w2 // 2, y2)])
    ports = [(spots[k], feed.name or "data", feed.kind) for k, feed in enumerate(feeds)]
    places = [spots[first + i] for i in range(len(items))]
    return Inside(width, top, TALL, places, ports, wires, frames)


def _shown(box: Box) -> list[Feed]:
    """The feeds that are drawn: in a step of a loop, the state first, to the left."""
    if not box.row.is_loop or len(box.feeds) > 12:
        return []
    return sorted(box.feeds, key=lambda feed: ("state", "cut", "in", "data").index(feed.kind))


def _wide(text: str, each: float = 6.9) -> int:
    return max(36, round(each * len(text)) + 14)


def _runs(inner: Sequence[str], first: int) -> list[list[tuple[str, list[int]]]]:
    """Stretches of operations outside of inner loops, and steps of inner loops side by side."""
    numbered = [(name, [first + i for i, _ in part]) for name, part in _grouped(inner)]
    runs: list[list[tuple[str, list[int]]]] = []
    for name, part in numbered:
        if name and runs and runs[-1][0][0]:
            runs[-1].append((name, part))
        else:
            runs.append([(name, part)])
    if not runs or (first and runs[0][0][0]):
        runs.insert(0, [("", [])])
    if first:  # ports stand at the bottom
        runs[0][0] = "", [*range(first), *runs[0][0][1]]
    return runs


def _grouped(inner: Sequence[str]) -> list[tuple[str, list[tuple[int, str]]]]:
    return [(name, list(part)) for name, part in groupby(enumerate(inner), key=lambda x: x[1])]


class _Graph:
    """Some operations in rows, and the bends of the wires between them."""

    def __init__(
        self, members: Sequence[int], widths: Sequence[int], links: Sequence[tuple[int, int]]
    ) -> None:
        own = set(members)
        links = [(a, b) for a, b in links if a in own and b in own]
        level = dict.fromkeys(members, 0)
        for a, b in links:  # sorted, and what is used comes first
            level[b] = max(level[b], level[a] + 1)
        wide = {n: widths[n] for n in members}
        chains: dict[tuple[int, int], list[int]] = {}
        short: list[tuple[int, int]] = []
        for a, b in links:
            chain = [-1 - len(wide) - i for i in range(level[b] - level[a] - 1)]
            for i, bend in enumerate(chain):
                wide[bend], level[bend] = 8, level[a] + 1 + i
            chains[a, b] = chain
            steps = [a, *chain, b]
            short += pairwise(steps)
        rows: list[list[int]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
        for n in sorted(wide, key=lambda n: (n < 0, n)):
            rows[level[n]].append(n)
        below: dict[int, list[int]] = {n: [] for n in wide}
        above: dict[int, list[int]] = {n: [] for n in wide}
        for a, b in short:
            above[a].append(b)
            below[b].append(a)
        _ordered(rows, above, below)
        x = _placed(rows, wide, above, below)
        left = min((x[n] - wide[n] / 2 for n in wide), default=0)
        right = max((x[n] + wide[n] / 2 for n in wide), default=0)
        self.width = round(right - left) + GAP[0]
        step = TALL + GAP[1]
        self.height = len(rows) * step + GAP[1] // 2
        at = {
            n: (
                round(x[n] - left) + GAP[0] // 2,
                self.height - level[n] * step - step // 2 - GAP[1] // 4,
            )
            for n in wide
        }
        self.places = {n: at[n] for n in members}
        self.bends = {
            link: [p for n in chain for p in ((at[n][0], at[n][1] + 8), (at[n][0], at[n][1] - 8))]
            for link, chain in chains.items()
            if chain
        }


def _ordered(
    rows: list[list[int]], above: dict[int, list[int]], below: dict[int, list[int]]
) -> None:
    """Put each row into the order of the means of its neighbours' places."""
    for sweep in range(8):
        up = sweep % 2 == 0
        spot = {n: i for row in rows for i, n in enumerate(row)}
        for row in rows[1:] if up else rows[-2::-1]:
            near = below if up else above
            row.sort(key=_mean(near, spot))
            spot.update((n, i) for i, n in enumerate(row))


def _mean(near: dict[int, list[int]], spot: dict[int, int]) -> Callable[[int], float]:
    def key(n: int) -> float:
        return sum(spot[m] for m in near[n]) / len(near[n]) if near[n] else spot[n]

    return key


def _placed(
    rows: list[list[int]],
    wide: dict[int, int],
    above: dict[int, list[int]],
    below: dict[int, list[int]],
) -> dict[int, float]:
    """Where each stands: as near as can be to the mean of its neighbours, side by side."""
    x: dict[int, float] = {}
    for row in rows:
        at = 0.0
        for n in row:
            x[n] = at + wide[n] / 2
            at += wide[n] + GAP[0]
        for n in row:
            x[n] -= at / 2
    for sweep in range(24):
        for row in rows if sweep % 2 else reversed(rows):
            wish = []
            for n in row:
                near = [*above[n], *below[n]]
                if n < 0:  # a wire is to be straight rather than short
                    near = [m for m in near if m < 0] or near
                wish.append(sum(x[m] for m in near) / len(near) if near else x[n])
            x.update(zip(row, _side_by_side(wish, [wide[n] for n in row]), strict=True))
    return x


def _side_by_side(wish: list[float], wide: list[int]) -> list[float]:
    """The places nearest to those wished for, by least squares, that do not overlap."""
    offsets = [0.0]
    for a, b in pairwise(wide):
        offsets.append(offsets[-1] + (a + b) / 2 + GAP[0])
    pools: list[tuple[float, int]] = []  # neighbours that touch stand at their common mean
    for w, offset in zip(wish, offsets, strict=True):
        mean, size = w - offset, 1
        while pools and pools[-1][0] > mean:
            other, n = pools.pop()
            mean, size = (mean * size + other * n) / (size + n), size + n
        pools.append((mean, size))
    flat = [mean for mean, size in pools for _ in range(size)]
    return [a + b for a, b in zip(flat, offsets, strict=True)]


def _listed(unrolled: Unrolled, box: Box) -> Inside:
    """Very many operations, in the order in which they ran, from below."""
    count = len(box.items)
    crowd = count > CROWD
    across, tall, gap = (100, 8, 3) if crowd else (8, TALL, 8)
    widths = [8 if crowd else _wide(label(unrolled.items[n])) for n in box.items]
    wide = max(widths)
    lines = -(-count // across)
    height = lines * (tall + gap) + 2 * gap
    places = [
        (
            GAP[0] + (i % across) * (wide + gap) + wide // 2,
            height - gap - (i // across) * (tall + gap) - tall // 2 - gap // 2,
            widths[i],
        )
        for i in range(count)
    ]
    width = min(count, across) * (wide + gap) + 2 * GAP[0]
    return Inside(width, height, tall, places, [], [], [])
