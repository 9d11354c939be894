"""Checkpointing: the same numbers from less memory; bit for bit, eagerly."""

from __future__ import annotations

import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygradrnn as tgr
from tinygradrnn import bptt, nn, tree
from tinygradrnn.errors import GradientError, ShapeError

CELLS: dict[str, Any] = {
    "rnn": lambda: nn.RNNCell(3, 4),
    "gru": lambda: nn.GRUCell(3, 4, dtype="float64"),
    "lstm": lambda: nn.LSTMCell(3, 4),
    "stacked with dropout": lambda: nn.Stacked(
        nn.LSTMCell(3, 4), nn.GRUCell(4, 4), dropout=0.5, rng=tgr.current_backend().rng(1)
    ),
    "noisy": lambda: nn.Zoneout(nn.LSTMCell(3, 4), 0.3, rng=tgr.current_backend().rng(1)),
    "variational": lambda: nn.VariationalDropout(
        nn.GRUCell(3, 4), state=0.3, input=0.2, rng=tgr.current_backend().rng(1)
    ),
}


def run(
    make: Any, checkpoint: Any, time: int = 13, mode: str = "eager", **options: Any
) -> list[Any]:
    """Results and all gradients: of weights, inputs, first state, states on the way."""
    with pytest.MonkeyPatch.context() as patch:
        # Every cell draws the same first weights and masks.
        fresh = tgr.current_backend().rng(0)
        patch.setattr(nn.init, "generator", lambda rng=None: fresh if rng is None else rng)
        cell = make()
        dtype = str(next(cell.parameters()).dtype)
        xs = tgr.tensor(np.random.default_rng(0).standard_normal((time, 2, 3)), dtype)
        xs = tgr.tensor(xs, requires_grad=True)
        state = cell.initial_state(2)
    outputs, last, states = tgr.scan(
        cell, xs, state, checkpoint=checkpoint, return_states=True, mode=mode, **options
    )
    loss = tgr.sum(outputs * outputs)
    for leaf in (*tree.flatten(last)[0], *tree.flatten(states)[0]):
        if "float" in str(leaf.dtype):
            loss = loss + tgr.sum(tgr.sin(leaf))
    wanted = [*cell.parameters(), xs]
    wanted += [s for s in tree.flatten(states)[0] if s.requires_grad]
    found = tgr.grad(loss, wanted, allow_unused=True)
    return [x.numpy() for x in (outputs, loss)] + [None if g is None else g.numpy() for g in found]


def same(a: list[Any], b: list[Any]) -> None:
    for x, y in zip(a, b, strict=False):
        if x is None or y is None:
            assert x is None or not x.any()
            assert y is None or not y.any()
        else:
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("checkpoint", ["sqrt", 1, 5, 13, "4.5kB"])
def test_bit_for_bit(name: str, checkpoint: Any) -> None:
    same(run(CELLS[name], None), run(CELLS[name], checkpoint))


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("checkpoint", [None, "sqrt", 1, 5, 13, "3kB"])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"lengths": [13, 4]}])
def test_compiled(name: str, checkpoint: Any, options: dict[str, Any]) -> None:
    whole = run(CELLS[name], None, **options)
    for a, b in zip(whole, run(CELLS[name], checkpoint, mode="compiled", **options), strict=True):
        if a is None or b is None:
            assert a is None or not a.any()
            assert b is None or not b.any()
            continue
        tolerance = 1e-12 if a.dtype == np.float64 else 1e-5
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * np.abs(a).max())


def test_compiled_reports() -> None:
    plan = bptt.Checkpoint("sqrt")
    run(CELLS["lstm"], plan, time=100, mode="compiled")
    assert plan.report is not None
    assert plan.report.measured_bytes <= 1.1 * plan.report.predicted_bytes
    assert plan.report.measured_bytes < 0.4 * plan.report.full_bytes
    assert plan.report.factor == pytest.approx(plan.report.predicted_factor, rel=0.1)


