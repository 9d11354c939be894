"""The one loop that unrolls a cell over time.

The room is called after its function, and the attribute ``tinygradrnn.scan`` is on purpose the
function, which the package's ``__init__`` binds over the room. ``from tinygradrnn.scan import ...``
finds the room as usual.
"""

from __future__ import annotations

from tinygradrnn.scan.eager import scan

__all__ = ["scan"]
