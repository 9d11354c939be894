"""The LLVM backend's transcendental functions: errors in units in the last place, and the ends.

What they should give is computed in the next wider format. docs/explanation/llvm-accuracy.md has
the greatest errors that were seen; the bounds here lie a little above.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from llvmlite import binding, ir

from tinygradrnn_llvm import machine, vector_math
from tinygradrnn_llvm.blocks import I64, POINTER, VOID, Builder, vector_of

BOUNDS = {
    "exp": 1.0,
    "expm1": 1.3,
    "log": 0.9,
    "log1p": 0.9,
    "sigmoid": 2.0,
    "sin": 1.6,
    "cos": 1.6,
    "tanh": 1.8,
}
FARTHEST = 2.0**40  # of sin and cos

HOST = machine.host()
X86 = HOST.triple.startswith("x86_64")
AVX2 = machine.machine("haswell", {"avx2": True, "fma": True, "avx512f": False}, HOST.triple)
OLD = machine.machine("x86-64", {"avx2": False, "fma": False}, HOST.triple)
ARM = machine.machine("generic", {}, "aarch64-linux-gnu")

WIDER: dict[str, Any] = {"float32": np.float64, "float64": np.longdouble}
DTYPES = [
    "float32",
    pytest.param(
        "float64",
        marks=pytest.mark.skipif(
            np.finfo(np.longdouble).nmant <= 52, reason="no wider format to compare with"
        ),
    ),
]
every_function = pytest.mark.parametrize("name", vector_math.FUNCTIONS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def loop(name: str, dtype: str, lanes: int, target: machine.Machine) -> str:
    """A module with ``run(source, target, count)`` for multiples of `lanes`."""
    module = ir.Module()
    module.triple = target.triple
    size = np.dtype(dtype).itemsize
    kind = vector_of(ir.FloatType() if dtype == "float32" else ir.DoubleType(), lanes)
    run = ir.Function(module, ir.FunctionType(VOID, [POINTER, POINTER, I64]), "run")
    b = Builder(run.append_basic_block())
    source, out, count = run.args

    def body(i: Any) -> None:
        place = b.mul(i, I64(size))
        x = b.load(b.offset(source, place), typ=kind, align=size)
        y = vector_math.emit(name, b, x)
        assert y.type == x.type
        b.store(y, b.offset(out, place), align=size)

    b.loop(I64(0), count, lanes, body)
    b.ret_void()
    return str(module)


@cache
def compiled(
    name: str, dtype: str, target: machine.Machine = HOST, lanes: int = 0
) -> Callable[[Any], Any]:
    """The function of arrays; with the widest vectors if nothing else is said."""
    lanes = lanes or target.lanes(np.dtype(dtype).itemsize)
    code = machine.compiled(loop(name, dtype, lanes, target), target)
    run = code.function("run", [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64])

    def call(x: Any) -> Any:
        padded = np.append(x, np.zeros(-len(x) % lanes, dtype)).astype(dtype)
        y = np.empty_like(padded)
        run(padded.ctypes.data, y.ctypes.data, len(padded))
        return y[: len(x)]

    return call


def reference(name: str, x: Any) -> Any:
    """What it should give, in the next wider format."""
    wide = x.astype(WIDER[x.dtype.name])
    with np.errstate(all="ignore"):
        if name != "sigmoid":
            return getattr(np, name)(wide)
        small = np.exp(-np.abs(wide))
        return np.where(wide < 0, small, 1) / (1 + small)


@cache
def drawn(dtype: str) -> Any:
    """Numbers of every exponent, denormal ones too, and many of those that are met."""
    rng = np.random.default_rng(0)
    if dtype == "float32":
        everywhere = np.arange(0, 2**32, 1021, dtype=np.uint32).view(np.float32)
        near = rng.uniform(-20, 20, 300_000).astype(np.float32)
        return np.concatenate([everywhere[~np.isnan(everywhere)], near])
    everywhere = rng.integers(0, 2**64, 20_000, dtype=np.uint64).view(np.float64)
    met = 2.0 ** rng.uniform(-60, 10, 60_000) * rng.choice([-1, 1], 60_000)
    near = rng.uniform(-3, 3, 60_000)
    return np.concatenate([everywhere[~np.isnan(everywhere)], met, near])


def arguments(name: str, dtype: str) -> Any:
    x = drawn(dtype)
    return x[np.abs(x) <= FARTHEST] if name in ("sin", "cos") else x


def errors(y: Any, expected: Any) -> Any:
    """Distances in units in the last place of y's format; infinite where one is not a number."""
    info = np.finfo(y.dtype)
    exponent = np.clip(np.frexp(expected)[1] - 1, int(info.minexp), int(info.maxexp) - 1)
    unit = np.ldexp(expected.dtype.type(1), exponent - info.nmant)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = expected.astype(y.dtype)
        distance = np.abs(y.astype(expected.dtype) - expected) / unit
    right = (np.isnan(y) & np.isnan(rounded)) | (np.isinf(rounded) & (y == rounded))
    return np.where(right, 0, np.where(np.isnan(distance), np.inf, distance))