@given(
    st.integers(1, 9),
    st.data(),
    st.sampled_from(["gru", "noisy", "stacked with dropout"]),
    st.booleans(),
)
def test_bit_for_bit_whatever_the_division(
    time: int, data: st.DataObject, name: str, reverse: bool
) -> None:
    parts = data.draw(st.integers(1, time))
    lengths = data.draw(st.none() | st.lists(st.integers(0, time), min_size=2, max_size=2))
    options = {"time": time, "reverse": reverse, "lengths": lengths}
    same(run(CELLS[name], None, **options), run(CELLS[name], parts, **options))


def test_parts_of_parts_fit_into_little_memory() -> None:
    plan = bptt.Checkpoint("3kB")
    same(run(CELLS["lstm"], None, time=200), run(CELLS["lstm"], plan, time=200))
    assert plan.report is not None
    assert len(plan.report.segments) > 1
    assert plan.report.predicted_bytes <= 3000
    assert plan.report.measured_bytes <= 1.1 * plan.report.predicted_bytes
    assert plan.report.factor == pytest.approx(plan.report.predicted_factor, rel=0.1)
    assert "less" in str(plan.report)


def test_gradients_of_gradients() -> None:
    cell = nn.GRUCell(2, 3, dtype="float64")
    xs = tgr.tensor(np.random.default_rng(0).standard_normal((7, 2, 2)), requires_grad=True)

    def second(checkpoint: Any) -> list[Any]:
        outputs, _ = tgr.scan(cell, xs, checkpoint=checkpoint)
        first = tgr.grad(tgr.sum(outputs**3), [xs, cell.weight_hh], create_graph=True)
        total = tgr.sum(first[0] ** 2) + tgr.sum(first[1] ** 2)
        return [g.numpy() for g in tgr.grad(total, [xs, *cell.parameters()])]

    for a, b in zip(second(None), second("sqrt"), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


def test_what_a_cell_closes_over_and_takes_gradients_itself() -> None:
    rng = np.random.default_rng(0)
    memory = tgr.tensor(rng.standard_normal((4, 3)), requires_grad=True)
    fast = tgr.tensor(rng.standard_normal((3, 3)), requires_grad=True)
    xs = rng.standard_normal((9, 2, 3))

    def cell(x: Any, h: Any) -> Any:
        # A step of gradient descent inside the step, on a weight that is trained itself.
        (g,) = tgr.grad(tgr.sum(tgr.tanh(x @ fast) ** 2), [fast], create_graph=True)
        h = tgr.tanh(x @ (fast - 0.1 * g) + h + tgr.sum(tgr.softmax(h @ memory.T, -1) @ memory))
        return h, h

    def gradients(checkpoint: Any) -> list[Any]:
        encoded = memory * 2.0
        outputs, _ = tgr.scan(cell, xs, tgr.zeros((2, 3), "float64"), checkpoint=checkpoint)
        return [g.numpy() for g in tgr.grad(tgr.sum(outputs * tgr.sum(encoded)), [memory, fast])]

    for a, b in zip(gradients(None), gradients(3), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


def test_nested_scans() -> None:
    inner = nn.RNNCell(2, 2, dtype="float64")

    def outer(x: Any, h: Any) -> Any:
        outputs, h = tgr.scan(inner, x, h, checkpoint="sqrt")
        return outputs[-1], h

    xs = np.random.default_rng(0).standard_normal((6, 5, 2, 2))

    def gradients(cell: Any, **options: Any) -> list[Any]:
        outputs, _ = tgr.scan(cell, xs, tgr.zeros((2, 2), "float64"), **options)
        return [g.numpy() for g in tgr.grad(tgr.sum(outputs**2), list(inner.parameters()))]

    for a, b in zip(gradients(outer), gradients(outer, checkpoint=2), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


def test_memory_really_is_not_held() -> None:
    cell, xs = nn.LSTMCell(16, 32), tgr.ones((1000, 4, 16))

    def held(checkpoint: Any) -> int:
        tracemalloc.start()
        outputs, _ = tgr.scan(cell, xs, checkpoint=checkpoint, mode="eager")
        loss = tgr.mean(outputs)
        now = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert loss.requires_grad
        return now - tree.flatten(outputs)[0][0].size * 4

    assert held("sqrt") < 0.1 * held(None)


def test_the_tape_shows_regions_and_what_they_keep() -> None:
    cell = nn.RNNCell(3, 4)
    outputs, _ = tgr.scan(cell, tgr.ones((12, 2, 3)), checkpoint=3, mode="eager")
    tape = tgr.Tape(outputs)
    assert "RNNCell over" in str(tape)
    whole, _ = tgr.scan(cell, tgr.ones((12, 2, 3)), mode="eager")
    assert tape.nbytes < 0.7 * tgr.Tape(whole).nbytes


# ---------------------------------------------------------------------------------- refusals


def test_a_second_backward() -> None:
    outputs, _ = tgr.scan(nn.RNNCell(3, 4), tgr.ones((12, 2, 3)), checkpoint=3)
    loss = outputs.sum()
    loss.backward(retain_graph=True)
    loss.backward()
    with pytest.raises(GradientError, match="already freed"):
        loss.backward()


def test_weights_replaced_before_backward() -> None:
    cell = nn.RNNCell(3, 4)
    outputs, _ = tgr.scan(cell, tgr.ones((12, 2, 3)), checkpoint=3, mode="eager")
    cell.weight_hh.assign(cell.weight_hh * 2.0)
    with pytest.raises(GradientError, match=r"weight_hh was replaced.*before the optimiser's step"):
        outputs.sum().backward()


def test_a_program_keeps_the_weights_it_ran_with() -> None:
    cell = nn.RNNCell(3, 4)
    found: list[Any] = []
    for replaced in (False, True):
        outputs, _ = tgr.scan(cell, tgr.ones((12, 2, 3)), checkpoint=3, mode="compiled")
        if replaced:
            cell.weight_hh.assign(cell.weight_hh * 2.0)
        found.append(tgr.grad(outputs.sum(), cell.weight_hh)[0].numpy())
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("where", ["state", "output"])
@pytest.mark.parametrize("how", ["evaluation", "outside randomness", "a little"])
def test_a_cell_that_does_something_else_the_second_time(how: str, where: str) -> None:
    drop, rng, factor = nn.Dropout(0.5), np.random.default_rng(0), 1.0

    def noisy(x: Any) -> Any:
        if how == "evaluation":
            return drop(x)
        return x * (float(rng.uniform()) if how == "outside randomness" else factor)

    def cell(x: Any, h: Any) -> Any:
        h = tgr.tanh(h + (noisy(x) if where == "state" else x))
        return noisy(h) if where == "output" else h, h

    x = tgr.tensor(np.ones((12, 8)), requires_grad=True)
    outputs, _ = tgr.scan(cell, x, tgr.zeros((8,), "float64"), checkpoint=3, mode="eager")
    drop.eval()
    factor = 1.0001  # pyright: ignore
    with pytest.raises(GradientError, match="gave another result"):
        outputs.sum().backward()


@pytest.mark.parametrize("checkpoint", [1, 3])
def test_a_cell_that_keeps_a_tensor_outside_its_state(checkpoint: int) -> None:
    w = tgr.tensor([2.0], requires_grad=True)
    kept: list[Any] = []

    def cell(x: Any, h: Any) -> Any:
        kept.append(w * 0.3 if len(kept) == 4 else None)  # computed in the fifth step
        h = tgr.tanh(x + h * (next((k for k in kept if k is not None), w)))
        return h, h

    outputs, _ = tgr.scan(cell, tgr.ones((12, 1)), tgr.zeros((1,)), checkpoint=checkpoint)
    if checkpoint == 1:  # one part, which keeps its tape
        outputs.sum().backward()
        assert w.grad is not None
    else:
        with pytest.raises(GradientError, match="kept a tensor from an earlier step"):
            outputs.sum().backward()


def test_what_asks_for_a_gradient_is_the_same() -> None:
    w = tgr.tensor([2.0], requires_grad=True)

    def cell(x: Any, state: Any) -> Any:
        h, fixed, mask = state
        h = tgr.tanh(x + h * w)
        with tgr.no_grad():
            still = h * 2.0
        return (h, (h * w).detach(), still, x > 0), (h, fixed, mask)

    first = (tgr.zeros((1,)), tgr.ones((1,)), tgr.tensor([True]))
    kinds: Any = ({}, {"checkpoint": 3}, {"truncation": bptt.Depth(2)})
    seen = [
        [x.requires_grad for x in tree.flatten(tgr.scan(cell, tgr.ones((9, 1)), first, **kind))[0]]
        for kind in kinds
    ]
    assert seen[0] == seen[1] == seen[2]


def test_a_state_that_is_broadcast() -> None:
    w = tgr.tensor(np.asarray([0.3, -0.7, 0.9], np.float32), requires_grad=True)
    x = tgr.tensor(np.random.default_rng(0).standard_normal((13, 5, 3)).astype(np.float32))

    def cell(x: Any, h: Any) -> Any:
        h = tgr.mean(tgr.tanh(x * h * w + h * x * x), axis=-1, keepdims=True)
        return h * x, h

    found: list[Any] = []
    for checkpoint in (None, 3):
        outputs, _ = tgr.scan(cell, x, tgr.ones((5, 1)), checkpoint=checkpoint, mode="eager")
        found.append(tgr.grad(outputs.sum(), w)[0].numpy())
    np.testing.assert_array_equal(*found)


def test_the_random_stream_goes_on_as_if_nothing_had_run_twice() -> None:
    def draws(checkpoint: Any) -> Any:
        rng = tgr.current_backend().rng(3)
        drop = nn.Dropout(0.5, rng=rng)
        x = tgr.ones((12, 2), "float64") * tgr.tensor(1.0, "float64", requires_grad=True)
        outputs, _ = tgr.scan(
            lambda x, h: (drop(x) + h, h), x, tgr.zeros((2,), "float64"), checkpoint=checkpoint
        )
        outputs.sum().backward()
        return rng.normal((3,))

    np.testing.assert_array_equal(draws(None), draws(4))


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("log", "expected 'sqrt', a number of segments, or bytes"),
        (0, "expected 'sqrt'"),
        (True, "expected 'sqrt'"),
        ("64", "expected 'sqrt'"),
        (2.5, "expected 'sqrt'"),
        (13, "only 12 steps"),
        ("100 B", "need at least"),
    ],
)
def test_what_is_no_plan(checkpoint: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        tgr.scan(nn.RNNCell(3, 4), tgr.ones((12, 2, 3)), checkpoint=checkpoint)


def test_two_threads_at_once() -> None:
    expected = run(CELLS["lstm"], None)
    found: list[list[Any]] = []

    def work() -> None:
        cell = nn.LSTMCell(3, 4, rng=tgr.current_backend().rng(0))
        xs = tgr.tensor(np.random.default_rng(0).standard_normal((40, 2, 3)).astype("float32"))
        for _ in range(5):
            outputs, _state = tgr.scan(cell, xs, checkpoint="sqrt")
            found.append([g.numpy() for g in tgr.grad(outputs.sum(), list(cell.parameters()))])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 15
    for other in found:
        same(found[0], other)
    same(expected, run(CELLS["lstm"], "sqrt"))


def test_on_another_device(strict: str) -> None:
    host = run(CELLS["stacked with dropout"], "sqrt")
    with tgr.use_backend(strict):
        there = run(CELLS["stacked with dropout"], "sqrt")
        same(there, run(CELLS["stacked with dropout"], None))
    for a, b in zip(host, there, strict=True):
        if a is not None and b is not None:
            np.testing.assert_allclose(b, a, rtol=2e-5, atol=1e-6)
