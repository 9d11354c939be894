"""Time and error of the LLVM backend's transcendental functions, beside NumPy's.

    python benchmarks/llvm_math.py              # nanoseconds per element
    python benchmarks/llvm_math.py errors       # units in the last place; half an hour
    python benchmarks/llvm_math.py errors 100   # of every hundredth float32 only

One thread, the widest vectors there are. For the times, arrays of 4096 elements that stay in the
first cache; the two take turns, and the least of the times counts. NumPy has no sigmoid: here it is
composed, of four operations for the time, and for the error of more that keep its tails. Errors are
distances from what the next wider format gives: of every float32, and of two million float64 of all
sizes.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from llvmlite import ir

from tinygradrnn_llvm import machine, vector_math
from tinygradrnn_llvm.blocks import I64, POINTER, VOID, Builder, vector_of

SIZE, TIMES, ROUNDS = 4096, 100, 40
CHUNK = 1 << 21
DTYPES = ("float32", "float64")


def compiled(name: str, dtype: str) -> Callable[..., None]:
    """``run(source, out, count, times)``: the function of an array, `times` times."""
    target = machine.host()
    size = np.dtype(dtype).itemsize
    lanes = target.lanes(size)
    kind = vector_of(ir.FloatType() if dtype == "float32" else ir.DoubleType(), lanes)
    module = ir.Module()
    module.triple = target.triple
    arguments = [POINTER, POINTER, I64, I64]
    run = ir.Function(module, ir.FunctionType(VOID, arguments), "run")
    b = Builder(run.append_basic_block())
    source, out, count, times = run.args

    def body(i: Any) -> None:
        place = b.mul(i, I64(size))
        x = b.load(b.offset(source, place), typ=kind, align=size)
        b.store(vector_math.emit(name, b, x), b.offset(out, place), align=size)

    b.loop(I64(0), times, 1, lambda _: b.loop(I64(0), count, lanes, body))
    b.ret_void()
    code = machine.compiled(str(module), target)
    numbers = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    return code.function("run", numbers)


def fast_sigmoid(x: Any, out: Any) -> None:
    np.negative(x, out=out)
    np.exp(out, out=out)
    np.add(out, 1, out=out)
    np.divide(1, out, out=out)


def good_sigmoid(x: Any) -> Any:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


def nanoseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / (SIZE * TIMES)


def times() -> None:
    rng = np.random.default_rng(0)
    print("ns per element       llvm   numpy   ratio")
    for dtype in DTYPES:
        for name in vector_math.FUNCTIONS:
            x = (2 * rng.standard_normal(SIZE)).astype(dtype)
            x = np.abs(x) if name in ("log", "log1p") else x
            y, other = np.empty_like(x), np.empty_like(x)
            ours = compiled(name, dtype)
            theirs = fast_sigmoid if name == "sigmoid" else getattr(np, name)
            places = x.ctypes.data, y.ctypes.data

            def numpy_run(f: Any = theirs, x: Any = x, out: Any = other) -> None:
                for _ in range(TIMES):
                    f(x, out=out)

            def llvm_run(f: Any = ours, places: Any = places) -> None:
                f(*places, SIZE, TIMES)

            pairs = [(nanoseconds(llvm_run), nanoseconds(numpy_run)) for _ in range(ROUNDS)]
            llvm, numpy = (min(column) for column in zip(*pairs, strict=True))
            print(f"{name:8} {dtype}   {llvm:6.3f}  {numpy:6.3f}  {numpy / llvm:6.1f}")


def arguments(dtype: str, stride: int) -> Iterator[Any]:
    """Chunks of numbers."""
    if dtype == "float32":
        for first in range(0, 2**32, CHUNK * stride):
            bits = np.arange(first, min(first + CHUNK * stride, 2**32), stride, dtype=np.int64)
            yield bits.astype(np.uint32).view(np.float32)
        return
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = 20_000
        yield np.concatenate(
            [
                2.0 ** rng.uniform(-60, 40, n) * rng.choice([-1, 1], n),
                2.0 ** rng.uniform(-4, 10, n) * rng.choice([-1, 1], n),
                rng.uniform(-40, 40, n),
                rng.uniform(-3, 3, n),
                rng.integers(0, 2**64, n, dtype=np.uint64).view(np.float64),
            ]
        )


def units(y: Any, expected: Any) -> Any:
    """Distances in units in the last place of y's format."""
    info = np.finfo(y.dtype)
    exponent = np.clip(np.frexp(expected)[1] - 1, int(info.minexp), int(info.maxexp) - 1)
    distance = np.abs(y.astype(expected.dtype) - expected)
    distance = np.ldexp(distance, info.nmant - exponent)
    overflow = np.isinf(y) & (y == expected.astype(y.dtype))
    return np.where(overflow, 0, distance)


def errors(stride: int) -> None:
    print("greatest error      llvm   at                  numpy")
    for dtype in DTYPES:
        for name in vector_math.FUNCTIONS:
            ours = compiled(name, dtype)
            theirs = good_sigmoid if name == "sigmoid" else getattr(np, name)
            worst, place, other = 0.0, 0.0, 0.0
            for x in arguments(dtype, stride):
                limit = 2.0**40 if name in ("sin", "cos") else np.inf
                x = np.append(x[np.abs(x) <= limit], np.zeros(64, dtype))
                x = x[: len(x) // 64 * 64]
                y = np.empty_like(x)
                ours(x.ctypes.data, y.ctypes.data, len(x), 1)
                expected = theirs(x.astype(np.float64 if dtype == "float32" else np.longdouble))
                number = ~np.isnan(expected)
                assert (np.isnan(y) == ~number).all(), name
                found = np.where(number, units(y, expected), 0)
                i = found.argmax()
                if found[i] > worst:
                    worst, place = float(found[i]), float(x[i])
                other = max(other, np.nanmax(np.where(number, units(theirs(x), expected), 0)))
            print(f"{name:8} {dtype}   {worst:6.2f}   {place:<18.10g} {other:6.2f}", flush=True)


def main() -> None:
    print(f"numpy {np.__version__}, {machine.host().cpu}, vectors of {machine.host().bits} bits")
    if sys.argv[1:2] == ["errors"]:
        with np.errstate(all="ignore"):
            errors(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    else:
        times()


if __name__ == "__main__":
    main()
