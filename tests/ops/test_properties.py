"""Gradients at shapes, axes, indices and values that Hypothesis draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygradrnn as tgr

SMOOTH = ["exp", "expm1", "square", "sin", "cos", "tanh", "sigmoid", "softplus", "gelu", "negative"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


def values(shape: Any) -> Any:
    # A grid that avoids zero: no two results are almost equal, no shrinking towards a kink.
    return hnp.arrays(
        np.float64, shape, elements=st.sampled_from([-1.7, -0.9, -0.3, 0.4, 1.1, 1.9])
    )


def leaf(array: Any) -> Any:
    return tgr.tensor(array, requires_grad=True)


def check(f: Any, *arrays: Any) -> None:
    xs = [leaf(a) for a in arrays]
    tgr.testing.gradcheck(f, xs)
    tgr.testing.gradgradcheck(f, xs)


@given(st.sampled_from(SMOOTH), SHAPES.flatmap(values))
def test_one_array(name: str, x: Any) -> None:
    check(tgr.registry[name], x)


@given(
    st.sampled_from(["add", "subtract", "multiply", "divide"]),
    hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3),
    st.data(),
)
def test_broadcasting(name: str, shapes: Any, data: Any) -> None:
    a, b = (data.draw(values(s)) for s in shapes.input_shapes)
    check(tgr.registry[name], a, b)
    x, y = leaf(a), leaf(b)
    result = tgr.registry[name](x, y)
    assert result.shape == shapes.result_shape


@given(
    hnp.mutually_broadcastable_shapes(signature="(m?,n),(n,p?)->(m?,p?)", max_dims=2, max_side=3),
    st.data(),
)
def test_matmul(shapes: Any, data: Any) -> None:
    a, b = (data.draw(values(s)) for s in shapes.input_shapes)
    check(tgr.matmul, a, b)
    np.testing.assert_allclose((leaf(a) @ leaf(b)).numpy(), a @ b, rtol=1e-12)


@given(st.data(), st.booleans())
def test_reductions(data: Any, keepdims: bool) -> None:
    x = data.draw(values(data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=3))))
    axes = st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1), hnp.valid_tuple_axes(x.ndim))
    axis = data.draw(axes)
    for name in ("sum", "mean", "var", "logsumexp", "prod"):
        f = tgr.registry[name]
        check(lambda x, f=f: f(x, axis=axis, keepdims=keepdims), x)


@given(st.data())
def test_basic_indices(data: Any) -> None:
    x = data.draw(values(data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))))
    key = data.draw(hnp.basic_indices(x.shape, allow_newaxis=True))
    y = leaf(x)[key]
    np.testing.assert_array_equal(y.numpy(), x[key])
    check(lambda x: x[key], x)


@given(st.data())
def test_integer_arrays(data: Any) -> None:
    x = data.draw(values(data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))))
    key = data.draw(hnp.integer_array_indices(x.shape, result_shape=hnp.array_shapes(max_side=3)))
    np.testing.assert_array_equal(leaf(x)[key].numpy(), x[key])
    check(lambda x: x[key], x)


@given(st.data())
def test_masks(data: Any) -> None:
    x = data.draw(values(data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=3))))
    mask = data.draw(hnp.arrays(np.bool_, x.shape[: data.draw(st.integers(1, x.ndim))]))
    np.testing.assert_array_equal(leaf(x)[mask].numpy(), x[mask])
    check(lambda x: x[mask], x)


@given(st.data())
def test_take_with_repeats(data: Any) -> None:
    x = data.draw(values(data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    n = x.shape[axis]
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
    at = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(-n, n - 1)))
    np.testing.assert_array_equal(tgr.take(leaf(x), at, axis=axis).numpy(), np.take(x, at, axis))
    check(lambda x: tgr.take(x, at, axis=axis), x)


@given(st.data())
def test_shapes_there_and_back(data: Any) -> None:
    x = data.draw(values(data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=3))))
    order = tuple(data.draw(st.permutations(range(x.ndim))))
    axis = data.draw(st.integers(0, x.ndim - 1))
    shift = data.draw(st.integers(-5, 5))
    f = leaf(x)
    moved = tgr.roll(tgr.flip(tgr.permute_dims(f, order), axis=axis), shift, axis=axis)
    expected = np.roll(np.flip(np.transpose(x, order), axis), shift, axis)
    np.testing.assert_array_equal(moved.numpy(), expected)
    parts = tgr.unstack(moved, axis=axis)
    np.testing.assert_array_equal(tgr.stack(parts, axis=axis).numpy(), expected)
    check(lambda x: tgr.roll(tgr.flip(tgr.permute_dims(x, order), axis=axis), shift, axis=axis), x)


@given(st.integers(0, 6), st.data())
def test_linear_recurrence_is_its_closed_form(time: int, data: Any) -> None:
    b, c = data.draw(values((time, 2))), data.draw(values((time, 2)))
    expected = np.zeros((time, 2))
    for t in range(time):
        for i in range(t + 1):
            expected[t] += np.prod(c[i + 1 : t + 1], axis=0) * b[i]
    found = tgr.linear_recurrence(leaf(b), leaf(c)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    check(tgr.linear_recurrence, b, c)


@pytest.mark.parametrize("wrong", [1.001, -1.0, 1 + 1e-5])
@given(scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_a_small_wrong_gradient_does_not_pass(wrong: float, scale: float) -> None:
    """Also where the gradient itself is small: no absolute tolerance hides it."""
    from tinygradrnn.op import Op

    def broken(xp: Any, x: Any, /) -> Any:
        return scale * x * x

    broken.__name__ = f"broken_{wrong}_{scale}"
    op = Op(broken)
    try:
        op.vjp(x=lambda xp, g, x: g * (2 * scale * wrong) * x)
        with pytest.raises(tgr.errors.GradcheckError, match="wrong gradient"):
            tgr.testing.gradcheck(op, leaf(np.array([0.7 * scale])))
    finally:
        del tgr.registry[op.name]
