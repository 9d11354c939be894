"""How all charts look, and how they are shown, saved and put into pages. They are matplotlib's."""

from __future__ import annotations

import io
import re
from html import escape
from pathlib import Path
from typing import Any

from tinygradrnn.errors import BackendError, ShapeError

# Okabe and Ito's colours: they differ also for those who see fewer.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure, in inches; it belongs to no window and no global state.

    Raises:
        BackendError: There is no matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendError(
            f"charts need matplotlib ({error}): python -m pip install 'tinygradrnn[plot]'"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def tidy(axes: Any) -> None:
    """Leave out the lines that say nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_prop_cycle(color=COLOURS)


def plain(name: str) -> str:
    """A name as it is: what stands between two dollars would else be read as a formula."""
    return name.replace("$", r"\$")


def as_svg(figure: Any, name: str = "chart") -> str:
    """A figure as SVG to stand in a page; equal figures give equal text."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)


def in_page(figure: Any, name: str, told: str) -> str:
    """The same with what it shows in words, for those who do not see it."""
    svg = as_svg(figure, name).replace("<svg ", f'<svg role="img" aria-label="{escape(told)}" ', 1)
    # Several charts in one page must not share names of parts.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return f'<div class="chart">{svg}</div>'


class Chart:
    """Something that can be plotted: ``plot()`` makes the figure, a notebook shows it."""

    def plot(self) -> Any:
        """A matplotlib Figure.

        Raises:
            BackendError: There is no matplotlib.
        """
        raise NotImplementedError

    def save(self, path: str | Path, *, dpi: int = 150) -> Path:
        """Write the picture, as what its suffix says: ``.svg``, ``.png`` or ``.pdf``.

        Raises:
            ShapeError: The suffix is another.
        """
        path = Path(path)
        if path.suffix not in (".svg", ".png", ".pdf"):
            raise ShapeError(f"save: {path.name!r}; expected a name in .svg, .png or .pdf")
        buffer = io.BytesIO()
        if path.suffix == ".svg":
            buffer.write(as_svg(self.plot(), path.stem).encode())
        else:
            self.plot().savefig(buffer, format=path.suffix[1:], dpi=dpi)
        path.write_bytes(buffer.getvalue())
        return path

    def _repr_svg_(self) -> str:
        return as_svg(self.plot())
