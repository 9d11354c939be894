"""The unrolled tape as one still picture."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Any

from tinygradrnn.viz.layout import HEAD, Column, Inside, Point, columns, inside
from tinygradrnn.viz.unrolled import Box, Crossing, Row, Unrolled
from tinygradrnn.viz.words import how_many, label, number, operations, shape, short, shorter, told

# Okabe and Ito's colours, which also those tell apart who see fewer.
STYLE = """
.back{fill:#fff}.ink{fill:#222}.soft{fill:#666}.box{fill:#e8f1fa;stroke:#0072b2;stroke-width:1.5}
.bar{fill:#f3f3f3;stroke:#999}.rolled{fill:#f5f9fd;stroke:#0072b2;stroke-dasharray:5 3}
.pill{fill:#fff;stroke:#0072b2}.state{fill:#fdf3e1;stroke:#e69f00;stroke-width:1.5}
.leaf{fill:#e3f5ee;stroke:#009e73;stroke-width:1.5}.wire{stroke:#8a949c;fill:none}
.frame{fill:none;stroke:#0072b2;stroke-dasharray:2 3}
.port{fill:none;stroke:#8a949c;stroke-dasharray:2 2}.portstate{fill:none;stroke:#e69f00}
.portcut{fill:none;stroke:#cc79a7;stroke-dasharray:4 3}
.on{stroke:#555;fill:none;stroke-width:1.6}.silent{stroke:#555;fill:none;stroke-dasharray:2 3}
.tip{fill:#555}.way{stroke:#d55e00;fill:none}.waytip{fill:#d55e00}.waytext{fill:#b34f00}
.cut{stroke:#cc79a7;stroke-width:2.5;stroke-dasharray:6 4;fill:none}.cuttext{fill:#a8427c}
.some{stroke:#cc79a7;stroke-width:2.5;fill:none}
.halo{paint-order:stroke;stroke:#e8f1fa;stroke-width:4}
.norm{fill:#d55e00}.data{fill:#666}.uses{stroke:#009e73;fill:none;stroke-width:1.5;opacity:0}
.use:hover .uses,.use:focus .uses{opacity:1}
@media(prefers-color-scheme:dark){.back{fill:#16191d}.ink{fill:#eee}.soft{fill:#aaa}
.box{fill:#13293c;stroke:#56b4e9}.bar{fill:#24282d;stroke:#777}.rolled{fill:#121d27;stroke:#56b4e9}
.pill{fill:#16191d;stroke:#56b4e9}.frame{stroke:#56b4e9}.state{fill:#3a2d10}.leaf{fill:#0f2f25}
.on,.silent{stroke:#bbb}.tip{fill:#bbb}.way{stroke:#f0782d}.waytip,.norm{fill:#f0782d}
.waytext{fill:#ff9d5c}.halo{stroke:#13293c}.cuttext{fill:#e7a5c9}.data{fill:#aaa}}
""".strip()

BOX = 108, 58
SPACE = 66  # between columns
LEFT = 176  # where the weights are
ROLLED = 230
BETWEEN = 56  # rows
MOST = 24  # weights


class _Picture:
    def __init__(self, unrolled: Unrolled, most: int, expand: Sequence[int]) -> None:
        self.u, self.expand = unrolled, set(expand)
        self.columns = columns(unrolled.times, most, expand)
        self.parts: list[str] = []
        self.insides: dict[int, Inside] = {}
        self.left = LEFT + 30 if unrolled.leaves else 16
        self.widths = [self._width(c) for c in self.columns]
        self.lefts: list[int] = []
        x = self.left
        for w in self.widths:
            self.lefts.append(x)
            x += w + SPACE
        self.right = max(x - SPACE + 30, self.left + 420)
        self.heights = [self._height(row) for row in unrolled.rows]
        body = sum(self.heights) + BETWEEN * max(len(self.heights) - 1, 0)
        chips = min(len(unrolled.leaves), MOST + 1)
        self.foot = 62 if self.columns else 16
        self.top = 16.0
        self.title_height = 0
        self.height = 0.0
        self.body, self.chips = body, 18 + 34 * chips if chips else 0
        self.places: dict[int, tuple[float, float, float, float]] = {}

    def inside(self, box: Box) -> Inside:
        if box.kind not in self.insides:
            self.insides[box.kind] = inside(self.u, box)
        return self.insides[box.kind]

    def _boxes(self, column: Column) -> list[Box]:
        return [
            b
            for row in self.u.rows
            for b in row.boxes
            if b.t is not None and column.first <= b.t <= column.last
        ]

    def _width(self, column: Column) -> int:
        if not column.single:
            return ROLLED
        if column.first in self.expand:
            return max([self.inside(b).width for b in self._boxes(column)] + [BOX[0]])
        return BOX[0]

    def _height(self, row: Row) -> int:
        if not row.is_loop:
            return 30
        open_ = [self.inside(b).height + HEAD for b in row.boxes if b.t in self.expand]
        return max([BOX[1], *open_])

    # ---------------------------------------------------------------------------------- drawing

    def draw(self, title: str) -> str:
        self.top = 16 + (26 if title else 0) + 15 * len(self.u.notes)
        self.height = self.top + max(self.body + self.foot, self.chips + 10)
        if title:
            self.text(16, 28, title, "ink", 15, bold=True)
        for i, note in enumerate(self.u.notes):
            self.text(16, self.top - 10 - 15 * (len(self.u.notes) - 1 - i), note, "cuttext", 11)
        y = self.top + self.body
        for row, height in zip(self.u.rows, self.heights, strict=True):
            self._row(row, y - height, height)
            y -= height + BETWEEN
        self._crossings()
        self._time(self.top + self.body + 42)
        self._leaves()
        what = f"{len(self.u.times)} steps, {len(self.u.items)} nodes"
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.right:.0f} '
            f'{self.height:.0f}" width="{self.right:.0f}" height="{self.height:.0f}" role="img" '
            f'font-family="system-ui, sans-serif"><title>{_escape(title or "An unrolled tape")}: '
            f"{what}</title><style>{STYLE}</style><defs>{_arrow('tip', 7)}"
            f"{_arrow('waytip', 11)}</defs>"
            f'<rect class="back" width="100%" height="100%" rx="8"/>\n{body}\n</svg>\n'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        kind: str,
        size: int = 12,
        anchor: str = "start",
        *,
        bold: bool = False,
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" font-size="{size}" '
            f'text-anchor="{anchor}"{weight}>{_escape(text)}</text>'
        )

    def rect(
        self, x: float, y: float, w: float, h: float, kind: str, title: str = "", round_: int = 7
    ) -> None:
        tip = f"<title>{_escape(title)}</title>" if title else ""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{round_}" '
            f'class="{kind}">{tip}</rect>'
        )

    def line(
        self, points: str, kind: str, title: str = "", width: float = 0, tip: str = ""
    ) -> None:
        style = f' stroke-width="{width:.1f}"' if width else ""
        end = f' marker-end="url(#{tip})"' if tip else ""
        inner = f"<title>{_escape(title)}</title>" if title else ""
        self.parts.append(f'<path d="{points}" class="{kind}"{style}{end}>{inner}</path>')

    def _row(self, row: Row, y: float, height: float) -> None:
        if not row.is_loop:
            box = row.boxes[0]
            w = self.right - self.left - 30
            self.rect(self.left, y, w, height, "bar", _told(self.u, box))
            said = short(operations(self.u, box), int(w / 7))
            self.text(self.left + w / 2, y + 19, said, "ink", 12, "middle")
            self.places[id(box)] = (self.left, y, w, height)
            return
        by_time = {b.t: b for b in row.boxes}
        for column, x, w in zip(self.columns, self.lefts, self.widths, strict=True):
            boxes = [by_time[t] for t in range(column.first, column.last + 1) if t in by_time]
            if not boxes:
                continue
            if not column.single:
                self._rolled(row, boxes, x, y, w, height)
            elif column.first in self.expand:
                self._open(boxes[0], x, y, w, height)
            else:
                self._closed(boxes[0], x, y + (height - BOX[1]) / 2, w)
            if boxes[0].data is not None:
                _, top, _, high = self.places[id(boxes[0])]
                middle, low = x + w / 2 - 26, top + high
                self.line(f"M{middle:.0f} {low + 20:.0f}V{low + 3:.0f}", "on", tip="tip")
                self.parts.append(
                    f'<circle cx="{middle:.0f}" cy="{low + 22:.0f}" r="3" class="data"/>'
                )
                names = short(", ".join(boxes[-1].data or ()), 8)
                self.text(middle - 7, low + 26, names, "soft", 10, "end")

    def _closed(self, box: Box, x: float, top: float, w: float) -> None:
        left = x + (w - BOX[0]) / 2
        self.places[id(box)] = (left, top, BOX[0], BOX[1])
        self.rect(left, top, *BOX, "box", _told(self.u, box))
        self.text(x + w / 2, top + 26, shorter(box.row.name, 15), "ink", 12, "middle")
        self.text(x + w / 2, top + 43, how_many(box), "soft", 10, "middle")

    def _rolled(
        self, row: Row, boxes: list[Box], x: float, y: float, w: float, height: float
    ) -> None:
        top = y + (height - BOX[1]) / 2
        for box in boxes:
            self.places[id(box)] = (x, top, w, BOX[1])
        self.rect(x, top, w, BOX[1], "rolled", f"steps {boxes[0].t} to {boxes[-1].t}")
        kinds = len({b.kind for b in boxes})
        like = "one step" if kinds == 1 else f"{kinds} kinds of step"
        name = shorter(row.name, 14)
        self.text(x + w / 2, top + 15, f"{name}: {like} × {len(boxes)}", "ink", 12, "middle")
        norms = [self.u.arriving(b) for b in boxes]
        logs = [math.log10(n) for n in norms if n and math.isfinite(n)]
        wide = (w - 16) / len(boxes)
        for a, b in pairwise(boxes):
            c = self.u.between(a, b)
            if c is not None and c.cut:
                at = x + 8 + wide * (max(boxes.index(a), boxes.index(b)))
                self.line(f"M{at:.1f} {top + 31:.0f}V{top + BOX[1]:.0f}", "cut", "cut", 1)
        if not logs:
            return
        low, high = min(logs), max(max(logs), min(logs) + 1)
        ends = f"|∇| {number(10 ** min(logs))} to {number(10 ** max(logs))}"
        self.text(x + w / 2, top + 27, ends, "waytext", 9, "middle")
        in_time = sorted(zip((b.t or 0 for b in boxes), norms, strict=True))
        for i, (t, n) in enumerate(in_time):
            tall = 2 + 22 * (math.log10(n) - low) / (high - low) if n and math.isfinite(n) else 0
            self.parts.append(
                f'<rect x="{x + 8 + i * wide:.2f}" y="{top + BOX[1] - 4 - tall:.1f}" '
                f'width="{max(wide - 0.3, 0.4):.2f}" height="{tall:.1f}" class="norm">'
                f"<title>step {t}: |gradient| {number(n)}</title></rect>"
            )

    def _open(self, box: Box, x: float, y: float, w: float, height: float) -> None:
        drawn = self.inside(box)
        left, top = x + (w - drawn.width) / 2, y + (height - drawn.height - HEAD) / 2
        self.places[id(box)] = (left, top, drawn.width, drawn.height + HEAD)
        self.rect(left, top, drawn.width, drawn.height + HEAD, "box")
        self.text(left + 8, top + 16, f"{box.row.name}, t = {box.t}", "ink", 11, bold=True)
        top += HEAD
        for fx, fy, fw, fh, _ in drawn.frames:
            self.rect(left + fx, top + fy, fw, fh, "frame")
        for wire in drawn.wires:
            self.line(curve([(left + px, top + py) for px, py in wire]), "wire")
        for fx, fy, *_, name in drawn.frames:
            self.text(left + fx + 7, top + fy + 14, name, "soft halo", 10)
        for (px, py, pw), name, kind in drawn.ports:
            style = f"port{kind}" if kind in ("state", "cut") else "port"
            said = {"cut": "without its history", "state": "from the step before"}.get(kind, kind)
            title = f"{name}: {said}"
            self.rect(left + px - pw / 2, top + py - 9, pw, 18, style, title, 9)
            self.text(left + px, top + py + 4, name, "soft", 10, "middle")
        going = {n for c in self.u.crossings if c.first is box for n in (*c.names, *c.silent)}
        tall = drawn.tall
        for n, (px, py, pw) in zip(box.items, drawn.places, strict=True):
            item = self.u.items[n]
            kind = "state" if item.name and item.name in going else "pill"
            self.rect(left + px - pw / 2, top + py - tall / 2, pw, tall, kind, told(item), 6)
            if tall > 12:
                self.text(left + px, top + py + 4, label(item), "ink", 11, "middle")

    # -------------------------------------------------------------------------------- crossings

    def _crossings(self) -> None:
        across: dict[tuple[Any, Any], list[Crossing]] = {}
        for c in self.u.crossings:
            a, b = self.places.get(id(c.first)), self.places.get(id(c.second))
            if a is None or b is None or a == b:
                continue
            across.setdefault((a, b), []).append(c)
        tops = [c.norm for cs in across.values() for c in cs if c.norm and math.isfinite(c.norm)]
        biggest = max(tops, default=1.0)
        for (a, b), crossings in across.items():
            near = [c for c in crossings if self.u.adjacent(c)]
            c = (near or crossings)[-1]
            if near:
                self._along(a, b, c, biggest)
            elif c.first.row is c.second.row and c.first.row.is_loop:
                self._over(a, b, c)
            elif c.first.row.is_loop or c.second.row.is_loop:
                self._up(a, b, crossings)
            else:
                self._around(a, b)

    def _along(self, a: Any, b: Any, c: Crossing, biggest: float) -> None:
        """Within a loop: the state goes on, its cotangent comes back."""
        sign = 1 if b[0] > a[0] else -1
        x1, x2 = (a[0] + a[2], b[0]) if sign > 0 else (a[0], b[0] + b[2])
        names = ", ".join(c.names)
        said = f"{names or 'state'}: step {c.first.t} to step {c.second.t}"
        middle = (x1 + x2) / 2
        y1, y2 = a[1] + a[3] * 0.3, b[1] + b[3] * 0.3
        low = max(a[1] + a[3], b[1] + b[3])
        if c.cut:
            top = min(a[1], b[1]) - 8
            if c.silent:
                self._silent(x1, x2, y1, y2, sign, c)
            self.line(f"M{middle:.0f} {top:.0f}V{low + 4:.0f}", "cut", "no gradient comes back")
            self.text(middle, low + 17, "cut", "cuttext", 11, "middle", bold=True)
            return
        self.line(_sideways(x1, y1, x2 - 3 * sign, y2), "on", said, tip="tip")
        self.text(middle, min(y1, y2) - 5, short(names, 10), "soft", 10, "middle")
        if c.norm is None:
            return
        y1, y2 = a[1] + a[3] * 0.7, b[1] + b[3] * 0.7
        shown = number(c.norm) if c.norm else "nothing"
        said = f"cotangent of the state back to step {c.first.t}: norm {shown}"
        if c.label:
            y = (y1 + y2) / 2
            self.line(f"M{middle:.0f} {y - 9:.0f}V{y + 9:.0f}", "some", c.label)
        # A factor of ten is one pixel and a half.
        wide = 5 + 1.5 * math.log10(c.norm / biggest) if c.norm and math.isfinite(c.norm) else 1
        kind = "way" if c.norm else "silent"
        self.line(_sideways(x2, y2, x1 + 5 * sign, y1), kind, said, max(1.0, wide), "waytip")
        self.text(middle, max(y1, y2) + 16, shown, "waytext", 10, "middle")
        marks = [c.label] if c.label else []
        marks += [f"{', '.join(c.silent)} cut"] if c.silent else []
        self.text(middle, low + 17, "; ".join(marks), "cuttext", 9, "middle", bold=True)

    def _over(self, a: Any, b: Any, c: Crossing) -> None:
        """Within a loop, past other steps."""
        x1, x2 = (a[0] + a[2] - 12, b[0] + 12) if b[0] > a[0] else (a[0] + 12, b[0] + b[2] - 12)
        self.line(
            f"M{x1:.0f} {a[1]:.0f}C{x1:.0f} {a[1] - 26:.0f} {x2:.0f} {b[1] - 26:.0f} "
            f"{x2:.0f} {b[1]:.0f}",
            "wire",
            f"{', '.join(c.names) or 'state'}: step {c.first.t} to step {c.second.t}",
        )

    def _silent(self, x1: float, x2: float, y1: float, y2: float, sign: int, c: Crossing) -> None:
        names = ", ".join(c.silent)
        said = f"{names}: goes on without its history"
        self.line(_sideways(x1, y1, x2 - 3 * sign, y2), "silent", said, 1.6, "tip")
        self.text((x1 + x2) / 2 - 16, min(y1, y2) - 5, short(names, 5), "soft", 10, "middle")

    def _up(self, a: Any, b: Any, crossings: Sequence[Crossing]) -> None:
        """From one row to another."""
        up = b[1] < a[1]
        x = max(a[0], b[0]) + min(a[2], b[2]) / 2
        if a[0] + a[2] < b[0] or b[0] + b[2] < a[0]:  # nothing above one another
            x = a[0] + a[2] / 2
        x1 = min(max(x, a[0] + 8), a[0] + a[2] - 8)
        x2 = min(max(x, b[0] + 8), b[0] + b[2] - 8)
        y1, end = (a[1], b[1] + b[3] + 3) if up else (a[1] + a[3], b[1] - 3)
        norms = [c.norm for c in crossings if c.norm]
        said = f"gradient norm {number(math.hypot(*norms))}" if norms else ""
        self.line(curve([(x1, y1), (x2, end)]), "on", said, tip="tip")

    def _around(self, a: Any, b: Any) -> None:
        """From one bar to another, past the loop between them."""
        x, y1, y2 = a[0] + a[2], a[1] + a[3] / 2, b[1] + b[3] / 2
        self.line(f"M{x:.0f} {y1:.0f}h14V{y2:.0f}h-11", "on", tip="tip")

    def _time(self, y: float) -> None:
        for column, x, w in zip(self.columns, self.lefts, self.widths, strict=True):
            name = (
                f"t = {column.first}" if column.single else f"t = {column.first} ... {column.last}"
            )
            self.text(x + w / 2, y, name, "soft", 12, "middle")

    def _leaves(self) -> None:
        y = self.top + 10
        if self.u.leaves:
            self.text(14, y, "weights, drawn once", "soft", 11)
        for n in self.u.leaves[:MOST]:
            item = self.u.items[n]
            y += 34
            self.parts.append('<g class="use">')
            self.rect(12, y - 24, LEFT - 22, 29, "leaf", told(item))
            self.text(20, y - 12, short(item.name, 23), "ink", 11, bold=True)
            g = item.gradients[0]
            norm = f"   |∇| {number(g['norm'])}" if g else ""
            self.text(20, y + 0.5, f"{shape(item.shape)}{norm}", "soft", 9)
            self._uses(n, y - 10)
            self.parts.append("</g>")
        if len(self.u.leaves) > MOST:
            self.text(14, y + 26, f"and {len(self.u.leaves) - MOST} more", "soft", 11)

    def _uses(self, leaf: int, y: float) -> None:
        """Lines to the boxes that use a weight, seen while one points at it."""
        for row in self.u.rows:
            found = {self.places[id(box)] for box in self.u.users(leaf, row)}
            if not found:
                continue
            top = min(place[1] for place in found) - 12
            ends = [(place[0] + 14, place[1]) for place in sorted(found)]
            drops = "".join(f"M{x:.0f} {top:.0f}V{end:.0f}" for x, end in ends)
            self.line(f"M{LEFT - 10} {y:.0f}H{LEFT + 8}V{top:.0f}H{ends[-1][0]:.0f}{drops}", "uses")


def curve(points: Sequence[tuple[float, float]]) -> str:
    """A smooth line through points, upright where it goes up or down, else level."""
    (x, y), *rest = points
    made = f"M{x:.0f} {y:.0f}"
    for to_x, to_y in rest:
        if abs(to_y - y) < 4 and to_x != x:
            middle = (x + to_x) / 2
            made += f"C{middle:.0f} {y:.0f} {middle:.0f} {to_y:.0f} {to_x:.0f} {to_y:.0f}"
        elif to_x == x:
            made += f"V{to_y:.0f}"
        else:
            middle = (y + to_y) / 2
            made += f"C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}"
        x, y = to_x, to_y
    return made


def _sideways(x1: float, y1: float, x2: float, y2: float) -> str:
    middle = (x1 + x2) / 2
    return f"M{x1:.0f} {y1:.0f}C{middle:.0f} {y1:.0f} {middle:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"


def _escape(text: str) -> str:
    """A text as it stands in XML, which has no signs for control characters and half pairs."""
    return escape(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", text))


def _arrow(name: str, size: int) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="{size}" '
        f'markerHeight="{size}" orient="auto" markerUnits="userSpaceOnUse">'
        f'<path d="M0 0L8 4L0 8z" class="{name}"/></marker>'
    )


def _told(u: Unrolled, box: Box) -> str:
    lines = [f"{u.items[n].name} = {u.items[n].text}".removeprefix(" = ") for n in box.items[:30]]
    return "\n".join([*lines, "..."] if len(box.items) > 30 else lines)


def svg(unrolled: Unrolled, title: str = "", most: int = 8, expand: Sequence[int] = ()) -> str:
    """Draw the tape."""
    return _Picture(unrolled, most, expand).draw(title)


__all__ = ["STYLE", "Point", "curve", "svg"]
