"""Cells: one step and a sequence, against PyTorch's cells and layers with the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygradrnn as tgr
from tinygradrnn import nn, tree
from tinygradrnn.errors import ShapeError

KINDS = ["rnn", "relu", "gru", "lstm"]


def ours(kind: str, inputs: int, hidden: int, bias: bool = True, dtype: str = "float64") -> Any:
    options: dict[str, Any] = {"dtype": dtype, "rng": tgr.current_backend().rng(0)}
    if kind == "lstm":
        return nn.LSTMCell(inputs, hidden, bias, **options)
    if kind == "gru":
        return nn.GRUCell(inputs, hidden, bias, **options)
    return nn.RNNCell(inputs, hidden, bias, "tanh" if kind == "rnn" else kind, **options)


def theirs(kind: str, inputs: int, hidden: int, bias: bool) -> Any:
    import torch

    if kind == "lstm":
        return torch.nn.LSTMCell(inputs, hidden, bias, dtype=torch.float64)
    if kind == "gru":
        return torch.nn.GRUCell(inputs, hidden, bias, dtype=torch.float64)
    name = "tanh" if kind == "rnn" else kind
    return torch.nn.RNNCell(inputs, hidden, bias, name, dtype=torch.float64)


every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.oracle
@every_kind
@pytest.mark.parametrize("bias", [True, False])
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_a_sequence_and_all_its_gradients(
    kind: str, bias: bool, time: int, batch: int, inputs: int, hidden: int
) -> None:
    import torch

    rng = np.random.default_rng(0)
    mine, other = ours(kind, inputs, hidden, bias), theirs(kind, inputs, hidden, bias)
    mine.load_state_dict({k: v.numpy() for k, v in other.state_dict().items()})
    xs = rng.standard_normal((time, batch, inputs))
    first = [rng.standard_normal((batch, hidden)) for _ in range(2 if kind == "lstm" else 1)]
    g = rng.standard_normal((time, batch, hidden))

    a = tgr.tensor(xs, requires_grad=True)
    state = tuple(tgr.tensor(s, requires_grad=True) for s in first)
    outputs, last = tgr.scan(mine, a, state if kind == "lstm" else state[0])
    loss = (outputs * tgr.tensor(g)).sum()
    loss = loss + sum((leaf * leaf).sum() for leaf in tree.flatten(last)[0])
    loss.backward()

    b = torch.tensor(xs, requires_grad=True)
    states = [torch.tensor(s, requires_grad=True) for s in first]
    carried: Any = tuple(states) if kind == "lstm" else states[0]
    hs: list[Any] = []
    for x in b:
        carried = other(x, carried)
        hs.append(carried[0] if kind == "lstm" else carried)
    z = torch.stack(hs)
    total = (z * torch.tensor(g)).sum()
    for leaf in carried if kind == "lstm" else [carried]:
        total = total + (leaf * leaf).sum()
    total.backward()

    np.testing.assert_allclose(outputs.numpy(), z.detach().numpy(), rtol=1e-10, atol=1e-12)
    pairs: list[Any] = [(a, b), *zip(state, states, strict=True)]
    pairs += list(zip(mine.parameters(), other.parameters(), strict=True))
    for p, q in pairs:
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.oracle
@every_kind
def test_cells_compute_what_pytorchs_layers_do(kind: str) -> None:
    import torch

    make = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(kind, torch.nn.RNN)
    options = {"nonlinearity": "relu"} if kind == "relu" else {}
    layer: Any = make(3, 4, dtype=torch.float64, **options)
    cell = ours(kind, 3, 4)
    cell.load_state_dict({k.removesuffix("_l0"): v.numpy() for k, v in layer.state_dict().items()})
    xs = np.random.default_rng(0).standard_normal((7, 2, 3))
    expected = layer(torch.tensor(xs))[0].detach().numpy()
    np.testing.assert_allclose(tgr.scan(cell, xs)[0].numpy(), expected, rtol=1e-12, atol=1e-12)


@every_kind
def test_gradients_and_their_gradients_against_differences(kind: str) -> None:
    cell = ours(kind, 2, 3)
    rng = np.random.default_rng(3)
    xs = tgr.tensor(rng.standard_normal((3, 2, 2)), requires_grad=True)

    def f(xs: Any, *weights: Any) -> Any:
        outputs, state = tgr.scan(cell, xs)
        return outputs, *tree.flatten(state)[0]

    tgr.testing.gradcheck(f, [xs, *cell.parameters()])
    tgr.testing.gradgradcheck(f, [xs, *cell.parameters()])


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])  # relu's is zero, and not on the tape
def test_second_derivatives_exist(kind: str) -> None:
    cell = ours(kind, 2, 3)
    x = tgr.tensor(np.ones((2, 1, 2)), requires_grad=True)
    (g,) = tgr.grad(tgr.scan(cell, x)[0].sum(), x, create_graph=True)
    (gg,) = tgr.grad((g * g).sum(), x)
    assert gg.shape == x.shape
    assert bool(tgr.all(tgr.isfinite(gg)))


@every_kind
def test_the_same_on_the_strict_backend(kind: str, strict: str) -> None:
    xs = np.random.default_rng(0).standard_normal((4, 2, 3))
    results: list[list[Any]] = []
    for backend in ("numpy", strict):
        cell = ours(kind, 3, 4).to(backend)
        outputs, _ = tgr.scan(cell, tgr.tensor(xs, backend=backend), lengths=[4, 2])
        assert outputs.backend.name == backend
        (outputs * outputs).sum().backward()
        results.append([outputs.numpy(), *(p.grad.numpy() for p in cell.parameters())])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@every_kind
def test_leading_axes_come_along(kind: str) -> None:
    cell = ours(kind, 3, 4)
    rng = np.random.default_rng(0)
    x = tgr.tensor(rng.standard_normal((5, 2, 3)))
    zero = tgr.zeros((5, 2, 4), "float64")
    state = (zero, zero) if kind == "lstm" else zero
    together = cell(x, state)[0]
    one = cell(x[0, 0], tree.map(lambda leaf: leaf[0, 0], state))[0]
    np.testing.assert_allclose(together.numpy()[0, 0], one.numpy(), rtol=1e-12)


@every_kind
def test_shapes_that_do_not_go_together(kind: str) -> None:
    cell = ours(kind, 3, 4)
    good = cell.initial_state(2)
    for x, state in [
        (tgr.ones((2, 5), "float64"), good),  # another input size
        (tgr.ones((3, 3), "float64"), good),  # another batch
        (tgr.ones((3,), "float64"), good),  # would broadcast
        (tgr.ones((2, 3), "float64"), tree.map(lambda s: s[:, :1], good)),  # would broadcast
    ]:
        with pytest.raises(ShapeError):
            cell(x, state)


def test_an_lstm_names_its_state() -> None:
    cell = ours("lstm", 3, 4)
    output, state = cell(tgr.ones((2, 3), "float64"), cell.initial_state(2))
    assert type(state) is nn.LSTMState
    assert output is state.h
    assert state.c.shape == (2, 4)


def test_a_nonlinearity_is_one_of_two() -> None:
    with pytest.raises(ShapeError, match="'tanh' or 'relu'"):
        nn.RNNCell(1, 1, nonlinearity="sin")
