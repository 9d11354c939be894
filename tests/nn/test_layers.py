"""Layers without memory, against PyTorch and by their own words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygradrnn as tgr
from tinygradrnn import nn
from tinygradrnn.errors import DtypeError, IndexRangeError, ShapeError


def same_as_pytorch(ours: nn.Module, theirs: Any, x: Any) -> None:
    """Outputs and all gradients, given the same weights, in float64."""
    import torch

    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    integer = x.dtype.kind == "i"
    a = tgr.tensor(x, requires_grad=not integer)
    b = torch.tensor(x, requires_grad=not integer)
    y, z = ours(a), theirs(b)
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=1e-12, atol=1e-12)
    g = np.random.default_rng(1).standard_normal(z.shape)
    y.backward(tgr.tensor(g))
    z.backward(torch.tensor(g))
    pairs = [(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)]
    pairs += [] if integer else [(a.grad, b.grad)]
    for mine, other in pairs:
        assert mine is not None
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-10, atol=1e-10)


leading = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@pytest.mark.oracle
@given(leading, st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_linear(lead: tuple[int, ...], n: int, m: int, bias: bool) -> None:
    import torch

    x = np.random.default_rng(0).standard_normal((*lead, n))
    theirs = torch.nn.Linear(n, m, bias, dtype=torch.float64)
    same_as_pytorch(nn.Linear(n, m, bias, dtype="float64"), theirs, x)


@pytest.mark.oracle
@given(leading, st.integers(1, 5), st.data())
def test_embedding_with_repeated_ids(lead: tuple[int, ...], size: int, data: st.DataObject) -> None:
    import torch

    seed = data.draw(st.integers(0, 99))
    ids = np.random.default_rng(seed).integers(0, size, lead)
    theirs = torch.nn.Embedding(size, 3, dtype=torch.float64)
    same_as_pytorch(nn.Embedding(size, 3, dtype="float64"), theirs, ids)


@pytest.mark.parametrize("ids", [[0, 3], [-1], [[0], [-4]]])
def test_an_id_out_of_range(ids: Any) -> None:
    with pytest.raises(IndexRangeError, match="out of range"):
        nn.Embedding(3, 2)(np.asarray(ids))


def test_ids_must_be_integers() -> None:
    with pytest.raises(DtypeError, match="integers"):
        nn.Embedding(3, 2)(np.ones(2))


@pytest.mark.oracle
@given(leading, st.lists(st.integers(2, 4), min_size=1, max_size=2).map(tuple), st.integers(0, 2))
def test_layer_norm(lead: tuple[int, ...], shape: tuple[int, ...], form: int) -> None:
    import torch

    options = {"elementwise_affine": form > 0, "bias": form > 1}
    x = np.random.default_rng(0).standard_normal((*lead, *shape)) * 3 + 1
    theirs = torch.nn.LayerNorm(list(shape), **options, dtype=torch.float64)
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_()
    same_as_pytorch(nn.LayerNorm(shape, **options, dtype="float64"), theirs, x)


def test_layer_norm_refuses_another_shape() -> None:
    with pytest.raises(ShapeError, match=r"expected \(\.\.\., 2, 3\)"):
        nn.LayerNorm((2, 3))(tgr.ones((3, 3)))
    with pytest.raises(ShapeError):
        nn.LayerNorm(())


def test_dropout_keeps_the_mean_and_gives_the_mask_to_the_gradient() -> None:
    drop = nn.Dropout(0.25, rng=tgr.current_backend().rng(0))
    x = tgr.ones((200, 100)).numpy()
    a = tgr.tensor(x, requires_grad=True)
    y = drop(a)
    assert set(np.unique(y.numpy())) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(float((y.numpy() == 0).mean()) - 0.25) < 0.01
    y.sum().backward()
    assert a.grad is not None
    np.testing.assert_array_equal(a.grad.numpy(), y.numpy())
    assert not np.array_equal(drop(a).numpy(), y.numpy())


def test_dropout_at_its_limits_and_in_evaluation() -> None:
    x = tgr.ones((50,))
    assert nn.Dropout(0.0)(x) is x
    assert nn.Dropout(0.9).eval()(x) is x
    assert float(nn.Dropout(1.0)(x).sum()) == 0
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ShapeError, match="probability"):
            nn.Dropout(p)


def test_dropout_follows_its_input_to_another_backend(strict: str) -> None:
    x = np.ones(20, "float32")
    here = nn.Dropout(0.5, rng=tgr.get_backend("numpy").rng(3))
    there = nn.Dropout(0.5, rng=tgr.get_backend("numpy").rng(3))
    for _ in range(2):  # one stream, wherever its numbers go
        a, b = here(tgr.tensor(x)), there(tgr.tensor(x, backend=strict))
        assert b.backend.name == strict
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_sizes_are_positive_integers(size: Any) -> None:
    makers: list[Any] = [
        lambda: nn.Linear(size, 1),
        lambda: nn.Linear(1, size),
        lambda: nn.Embedding(size, 1),
        lambda: nn.LSTMCell(1, size),
    ]
    for make in makers:
        with pytest.raises(ShapeError, match="positive integer"):
            make()
