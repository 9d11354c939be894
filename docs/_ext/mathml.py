"""Equations as MathML, made when the pages are built: they show without a network or a script."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

_log = logging.getLogger(__name__)


def _made(node: Any, display: str) -> str:
    # The converter knows the environment that stands alone, which looks the same.
    text = re.sub(r"\{aligned\}", "{align*}", node.astext())
    found = convert(text, display=display)
    # What the converter does not know it passes on as letters; an `&` belongs to `align`.
    left = re.search(r"<m[ion]>(&|&amp;|\\\w*)</m[ion]>", found)
    if left:
        _log.warning("no MathML for %r in %r", left[1], node.astext(), location=node)
    # Browsers heed the style, and not the attribute of MathML's earlier versions.
    return re.sub(
        r'<mtd columnalign="(\w+)">', r'<mtd style="text-align:\1; padding:0 0.1em">', found
    )


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(_made(node, "inline"))
    raise nodes.SkipNode


def _block(translator: Any, node: Any) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(f"{_made(node, 'block')}</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the renderer known."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
