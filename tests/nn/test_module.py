"""Modules: finding parameters, storing and loading them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn import nn
from tinygradrnn.errors import BackendError, CheckpointError


class Model(nn.Module):
    def __init__(self) -> None:
        self.scale = nn.Parameter([1.0])
        self.label = "no parameter"
        self.layers = [nn.Linear(2, 3), (nn.Linear(3, 3, bias=False),)]
        self.heads = {"a": nn.Linear(3, 1), "b": nn.Dropout(0.5)}
        self.free = [nn.Parameter([2.0]), None]
        self.constant = tgr.ones((3,))


NAMES = [
    "scale",
    "layers.0.weight",
    "layers.0.bias",
    "layers.1.0.weight",
    "heads.a.weight",
    "heads.a.bias",
    "free.0",
]


def test_parameters_in_order_of_definition() -> None:
    model = Model()
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert [p.name for p in model.parameters()] == NAMES
    assert list(model.state_dict()) == NAMES
    assert [type(m).__name__ for m in model.modules()] == [
        "Model", "Linear", "Linear", "Linear", "Dropout",
    ]  # fmt: skip


def test_names_on_the_tape_are_those_of_the_outermost_module() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            self.inner = Model()

    outer = Outer()
    assert [p.name for p in outer.parameters()] == [f"inner.{name}" for name in NAMES]
    printed = str(tgr.Tape(outer.inner.layers[0](tgr.ones((1, 2)))))  # type: ignore[operator]
    assert "inner.layers.0.weight" in printed


def test_a_shared_module_is_counted_once_and_stored_twice() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            self.a = nn.Linear(2, 2, bias=False)
            self.b = self.a

    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == ["a.weight"]
    assert list(tied.state_dict()) == ["a.weight", "b.weight"]
    assert len(list(tied.modules())) == 2
    twin = copy.deepcopy(tied)
    assert twin.a is twin.b
    twin.load_state_dict(tied.state_dict())


def test_training_mode_and_gradients_reach_everywhere() -> None:
    model = Model()
    assert model.training
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    assert all(m.training for m in model.train().modules())
    for p in model.parameters():
        p.sum().backward()
        assert p.grad is not None
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_a_state_dict_is_a_snapshot_and_loads_back() -> None:
    model = Model()
    state = model.state_dict()
    before = {k: v.numpy() for k, v in state.items()}
    for p in model.parameters():
        p.assign(p.detach() + 1)
    for name, value in state.items():
        assert not value.requires_grad
        np.testing.assert_array_equal(value.numpy(), before[name])
    result = model.load_state_dict(before)
    assert result == ([], [])
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.numpy(), before[name])


def test_all_problems_at_once_and_nothing_changed() -> None:
    model = Model()
    before = {k: v.numpy() for k, v in model.state_dict().items()}
    bad: dict[str, Any] = {k: v + 1 for k, v in before.items()}
    del bad["scale"], bad["free.0"]
    bad["extra"] = np.ones(1)
    bad["heads.a.bias"] = np.ones((7,))
    bad["heads.a.weight"] = np.asarray([["a", "b", "c"]])
    with pytest.raises(CheckpointError) as raised:
        model.load_state_dict(bad)
    message = str(raised.value)
    for part in (
        "missing: scale, free.0",
        "unexpected: extra",
        "heads.a.bias has shape (7,), expected (1,)",
        "heads.a.weight is <U1, expected float32",
    ):
        assert part in message
    assert "\n" not in message
    with pytest.raises(CheckpointError, match="has shape"):
        model.load_state_dict(bad, strict=False)
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.numpy(), before[name])


def test_not_strict_says_what_it_passed_over() -> None:
    model = nn.Linear(1, 1)
    result = model.load_state_dict({"weight": np.full((1, 1), 5.0), "x": 1}, strict=False)
    assert result.missing == ["bias"]
    assert result.unexpected == ["x"]
    assert model.weight.tolist() == [[5]]
    assert str(model.weight.dtype) == "float32"


def test_moving_to_another_backend(strict: str) -> None:
    model, x = Model(), tgr.ones((4, 2))
    before = model.layers[0](x).numpy()  # type: ignore[operator]
    assert model.to(strict) is model
    assert all(p.backend.name == strict for p in model.parameters())
    assert model.constant.backend.name == strict
    np.testing.assert_allclose(
        model.layers[0](x.to(strict)).numpy(),  # type: ignore[operator]
        before,
        rtol=1e-6,
    )
    with pytest.raises(BackendError):
        model.to("nowhere")
    assert all(p.backend.name == strict for p in model.parameters())


def test_forward_must_be_defined() -> None:
    with pytest.raises(NotImplementedError, match="Module"):
        nn.Module()()
    with pytest.raises(NotImplementedError, match="initial_state"):
        nn.Cell().initial_state(1)
    with pytest.raises(NotImplementedError, match="forward"):
        nn.Cell()(1, 2)


def test_printing() -> None:
    assert repr(Model()).splitlines() == [
        "Model(",
        "  scale: Parameter float32 (1,)",
        "  layers.0: Linear(2, 3)",
        "  layers.1.0: Linear(3, 3, bias=False)",
        "  heads.a: Linear(3, 1)",
        "  heads.b: Dropout(p=0.5)",
        "  free.0: Parameter float32 (1,)",
        ")",
    ]
    assert repr(nn.Module()) == "Module()"
    assert repr(nn.RNNCell(2, 3, nonlinearity="relu")) == "RNNCell(2, 3, nonlinearity='relu')"
    assert repr(nn.LSTMCell(2, 3, bias=False)) == "LSTMCell(2, 3, bias=False)"
    assert repr(nn.LayerNorm((2, 3), bias=False)) == "LayerNorm((2, 3), eps=1e-05, bias=False)"


@pytest.mark.oracle
def test_a_state_dict_of_pytorch_loads() -> None:
    import torch

    theirs = torch.nn.LSTMCell(3, 4)
    ours = nn.LSTMCell(3, 4)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(ours.weight_hh.numpy(), theirs.weight_hh.detach().numpy())
