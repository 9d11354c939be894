"""The terms of the gradient through time, the slow ways to it, and training along a stream."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygradrnn as tgr
from tinygradrnn import bptt, nn
from tinygradrnn.errors import DtypeError, GradcheckError, GradientError, ShapeError
from tinygradrnn.op import op
from tinygradrnn.testing import verify_cell

CELLS: dict[str, Any] = {
    "RNN": lambda i, h: nn.RNNCell(i, h),
    "RNN relu": lambda i, h: nn.RNNCell(i, h, nonlinearity="relu"),
    "stacked weight": lambda i, h: nn.ConcatRNNCell(i, h),
    "IndRNN": lambda i, h: nn.IndRNNCell(i, h),
    "GRU": lambda i, h: nn.GRUCell(i, h),
    "GRU, Cho": lambda i, h: nn.ChoGRUCell(i, h),
    "GRU, layer norm": lambda i, h: nn.LayerNormGRUCell(i, h),
    "MGU": lambda i, h: nn.MinimalGatedCell(i, h),
    "minGRU": lambda i, h: nn.MinGRUCell(i, h),
    "minLSTM": lambda i, h: nn.MinLSTMCell(i, h),
    "LSTM": lambda i, h: nn.LSTMCell(i, h),
    "LSTM, projected": lambda i, h: nn.LSTMCell(i, h + 1, proj_size=h),
    "LSTM, peepholes": lambda i, h: nn.PeepholeLSTMCell(i, h),
    "LSTM, coupled": lambda i, h: nn.CoupledLSTMCell(i, h),
    "LSTM, layer norm": lambda i, h: nn.LayerNormLSTMCell(i, h),
    "LSTM, dropout inside": lambda i, h: nn.DropoutLSTMCell(i, h, p=0.3),
    "stacked": lambda i, h: nn.Stacked(nn.LSTMCell(i, h), nn.GRUCell(h, 2), dropout=0.3),
    "residual": lambda i, h: nn.Residual(nn.GRUCell(i, i)),
    "learned state": lambda i, h: nn.LearnedState(nn.GRUCell(i, h)),
    "variational": lambda i, h: nn.VariationalDropout(nn.LSTMCell(i, h), state=0.3, input=0.3),
    "recurrent dropout": lambda i, h: nn.RecurrentDropout(nn.GRUCell(i, h), 0.3),
    "zoneout": lambda i, h: nn.Zoneout(nn.LSTMCell(i, h), 0.3),
}


@pytest.mark.parametrize("name", CELLS)
@settings(max_examples=3)
@given(st.data())
def test_four_ways_to_the_gradient_of_every_cell(name: str, data: st.DataObject) -> None:
    inputs, hidden = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 3))
    time, batch = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 2))
    cell = CELLS[name](inputs, hidden)
    found = verify_cell(
        cell, time=time, batch=batch, seed=data.draw(st.integers(0, 999)), rtol=1e-8
    )
    assert found.elements > 0
    assert all("float32" in str(p.dtype) for p in cell.parameters())  # as before


def test_four_ways_for_an_attention_over_a_memory() -> None:
    memory = tgr.tensor(np.random.default_rng(0).standard_normal((4, 2)), requires_grad=True)
    w = tgr.tensor(np.random.default_rng(1).standard_normal((3, 2)), requires_grad=True)

    def attend(x: Any, h: Any) -> Any:
        weights = tgr.softmax(h @ memory.T, axis=-1)
        h = tgr.tanh(x @ w + weights @ memory)
        return {"h": h, "weights": weights}, h

    found = verify_cell(
        attend, np.ones((4, 2, 3)), np.zeros((2, 2)), parameters=[w, memory], lengths=[4, 2]
    )
    assert found.elements == 6 + 8 + 4 + 24  # w, memory, first state, xs


def test_four_ways_for_the_attention_cell() -> None:
    attention = nn.AttentionCell(nn.LSTMCell(2 + 3, 3), memory_size=3, attention_size=2)
    memory = tgr.tensor(np.random.default_rng(0).standard_normal((4, 2, 3)), requires_grad=True)

    def cell(x: Any, state: Any) -> Any:
        return attention.over(memory, lengths=[4, 2])(x, state)  # anew, with the weights of now

    first = nn.LSTMState(*np.random.default_rng(1).standard_normal((2, 2, 3)))
    xs = np.random.default_rng(2).standard_normal((4, 2, 2))
    found = verify_cell(cell, xs, first, parameters=[*attention.parameters(), memory])
    assert found.elements > 100


def test_a_wrong_rule_is_caught() -> None:
    if "crooked" not in tgr.registry:

        @op
        def crooked(xp: Any, x: Any, /) -> Any:
            """A tanh whose rule is wrong."""
            return xp.tanh(x)

        crooked.vjp(x=lambda xp, g, out: g * (1 - out))
    wrong: Any = tgr.registry["crooked"]
    try:
        w = tgr.tensor([[0.7]], requires_grad=True)

        def cell(x: Any, h: Any) -> Any:
            h = wrong(h @ w + x)
            return h, h

        with pytest.raises(GradcheckError, match=r"BPTT gives .* finite differences"):
            verify_cell(cell, np.ones((3, 1, 1)), np.zeros((1, 1)), parameters=[w])
    finally:
        del tgr.registry["crooked"]


def test_a_way_that_differs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bptt.rtrl

    def careless(*args: Any, **options: Any) -> Any:
        found = whole(*args, **options)
        return found._replace(parameters=(found.parameters[0] * 1.001, *found.parameters[1:]))

    monkeypatch.setattr(bptt, "rtrl", careless)
    with pytest.raises(GradcheckError, match=r"BPTT and rtrl differ by .* weight_ih"):
        verify_cell(nn.RNNCell(2, 3))


@pytest.mark.parametrize("where", ["input", "first state", "unread state"])
def test_wrong_rules_in_all_corners_are_caught(where: str) -> None:
    @op
    def skewed(xp: Any, x: Any, /) -> Any:
        """The identity, with a rule that is not."""
        return x * 1.0

    skewed.vjp(x=lambda xp, g: g * 1.01)
    try:

        class Crooked(nn.RNNCell):
            def initial_state(self, batch_size: int) -> Any:
                first = tgr.broadcast_to(self.bias_hh, (batch_size, 3))
                return {"h": skewed(first) if where == "first state" else first, "unread": first}

            def forward(self, x: Any, state: Any) -> Any:
                h, _ = super().forward(skewed(x) if where == "input" else x, state["h"])
                unread = state["unread"] * 0.5
                return h, {"h": h, "unread": skewed(unread) if where == "unread state" else unread}

        with pytest.raises(GradcheckError, match="finite differences"):
            verify_cell(Crooked(2, 3))
    finally:
        del tgr.registry["skewed"]


def test_verify_cell_asks_for_what_it_lacks() -> None:
    with pytest.raises(GradientError, match="give its parameters"):
        verify_cell(lambda x, h: (h, h), np.ones((2, 1)), np.ones(1))
    w = tgr.tensor([1.0], requires_grad=True)
    with pytest.raises(ShapeError, match="no input_size"):
        verify_cell(lambda x, h: (h * w, h), parameters=[w])
    with pytest.raises(GradientError, match="no leaf"):
        verify_cell(lambda x, h: (h * w, h), np.ones((2, 1)), np.ones(1), parameters=[w * 2.0])


def test_a_learned_first_state_counts() -> None:
    cell = nn.LearnedState(nn.LSTMCell(2, 3, dtype="float64"))
    for p in cell.parameters():
        p.assign(np.random.default_rng(0).standard_normal(p.shape))
    xs = np.random.default_rng(1).standard_normal((5, 2, 2))
    for plan in (bptt.Full(), bptt.Chunk(2), bptt.Depth(2)):
        outputs, _ = tgr.scan(cell, xs, truncation=plan)
        expected = tgr.grad(tgr.sum(outputs**2), list(cell.parameters()))
        found = [bptt.closed_form(cell, xs, loss=lambda o, t: tgr.sum(o**2), truncation=plan)]
        if plan == bptt.Full():
            found.append(bptt.rtrl(cell, xs, loss=lambda o, t: tgr.sum(o**2)))
            shares = bptt.anatomy(cell, xs, loss=lambda o, t: tgr.sum(o**2)).gradients.values()
            for a, b in zip(shares, expected, strict=True):
                np.testing.assert_allclose(a, b.numpy(), rtol=1e-9, atol=1e-12)
        for way in found:
            for a, b in zip(way.parameters, expected, strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-12)


def test_rtrl_and_closed_form_with_lengths_and_backwards() -> None:
    rng = np.random.default_rng(0)
    cell, xs = nn.LSTMCell(2, 3, dtype="float64"), rng.standard_normal((5, 3, 2))
    first = nn.LSTMState(*(tgr.tensor(rng.standard_normal((3, 3)), requires_grad=True),) * 2)
    options: Any
    for options in ({"lengths": [5, 0, 2]}, {"lengths": [1, 5, 3], "reverse": True}):
        outputs, _ = tgr.scan(cell, xs, first, **options)
        expected = tgr.grad(tgr.sum(outputs**2), [*cell.parameters(), first.h])
        way: Any
        for way in (bptt.rtrl, bptt.closed_form):
            found = way(cell, xs, first, loss=lambda o, t: tgr.sum(o**2), **options)
            assert found.loss == pytest.approx(float(tgr.sum(outputs**2)))
            for a, b in zip(found.parameters, expected, strict=False):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-12)
            both = found.state.h.numpy() + found.state.c.numpy()  # one tensor stood for both
            np.testing.assert_allclose(both, expected[-1].numpy(), rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------- streams


@given(st.integers(1, 14), st.integers(1, 6), st.integers(0, 8))
def test_a_stream_with_fixed_weights_is_the_plan(time: int, k1: int, more: int) -> None:
    rng = np.random.default_rng(0)
    cell, xs = nn.LSTMCell(2, 3, dtype="float64"), rng.standard_normal((time, 2, 2))
    w = tgr.tensor(rng.standard_normal((time, 2, 3)))
    calls = 0

    def counted(x: Any, state: Any) -> Any:
        nonlocal calls
        calls += 1
        return cell(x, state)

    plan = bptt.Window(k1, k1 + more) if more else bptt.Chunk(k1)
    times: list[int] = []
    for stretch in bptt.stream(counted, xs, plan, cell.initial_state(2)):
        stretch.backward(tgr.sum(stretch.outputs * w[stretch.times]))
        times += range(time)[stretch.times]
    assert times == list(range(time))
    assert calls == time  # every step runs once, however far back the windows reach
    found = [p.grad for p in cell.parameters()]
    cell.zero_grad()
    outputs, _ = tgr.scan(cell, xs, truncation=plan)
    tgr.sum(outputs * w).backward()
    for a, p in zip(found, cell.parameters(), strict=True):
        assert a is not None and p.grad is not None
        np.testing.assert_allclose(a.numpy(), p.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_a_stream_lets_go_of_what_no_window_reaches() -> None:
    cell = nn.RNNCell(2, 3)
    sizes: list[int] = []
    for stretch in bptt.stream(cell, tgr.ones((60, 1, 2)), bptt.Window(5, 10)):
        loss = tgr.sum(stretch.outputs)
        sizes.append(len(tgr.Tape(loss)))
        stretch.backward(loss)
    assert max(sizes[2:]) == min(sizes[2:-1])


@pytest.mark.parametrize("plan", [bptt.Chunk(8), bptt.Window(4, 12)], ids=str)
def test_learning_along_a_stream(plan: Any) -> None:
    # Repeat what came two steps ago.
    bits = np.random.default_rng(0).integers(0, 2, (1500, 4, 1)).astype(np.float32)
    rng = tgr.current_backend().rng(0)
    cell, readout = nn.GRUCell(1, 12, rng=rng), nn.Linear(12, 1, rng=rng)
    optimizer = tgr.optim.Adam([*cell.parameters(), *readout.parameters()], lr=0.02)
    losses: list[float] = []
    for stretch in bptt.stream(cell, bits, plan):
        at = np.arange(1500)[stretch.times]
        error = readout(stretch.outputs) - tgr.tensor(bits[np.maximum(at - 2, 0)])
        loss = tgr.mean(error * error)
        stretch.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert np.mean(losses[-10:]) < 0.05 < np.mean(losses[:5])


def test_streams_of_inputs_with_a_history() -> None:
    # float64: the two ways add the same terms up in another order, and some elements nearly cancel.
    cell, table = nn.RNNCell(2, 3, dtype="float64"), nn.Parameter(np.ones((6, 1, 2)))
    with pytest.raises(GradientError, match=r"stream: xs has a history.*into the cell"):
        next(bptt.stream(cell, table * 2.0, bptt.Chunk(2)))
    for plan in (bptt.Chunk(2), bptt.Window(2, 4)):
        table.grad = None
        for stretch in bptt.stream(cell, table, plan):
            stretch.backward(tgr.sum(stretch.outputs))
        outputs, _ = tgr.scan(cell, table, truncation=plan)
        (expected,) = tgr.grad(tgr.sum(outputs), table)
        assert table.grad is not None
        np.testing.assert_allclose(table.grad.numpy(), expected.numpy(), rtol=1e-5)


def test_streams_of_other_plans() -> None:
    with pytest.raises(DtypeError, match="stream: the plan is Depth"):
        next(bptt.stream(nn.RNNCell(1, 2), tgr.ones((4, 1, 1)), bptt.Depth(2)))  # type: ignore


# ------------------------------------------------------------------- histories that are outdated


def learn(cell: Any, optimizer: Any, state: Any) -> Any:
    outputs, state = tgr.scan(cell, tgr.ones((5, 2, 3)), state)
    outputs.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return state


def test_a_carried_state_with_its_history() -> None:
    cell = nn.LSTMCell(3, 4)
    optimizer = tgr.optim.SGD(cell.parameters(), lr=0.1)
    state = learn(cell, optimizer, None)
    with pytest.raises(GradientError) as caught:
        tgr.scan(cell, tgr.ones((5, 2, 3)), state)
    for word in ("state.h", "at step 4 of LSTMCell", "weight_ih", "tgr.bptt.detach", "tgr.bptt."):
        assert word in str(caught.value)
    with pytest.raises(GradientError, match=r"state\[0\] was computed at step 4"):
        tgr.scan(cell, tgr.ones((5, 2, 3)), (state.h, bptt.detach(state.c)))[0].sum()
    learn(cell, optimizer, bptt.detach(state))


def test_states_that_may_be_carried() -> None:
    cell, other = nn.RNNCell(3, 4), nn.RNNCell(3, 4)
    optimizer = tgr.optim.SGD(other.parameters(), lr=0.1)
    # Of a model whose weights stand still; a parameter itself; two scans before one update.
    _, state = tgr.scan(cell, tgr.ones((5, 2, 3)))
    learn(other, optimizer, None)
    learn(other, optimizer, state)
    first = nn.Parameter(np.zeros((2, 4), np.float32))
    optimizer = tgr.optim.SGD([first, *cell.parameters()], lr=0.1)
    learn(cell, optimizer, first)
    learn(cell, optimizer, first)
    with tgr.no_grad():
        _, state = tgr.scan(cell, tgr.ones((5, 2, 3)), first)
    learn(cell, optimizer, state)
    state = learn(cell, optimizer, None)
    with tgr.no_grad():  # nothing can be differentiated there, so nothing can be wrong
        tgr.scan(cell, tgr.ones((5, 2, 3)), state)


def test_a_stale_state_behind_an_operation_or_two() -> None:
    cell = nn.RNNCell(3, 4)
    state = learn(cell, tgr.optim.SGD(cell.parameters(), lr=0.1), None)
    mask = tgr.tensor([[1.0], [0.0]])
    with pytest.raises(GradientError, match=r"at step 4 of RNNCell"):
        tgr.scan(cell, tgr.ones((5, 2, 3)), state * mask + 0.0)


# ------------------------------------------------------------------------------------- anatomy


def test_shares_and_cotangents() -> None:
    rng = np.random.default_rng(0)
    cell, readout = nn.LSTMCell(2, 3, dtype="float64"), nn.Linear(3, 2, dtype="float64")
    xs = rng.standard_normal((7, 3, 2))
    named = {**dict(cell.named_parameters()), "w_o": readout.weight}
    found = bptt.anatomy(cell, xs, loss=lambda o, t: tgr.sum(readout(o) ** 2), parameters=named)
    outputs, _, states = tgr.scan(cell, xs, return_states=True)
    logits = readout(outputs)
    expected = tgr.grad(tgr.sum(logits**2), list(named.values()), retain_graph=True)
    for (name, gradient), g in zip(found.gradients.items(), expected, strict=True):
        np.testing.assert_allclose(gradient, g.numpy(), rtol=1e-10, atol=1e-12)
        assert found.shares[name].shape == (7, *g.shape)
        norms = np.linalg.norm(found.shares[name].reshape(7, -1), axis=1)
        np.testing.assert_allclose(found.share_norms[name], norms)
    for t in (0, 3, 6):
        along = tgr.grad(tgr.sum(logits[t] ** 2), [states.h, states.c], retain_graph=True)
        norms = np.sqrt(sum((g.numpy() ** 2).sum(axis=(1, 2)) for g in along))
        np.testing.assert_allclose(found.cotangents[t], norms, rtol=1e-9, atol=1e-12)
    assert cell.weight_hh.grad is None  # nothing was left behind
    assert [name for name, _ in cell.named_parameters()] == list(named)[:4]


def test_jacobians_and_their_products() -> None:
    cell, xs = nn.GRUCell(2, 3, dtype="float64"), np.random.default_rng(0).normal(size=(6, 4, 2))
    found = bptt.anatomy(cell, xs, loss=lambda o, t: tgr.sum(o), sequence=2)
    _, _, states = tgr.scan(cell, xs[:, 2:3], return_states=True)

    def from_second(h: Any) -> Any:
        return tgr.scan(cell, xs[3:5, 2:3], h)[1]

    expected = tgr.jacobian(from_second, states[2].detach()).numpy().reshape(3, 3)
    np.testing.assert_allclose(found.product(4, 2), expected, rtol=1e-9, atol=1e-12)
    assert found.product_norms[4, 2] == pytest.approx(np.linalg.norm(expected, 2))
    assert found.product_norms[2, 2] == 1
    assert found.product_norms[2, 4] == 0
    values = np.linalg.svd(found.product(5, 0), compute_uv=False)
    np.testing.assert_allclose(found.product_singular_values[5], values, rtol=1e-8)
    np.testing.assert_allclose(
        found.singular_values[3], np.linalg.svd(found.jacobians[3], compute_uv=False)
    )


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(0.5, "vanishing"), (1.0, "healthy"), (0.97, "healthy"), (1.5, "exploding")],
)
@pytest.mark.parametrize("time", [3, 30])
def test_a_plain_verdict(factor: float, verdict: str, time: int) -> None:
    w = tgr.tensor([factor], "float64", requires_grad=True)
    found = bptt.anatomy(
        lambda x, h: (w * h + x,) * 2,
        np.ones((time, 1)),
        np.zeros(1),
        loss=lambda o, t: o.sum(),
        parameters=[w],
    )
    assert found.rate == pytest.approx(factor)
    assert found.verdict == verdict
    assert str(found).startswith(f"{verdict}: one step back multiplies the gradient by")
    np.testing.assert_allclose(found.profile(), factor ** np.arange(time))
    expected = math.ceil(1 / -math.log(factor)) if factor < 0.9 else None
    assert found.horizon() == expected


def test_anatomy_of_a_dead_and_of_a_masked_one() -> None:
    dead = bptt.anatomy(
        lambda x, h: (h, tgr.relu(h - 1e6) + x),
        np.ones((5, 1)),
        np.zeros(1),
        loss=lambda o, t: o.sum(),
        parameters=[],
    )
    assert dead.verdict == "vanishing"
    ragged = bptt.anatomy(
        nn.LSTMCell(2, 3), tgr.ones((6, 2, 2)), loss=lambda o, t: tgr.sum(o), lengths=[6, 2]
    )
    assert 0 < ragged.rate < 2
    only_last = bptt.anatomy(
        nn.LSTMCell(2, 3),
        tgr.ones((6, 2, 2)),
        loss=lambda o, t: tgr.sum(o) if t == 5 else None,
        reverse=False,
    )
    assert only_last.cotangents[:5].any() == False  # noqa: E712
    assert only_last.cotangents[5].all()


def test_anatomy_refuses() -> None:
    cell = nn.RNNCell(2, 3)
    with pytest.raises(ShapeError, match="sequence=4; the batch has 1"):
        bptt.anatomy(cell, tgr.ones((3, 1, 2)), loss=lambda o, t: tgr.sum(o), sequence=4)
    with pytest.raises(ShapeError, match="expected a scalar"):
        bptt.anatomy(cell, np.ones((3, 1, 2), np.float32), loss=lambda o, t: o)
    with pytest.raises(GradientError, match="no loss depends"):
        bptt.anatomy(cell, np.ones((3, 1, 2), np.float32), loss=lambda o, t: None)
