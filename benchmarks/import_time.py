"""What ``import tinygradrnn`` adds to ``import numpy``, each measured in a fresh process.

python benchmarks/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

CODE = """
import time, numpy
start = time.perf_counter()
import tinygradrnn
print(time.perf_counter() - start)
"""


def measure(runs: int) -> list[float]:
    """Seconds of each run, after one that is not counted because it may have to compile."""
    command = [sys.executable, "-c", CODE]
    return [float(subprocess.check_output(command)) for _ in range(runs + 1)][1:]


if __name__ == "__main__":
    seconds = measure(21)
    print(
        f"import tinygradrnn, beyond numpy: {1000 * statistics.median(seconds):.1f} ms "
        f"(median of {len(seconds)}; fastest {1000 * min(seconds):.1f}); to reach: less than 30"
    )
