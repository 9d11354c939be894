"""Gradient clipping: PyTorch's semantics, and that nothing but gradients changes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygradrnn as tgr
from tinygradrnn import nn
from tinygradrnn.errors import DeviceError, GradientError, ShapeError
from tinygradrnn.optim import clip_grad_norm_, clip_grad_value_

Gradients = list[Any]
numbers = st.floats(-1e3, 1e3).map(lambda x: 0.0 if abs(x) < 1e-6 else x)
arrays = hnp.arrays(
    "float64", hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), elements=numbers
)


def parameters(gradients: Gradients, backend: str = "numpy") -> list[nn.Parameter]:
    made = [nn.Parameter(np.ones_like(g), backend=backend) for g in gradients]
    for p, g in zip(made, gradients, strict=True):
        p.grad = tgr.tensor(g, backend=backend)
    return made


@pytest.mark.oracle
@given(
    st.lists(arrays, min_size=1, max_size=3),
    st.floats(0, 100),
    st.sampled_from([1.0, 2.0, 3.0, math.inf]),
)
@example([np.zeros(2)], 1.0, 2.0)
@example([np.asarray([np.nan, 1.0]), np.ones(2)], 1.0, 2.0)
@example([np.asarray([np.inf, 1.0]), np.ones(2)], 1.0, 2.0)
@example([np.asarray([np.nan, 1.0]), np.ones(2)], 1.0, math.inf)
@example([np.asarray([3.0, 4.0])], 5.0, 2.0)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_norm_and_the_gradients_are_pytorchs(
    gradients: Gradients, max_norm: float, norm_type: float
) -> None:
    import torch

    mine = parameters(gradients)
    other = [torch.nn.Parameter(torch.ones(g.shape, dtype=torch.float64)) for g in gradients]
    for q, g in zip(other, gradients, strict=True):
        q.grad = torch.tensor(g)
    norm = clip_grad_norm_(mine, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(other, max_norm, norm_type)
    np.testing.assert_allclose(norm.numpy(), expected.numpy(), rtol=1e-9)
    for p, q in zip(mine, other, strict=True):
        assert p.grad is not None
        assert q.grad is not None
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-9, atol=1e-15)


@given(st.lists(arrays, min_size=1, max_size=3), st.floats(0.01, 100))
def test_the_norm_afterwards_is_within_the_limit_and_the_direction_stays(
    gradients: Gradients, max_norm: float
) -> None:
    ps = parameters(gradients)
    flat = np.concatenate([g.ravel() for g in gradients])
    norm = float(clip_grad_norm_(ps, max_norm))
    assert math.isclose(norm, float(np.linalg.norm(flat)), rel_tol=1e-9, abs_tol=1e-12)
    after = np.concatenate([p.grad.numpy().ravel() for p in ps if p.grad is not None])
    assert np.linalg.norm(after) <= max_norm * (1 + 1e-9)
    factor = min(1.0, max_norm / (norm + 1e-6))
    np.testing.assert_allclose(after, flat * factor, rtol=1e-9, atol=1e-12)


def test_a_norm_that_is_not_finite_can_be_an_error() -> None:
    for bad in (np.nan, np.inf):
        (p,) = parameters([np.asarray([bad, 1.0])])
        with pytest.raises(GradientError, match="left alone"):
            clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
        assert p.grad is not None
        assert p.grad.tolist()[1] == 1


def test_old_gradients_are_replaced_not_written_to() -> None:
    (p,) = parameters([np.asarray([3.0, 4.0])])
    for clip in (clip_grad_norm_, clip_grad_value_):
        old = p.grad
        assert old is not None
        before = old.numpy()
        clip(p, 0.5)
        assert p.grad is not old
        np.testing.assert_array_equal(old.numpy(), before)
        assert p.tolist() == [1, 1]


def test_parameters_without_gradients_and_dtypes_side_by_side() -> None:
    a, b = parameters([np.asarray([3.0], "float32"), np.asarray([4.0])])
    assert float(clip_grad_norm_([nn.Parameter([1.0]), a, b], 1.0)) == 5
    assert a.grad is not None
    assert str(a.grad.dtype) == "float32"
    assert float(clip_grad_norm_([nn.Parameter([1.0])], 1.0)) == 0
    clip_grad_value_([nn.Parameter([1.0])], 1.0)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_empty_gradients(norm_type: float) -> None:
    ps = parameters([np.zeros((0, 2)), np.ones(4)])
    assert float(clip_grad_norm_(ps, 10.0, norm_type)) in (1, 2, 4)
    assert float(clip_grad_norm_(ps[:1], 10.0, norm_type)) == 0


@pytest.mark.oracle
@given(arrays, st.floats(0, 100))
@example(np.asarray([np.nan, np.inf, -np.inf]), 2.0)
def test_clipping_by_value_is_pytorchs(g: Any, limit: float) -> None:
    import torch

    (p,) = parameters([g])
    q = torch.nn.Parameter(torch.ones(g.shape, dtype=torch.float64))
    q.grad = torch.tensor(g)
    clip_grad_value_(p, limit)
    torch.nn.utils.clip_grad_value_(q, limit)
    assert p.grad is not None
    np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


def test_limits_that_make_no_sense() -> None:
    (p,) = parameters([np.ones(2)])
    for call in (
        lambda: clip_grad_norm_(p, -1.0),
        lambda: clip_grad_norm_(p, float("nan")),
        lambda: clip_grad_norm_(p, 1.0, 0.0),
        lambda: clip_grad_value_(p, -1.0),
    ):
        with pytest.raises(ShapeError):
            call()


def test_on_the_strict_backend(strict: str) -> None:
    gradients = [np.asarray([3.0, 4.0]), np.asarray(12.0)]
    for norm_type in (1.0, 2.0, math.inf):
        here, there = parameters(gradients), parameters(gradients, strict)
        one, other = (clip_grad_norm_(ps, 1.0, norm_type) for ps in (here, there))
        assert other.backend.name == strict
        np.testing.assert_allclose(one.numpy(), other.numpy())
        clip_grad_value_(there, 0.1)
        clip_grad_value_(here, 0.1)
        for p, q in zip(here, there, strict=True):
            assert p.grad is not None
            assert q.grad is not None
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy())
    with pytest.raises(DeviceError, match="one backend"):
        clip_grad_norm_([*here, *there], 1.0)  # pyright: ignore[reportPossiblyUnboundVariable]
