"""The Tensor: immutable, at home beside NumPy, and never silently on another device."""

from __future__ import annotations

import copy
import operator
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
OPERATORS += [operator.mod, operator.floordiv]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


def test_python_floats_are_float32_and_arrays_keep_their_dtype() -> None:
    assert str(tgr.tensor([1.0]).dtype) == "float32"
    assert str(tgr.tensor(1.5).dtype) == "float32"
    assert str(tgr.tensor([1]).dtype) == "int64"
    assert str(tgr.tensor(True).dtype) == "bool"
    assert str(tgr.tensor(np.array([1.0])).dtype) == "float64"
    assert str(tgr.tensor([1], dtype=np.float32).dtype) == "float32"
    assert str(tgr.tensor([1.0], dtype=float).dtype) == "float32"


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize(
    "other", [np.full((2,), 1.5, np.float32), np.float32(1.5), np.float64(1.5), 1.5, 2, np.int64(2)]
)
def test_numpy_on_either_side_never_drops_the_graph(op: Any, other: Any) -> None:
    x = tgr.tensor([2.0, 3.0], requires_grad=True)
    for left, right in ((x, other), (other, x)):
        result = op(left, right)
        assert isinstance(result, tgr.Tensor)
        assert result.requires_grad
        assert str(result.dtype) == "float32"
        values = (getattr(v, "array", v) for v in (left, right))
        np.testing.assert_allclose(result.numpy(), op(*values), rtol=1e-6)


def test_a_matrix_product_with_numpy_on_either_side() -> None:
    x = tgr.tensor(np.eye(2), requires_grad=True)
    a = np.array([[1.0, 2.0], [3.0, 4.0]])
    for result in (x @ a, a @ x):
        assert isinstance(result, tgr.Tensor)
        assert result.requires_grad
        np.testing.assert_array_equal(result.numpy(), a)


@pytest.mark.parametrize("op", COMPARISONS)
def test_comparisons(op: Any) -> None:
    x = tgr.tensor([1.0, 2.0, 3.0], requires_grad=True)
    for other in (2.0, np.float32(2), np.full(3, 2, np.float32)):
        for left, right in ((x, other), (other, x)):
            result = op(left, right)
            assert isinstance(result, tgr.Tensor)
            assert not result.requires_grad
            values = (getattr(v, "array", v) for v in (left, right))
            np.testing.assert_array_equal(result.numpy(), op(*values))


def test_it_is_immutable() -> None:
    x = tgr.tensor([1.0, 2.0])
    with pytest.raises(tgr.errors.ImmutableError, match="where"):
        x[0] = 5.0
    y = x
    y += 1
    assert x.tolist() == [1, 2]
    with pytest.raises(AttributeError):
        x.shape = (1, 2)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        x.something = 1  # type: ignore[attr-defined]


def test_kinds_of_numbers_do_not_mix_silently() -> None:
    whole, real, truth = tgr.tensor([1, 2]), tgr.tensor([1.0, 2.0]), tgr.tensor([True, False])
    for f in (
        lambda: whole * real,
        lambda: whole + 0.5,
        lambda: truth * real,
        lambda: whole / whole,
        lambda: tgr.tensor([1, 2]) * np.array([1.0, 2.0]),
    ):
        with pytest.raises(tgr.errors.DtypeError, match="astype"):
            f()
    assert (whole + 1).tolist() == [2, 3]
    assert (real * 2).tolist() == [2, 4]
    assert truth.sum().item() == 1


def test_integers_have_no_gradient() -> None:
    with pytest.raises(tgr.errors.DtypeError, match="int64"):
        tgr.tensor([1, 2], requires_grad=True)
    x = tgr.tensor([1.5], requires_grad=True)
    assert not x.astype("int64").requires_grad
    assert x.astype("float64").requires_grad


def test_ways_out() -> None:
    x = tgr.tensor([[1.0, 2.0]], requires_grad=True)
    assert x.numpy().tolist() == x.tolist() == [[1, 2]]
    with pytest.raises(tgr.errors.GradientError, match=r"drop its graph"):
        np.asarray(x)
    with pytest.raises(tgr.errors.GradientError, match=r"drop its graph"):
        np.from_dlpack(x)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        np.sin(x)  # type: ignore[call-overload]
    np.testing.assert_array_equal(np.asarray(x.detach()), [[1, 2]])
    np.testing.assert_array_equal(np.from_dlpack(x.detach()), [[1, 2]])  # type: ignore[arg-type]
    assert float(x.sum()) == 3
    assert tgr.tensor([5]).item() == 5
    assert [10, 11, 12][tgr.tensor(1)] == 11
    with pytest.raises(tgr.errors.ShapeError, match="2 elements"):
        x.item()


