"""The unrolled tape as one still picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from tinygradrnn.viz.layout import PILL, Column, Inside, columns, inside
from tinygradrnn.viz.unrolled import Box, Crossing, Item, Row, Unrolled

# Okabe and Ito's colours, which also those tell apart who see fewer.
STYLE = """
.back{fill:#fff}.ink{fill:#222}.soft{fill:#666}.box{fill:#e8f1fa;stroke:#0072b2;stroke-width:1.5}
.bar{fill:#f3f3f3;stroke:#999}.rolled{fill:#f5f9fd;stroke:#0072b2;stroke-dasharray:5 3}
.pill{fill:#fff;stroke:#0072b2}.state{fill:#fdf3e1;stroke:#e69f00;stroke-width:1.5}
.leaf{fill:#e3f5ee;stroke:#009e73;stroke-width:1.5}.wire{stroke:#888;fill:none}
.on{stroke:#444;fill:none;stroke-width:1.6}.way{stroke:#d55e00;fill:none}.waytext{fill:#b34f00}
.cut{stroke:#cc79a7;stroke-width:2.5;stroke-dasharray:6 4}.cuttext{fill:#a8427c}.norm{fill:#d55e00}
.data{fill:#666}
@media(prefers-color-scheme:dark){.back{fill:#16191d}.ink{fill:#eee}.soft{fill:#aaa}
.box{fill:#13293c;stroke:#56b4e9}.bar{fill:#24282d;stroke:#777}.rolled{fill:#121d27;stroke:#56b4e9}
.pill{fill:#16191d;stroke:#56b4e9}.state{fill:#3a2d10}.leaf{fill:#0f2f25}.on{stroke:#ccc}
.waytext{fill:#ff9d5c}.cuttext{fill:#e7a5c9}.data{fill:#aaa}}
""".strip()

BOX = 104, 54
SPACE = 58  # between columns
LEFT = 176  # where the weights are
ROLLED = 210


class _Picture:
    def __init__(self, unrolled: Unrolled, most: int, expand: Sequence[int]) -> None:
        self.u, self.expand = unrolled, set(expand)
        self.columns = columns(unrolled.times, most, expand)
        self.parts: list[str] = []
        self.insides: dict[int, Inside] = {}
        self.widths = [self._width(c) for c in self.columns]
        self.lefts: list[int] = []
        x = LEFT + 30
        for w in self.widths:
            self.lefts.append(x)
            x += w + SPACE
        self.right = max(x - SPACE + 30, LEFT + 420)
        self.heights = [self._height(row) for row in unrolled.rows]
        chips = len(unrolled.leaves)
        body = sum(h + 52 for h in self.heights)
        self.top = 46
        self.height = max(self.top + body + 64, self.top + 60 + 34 * min(chips, 24))
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
        open_ = [self.inside(b).height + 22 for b in row.boxes if b.t in self.expand]
        return max([BOX[1], *open_])

    # ---------------------------------------------------------------------------------- drawing

    def draw(self, title: str) -> str:
        y = self.height - 64
        for row, height in zip(self.u.rows, self.heights, strict=True):
            self._row(row, y - height, height)
            y -= height + 52
        self._crossings()
        self._time()
        self._leaves()
        if title:
            self.text(self.right / 2, 24, title, "ink", 15, "middle", bold=True)
        for i, note in enumerate(self.u.notes):
            self.text(self.right / 2, 40 + 14 * i, note, "soft", 11, "middle")
        what = f"{len(self.u.times)} steps, {len(self.u.items)} nodes"
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.right:.0f} '
            f'{self.height:.0f}" width="{self.right:.0f}" height="{self.height:.0f}" role="img" '
            f'font-family="system-ui, sans-serif"><title>{escape(title or "An unrolled tape")}: '
            f"{what}</title><style>{STYLE}</style><defs>{_arrow('tip', '#444')}"
            f"{_arrow('waytip', '#d55e00')}</defs>"
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
            f'text-anchor="{anchor}"{weight}>{escape(text)}</text>'
        )

    def rect(self, x: float, y: float, w: float, h: float, kind: str, title: str = "") -> None:
        tip = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="7" '
            f'class="{kind}">{tip}</rect>'
        )

    def line(
        self, points: str, kind: str, title: str = "", width: float = 0, tip: str = ""
    ) -> None:
        style = f' stroke-width="{width:.1f}"' if width else ""
        end = f' marker-end="url(#{tip})"' if tip else ""
        inner = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(f'<path d="{points}" class="{kind}"{style}{end}>{inner}</path>')

    def _row(self, row: Row, y: float, height: float) -> None:
        if not row.is_loop:
            box = row.boxes[0]
            x, w = LEFT + 30, self.right - LEFT - 60
            operations = list(dict.fromkeys(self.u.items[n].operation for n in box.items))
            self.rect(x, y, w, height, "bar", _told(self.u, box))
            label = ", ".join(operations[:6]) + (", ..." if len(operations) > 6 else "")
            self.text(x + w / 2, y + 19, label, "ink", 12, "middle")
            self.places[id(box)] = (x, y, w, height)
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
                top = y + (height - BOX[1]) / 2
                self.places[id(boxes[0])] = (x, top, w, BOX[1])
                self.rect(x, top, w, BOX[1], "box", _told(self.u, boxes[0]))
                self.text(x + w / 2, top + 23, _short(row.name, 15), "ink", 12, "middle")
                n = len(boxes[0].items)
                count = f"{n} operation{'s' if n > 1 else ''}"
                self.text(x + w / 2, top + 40, count, "soft", 10, "middle")
            if boxes[0].data:
                _, top, _, high = self.places[id(boxes[0])]
                middle, low = x + w / 2 - 24, top + high
                self.line(f"M{middle:.0f} {low + 20:.0f}V{low + 3:.0f}", "on", "data", tip="tip")
                self.parts.append(
                    f'<circle cx="{middle:.0f}" cy="{low + 22:.0f}" r="3" class="data"/>'
                )

    def _rolled(
        self, row: Row, boxes: list[Box], x: float, y: float, w: float, height: float
    ) -> None:
        top = y + (height - BOX[1]) / 2
        for box in boxes:
            self.places[id(box)] = (x, top, w, BOX[1])
        self.rect(x, top, w, BOX[1], "rolled")
        kinds = len({b.kind for b in boxes})
        like = "one step" if kinds == 1 else f"{kinds} kinds of step"
        name = _short(row.name, 16)
        self.text(x + w / 2, top + 16, f"{name}: {like} × {len(boxes)}", "ink", 12, "middle")
        norms = [self._norm_into(b) for b in boxes]
        logs = [math.log10(n) for n in norms if n]
        if not logs:
            return
        low, high = min(logs), max(max(logs), min(logs) + 1)
        wide = (w - 16) / len(boxes)
        for i, n in enumerate(norms):
            tall = 2 + 24 * (math.log10(n) - low) / (high - low) if n else 0
            b = boxes[i]
            self.parts.append(
                f'<rect x="{x + 8 + i * wide:.2f}" y="{top + BOX[1] - 5 - tall:.1f}" '
                f'width="{max(wide - 0.3, 0.4):.2f}" height="{tall:.1f}" class="norm">'
                f"<title>step {b.t}: |gradient| {_number(n)}</title></rect>"
            )

    def _norm_into(self, box: Box) -> float:
        """The norm of the cotangent that arrives at what the box passes on."""
        found = [c.norm for c in self.u.crossings if c.first is box and c.norm]
        return math.hypot(*found) if found else 0.0

    def _open(self, box: Box, x: float, y: float, w: float, height: float) -> None:
        drawn = self.inside(box)
        left, top = x + (w - drawn.width) / 2, y + (height - drawn.height - 22) / 2
        self.places[id(box)] = (left, top, drawn.width, drawn.height + 22)
        self.rect(left, top, drawn.width, drawn.height + 22, "box")
        self.text(left + 8, top + 16, f"{box.row.name}, t = {box.t}", "ink", 11, bold=True)
        for a, b in drawn.wires:
            (x1, y1), (x2, y2) = drawn.places[a], drawn.places[b]
            start, end = top + 22 + y1 - PILL[1] / 2, top + 22 + y2 + PILL[1] / 2
            bend = (start - end) / 2
            self.line(
                f"M{left + x1:.0f} {start:.0f}C{left + x1:.0f} {start - bend:.0f} "
                f"{left + x2:.0f} {end + bend:.0f} {left + x2:.0f} {end:.0f}",
                "wire",
            )
        going = {n for c in self.u.crossings if c.first is box for n in c.names}
        for n, (px, py) in zip(box.items, drawn.places, strict=True):
            item = self.u.items[n]
            kind = "state" if item.name and item.name in going else "pill"
            self.rect(left + px - PILL[0] / 2, top + 22 + py - PILL[1] / 2, *PILL, kind, told(item))
            self.text(left + px, top + 22 + py + 4, label(item), "ink", 11, "middle")

    def _crossings(self) -> None:
        across: dict[tuple[Any, Any], list[Crossing]] = {}
        for c in self.u.crossings:
            a, b = self.places.get(id(c.first)), self.places.get(id(c.second))
            if a is None or b is None or a == b:
                continue
            across.setdefault((a, b), []).append(c)
        tops = [c.norm for cs in across.values() for c in cs if c.norm]
        biggest = max(tops, default=1.0)
        for (a, b), crossings in across.items():
            c = crossings[-1]
            if c.first.row is c.second.row and c.first.row.is_loop:
                self._along(a, b, c, biggest)
            else:
                self._up(a, b, crossings)

    def _along(self, a: Any, b: Any, c: Crossing, biggest: float) -> None:
        """Within a loop: the state goes on, its cotangent comes back."""
        forward = b[0] > a[0]
        x1, x2 = (a[0] + a[2], b[0]) if forward else (a[0], b[0] + b[2])
        sign = 1 if forward else -1
        y1, y2 = a[1] + a[3] * 0.3, b[1] + b[3] * 0.3
        far = abs(x2 - x1) > SPACE + 4
        names = ", ".join(c.names)
        told_ = f"{names or 'state'}: step {c.first.t} to step {c.second.t}"
        if c.factor == 0 and not c.names:
            self._cut(x1, x2, min(a[1], b[1]), max(a[1] + a[3], b[1] + b[3]))
            return
        if far:  # past other steps
            self.line(
                f"M{x1:.0f} {a[1]:.0f}C{x1:.0f} {a[1] - 26:.0f} {x2:.0f} {b[1] - 26:.0f} "
                f"{x2:.0f} {b[1]:.0f}",
                "wire",
                told_,
            )
            return
        self.line(
            f"M{x1:.0f} {y1:.0f}C{x1 + 24 * sign:.0f} {y1:.0f} {x2 - 24 * sign:.0f} {y2:.0f} "
            f"{x2 - 5 * sign:.0f} {y2:.0f}",
            "on",
            told_,
            tip="tip",
        )
        if names:
            self.text((x1 + x2) / 2, min(y1, y2) - 5, _short(names, 9), "soft", 10, "middle")
        if c.norm is None:
            return
        y1, y2 = a[1] + a[3] * 0.72, b[1] + b[3] * 0.72
        factor = "" if c.factor == 1 else f" × {c.factor:g}"
        if c.norm:
            # A factor of ten is one pixel and a half.
            wide = max(1.0, 5 + 1.5 * math.log10(c.norm / biggest))
            self.line(
                f"M{x2:.0f} {y2:.0f}C{x2 - 24 * sign:.0f} {y2:.0f} {x1 + 24 * sign:.0f} {y1:.0f} "
                f"{x1 + 6 * sign:.0f} {y1:.0f}",
                "way",
                f"cotangent of the state back to step {c.first.t}: norm {_number(c.norm)}{factor}",
                wide,
                "waytip",
            )
            shown = f"{_number(c.norm)}{factor}"
            self.text((x1 + x2) / 2, max(y1, y2) + 17, shown, "waytext", 10, "middle")
        else:
            self._cut(x1, x2, min(a[1], b[1]) + 14, max(a[1] + a[3], b[1] + b[3]), "nothing")

    def _cut(self, x1: float, x2: float, top: float, low: float, word: str = "cut") -> None:
        x = (x1 + x2) / 2
        self.line(f"M{x:.0f} {top - 8:.0f}V{low + 4:.0f}", "cut", "no gradient goes back from here")
        self.text(x, low + 17, word, "cuttext", 11, "middle", bold=True)

    def _up(self, a: Any, b: Any, crossings: Sequence[Crossing]) -> None:
        """From one row to another."""
        if not (crossings[0].first.row.is_loop or crossings[0].second.row.is_loop):
            self._around(a, b)
            return
        up = b[1] < a[1]
        x = max(a[0], b[0]) + min(a[2], b[2]) / 2
        if a[0] + a[2] < b[0] or b[0] + b[2] < a[0]:  # nothing above one another
            x = a[0] + a[2] / 2
        x1 = min(max(x, a[0] + 8), a[0] + a[2] - 8)
        x2 = min(max(x, b[0] + 8), b[0] + b[2] - 8)
        y1, y2 = (a[1], b[1] + b[3]) if up else (a[1] + a[3], b[1])
        end = y2 + (5 if up else -5)
        norms = [c.norm for c in crossings if c.norm]
        told_ = f"gradient norm {_number(math.hypot(*norms))}" if norms else ""
        middle = (y1 + end) / 2
        self.line(
            f"M{x1:.0f} {y1:.0f}C{x1:.0f} {middle:.0f} {x2:.0f} {middle:.0f} {x2:.0f} {end:.0f}",
            "on",
            told_,
            tip="tip",
        )

    def _around(self, a: Any, b: Any) -> None:
        """From one bar to another, past the loop between them."""
        x, y1, y2 = a[0] + a[2], a[1] + a[3] / 2, b[1] + b[3] / 2
        self.line(f"M{x:.0f} {y1:.0f}h14V{y2:.0f}h-9", "on", tip="tip")

    def _time(self) -> None:
        y = self.height - 20
        for column, x, w in zip(self.columns, self.lefts, self.widths, strict=True):
            name = (
                f"t = {column.first}" if column.single else f"t = {column.first} ... {column.last}"
            )
            self.text(x + w / 2, y, name, "soft", 12, "middle")

    def _leaves(self) -> None:
        y = self.top + 14
        if self.u.leaves:
            self.text(14, y, "weights, drawn once", "soft", 11)
        for n in self.u.leaves[:24]:
            item = self.u.items[n]
            y += 34
            self.rect(12, y - 18, LEFT - 22, 28, "leaf", told(item))
            self.text(20, y - 6, _short(item.name, 24), "ink", 11, bold=True)
            g = item.gradients[0]
            norm = f"   |∇| {_number(float(g['norm']))}" if g else ""
            self.text(20, y + 6, f"{_shape(item.shape)}{norm}", "soft", 9)
        if len(self.u.leaves) > 24:
            self.text(14, y + 26, f"and {len(self.u.leaves) - 24} more", "soft", 11)


def _arrow(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto" markerUnits="userSpaceOnUse"><path d="M0 0L8 4L0 8z" fill="{colour}"/>'
        "</marker>"
    )


def label(item: Item) -> str:
    """What stands on an operation: its name, or the operation itself."""
    sign = {"multiply": "×", "add": "+", "subtract": "−", "matmul": "@", "divide": "÷"}
    call = sign.get(item.operation, item.operation)
    return _short(f"{item.name} = {call}" if item.name else call, 15)


def told(item: Item) -> str:
    """All that is known of an item, in lines."""
    lines = [f"{item.name} = {item.text}" if item.name and item.text else item.text or item.name]
    lines.append(f"shape {_shape(item.shape)}")
    for what, found in (("value", item.values), ("gradient", item.gradients)):
        lines += [f"{what}: {described(x)}" for x in found if x is not None]
    if item.where:
        lines.append(item.where)
    return "\n".join(lines)


def described(x: dict[str, Any]) -> str:
    """A summary in words."""
    if "values" in x:
        return f"{x['values']}"
    if "range" in x:
        low, mean, high = x["range"]
        middle = "" if mean is None else f", mean {_number(mean)}"
        odd = f", {x['odd']} not finite" if "odd" in x else ""
        return f"{_number(low)} to {_number(high)}{middle}, norm {_number(float(x['norm']))}{odd}"
    return f"norm {x['norm']}"


def _told(u: Unrolled, box: Box) -> str:
    return "\n".join(u.items[n].text for n in box.items[:30])


def _number(x: float) -> str:
    return f"{x:.2g}" if x == 0 or 1e-3 <= abs(x) < 1e4 else f"{x:.1e}"


def _shape(shape: Sequence[int]) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def svg(unrolled: Unrolled, title: str = "", most: int = 8, expand: Sequence[int] = ()) -> str:
    """Draw the tape."""
    return _Picture(unrolled, most, expand).draw(title)
