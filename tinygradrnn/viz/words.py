"""Arrays, numbers and operations in a few words, the same in all pictures of the tape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinygradrnn.viz.unrolled import Box, Item, Unrolled

SMALL = 36
"""Up to how many elements an array is shown whole."""

SIGNS = {"multiply": "×", "add": "+", "subtract": "−", "matmul": "@", "divide": "÷"}


def summary(array: Any, backend: Any) -> dict[str, Any] | None:
    """An array in a few numbers: all of them if it is small, else its range and norm."""
    if array is None:
        return None
    import numpy

    host = numpy.asarray(backend.to_host(array) if backend.is_array(array) else array)
    found: dict[str, Any] = {"shape": list(host.shape), "norm": _norm(host)}
    if host.size <= SMALL:
        found["values"] = rounded(host.tolist())
    elif host.dtype.kind == "f":
        finite = host if numpy.isfinite(host).all() else host[numpy.isfinite(host)]
        if finite.size:
            ends = [finite.min(), finite.mean(dtype="float64"), finite.max()]
            found["range"] = rounded([float(x) for x in ends])
        if finite.size < host.size:
            found["odd"] = int(host.size - finite.size)
    else:
        found["range"] = [int(host.min()), None, int(host.max())]
    return found


def _norm(host: Any) -> float | str:
    import numpy

    if host.dtype.kind not in "fiu":
        return 0.0
    with numpy.errstate(all="ignore"):  # an infinity is what one may be looking for
        return rounded(float(numpy.sqrt(numpy.square(host, dtype="float64").sum())))


def rounded(x: Any) -> Any:
    """Five digits; NaN and infinities, which JSON does not know, as text."""
    if isinstance(x, list):
        return [rounded(y) for y in x]
    if not isinstance(x, float):
        return x
    return float(f"{x:.5g}") if math.isfinite(x) else str(x)


def described(x: dict[str, Any]) -> str:
    """A summary in words."""
    if "values" in x:
        return f"{x['values']}"
    odd = f", {x['odd']} not finite" if "odd" in x else ""
    if "range" in x:
        low, mean, high = x["range"]
        middle = "" if mean is None else f", mean {number(mean)}"
        return f"{number(low)} to {number(high)}{middle}, norm {number(x['norm'])}{odd}"
    return f"norm {x['norm']}{odd}"


def number(x: float | str) -> str:
    """Two digits, without more zeros than it takes."""
    x = float(x)
    if x == 0 or 1e-3 <= abs(x) < 1e4 or not math.isfinite(x):
        return f"{x:.2g}" if abs(x) < 100 else f"{x:.0f}"
    digits, power = f"{x:.1e}".split("e")
    return f"{digits}e{int(power)}"


def shape(sizes: Sequence[int]) -> str:
    """As Python writes a tuple."""
    return "(" + ", ".join(map(str, sizes)) + ("," if len(sizes) == 1 else "") + ")"


def short(text: str, most: int) -> str:
    """At most so many characters of it."""
    return text if len(text) <= most else text[: max(most - 1, 0)] + "…"


def shorter(name: str, most: int) -> str:
    """The name of a loop: of a long one the part after the dot says more than the beginning."""
    return name if len(name) <= most else short(name.rpartition(".")[2], most)


def label(item: Item) -> str:
    """What stands on an operation: its name, its text if that is short, or what it does."""
    call = SIGNS.get(item.operation, item.operation)
    if item.name:
        return short(f"{item.name} = {call}", 26)
    return item.text if item.written and len(item.text) <= 14 else short(call, 20)


def told(item: Item) -> str:
    """All that is known of an item, in lines."""
    lines = [f"{item.name} = {item.text}" if item.name and item.text else item.text or item.name]
    lines.append(f"shape {shape(item.shape)}")
    for what, found in (("value", item.values), ("gradient", item.gradients)):
        lines += [f"{what}: {described(x)}" for x in found if x is not None]
    if item.where:
        lines.append(item.where)
    return "\n".join(lines)


def operations(u: Unrolled, box: Box) -> str:
    """What happens in a box, each operation once; and what comes out, if it is a result."""
    names = list(dict.fromkeys(u.items[n].operation for n in box.items))
    text = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    for n, slot in u.results:
        value = u.items[n].values[slot] if n in box.items else None
        if value is not None and value["shape"] == []:
            name = u.items[n].name
            text += f"  →  {name + ' = ' if name else ''}{_exactly(value['values'])}"
    return text


def _exactly(x: Any) -> str:
    return f"{x:.4g}" if isinstance(x, float) else str(x)


def how_many(box: Box) -> str:
    """How much happens in a box."""
    n = len(box.items)
    return f"{n} operation{'s' if n > 1 else ''}"
