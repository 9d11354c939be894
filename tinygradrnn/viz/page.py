"""The unrolled tape as one page to click through: no network, no other file."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from tinygradrnn.viz.document import asset, document, embedded
from tinygradrnn.viz.layout import inside
from tinygradrnn.viz.svg import STYLE
from tinygradrnn.viz.unrolled import Box, Unrolled


def page(unrolled: Unrolled, title: str = "", most: int = 8) -> str:
    """Draw the tape as a page."""
    heading = title or "An unrolled tape"
    notes = "".join(f"<p class='note'>{escape(n)}</p>" for n in unrolled.notes)
    body = asset("tape.html").replace("{{title}}", escape(heading)).replace("{{notes}}", notes)
    script = f"const DATA = {embedded(_data(unrolled, most))};\n{asset('tape.js')}"
    return document(heading, STYLE + "\n" + asset("tape.css"), body, script)


def _data(u: Unrolled, most: int) -> dict[str, Any]:
    places = {id(b): (i, j) for i, row in enumerate(u.rows) for j, b in enumerate(row.boxes)}

    def box_of(box: Box | None) -> Any:
        return None if box is None else places[id(box)]

    # What the same operation of another step shares with this one is written once.
    alike = ("operation", "name", "shape", "text", "where", "layer", "input_names")
    facts: dict[str, int] = {}
    items: list[dict[str, Any]] = []
    for item in u.items:
        held = vars(item)
        common = json.dumps({k: held[k] for k in alike})
        own = {k: v for k, v in held.items() if k not in alike}
        items.append(
            {**own, "box": box_of(item.box), "facts": facts.setdefault(common, len(facts))}
        )
    crossings = [
        {
            "first": box_of(c.first),
            "second": box_of(c.second),
            "norm": c.norm,
            "names": c.names,
            "factor": c.factor,
            "mark": c.mark,
        }
        for c in u.crossings
    ]
    rows = [
        {
            "name": row.name,
            "loop": row.is_loop,
            "boxes": [
                {"t": b.t, "items": b.items, "kind": b.kind, "data": b.data} for b in row.boxes
            ],
        }
        for row in u.rows
    ]
    kinds = [inside(u, b)._asdict() for b in u.kinds]
    visits: list[dict[str, Any]] = []
    for n, g, shares in u.visits:
        given = [
            {"to": ref, "share": share} | ({} if u.items[ref[0]].operation else {"sum": total})
            for ref, share, total in shares
        ]
        whole = g == u.items[n].gradients  # but not where several walks come past
        visits.append({"item": n, "shares": given} | ({} if whole else {"cotangents": g}))
    return {
        "items": items,
        "facts": [json.loads(common) for common in facts],
        "leaves": u.leaves,
        "rows": rows,
        "crossings": crossings,
        "kinds": kinds,
        "visits": visits,
        "times": u.times,
        "most": most,
    }
