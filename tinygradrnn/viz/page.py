"""The unrolled tape as one page to click through: no network, no other file."""

from __future__ import annotations

import json
import math
from html import escape
from typing import Any

from tinygradrnn.viz.document import asset, document, embedded
from tinygradrnn.viz.layout import inside
from tinygradrnn.viz.svg import STYLE
from tinygradrnn.viz.unrolled import Crossing, Item, Ref, Unrolled
from tinygradrnn.viz.words import label, operations


def page(unrolled: Unrolled, title: str = "", most: int = 8) -> str:
    """Draw the tape as a page."""
    heading = title or "An unrolled tape"
    notes = "".join(f"<p class='note'>{escape(n)}</p>" for n in unrolled.notes)
    body = asset("tape.html").replace("{{title}}", escape(heading)).replace("{{notes}}", notes)
    script = f"const DATA = {embedded(_Packer(unrolled).data(most))};\n{asset('tape.js')}"
    return document(heading, STYLE + "\n" + asset("tape.css"), body, script)


class _Packer:
    """The facts as JSON, with what many share written once: a page of 200 steps must stay small."""

    def __init__(self, unrolled: Unrolled) -> None:
        self.u = unrolled
        self.shapes: dict[tuple[int, ...], int] = {}
        self.facts: dict[str, int] = {}

    def data(self, most: int) -> dict[str, Any]:
        u = self.u
        places = {id(b): (i, j) for i, row in enumerate(u.rows) for j, b in enumerate(row.boxes)}
        items = [self._item(item) for item in u.items]
        visits = [self._visit(*visit) for visit in u.visits]
        return {
            "items": items,
            "facts": [json.loads(common) for common in self.facts],
            "shapes": list(self.shapes),
            "leaves": u.leaves,
            "rows": [
                {
                    "name": row.name,
                    "loop": row.is_loop,
                    "told": "" if row.is_loop else operations(u, row.boxes[0]),
                    "boxes": [
                        {"t": b.t, "items": b.items, "kind": b.kind, "norm": _json(u.arriving(b))}
                        for b in row.boxes
                    ],
                }
                for row in u.rows
            ],
            "crossings": [
                {
                    **_crossing(c),
                    "first": places[id(c.first)],
                    "second": places[id(c.second)],
                    "near": u.adjacent(c),
                }
                for c in u.crossings
            ],
            "kinds": [{**inside(u, b)._asdict(), "data": b.data} for b in u.kinds],
            "visits": visits,
            "times": u.times,
            "most": most,
        }

    def _item(self, item: Item) -> list[Any]:
        alike = ("operation", "name", "names", "shape", "text", "where", "layer", "inner")
        common = {k: getattr(item, k) for k in (*alike, "input_names", "nbytes")}
        common["label"] = label(item) if item.operation else item.name
        fact = self.facts.setdefault(json.dumps(common), len(self.facts))
        data = [self._pack(x) for x in item.data]
        return [
            fact,
            [None if ref is None else _place(ref) for ref in item.inputs],
            data if any(data) else 0,
            [self._pack(x) for x in item.values],
            [self._pack(x) for x in item.gradients],
        ]

    def _visit(
        self, n: int, cotangents: list[Any], shares: list[tuple[Ref, Any, Any]]
    ) -> list[Any]:
        given = [
            [_place(ref), self._pack(share)] + ([] if total is None else [self._pack(total)])
            for ref, share, total in shares
        ]
        # What arrived is the gradient, but not where several walks come past.
        whole = cotangents == self.u.items[n].gradients
        return [n, given] + ([] if whole else [[self._pack(g) for g in cotangents]])

    def _pack(self, x: dict[str, Any] | None) -> list[Any] | None:
        if x is None:
            return None
        kind = self.shapes.setdefault(tuple(x["shape"]), len(self.shapes))
        if "values" in x:
            return [kind, x["norm"], x["values"]]
        return [kind, x["norm"], None, x.get("range"), *([x["odd"]] if "odd" in x else [])]


def _place(ref: Ref) -> int | Ref:
    return ref if ref[1] else ref[0]


def _json(x: float | None) -> float | str | None:
    return x if x is None or math.isfinite(x) else str(x)


def _crossing(c: Crossing) -> dict[str, Any]:
    return {
        "norm": _json(c.norm),
        "names": c.names,
        "silent": c.silent,
        "cut": c.cut,
        "label": c.label,
    }
