"""Sphinx: how the docs are built. Every warning is an error, unresolved references included."""

from __future__ import annotations

import sys
from pathlib import Path

from tinygradrnn import __version__

sys.path[:0] = [str(Path(__file__).with_name("_ext")), str(Path(__file__).parent)]

project = "tinygradrnn"
author = "the tinygradrnn authors"
copyright = "the tinygradrnn authors"
version = release = __version__

extensions = [
    "myst_nb",  # Markdown, and notebooks, which are run
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",  # _ext/mathml.py: equations that need no script
    "reference",  # _ext/reference.py: pages made from the registry
    "figures",  # figures.py: drawn before the pages are read
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_timeout = 300
nb_execution_raise_on_error = True

# Signatures say enough; the text says what a type cannot.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Names of the standard library and of types have their pages elsewhere; the build needs no network.
nitpick_ignore_regex = [("py:(class|exc)", r"(?!tinygradrnn).*")]

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "tinygradrnn"
html_show_sphinx = False
