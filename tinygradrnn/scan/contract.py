"""What a state or an output must look like at every step, and whose history it may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygradrnn import tree
from tinygradrnn.errors import DtypeError, GradientError, ShapeError
from tinygradrnn.tape import outgrown, recording
from tinygradrnn.tensor import Tensor


class Contract:
    """The structure, shapes and dtypes that a state or an output keeps from step to step.

    Looked at after each step, as a wrong one would otherwise broadcast, or fail much later.
    """

    def __init__(self, what: str, leaves: Sequence[Any], structure: tree.Structure) -> None:
        self.what, self.structure = what, structure
        self.looks = [
            (leaf.raw.shape, leaf.raw.dtype) if isinstance(leaf, Tensor) else ((), None)
            for leaf in leaves
        ]

    def check(self, value: Any, t: int) -> list[Tensor]:
        """The leaves of `value`, if it is as it should be."""
        try:
            leaves = self.structure.leaves(value, self.what)
        except tree.StructureError as error:
            raise ShapeError(f"scan: step {t}: {error}") from None
        for i, leaf in enumerate(leaves):
            shape, dtype = self.looks[i]
            if not isinstance(leaf, Tensor):
                path = self.path(i)
                found = type(leaf).__name__
                raise DtypeError(f"scan: step {t}: {path} is a {found}; expected a Tensor")
            if leaf.raw.shape != shape:
                raise ShapeError(
                    f"scan: step {t}: {self.path(i)} has shape {leaf.shape}; before it was {shape}"
                )
            if leaf.raw.dtype != dtype:
                raise DtypeError(
                    f"scan: step {t}: {self.path(i)} is {leaf.dtype}; before it was {dtype}. "
                    "Give xs and the first state the cell's dtype, with .astype(...)"
                )
        return leaves

    def path(self, i: int) -> str:
        """The path of a leaf."""
        return self.structure.paths(self.what)[i]


def refuse_outgrown(leaves: Sequence[Tensor], structure: tree.Structure) -> None:
    """Raise if a carried state was computed with weights that an optimiser has since replaced.

    Raises:
        GradientError: Names the leaf, the step it was born in, the weight and the cures.
    """
    if not recording.enabled:  # nothing will be differentiated, so nothing can be wrong
        return
    for i, leaf in enumerate(leaves):
        found = None if leaf.edge is None else outgrown(leaf.edge)
        if found is None:
            continue
        (node, weight), born = found, ""
        mark = getattr(node, "last", node.step)  # a whole loop as one node knows its last step
        if mark is not None:
            born = f" at step {mark}" + (f" of {mark.loop}" if mark.loop else "")
        raise GradientError(
            f"scan: {structure.paths('state')[i]} was computed{born} with a "
            f"{weight.name or 'parameter'} that an optimiser has replaced since, so its history is "
            "not that of the present weights. Cut it: carry tgr.bptt.detach(state) from one update "
            "to the next; or iterate over tgr.bptt.stream(...), which does so; or take the step "
            "after the last backward"
        )
