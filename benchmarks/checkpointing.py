"""What checkpointing costs in time and saves in memory: an LSTM over 1000 steps.

    python benchmarks/checkpointing.py

Forward and backward of ``scan`` with ``checkpoint="sqrt"`` against everything kept. Then, for the
first size, what the plan predicted and measured. To reach at T = 1000: at least 90% less saved
memory for at most 1.4 times the time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import contest

SIZES = [(1000, 1, 64, 64), (1000, 16, 64, 128), (1000, 32, 128, 256)]


def make(contestant: str, size: contest.Size) -> Callable[[], Any]:
    """Forward and backward at ``(time, batch, input, hidden)``."""
    import tinygradrnn as tgr

    time, batch, inputs, hidden = size
    cell = tgr.nn.LSTMCell(inputs, hidden, rng=tgr.current_backend().rng(0))
    xs = tgr.tensor(
        np.random.default_rng(0).standard_normal((time, batch, inputs)).astype("float32")
    )
    checkpoint = None if contestant == "all kept" else contestant

    def run() -> None:
        outputs, _ = tgr.scan(cell, xs, checkpoint=checkpoint)
        tgr.mean(outputs * outputs).backward()
        cell.zero_grad()

    return run


def report() -> None:
    """What a plan says of itself."""
    import tinygradrnn as tgr

    for spec in ("sqrt", "1MB", 100):
        plan = tgr.bptt.Checkpoint(spec)
        time, batch, inputs, hidden = SIZES[1]
        outputs, _ = tgr.scan(
            tgr.nn.LSTMCell(inputs, hidden), tgr.ones((time, batch, inputs)), checkpoint=plan
        )
        tgr.mean(outputs).backward()
        print(f"{SIZES[1]}, checkpoint={spec!r}: {plan.report}")


if __name__ == "__main__":
    contest.main(__file__, ["all kept", "sqrt"], SIZES, make)
    if "--serve" not in sys.argv:
        report()