def test_dlpack_shares_memory() -> None:
    a = np.array([1.0, 2.0])
    x = tgr.from_dlpack(a)
    assert np.shares_memory(x.array, a)
    with pytest.raises(tgr.errors.DtypeError, match="__dlpack__"):
        tgr.from_dlpack([1.0])


@pytest.mark.oracle
def test_dlpack_with_pytorch() -> None:
    import torch

    t = torch.tensor([1.0, 2.0])
    assert tgr.from_dlpack(t).tolist() == [1, 2]
    assert torch.from_dlpack(tgr.tensor([3.0])).tolist() == [3]


def test_iteration_length_and_truth() -> None:
    x = tgr.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    assert len(x) == 2
    first, second = x
    (first * second).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[3, 4], [1, 2]]
    assert bool(tgr.tensor(1.0))
    with pytest.raises(tgr.errors.ShapeError):
        bool(x)


def test_copies() -> None:
    x = tgr.tensor([1.0], requires_grad=True)
    y = copy.deepcopy(x)
    assert y.requires_grad
    assert y.tolist() == [1]
    with pytest.raises(tgr.errors.GradientError, match="detach"):
        copy.deepcopy(x * 2)


def test_none_is_equal_to_no_tensor() -> None:
    x = tgr.tensor([1.0])
    assert (x == None) is False  # noqa: E711
    assert (x != None) is True  # noqa: E711
    assert f"{tgr.tensor(1.5):.2f}" == "1.50"


