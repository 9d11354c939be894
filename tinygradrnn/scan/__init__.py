"""The one loop that unrolls a cell over time.

The room is called after its function, and ``tinygradrnn.scan`` is on purpose the function: the
package's ``__init__`` imports it last. ``from tinygradrnn.scan import ...`` finds this room as usual.
"""

from __future__ import annotations

from tinygradrnn.scan.eager import scan

__all__ = ["scan"]
