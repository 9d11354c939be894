"""Does the time of a step depend on how many there are? Each length in a process of its own.

    python benchmarks/long_sequences.py

An LSTM of batch 1, input 8, hidden 16: nearly all of a step is bookkeeping. Microseconds per step,
forward and backward, with Python's garbage collector on, as users have it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

LENGTHS = (1_000, 3_000, 10_000, 30_000, 100_000)


def measure(steps: int) -> None:
    """Print the medians for one length."""
    import tinygradrnn as tgr

    cell, xs = tgr.nn.LSTMCell(8, 16), tgr.ones((steps, 1, 8))
    forward: list[float] = []
    both: list[float] = []
    for _ in range(max(3, 30_000 // steps)):
        start = time.perf_counter()
        loss = tgr.mean(tgr.scan(cell, xs)[0])
        forward.append(time.perf_counter() - start)
        loss.backward()
        both.append(time.perf_counter() - start)
        cell.zero_grad()
        del loss
    a, b = (statistics.median(times) / steps * 1e6 for times in (forward, both))
    print(f"{steps:8,} steps: forward {a:6.1f} us a step, with backward {b:6.1f} us", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
    else:
        for length in LENGTHS:
            subprocess.run([sys.executable, __file__, str(length)], check=True)