@every_function
@every_dtype
def test_error(name: str, dtype: str) -> None:
    x = arguments(name, dtype)
    found = errors(compiled(name, dtype)(x), reference(name, x))
    worst = np.argmax(found)
    assert found[worst] <= BOUNDS[name], x[worst]


@pytest.mark.skipif(not X86, reason="the vectors of other processors are AVX2's or narrower")
@every_function
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_width_gives_the_same(name: str, dtype: str) -> None:
    if "+fma" not in HOST.features.split(","):
        pytest.skip("this processor cannot multiply and add in one step")
    x = arguments(name, dtype)[::20]
    wide = compiled(name, dtype)(x)
    np.testing.assert_array_equal(compiled(name, dtype, AVX2)(x), wide)
    np.testing.assert_array_equal(compiled(name, dtype, lanes=1)(x), wide)


@pytest.mark.skipif(not X86, reason="of x86 only some cannot multiply and add in one step")
@every_function
@every_dtype
def test_without_fused_steps_it_is_hardly_worse(name: str, dtype: str) -> None:
    x = arguments(name, dtype)[::20]
    found = errors(compiled(name, dtype, OLD)(x), reference(name, x))
    assert found.max() <= BOUNDS[name] + 0.3


@every_function
@every_dtype
@pytest.mark.parametrize("lanes", [0, 1])
def test_ends(name: str, dtype: str, lanes: int) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan], dtype)
    y = compiled(name, dtype, lanes=lanes)(x)
    with np.errstate(invalid="ignore"):
        expected = reference(name, x).astype(dtype)
    np.testing.assert_array_equal(y, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(y[number]), np.signbit(expected[number]))


@pytest.mark.parametrize("name", ["expm1", "log1p", "sin", "tanh"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiny_numbers_are_their_own_images(name: str, dtype: str) -> None:
    info = np.finfo(dtype)
    x = np.array([info.smallest_subnormal, 3 * info.smallest_subnormal, info.tiny], dtype)
    x = np.append(x, -x)
    np.testing.assert_array_equal(compiled(name, dtype)(x), x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logarithms_end_where_they_should(dtype: str) -> None:
    eps = np.finfo(dtype).eps
    log, log1p = compiled("log", dtype), compiled("log1p", dtype)
    negative = np.array([-np.finfo(dtype).smallest_subnormal, -1, -np.finfo(dtype).max], dtype)
    assert np.isnan(log(negative)).all()
    assert log1p(np.array([-1], dtype)) == -np.inf
    assert np.isnan(log1p(np.array([-1 - eps, -3], dtype))).all()


@every_dtype
def test_saturation_is_exact_and_tails_are_not_cut(dtype: str) -> None:
    info = np.finfo(dtype)
    far = np.array([60, 1e4, info.max], dtype)
    for name in ("tanh", "sigmoid"):
        assert (compiled(name, dtype)(far) == 1).all()
    assert (compiled("tanh", dtype)(-far) == -1).all()
    # Down to the smallest number there is, the sigmoid is the exponential.
    least = np.log(WIDER[dtype](info.smallest_subnormal))
    x = np.linspace(-40, float(least), 10_001).astype(dtype)
    assert errors(compiled("sigmoid", dtype)(x), reference("exp", x)).max() <= 2
    assert (compiled("sigmoid", dtype)(x[:-1]) > 0).all()


@every_dtype
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_angles_beside_multiples_of_a_quarter(name: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    k = np.concatenate([np.arange(1, 10_000), 2 ** rng.uniform(13, 39, 10_000)]).round()
    quarter = np.arctan2(np.longdouble(1), np.longdouble(0))
    x = (k.astype(np.longdouble) * quarter).astype(dtype)
    x = np.concatenate([np.nextafter(x, x.dtype.type(0)), x, np.nextafter(x, x.dtype.type(1e30))])
    assert errors(compiled(name, dtype)(x), reference(name, x)).max() <= BOUNDS[name]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_too_large_angles_give_no_number(name: str, dtype: str) -> None:
    x = np.array([FARTHEST, np.nextafter(np.array(FARTHEST, dtype), np.inf), 1e30], dtype)
    for sign in (1, -1):
        np.testing.assert_array_equal(
            np.isnan(compiled(name, dtype)(sign * x)), [False, True, True]
        )


@every_function
@pytest.mark.parametrize("lanes", [1, 4, 16])
@pytest.mark.parametrize("target", [AVX2, ARM], ids=["x86", "arm"])
def test_nothing_is_called(name: str, lanes: int, target: machine.Machine) -> None:
    if not X86 and target is AVX2:
        pytest.skip("its triple is this processor's")
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    for dtype in ("float32", "float64"):
        module, processor = machine.optimized(loop(name, dtype, lanes, target), target)
        assembly = processor.emit_assembly(module)
        assert "run" in assembly
        assert not re.search(r"\b(callq?|blr?)\b", assembly)
