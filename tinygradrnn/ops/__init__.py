"""The operations, each with its gradient rule beside it.

To add one, write it in the file whose idea it shares, with its ``vjp``, and a case in
``tinygradrnn/testing/cases.py``. Nothing else needs to be told: namespaces, tests and docs read the
registry.
"""

from tinygradrnn.ops import (
    compare,
    elementwise,
    gates,
    indexing,
    linalg,
    losses,
    recurrence,
    reduce,
    shape,
)

__all__ = [
    "compare",
    "elementwise",
    "gates",
    "indexing",
    "linalg",
    "losses",
    "recurrence",
    "reduce",
    "shape",
]
