"""The unrolled tape in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tinygradrnn.viz.layout import Column, columns
from tinygradrnn.viz.svg import _number, _shape, _short
from tinygradrnn.viz.unrolled import Box, Row, Unrolled

WIDE = 11  # of a box, its frame included
BETWEEN = 8


def text(unrolled: Unrolled, title: str = "", width: int = 100) -> str:
    """Draw the tape with box characters, the last loop on top; the way back is below each loop."""
    most = max(3, (width + BETWEEN) // (WIDE + BETWEEN))
    drawn = columns(unrolled.times, most)
    lines = [title] if title else []
    lines += unrolled.notes
    for row in reversed(unrolled.rows):
        lines += _loop(unrolled, row, drawn) if row.is_loop else _bar(unrolled, row, drawn)
    if drawn:
        lines.append(_centred([_time(c) for c in drawn]))
    lines += _weights(unrolled)
    return "\n".join(line.rstrip() for line in lines)


def _bar(u: Unrolled, row: Row, drawn: Sequence[Column]) -> list[str]:
    operations = list(dict.fromkeys(u.items[n].operation for n in row.boxes[0].items))
    wide = max(len(drawn) * (WIDE + BETWEEN) - BETWEEN, 20) - 2
    label = _short(", ".join(operations), wide)
    return ["┌" + "─" * wide + "┐", "│" + label.center(wide) + "│", "└" + "─" * wide + "┘"]


def _loop(u: Unrolled, row: Row, drawn: Sequence[Column]) -> list[str]:
    by_time = {b.t: b for b in row.boxes}
    cells = [[by_time[t] for t in range(c.first, c.last + 1) if t in by_time] for c in drawn]
    turned = len(row.boxes) > 1 and (row.boxes[0].t or 0) > (row.boxes[1].t or 0)
    rims: list[str] = []
    names: list[str] = []
    counts: list[str] = []
    feet: list[str] = []
    ups: list[str] = []
    inner = WIDE - 2
    for i, (column, boxes) in enumerate(zip(drawn, cells, strict=True)):
        goes = any(c.first in boxes and c.second.row is not row for c in u.crossings)
        ups.append("▲" if goes else " ")
        if not boxes:
            for part in (rims, names, counts, feet):
                part.append(" " * WIDE)
        else:
            n = len(boxes[0].items)
            count = f"{n} op{'s' if n > 1 else ''}"
            rims.append("╭" + "─" * inner + "╮")
            names.append("│" + _short(row.name, inner).center(inner) + "│")
            said = count if column.single else f"× {len(boxes)}"
            counts.append("│" + _short(said, inner).center(inner) + "│")
            feet.append("╰" + "─" * inner + "╯")
        if i + 1 < len(drawn):
            signs = _boundary(u, boxes, cells[i + 1], turned)
            for part, sign in zip((rims, names, counts, feet), signs, strict=True):
                part.append(sign.center(BETWEEN))
    return [_centred(ups), *("".join(part) for part in (rims, names, counts, feet))]


def _boundary(
    u: Unrolled, left: Sequence[Box], right: Sequence[Box], turned: bool
) -> tuple[str, str, str, str]:
    """What stands between two columns: what goes on, and below it what comes back."""
    nothing = "", "", "", ""
    if not left or not right:
        return nothing
    first, second = (right[0], left[-1]) if turned else (left[-1], right[0])
    c = u.between(first, second)
    if c is None:
        return nothing
    if c.factor == 0 and not c.names:
        return "┊", "cut ┊    ", "┊", "┊"
    names = _short(", ".join(c.names), BETWEEN - 1)
    line = "─" * (BETWEEN - 3)
    on, back = ("◄" + line, line + "►") if turned else (line + "►", "◄" + line)
    if c.norm is None:
        return names, on, "", ""
    if not c.norm:
        return names, on, "", "nothing"
    factor = "" if c.factor == 1 else f"×{c.factor:g}"
    return names, on, back, _short(_number(c.norm) + factor, BETWEEN)


def _time(column: Column) -> str:
    return f"t={column.first}" if column.single else f"t={column.first}..{column.last}"


def _centred(words: Sequence[str]) -> str:
    return (" " * BETWEEN).join(word.center(WIDE) for word in words)


def _weights(u: Unrolled) -> list[str]:
    found = [u.items[n] for n in u.leaves]
    if not found:
        return []
    rows = [("weights, drawn once", "shape", "uses", "|gradient|")]
    for item in found:
        g = item.gradients[0]
        norm = "" if g is None else _number(float(g["norm"]))
        rows.append((_short(item.name, 40), _shape(item.shape), str(item.uses), norm))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [""]
    for a, b, c, d in rows:
        lines.append(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}")
    cuts = sorted({c.second.t for c in u.crossings if c.factor == 0 and c.second.t is not None})
    if cuts:
        more = " ..." if len(cuts) > 12 else ""
        lines.append(f"cut before step{'s' if len(cuts) > 1 else ''} {str(cuts[:12])[1:-1]}{more}")
    norms = [c.norm for c in u.crossings if c.first.row is c.second.row and c.norm]
    if norms:
        lowest, highest = _number(min(norms)), _number(max(norms))
        lines.append(
            f"on the way back the cotangent of a state has a norm from {lowest} to {highest}"
        )
    return lines
