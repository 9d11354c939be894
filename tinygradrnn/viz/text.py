"""The unrolled tape in a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinygradrnn.viz.layout import Column, columns
from tinygradrnn.viz.unrolled import Box, Crossing, Row, Unrolled
from tinygradrnn.viz.words import number, operations, shape, short, shorter

BETWEEN = 8
LEAST, MOST = 11, 19  # the width of a box, its frame included


def text(unrolled: Unrolled, title: str = "", width: int = 100) -> str:
    """Draw the tape with box characters, the last loop on top; the way back is below each loop."""
    return _Drawing(unrolled, width).draw(title)


class _Drawing:
    def __init__(self, unrolled: Unrolled, width: int) -> None:
        self.u = unrolled
        self.columns = columns(unrolled.times, max(3, (width + BETWEEN) // (LEAST + BETWEEN)))
        names = [len(row.name) for row in unrolled.rows if row.is_loop]
        n = max(len(self.columns), 1)
        room = (width - BETWEEN * (n - 1)) // n  # for long names, if there is some
        wanted = min(max([*names, 0]) + 4, MOST)
        self.wide = max(LEAST, min(wanted, room))

    def draw(self, title: str) -> str:
        lines = [title] if title else []
        lines += self.u.notes
        for row in reversed(self.u.rows):
            lines += self._loop(row) if row.is_loop else self._bar(row)
        if self.columns:
            lines.append(self._centred([_time(c) for c in self.columns]))
        lines += _weights(self.u)
        return "\n".join(line.rstrip() for line in lines)

    def _centred(self, words: Sequence[str]) -> str:
        return (" " * BETWEEN).join(short(word, self.wide).center(self.wide) for word in words)

    def _bar(self, row: Row) -> list[str]:
        wide = max(len(self.columns) * (self.wide + BETWEEN) - BETWEEN, 40) - 2
        label = short(operations(self.u, row.boxes[0]), wide)
        return ["┌" + "─" * wide + "┐", "│" + label.center(wide) + "│", "└" + "─" * wide + "┘"]

    def _loop(self, row: Row) -> list[str]:
        by_time = {b.t: b for b in row.boxes}
        cells = [
            [by_time[t] for t in range(c.first, c.last + 1) if t in by_time] for c in self.columns
        ]
        turned = len(row.boxes) > 1 and (row.boxes[0].t or 0) > (row.boxes[1].t or 0)
        away = {id(c.first) for c in self.u.crossings if c.second.row is not row}
        ups = ["▲" if any(id(b) in away for b in boxes) else "" for boxes in cells]
        rims: list[str] = []
        names: list[str] = []
        counts: list[str] = []
        feet: list[str] = []
        inner = self.wide - 2
        for i, (column, boxes) in enumerate(zip(self.columns, cells, strict=True)):
            if not boxes:
                for part in (rims, names, counts, feet):
                    part.append(" " * self.wide)
            else:
                n = len(boxes[0].items)
                said = f"{n} op{'s' if n > 1 else ''}" if column.single else f"× {len(boxes)}"
                rims.append("╭" + "─" * inner + "╮")
                names.append("│" + shorter(row.name, inner).center(inner) + "│")
                counts.append("│" + said.center(inner) + "│")
                feet.append("╰" + "─" * inner + "╯")
            if i + 1 < len(cells):
                c = self._crossing(boxes, cells[i + 1], turned=turned)
                signs = ("", "", "", "") if c is None else _signs(c, turned=turned)
                for part, sign in zip((rims, names, counts, feet), signs, strict=True):
                    part.append(sign.center(BETWEEN))
        taken = ["↑ " + ", ".join(b[-1].data) if b and b[-1].data else "" for b in cells]
        below = [self._centred(taken)] if any(taken) else []
        return [
            self._centred(ups),
            *("".join(part) for part in (rims, names, counts, feet)),
            *below,
        ]

    def _crossing(
        self, left: Sequence[Box], right: Sequence[Box], *, turned: bool
    ) -> Crossing | None:
        if not left or not right:
            return None
        first, second = (right[0], left[-1]) if turned else (left[-1], right[0])
        return self.u.between(first, second)


def _signs(c: Crossing, *, turned: bool) -> tuple[str, str, str, str]:
    """What stands between two columns: what goes on, and below it what comes back."""
    names = short(", ".join(c.silent if c.cut else c.names), BETWEEN - 1)
    if c.cut:
        on = ("◄╌╌┊╌╌" if turned else "╌╌┊╌╌►") if c.silent else "┊"
        return names or "┊", on, "cut", "┊"
    line = "─" * (BETWEEN - 3)
    on, back = ("◄" + line, line + "►") if turned else (line + "►", "◄" + line)
    if c.norm is None:
        return names, on, "", ""
    if not c.norm:
        return names, on, "", "nothing"
    return names, on, back, short(number(c.norm), BETWEEN)


def _time(column: Column) -> str:
    return f"t={column.first}" if column.single else f"t={column.first}..{column.last}"


def _weights(u: Unrolled) -> list[str]:
    found = [u.items[n] for n in u.leaves]
    if not found:
        return []
    rows = [("weights, drawn once", "shape", "uses", "|gradient|")]
    for item in found:
        g = item.gradients[0]
        norm = "" if g is None else number(g["norm"])
        rows.append((short(item.name, 40), shape(item.shape), str(item.uses), norm))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [""]
    for a, b, c, d in rows:
        lines.append(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}")
    return lines + _way_back(u)


def _way_back(u: Unrolled) -> list[str]:
    """Below the drawing: what comes back, and where it does not; also in columns rolled up."""
    lines: list[str] = []
    inner = [c for c in u.crossings if c.first.row is c.second.row]
    for what in dict.fromkeys("cut" if c.cut else c.label for c in inner):
        here = {c.second.t for c in inner if ("cut" if c.cut else c.label) == what}
        steps = sorted(t for t in here if t is not None)
        if what and steps:
            said = {"some end here": "the way back of some losses ends"}.get(what, what)
            more = f", ... ({len(steps)} in all)" if len(steps) > 12 else ""
            many = "s" if len(steps) > 1 else ""
            lines.append(f"{said} before step{many} {str(steps[:12])[1:-1]}{more}")
    norms = [c.norm for c in inner if c.norm]
    if norms:
        finite = [x for x in norms if math.isfinite(x)]
        if len(finite) < len(norms):
            lines.append("on the way back the cotangent of a state is not finite everywhere")
        lowest, highest = number(min(finite, default=0.0)), number(max(finite, default=0.0))
        lines.append(
            f"on the way back the cotangent of a state has a norm from {lowest} to {highest}"
        )
    return lines
