"""What it costs to look: tgr.watch and tgr.detect_anomaly around an LSTM, forward and backward.

    pip install -e . && python benchmarks/looking.py

Each way runs in turn, so that a change in the machine's speed meets all of them; the figures are
medians of the ratio to the same loop without a block around it.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygradrnn as tgr

ROUNDS = 15


def seconds(block: Callable[[], Any], cell: Any, xs: Any, mode: str) -> float:
    begin = time.perf_counter()
    with block():
        outputs, _ = tgr.scan(cell, xs, mode=mode)
        tgr.mean(outputs * outputs).backward()
    return time.perf_counter() - begin


def main() -> None:
    xs = np.random.default_rng(0).normal(size=(100, 16, 32)).astype(np.float32)
    blocks = {"plain": contextlib.nullcontext, "watch": tgr.watch, "anomaly": tgr.detect_anomaly}
    for mode in ("eager", "compiled"):
        cell = tgr.nn.LSTMCell(32, 64)
        spent: dict[str, list[float]] = {name: [] for name in blocks}
        for _ in range(ROUNDS + 1):
            for name, block in blocks.items():
                spent[name].append(seconds(block, cell, xs, mode))
        plain = spent["plain"][1:]  # the first round compiles
        for name in ("watch", "anomaly"):
            ratio = statistics.median(a / b for a, b in zip(spent[name][1:], plain, strict=True))
            print(f"{mode:<9} {name:<8} {ratio:.2f} times {1e3 * statistics.median(plain):.1f} ms")


if __name__ == "__main__":
    main()
