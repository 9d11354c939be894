"""Time contestants side by side: each in its own process, in turns, with as many threads.

A benchmark script defines ``make(contestant, size)``, which returns a function to time, and calls
:func:`main`. The script runs itself once for each contestant; the parent asks them for one
measurement each, round after round, so that a change in the machine's speed meets all of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

THREADS = 2
Size = tuple[int, ...]
Make = Callable[[str, Size], Callable[[], Any]]


def serve(contestant: str, make: Make) -> None:
    """Answer each size read from standard input with the seconds that one call took."""
    print("ready", flush=True)
    made: dict[Size, Callable[[], Any]] = {}
    for line in sys.stdin:
        size = tuple(json.loads(line))
        if size not in made:
            made[size] = make(contestant, size)
            for _ in range(3):  # warm caches, thread pools and compilers
                made[size]()
        gc.collect()
        gc.disable()
        seconds: list[float] = []
        while sum(seconds) < 0.1 and len(seconds) < 20:
            start = time.perf_counter()
            made[size]()
            seconds.append(time.perf_counter() - start)
        gc.enable()
        print(statistics.median(seconds), flush=True)


def start(script: str, contestant: str) -> subprocess.Popen[str] | None:
    """Start a contestant's process; None if what it needs is not installed."""
    threads = {
        f"{name}_NUM_THREADS": str(THREADS) for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
    }
    process = subprocess.Popen(
        [sys.executable, script, "--serve", contestant],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **threads},
    )
    assert process.stdout is not None
    return process if process.stdout.readline().strip() == "ready" else None


def ask(process: subprocess.Popen[str], size: Size) -> float:
    """One measurement."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(size) + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main(script: str, contestants: list[str], sizes: list[Size], make: Make) -> None:
    """Run the contest, or one contestant of it, and print medians and ratios to the first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each (default 9)")
    parser.add_argument("--only", nargs="+", default=contestants, help="a choice of contestants")
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, make)
        return
    names = [c for c in contestants if c in args.only]
    started = {name: start(script, name) for name in names}
    running = {name: p for name, p in started.items() if p is not None}
    for name in names:
        if name not in running:
            print(f"{name}: not installed, left out")
    width = max(map(len, running))
    print(f"{'':{width}}  " + "".join(f"{size!s:>26}" for size in sizes))
    table: dict[str, list[float]] = {name: [] for name in running}
    for size in sizes:
        seconds: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(args.rounds):
            for name, process in running.items():
                seconds[name].append(ask(process, size))
        for name in running:
            table[name].append(statistics.median(seconds[name]))
    first = next(iter(table.values()))
    for name, medians in table.items():
        cells = (f"{m * 1e3:14.2f} ms {m / f:6.2f} x" for m, f in zip(medians, first, strict=True))
        print(f"{name:{width}}  " + "".join(f"{c:>26}" for c in cells))
    print(
        f"medians of {args.rounds} rounds; x: time as a multiple of {names[0]}'s; "
        f"{THREADS} threads each"
    )
    for process in running.values():
        process.terminate()
        process.wait()
