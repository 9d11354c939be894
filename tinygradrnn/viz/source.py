"""What the author's program says of a node: its expression, its arguments' names, its place."""

from __future__ import annotations

from pathlib import Path

import tinygradrnn
from tinygradrnn.region import Region
from tinygradrnn.tape import Leaf, Node
from tinygradrnn.watch import Record


def argument_names(node: Node, record: Record | None) -> list[str]:
    """What the arguments are called, numbers what they are; empty for what has no name."""
    leaves = [e.name if isinstance(e, Leaf) else "" for e in node.inputs]
    if record is None:
        return leaves
    numbers = [f"{x:g}" if isinstance(x, int | float) else "" for x in record.inputs]
    return [a or b or c for a, b, c in zip(numbers, record.input_names, leaves, strict=True)]


def written(record: Record | None) -> str:
    """The expression as the author wrote it, if that is known and no long story."""
    known = record is not None and where(record) and len(record.text) <= 60
    return record.text if known and record is not None else ""


def call(node: Node, names: list[str]) -> str:
    """The operation and its arguments."""
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
