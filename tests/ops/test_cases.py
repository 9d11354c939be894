"""Every registered operation, over the table of cases that ships with the library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn.testing.cases import Case, cases

TABLE = cases()
DIFFERENTIABLE = [
    c
    for c in TABLE
    if not c.kink
    and any(a.dtype.kind == "f" for a in c.arrays)
    and getattr(tgr.registry[c.op], "differentiable", True)
]


def test_every_operation_has_a_case() -> None:
    assert {c.op for c in TABLE} == set(tgr.registry)


def test_the_table_has_every_layout() -> None:
    """The shapes and layouts that rules get wrong are all there, not only matrices."""
    shapes = {a.shape for c in DIFFERENTIABLE for a in c.arrays}
    assert {len(s) for s in shapes} >= {0, 1, 2, 3, 4}
    assert any(0 in s for s in shapes)
    assert len(TABLE) > 400


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_gradient(case: Case) -> None:
    tgr.testing.gradcheck(case.f, case.tensors())


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_gradient_of_gradient(case: Case) -> None:
    tgr.testing.gradgradcheck(case.f, case.tensors())


def run(case: Case, dtype: str) -> tuple[list[Any], list[Any]]:
    inputs = case.tensors(dtype)
    result = case.f(*inputs)
    outs = list(result) if isinstance(result, tuple) else [result]
    ups = [tgr.tensor(np.cos(np.arange(o.size)).reshape(o.shape), dtype=dtype) for o in outs]
    found = tgr.grad(outs, [x for x in inputs if x.requires_grad], ups, allow_unused=True)
    return outs, [g for g in found if g is not None]


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_float32_stays_float32_and_agrees_with_float64(case: Case) -> None:
    (outs, gradients), (exact_outs, exact) = run(case, "float32"), run(case, "float64")
    for found, expected in zip([*outs, *gradients], [*exact_outs, *exact], strict=True):
        assert str(found.dtype) == "float32"
        scale = np.abs(expected.numpy()).max(initial=1e-3)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5 * scale)


def test_the_contract_holds_on_numpy() -> None:
    tgr.testing.check_backend("numpy")


def test_the_contract_holds_on_a_device_that_refuses_host_copies(strict: Any) -> None:
    tgr.testing.check_backend("strict")


@pytest.mark.parametrize("case", DIFFERENTIABLE[::3], ids=str)
def test_gradient_of_gradient_on_the_strict_device(case: Case, strict: Any) -> None:
    with tgr.use_backend("strict"):
        tgr.testing.gradgradcheck(case.f, case.tensors())
