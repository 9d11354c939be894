"""The gradient at kinks and ties, by value: PyTorch's choices, as the docstrings say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn.errors import ShapeError


def gradient(f: Callable[..., Any], *arrays: Any) -> list[Any]:
    xs = [tgr.tensor(np.asarray(a, np.float64), requires_grad=True) for a in arrays]
    return [g.tolist() for g in tgr.grad(tgr.sum(f(*xs)), xs)]


@pytest.mark.parametrize(
    ("f", "x", "expected"),
    [
        (tgr.abs, [-1, 0, 2], [-1, 0, 1]),
        (tgr.relu, [-1, 0, 2], [0, 0, 1]),
        (tgr.sign, [-1, 0, 2], [0, 0, 0]),
        (lambda x: tgr.clip(x, -1, 1), [-2, -1, 0, 1, 2], [0, 1, 1, 1, 0]),
        (tgr.max, [1, 3, 3, 2], [0, 0.5, 0.5, 0]),
        (tgr.min, [1, 1, 1, 2], [1 / 3, 1 / 3, 1 / 3, 0]),
        (lambda x: tgr.max(x, axis=0), [[1, 2], [1, 0]], [[0.5, 1], [0.5, 0]]),
        (tgr.std, [2, 2, 2], [0, 0, 0]),
        (tgr.sqrt, [0, 4], [np.inf, 0.25]),
        (tgr.prod, [0, 2, 3], [6, 0, 0]),
        (tgr.prod, [0, 0, 3], [0, 0, 0]),
        (lambda x: x**0, [0, 2], [0, 0]),
        (lambda x: x**1, [0, 2], [1, 1]),
        (tgr.logsumexp, [-np.inf, 0], [0, 1]),
    ],
)
def test_one_argument(f: Any, x: Any, expected: Any) -> None:
    assert gradient(f, x) == [expected]


@pytest.mark.parametrize("f", [tgr.maximum, tgr.minimum])
def test_a_tie_is_shared(f: Any) -> None:
    a, b = gradient(f, [1, 2, 3], [1, 5, 0])
    assert a[0] == b[0] == 0.5
    assert [x + y for x, y in zip(a, b, strict=True)] == [1, 1, 1]


def test_the_exponent_of_base_zero() -> None:
    assert gradient(tgr.pow, [0, 0, 0], [0, 1, 2])[1] == [0, 0, 0]
    with np.errstate(all="ignore"):
        assert np.isnan(gradient(tgr.pow, [-2], [2])[1]).all()


def test_a_negative_zero_keeps_its_sign_in_pow() -> None:
    """d2(x**y) / dy dx = x**(y - 1) * (1 + y * log(x)) at x = -0, y = -1: no inf - inf."""
    x, y = (tgr.tensor(v, dtype="float64", requires_grad=True) for v in (-0.0, -1.0))
    with np.errstate(all="ignore"):
        (slope,) = tgr.grad(x**y, y, create_graph=True)
        assert tgr.grad(slope, x)[0].item() == np.inf


def test_gradcheck_says_so_and_does_not_loosen() -> None:
    for f, point in ((tgr.relu, 0.0), (tgr.abs, 0.0), (lambda x: tgr.clip(x, -1, 1), 1.0)):
        x = tgr.tensor([point], dtype="float64", requires_grad=True)
        with pytest.raises(tgr.errors.GradcheckError, match="kink"):
            tgr.testing.gradcheck(f, x)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize(("shape", "axis"), [((2, 0), -1), ((0, 3), -1), ((0, 3), 0)])
def test_over_nothing(name: str, shape: tuple[int, ...], axis: int) -> None:
    import torch

    x = tgr.tensor(np.zeros(shape), requires_grad=True)
    found, expected = getattr(tgr, name)(x, axis=axis), getattr(torch, name)
    np.testing.assert_array_equal(found.numpy(), expected(torch.zeros(shape), axis).numpy())
    assert tgr.grad(found.sum(), x)[0].shape == shape


def test_a_row_that_is_masked_out_altogether() -> None:
    x = tgr.tensor([[-np.inf, -np.inf], [0.0, 0.0]], requires_grad=True)
    (g,) = tgr.grad(tgr.logsumexp(x, axis=-1)[1], x)
    assert g.tolist() == [[0, 0], [0.5, 0.5]]


def test_arguments_without_time() -> None:
    with pytest.raises(ShapeError, match="at least one to sum along"):
        tgr.cumulative_sum(tgr.tensor(1.0), axis=0)
    with pytest.raises(ShapeError, match="'b' has no dimensions"):
        tgr.linear_recurrence(tgr.tensor(1.0), 0.5)
    with pytest.raises(ShapeError, match=r"'c' has shape \(2, 3\), 'b' \(3,\)"):
        tgr.linear_recurrence(tgr.ones((3,)), tgr.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"'c' has shape \(4,\), 'b' \(3,\)"):
        tgr.linear_recurrence(tgr.ones((3,)), tgr.ones((4,)))
    with pytest.raises(ShapeError, match="zeros: negative"):
        tgr.zeros(-1)
    with pytest.raises(ShapeError, match="ones: negative"):
        tgr.ones(-1)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_over_nothing_is_checked_as_over_something(name: str) -> None:
    f = getattr(tgr, name)
    with pytest.raises(tgr.errors.IndexRangeError, match=f"{name}: axis 5"):
        f(tgr.ones((2, 0)), axis=5)
    with pytest.raises(tgr.errors.DtypeError, match=name):
        f(tgr.ones((2, 0), "int64"), axis=-1)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([0, 3], tgr.errors.IndexRangeError, "^cross_entropy: 'target' has index 3, .* size 3"),
        ([0, -1], tgr.errors.IndexRangeError, "^cross_entropy: 'target' .* negative"),
        ([0.0, 1.0], tgr.errors.DtypeError, "^cross_entropy: 'target' is float32"),
        ([True, False], tgr.errors.DtypeError, "^cross_entropy: 'target' is bool"),
    ],
)
def test_classes_that_are_none(target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tgr.cross_entropy(tgr.ones((2, 3)), tgr.tensor(target))


def test_a_step_of_the_recurrence_with_one_factor() -> None:
    b = np.random.default_rng(0).standard_normal((4, 2))
    expected = tgr.linear_recurrence(tgr.tensor(b), tgr.tensor(np.full((4, 2), 0.5)))
    for c in (0.5, np.array(0.5), np.full(2, 0.5), np.full((4, 1), 0.5)):
        assert tgr.linear_recurrence(tgr.tensor(b), c).tolist() == expected.tolist()
