"""Large products with machine code of our own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")

import tinygradrnn as tgr
from tinygradrnn_llvm import machine, product, threads


def matrix(rows: int, columns: int, layout: str, dtype: str, seed: int) -> Any:
    drawn = np.random.default_rng(seed).standard_normal((rows, columns)).astype(dtype)
    if layout == "turned":
        return np.ascontiguousarray(drawn.T).T
    if layout == "part":
        wide = np.zeros((rows + 2, columns + 5), dtype)
        wide[1:-1, 3:-2] = drawn
        return wide[1:-1, 3:-2]
    return drawn


SIZES = [(1, 1, 1), (12, 5, 32), (13, 17, 33), (100, 300, 50), (250, 257, 1030), (7, 1000, 9)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("left", ["plain", "turned", "part"])
@pytest.mark.parametrize("right", ["plain", "turned", "part"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_size_and_layout(
    size: tuple[int, int, int], left: str, right: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, depth, n = size
    x, y = matrix(m, depth, left, dtype, 0), matrix(depth, n, right, dtype, 1)
    expected = x.astype("float64") @ y.astype("float64")
    error = 1e-5 if dtype == "float32" else 1e-13
    for count in (1, 3):
        monkeypatch.setattr(threads, "count", lambda count=count: count)
        out = np.full((m, n), np.nan, dtype)
        assert product.product(x, y, out) is out
        np.testing.assert_allclose(out, expected, rtol=error, atol=error * depth)


def test_a_processor_with_vectors_of_256_bits() -> None:
    here = machine.host()
    if not here.triple.startswith("x86_64") or here.bits < 256:
        pytest.skip("the machine has no AVX2")
    target = machine.machine("haswell", dict.fromkeys(["avx", "avx2", "fma"], True), here.triple)
    for dtype in ("float32", "float64"):
        x, y = matrix(50, 300, "plain", dtype, 0), matrix(300, 70, "turned", dtype, 1)
        out = product.product(x, y, np.empty((50, 70), dtype), target)
        np.testing.assert_allclose(out, x @ y, rtol=1e-4, atol=1e-4)


def test_what_is_not_a_number_stays_where_it_belongs() -> None:
    x, y = np.ones((40, 40)), np.ones((40, 40))
    x[3, 5], y[7, 39] = np.nan, np.inf
    out = product.product(x, y, np.empty((40, 40)))
    np.testing.assert_array_equal(out, x @ y)


def test_matmul_of_the_backend() -> None:
    a = np.random.default_rng(0).standard_normal((3, 64, 80))
    with tgr.use_backend("llvm"):
        for x, y in ((a[0], a[1].T), (a, a[0].T), (a[0], a[1, 0]), (a[:, ::-1, ::2], a[0, :40])):
            found = tgr.matmul(tgr.tensor(x), tgr.tensor(y)).numpy()
            np.testing.assert_allclose(found, x @ y, rtol=1e-12, atol=1e-12)


def test_what_it_leaves_to_numpy() -> None:
    x, y = np.ones((70, 80)), np.ones((80, 90))
    given = [(x, y[1:]), (x.astype("float32"), y), (x.astype(int), y.astype(int)), (x[::-1], y)]
    assert all(product.product(*pair) is None for pair in given)
