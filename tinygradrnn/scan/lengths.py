"""Batches of sequences of unequal lengths, padded at the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygradrnn.errors import DtypeError, ShapeError
from tinygradrnn.ops.compare import zeros_like
from tinygradrnn.ops.elementwise import where
from tinygradrnn.ops.gates import hold
from tinygradrnn.ops.shape import unstack
from tinygradrnn.scan.contract import Contract
from tinygradrnn.tensor import Tensor


class Lengths:
    """Which sequences of a right-padded batch are still going on, at each step.

    Attributes:
        batch: The number of sequences.
        going: Whether a sequence is still going on, ``(time, batch)``.
        shortest: The length of the shortest: before that step nothing needs to be chosen.
    """

    def __init__(self, lengths: Any, columns: Sequence[Tensor], paths: Sequence[str]) -> None:
        import numpy

        try:
            host = lengths.numpy() if isinstance(lengths, Tensor) else numpy.asarray(lengths)
        except ValueError:
            raise ShapeError(f"scan: lengths are {lengths!r}; expected (batch,) integers") from None
        if host.dtype.kind not in "iu":
            raise DtypeError(f"scan: lengths are {host.dtype}; expected integers")
        for x, path in zip(columns, paths, strict=True):
            if host.ndim != 1 or x.shape[1:2] != host.shape:
                raise ShapeError(
                    f"scan: lengths have shape {host.shape}, {path} has {x.shape}; "
                    "expected (batch,) and (time, batch, ...)"
                )
        time = columns[0].shape[0]
        for i, length in enumerate(host.tolist()):
            if not 0 <= length <= time:
                raise ShapeError(f"scan: lengths[{i}] is {length}; expected 0 to {time}")
        self.batch = host.shape[0]
        self.shortest = int(host.min(initial=time))
        backend = columns[0].backend
        going = numpy.arange(time)[:, None] < host
        self.going = Tensor(backend.from_host(going), backend)
        self._rows: dict[int, tuple[Tensor, ...]] = {}

    def _fit(self, ndim: int) -> Tensor:
        return self.going.reshape((*self.going.shape, *(1,) * (ndim - 1)))

    def apply(self, x: Tensor) -> Tensor:
        """Zeros where xs is padding: whatever stands there, NaN or -1, must not reach the cell.

        Choosing the old state afterwards would not be enough: a gradient of zero times NaN is NaN.
        """
        return where(self._fit(x.ndim - 1), x, zeros_like(x))

    def choose(
        self, t: int, leaves: list[Tensor], others: list[Tensor] | None, contract: Contract
    ) -> list[Tensor]:
        """The leaves of sequences that go on at step `t`, and of the rest the others, or zeros."""
        chosen: list[Tensor] = []
        for i, leaf in enumerate(leaves):
            if leaf.shape[:1] != (self.batch,):
                raise ShapeError(
                    f"scan: step {t}: with lengths, {contract.path(i)} must begin with the batch; "
                    f"found {leaf.shape}, expected ({self.batch}, ...)"
                )
            if leaf.ndim not in self._rows:
                self._rows[leaf.ndim] = unstack(self._fit(leaf.ndim))
            going = self._rows[leaf.ndim][t]
            if others is None:
                chosen.append(where(going, leaf, zeros_like(leaf)))
            else:
                chosen.append(hold(leaf, others[i], going))
        return chosen