def test_it_reads_well() -> None:
    assert repr(tgr.tensor([1.0, 2.0])) == "tensor([1., 2.])"
    assert repr(tgr.tensor(np.ones(2))) == "tensor([1., 1.], dtype=float64)"
    x = tgr.tensor([[1, 2], [3, 4]])
    assert repr(x) == "tensor([[1, 2],\n        [3, 4]])"
    assert repr(tgr.tensor([1.0], requires_grad=True)) == "tensor([1.], requires_grad=True)"
    assert repr(tgr.zeros((0, 3))) == "tensor([], shape=(0, 3))"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: x @ tgr.ones((4, 5)), ["matmul", "x1", "(2, 3)", "(4, 5)"]),
        (lambda x: x + tgr.ones((4,)), ["add", "(2, 3)", "(4,)"]),
        (lambda x: tgr.reshape(x, (5, -1)), ["reshape", "(2, 3)", "(5, -1)"]),
        (lambda x: tgr.sum(x, axis=2), ["sum", "(2, 3)", "axis=2"]),
        (lambda x: tgr.concat([x, tgr.ones((2,))]), ["concat", "arrays[1]", "(2,)"]),
        (lambda x: tgr.stack([x, tgr.ones((2,))]), ["stack", "arrays[1]"]),
        (lambda x: tgr.split(x, 2, axis=1), ["split", "size 3", "2 equal parts"]),
        (lambda x: tgr.linear(x, tgr.ones((4, 5))), ["linear", "(2, 3)", "(4, 5)"]),
        (lambda x: tgr.cross_entropy(x, tgr.tensor([0])), ["cross_entropy", "(1,)", "(2, 3)"]),
        (lambda x: tgr.take(x, tgr.tensor([2]), axis=0), ["take", "index 2", "size 2"]),
        (lambda x: x[5], ["getitem", "index 5", "size 2"]),
        (lambda x: x[0, 0, 0], ["getitem", "3 indices", "2 dimensions"]),
        (lambda x: x[tgr.tensor([0.5])], ["getitem", "float32"]),
        (lambda x: x["a"], ["getitem", "str"]),
        (lambda x: tgr.exp("a"), ["exp", "str"]),
        (lambda x: tgr.registry["exp"](x, 1), ["exp"]),
        (lambda x: tgr.registry["sum"](x, axes=0), ["sum", "axes"]),
        (lambda x: x.astype("float7"), ["astype", "float7"]),
        (lambda x: tgr.where(x, x, x), ["where", "condition", "float32"]),
        (lambda x: tgr.tensor([[1.0], [1.0, 2.0]]), ["tensor"]),
        (lambda x: tgr.tensor("text"), ["tensor", "str"]),
        (lambda x: tgr.tensordot(x, x, axes=1), ["tensordot", "[3]", "[2]"]),
        (lambda x: tgr.linear_recurrence(x, tgr.ones((2,))), ["linear_recurrence", "'b'", "'c'"]),
        (lambda x: x.T.mT[None].T, ["T", "3 dimensions"]),
        (lambda x: x + None, ["add", "x2", "NoneType"]),
        (lambda x: tgr.linear(x, None), ["linear", "weight", "NoneType"]),
        (lambda x: tgr.registry["exp"](x=x), ["exp", "'x'"]),
        (lambda x: tgr.exp(tgr.tensor([1])), ["exp", "int64", "astype"]),
        (lambda x: tgr.mean(tgr.tensor([1, 2])), ["mean", "int64", "astype"]),
        (lambda x: tgr.concat([x, tgr.tensor([[1, 2, 3]])]), ["concat", "arrays[1]", "astype"]),
        (lambda x: x[np.True_], ["getitem", "single boolean"]),
        (lambda x: tgr.vecdot(x, x, axis=4), ["vecdot", "axis 4"]),
        (lambda x: tgr.registry["roll"](x, 1.5), ["roll", "shift=1.5"]),
        (lambda x: tgr.zeros((-1,)), ["zeros", "shape=(-1,)"]),
        (lambda x: tgr.jacobian(lambda y: 3.0, x), ["function returned a float"]),
        (lambda x: tgr.use_backend(5), ["by name", "int"]),  # type: ignore[arg-type]
        (lambda x: tgr.current_backend().rng(-1), ["seed", "-1"]),
        (
            lambda x: tgr.cross_entropy(x, tgr.tensor([0, 3])),
            ["cross_entropy", "index 3", "size 3"],
        ),
    ],
)
def test_errors_name_the_operation_and_what_was_found(call: Any, words: list[str]) -> None:
    x = tgr.ones((2, 3))
    with pytest.raises(tgr.TinygradrnnError) as caught:
        call(x)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_small_integers_index_long_axes() -> None:
    x = tgr.tensor(np.arange(300.0))
    assert x[np.array([-1], np.int8)].tolist() == [299]
    labels = tgr.tensor(np.array([1, 200], np.uint8))
    assert tgr.cross_entropy(tgr.zeros((2, 300)), labels).item() > 0
    with pytest.raises(tgr.errors.IndexRangeError, match=r"cross_entropy.*negative"):
        tgr.cross_entropy(tgr.zeros((2, 3)), tgr.tensor([0, -1]))


def test_true_is_one_in_arithmetic() -> None:
    x = tgr.tensor([2.0, 3.0])
    assert (x * True).tolist() == [2, 3]
    assert (x + np.bool_(True)).tolist() == [3, 4]


@pytest.mark.parametrize(
    "wrong", [np.array([None, 1]), np.array(["a"]), np.array([1j]), np.array(["2020"], "M8[D]")]
)
def test_arrays_of_what_is_no_number_are_refused(wrong: Any) -> None:
    with pytest.raises(tgr.errors.DtypeError):
        tgr.tensor(wrong)
    with pytest.raises(tgr.errors.DtypeError):
        tgr.tensor([1.0]) * wrong


def test_kinds_do_not_mix_in_where_and_stack() -> None:
    x = tgr.tensor([1.0, 2.0])
    for call in (
        lambda: tgr.where(x > 1, x, tgr.tensor([1, 2])),
        lambda: tgr.where(x > 1, x, None),  # type: ignore[arg-type]
        lambda: tgr.stack([x[0], 1.0]),
        lambda: tgr.relu(tgr.tensor([1])),
    ):
        with pytest.raises(tgr.errors.DtypeError):
            call()


def test_what_others_write_does_not_reach_the_tape() -> None:
    x, w = tgr.tensor([1.0, 2.0]), tgr.tensor([1.0, 1.0], requires_grad=True)
    y = (w * x).sum()
    shared: Any = np.from_dlpack(x)  # type: ignore[arg-type]
    if shared.flags.writeable:
        shared[:] = 0
    assert tgr.grad(y, w)[0].tolist() == [1, 2]
