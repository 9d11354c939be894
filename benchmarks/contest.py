"""Time contestants side by side: each in its own process, in turns, with as many threads.

A benchmark script defines ``make(contestant, size)``, which returns a function to time, and calls
:func:`main`; a script with a command line of its own calls :func:`race` and :func:`serve`. The
script runs itself once for each contestant; the parent asks them for one measurement each, round
after round, so that a change in the machine's speed meets all of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

THREADS = 2
Size = tuple[int, ...]
Make = Callable[[str, Size], Callable[[], Any]]


def serve(contestant: str, make: Make) -> None:
    """Answer each size read from standard input with the seconds that one call took, or why not."""
    made: dict[Size, Callable[[], Any]] = {}
    for line in sys.stdin:
        size = tuple(json.loads(line))
        if size not in made:
            try:
                made[size] = make(contestant, size)
                for _ in range(3):  # warm caches, thread pools and compilers
                    made[size]()
            except Exception as error:  # not installed, or not able to
                made.pop(size, None)
                print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
                continue
        gc.collect()
        gc.disable()
        seconds: list[float] = []
        while sum(seconds) < 0.1 and len(seconds) < 20:
            start = time.perf_counter()
            made[size]()
            seconds.append(time.perf_counter() - start)
        gc.enable()
        print(statistics.median(seconds), flush=True)


def environment() -> dict[str, str]:
    """The environment of a contestant's process: as many threads for each."""
    libraries = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "TINYGRADRNN")
    return {**os.environ, **{f"{name}_NUM_THREADS": str(THREADS) for name in libraries}}


def start(script: str, contestant: str, arguments: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a contestant's process."""
    return subprocess.Popen(
        [sys.executable, script, "--serve", contestant, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def ask(process: subprocess.Popen[str], size: Size) -> float | str:
    """One measurement, or why there is none."""
    assert process.stdin is not None and process.stdout is not None
    time.sleep(0.05)  # the threads of the one before may be waiting in a loop still
    try:
        process.stdin.write(json.dumps(size) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())
    except (BrokenPipeError, json.JSONDecodeError):
        return "its process has died"


def race(
    script: str,
    contestants: Sequence[str],
    sizes: Sequence[Size],
    rounds: int,
    arguments: Sequence[str] = (),
) -> dict[str, list[float]]:
    """Measure all contestants, print medians and ratios to the first, and return the medians.

    One that is not installed, or cannot do a size, is left out of it, and what it said is printed.
    """
    running = {name: start(script, name, arguments) for name in contestants}
    table: dict[str, list[float]] = {name: [] for name in contestants}
    reasons: dict[str, str] = {}
    for size in sizes:
        seconds: dict[str, list[float]] = {name: [] for name in running}
        able = dict(running)
        for _ in range(rounds):
            for name in list(able):
                answer = ask(able[name], size)
                if isinstance(answer, str):
                    reasons.setdefault(name, f"{size}: {answer}")
                    del able[name]
                else:
                    seconds[name].append(answer)
        for name in running:
            table[name].append(statistics.median(seconds[name]) if name in able else math.nan)
    for process in running.values():
        process.terminate()
        process.wait()
    table = {name: medians for name, medians in table.items() if not all(map(math.isnan, medians))}
    for name, reason in reasons.items():
        print(f"{name}: left out at {reason}")
    if table:
        show(table, sizes)
        print(
            f"medians of {rounds} rounds; x: time as a multiple of {next(iter(table))}'s; "
            f"{THREADS} threads each"
        )
    return table


def show(table: dict[str, list[float]], sizes: Sequence[Size]) -> None:
    """Print medians, and ratios to the first row."""
    width = max(map(len, table))
    print(f"{'':{width}}  " + "".join(f"{size!s:>26}" for size in sizes))
    first = next(iter(table.values()))
    for name, medians in table.items():
        cells = (f"{m * 1e3:14.2f} ms {m / f:6.2f} x" for m, f in zip(medians, first, strict=True))
        print(f"{name:{width}}  " + "".join(f"{c:>26}" for c in cells))


def main(script: str, contestants: list[str], sizes: list[Size], make: Make) -> None:
    """Run the contest, or one contestant of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each (default 9)")
    parser.add_argument("--only", nargs="+", default=contestants, help="a choice of contestants")
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, make)
    else:
        race(script, [c for c in contestants if c in args.only], sizes, args.rounds)
