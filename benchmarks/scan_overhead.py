"""What :func:`tinygradrnn.scan` adds to the same loop written by hand, forward and backward.

    python benchmarks/scan_overhead.py

Small cells, where the time of a step is all overhead: (time, batch, hidden) = (64, 1, 64). The two
loops take turns, and the ratio is that of medians. To reach: at most 1.10.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygradrnn as tgr

TIME, BATCH, HIDDEN = 64, 1, 64
ROUNDS = 301


def by_hand(cell: tgr.nn.Cell, xs: tgr.Tensor) -> Any:
    """The loop that a user would write, with its steps marked."""
    state, outputs = cell.initial_state(BATCH), []
    name = type(cell).__name__
    for t, x in enumerate(tgr.unstack(xs)):
        with tgr.step(t, name):
            output, state = cell(x, state)
        outputs.append(output)
    return tgr.stack(outputs)


def scanned(cell: tgr.nn.Cell, xs: tgr.Tensor) -> Any:
    outputs, _ = tgr.scan(cell, xs)
    return outputs


def seconds(loop: Callable[..., Any], cell: tgr.nn.Cell, xs: tgr.Tensor) -> float:
    gc.collect(0)
    start = time.perf_counter()
    loss = tgr.mean(tgr.square(loop(cell, xs)))
    loss.backward()
    end = time.perf_counter()
    cell.zero_grad()
    return end - start


def main() -> None:
    rng = np.random.default_rng(0)
    xs = tgr.tensor(rng.standard_normal((TIME, BATCH, HIDDEN)).astype("float32"))
    for make in (tgr.nn.RNNCell, tgr.nn.GRUCell, tgr.nn.LSTMCell):
        cell = make(HIDDEN, HIDDEN)
        loops = (by_hand, scanned)
        times: dict[Any, list[float]] = {loop: [] for loop in loops}
        for i in range(ROUNDS):
            for loop in loops if i % 2 else loops[::-1]:
                times[loop].append(seconds(loop, cell, xs))
        hand, scan = (statistics.median(times[loop]) * 1e3 for loop in loops)
        print(f"{make.__name__:9} by hand {hand:6.3f} ms, scan {scan:6.3f} ms: {scan / hand:.3f}")


if __name__ == "__main__":
    main()
