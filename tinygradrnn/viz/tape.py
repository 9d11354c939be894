"""``tgr.viz.tape``: the unrolled tape as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from tinygradrnn.errors import DtypeError, ShapeError
from tinygradrnn.io import write_atomic
from tinygradrnn.viz.gather import unroll
from tinygradrnn.viz.page import page
from tinygradrnn.viz.svg import svg
from tinygradrnn.viz.text import text
from tinygradrnn.viz.unrolled import Unrolled


class TapePicture:
    """The unrolled tape, to be drawn as text, as SVG or as a page; in a notebook it is the page.

    Attributes:
        unrolled: The facts that all drawings are made of.
    """

    def __init__(self, unrolled: Unrolled, title: str, most: int) -> None:
        self.unrolled, self._title, self._most = unrolled, title, most

    def text(self, width: int = 100) -> str:
        """For a terminal of `width` columns; three columns of time are drawn in any case."""
        if type(width) is not int or width < 1:
            raise ShapeError(f"viz.tape: width={width!r}; expected a number of columns")
        return text(self.unrolled, self._title, width)

    def svg(self, expand: Sequence[int] = ()) -> str:
        """A still picture; the steps in `expand` show their operations."""
        if not isinstance(expand, Sequence):
            raise ShapeError(f"viz.tape: expand={expand!r}; expected a list of steps")
        unknown = set(expand) - set(self.unrolled.times)
        if unknown:
            raise ShapeError(f"viz.tape: expand={sorted(unknown)}; there are no such steps")
        return svg(self.unrolled, self._title, self._most, expand)

    def html(self) -> str:
        """A page that needs nothing else: steps open, and one can go through node by node."""
        return page(self.unrolled, self._title, self._most)

    def save(self, path: str | Path) -> Path:
        """Write it to a file, as what its suffix says: ``.svg``, ``.html`` or ``.txt``.

        Raises:
            ShapeError: The suffix is another.
        """
        path = Path(path)
        ways = {".svg": self.svg, ".html": self.html, ".txt": self.text}
        if path.suffix not in ways:
            raise ShapeError(f"viz.tape: {path.name!r}; expected a name in .svg, .html or .txt")
        write_atomic(path, (ways[path.suffix]().rstrip() + "\n").encode(errors="replace"))
        return path

    def _repr_html_(self) -> str:
        # In a frame of its own, so that neither its names nor its styles meet the notebook's.
        return (
            f'<iframe srcdoc="{escape(self.html())}" style="width:100%;height:620px;border:0" '
            'title="An unrolled tape"></iframe>'
        )

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__


def tape(*results: Any, title: str = "", columns: int = 8) -> TapePicture:
    """Draw the tape behind a result: a column for each time step, and what goes back through time.

    Cells are boxes, weights are drawn once, the arrows back are as wide as the norm of the state's
    cotangent, and a cut is a dashed line. Compiled and forgotten stretches of the tape are run
    again to be seen. The tape is left as it was: ``backward`` can follow. Names and lines of source
    are shown for what is recorded under :func:`tinygradrnn.watch`, and for compiled scans.

    Args:
        results: A scalar, such as a loss; of other Tensors the picture has no gradients.
        title: Stands above it.
        columns: With more steps than this, those in the middle share a column.

    Raises:
        GradientError: There is no tape behind a result.
        DtypeError: A result is no Tensor, or the title no text.
        ShapeError: `columns` is less than 3.

    >>> w = tgr.tensor(0.5, requires_grad=True)
    >>> def decay(x, h):
    ...     h = w * h + x
    ...     return h, h
    >>> with tgr.watch():
    ...     outputs, h = tgr.scan(decay, tgr.ones((3, 1)), tgr.zeros(1))
    >>> print(tgr.viz.tape(tgr.sum(outputs)))
    ┌───────────────────────────────────────────────┐
    │              stack, sum  →  4.25              │
    └───────────────────────────────────────────────┘
         ▲                  ▲                  ▲
    ╭─────────╮   h    ╭─────────╮   h    ╭─────────╮
    │  decay  │ ─────► │  decay  │ ─────► │  decay  │
    │  2 ops  │ ◄───── │  2 ops  │ ◄───── │  2 ops  │
    ╰─────────╯  0.75  ╰─────────╯  0.5   ╰─────────╯
       ↑ h, x              ↑ x                ↑ x
        t=0                t=1                t=2
    <BLANKLINE>
    weights, drawn once  shape  uses  |gradient|
    w                    ()        3           3
    on the way back the cotangent of a state has a norm from 0.5 to 0.75
    """
    if not isinstance(title, str):
        raise DtypeError(f"viz.tape: title={title!r}; expected text")
    if type(columns) is not int or columns < 3:
        raise ShapeError(f"viz.tape: columns={columns!r}; expected 3 or more")
    return TapePicture(unroll(*results), title, columns)
