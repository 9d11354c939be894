"""Initial values: PyTorch's bounds, and one seed for every backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn import nn
from tinygradrnn.errors import ShapeError

SIZES = (30, 50)


@pytest.mark.parametrize(
    ("make", "bound"),
    [
        (lambda rng: nn.Linear(*SIZES, rng=rng), 1 / math.sqrt(30)),
        (lambda rng: nn.RNNCell(*SIZES, rng=rng), 1 / math.sqrt(50)),
        (lambda rng: nn.GRUCell(*SIZES, rng=rng), 1 / math.sqrt(50)),
        (lambda rng: nn.LSTMCell(*SIZES, rng=rng), 1 / math.sqrt(50)),
    ],
)
def test_uniform_within_the_bound(make: Callable[[Any], nn.Module], bound: float) -> None:
    values = np.concatenate(
        [p.numpy().ravel() for p in make(tgr.current_backend().rng(0)).parameters()]
    )
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.97 * bound
    # A uniform distribution's standard deviation, and its mean within five standard errors.
    assert abs(values.std() * math.sqrt(3) / bound - 1) < 0.05
    assert abs(values.mean()) < 5 * bound / math.sqrt(3 * values.size)


def test_an_embedding_is_standard_normal() -> None:
    values = nn.Embedding(100, 100, rng=tgr.current_backend().rng(0)).weight.numpy()
    assert abs(values.mean()) < 0.05
    assert abs(values.std() - 1) < 0.05


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["Linear", "RNNCell", "GRUCell", "LSTMCell"])
def test_pytorch_has_the_same_spread(name: str) -> None:
    import torch

    torch.manual_seed(0)
    theirs: Any = getattr(torch.nn, name)(*SIZES)
    ours: Any = getattr(nn, name)(*SIZES, rng=tgr.current_backend().rng(0))
    for key, value in theirs.state_dict().items():
        mine = ours.state_dict()[key].numpy()
        assert mine.shape == tuple(value.shape)
        assert abs(np.abs(mine).max() / float(value.abs().max()) - 1) < 0.15


def test_a_seed_is_the_same_stream_on_every_backend(strict: str) -> None:
    here = nn.LSTMCell(3, 4, rng=tgr.current_backend().rng(5))
    there = nn.LSTMCell(3, 4, rng=tgr.get_backend(strict).rng(5))
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        assert other.backend.name == strict
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_without_a_generator_every_layer_is_another() -> None:
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    assert not np.array_equal(a.weight.numpy(), b.weight.numpy())


def test_kaiming_takes_the_fan_in_of_all_axes_but_the_first() -> None:
    w = nn.init.kaiming_uniform((1000, 3, 4), a=0.0, rng=tgr.current_backend().rng(0)).numpy()
    assert 0.99 * math.sqrt(6 / 12) < np.abs(w).max() <= math.sqrt(6 / 12)
    with pytest.raises(ShapeError, match="two axes"):
        nn.init.kaiming_uniform((3,))


def test_normal_has_a_mean_and_a_spread() -> None:
    w = nn.init.normal((5000,), 3.0, 0.5, rng=tgr.current_backend().rng(0), dtype="float64").numpy()
    assert w.dtype == np.float64
    assert abs(w.mean() - 3) < 0.05
    assert abs(w.std() - 0.5) < 0.05
