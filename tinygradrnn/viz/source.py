"""What the author's program says of a node: its expression, its arguments' names, its place."""

from __future__ import annotations

from pathlib import Path

import tinygradrnn
from tinygradrnn.region import Region
from tinygradrnn.tape import Leaf, Node
from tinygradrnn.watch import Record


def argument_names(node: Node, record: Record | None) -> list[str]:
    """What the arguments are called; empty for what has no name."""
    given = record.input_names if record else ("",) * len(node.inputs)
    leaves = [e.name if isinstance(e, Leaf) else "" for e in node.inputs]
    return [a or b for a, b in zip(given, leaves, strict=True)]


def call(node: Node, record: Record | None, names: list[str]) -> str:
    """The expression as it is written, or else the operation and its arguments."""
    if record is not None and where(record) and record.text and len(record.text) <= 60:
        return record.text
    if isinstance(node, Region):
        return node.name
    given = [name or node.recipe.op.argument(i) for i, name in enumerate(names)]
    params = [f"{k}={v!r}" for k, v in node.params.items() if v is not None]
    return f"{node.name}({', '.join([*given, *params][:6])})"


def where(record: Record) -> str:
    """The file as one knows it: from the package, or from the folder one is in.

    Empty for what a loop does around its cell when it is run again: its caller then is this room.
    """
    path = Path(record.file)
    if path.parent == Path(__file__).parent:
        return ""
    for root in (Path(tinygradrnn.__file__).parents[1], Path.cwd()):
        if path.is_relative_to(root):
            path = path.relative_to(root)
            break
    else:
        path = Path(path.name)
    return f"{path}:{record.line}, in {record.function}"
