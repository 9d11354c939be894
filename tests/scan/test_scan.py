"""The one loop: any nesting, ragged lengths, both directions, and errors that name the place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tinygradrnn as tgr
from tinygradrnn import nn, tree
from tinygradrnn.errors import DtypeError, ShapeError, TinygradrnnError


def total(x: Any, state: Any) -> tuple[Any, Any]:
    """A running sum."""
    state = state + x
    return state, state


def three(x: Any, state: Any) -> Any:
    """No cell: a step returns two things."""
    return x, state, state


def draw(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


# ------------------------------------------------------------------------------------- the loop


@pytest.mark.parametrize("reverse", [False, True])
def test_a_running_sum_and_its_gradient(reverse: bool) -> None:
    xs = tgr.tensor(draw(5, 2), requires_grad=True)
    outputs, last = tgr.scan(total, xs, tgr.zeros((2,), "float64"), reverse=reverse)
    values = xs.numpy()[::-1] if reverse else xs.numpy()
    expected = np.cumsum(values, axis=0)
    np.testing.assert_allclose(outputs.numpy(), expected[::-1] if reverse else expected)
    np.testing.assert_allclose(last.numpy(), expected[-1])
    outputs.sum().backward()
    assert xs.grad is not None
    count = np.arange(1, 6) if reverse else np.arange(5, 0, -1)
    np.testing.assert_allclose(xs.grad.numpy(), np.tile(count[:, None], 2))


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclass
class Memory:
    slow: Any
    fast: dict[str, Any]


def test_any_nesting_of_inputs_states_and_outputs() -> None:
    def cell(x: dict[str, Any], state: Memory) -> tuple[Any, Memory]:
        slow = state.slow + x["left"]
        fast = state.fast["h"] * 0.5 + x["right"][0]
        return Pair(slow, [fast, None]), Memory(slow, {"h": fast})

    xs = {"left": draw(4, 3), "right": (draw(4, 3, seed=1),)}
    first = Memory(np.zeros(3), {"h": np.ones(3)})
    outputs, last, states = tgr.scan(cell, xs, first, return_states=True)
    assert type(outputs) is Pair
    assert type(last) is Memory
    assert outputs.a.shape == (4, 3)
    assert outputs.b[1] is None
    np.testing.assert_allclose(outputs.a.numpy(), np.cumsum(xs["left"], axis=0))
    np.testing.assert_array_equal(states.slow.numpy(), outputs.a.numpy())
    np.testing.assert_array_equal(states.fast["h"].numpy(), outputs.b[0].numpy())
    np.testing.assert_array_equal(last.fast["h"].numpy(), outputs.b[0].numpy()[-1])


def test_states_of_a_reversed_scan_are_in_the_order_of_xs() -> None:
    xs = draw(4, 2)
    outputs, last, states = tgr.scan(total, xs, np.zeros(2), reverse=True, return_states=True)
    np.testing.assert_array_equal(outputs.numpy(), states.numpy())
    np.testing.assert_array_equal(states.numpy()[0], last.numpy())


def test_token_ids_and_times_as_inputs() -> None:
    table = tgr.tensor(draw(5, 3), requires_grad=True)

    def cell(ids: Any, h: Any) -> tuple[Any, Any]:
        h = tgr.tanh(h + tgr.take(table, ids, axis=0))
        return h, h

    ids = np.asarray([[0, 4], [2, 2], [0, 1]])
    outputs, _ = tgr.scan(cell, ids, np.zeros((2, 3)))
    outputs.sum().backward()
    assert table.grad is not None
    assert np.all(table.grad.numpy()[3] == 0)
    outputs, _ = tgr.scan(
        lambda t, h: (h * t.astype("float32"), h * 2), tgr.arange(3), tgr.ones((2,))
    )
    assert outputs.tolist() == [[0, 0], [2, 2], [8, 8]]


def test_one_step_and_a_cell_without_state_or_output() -> None:
    outputs, state = tgr.scan(lambda x, s: (x * 2, s), tgr.ones((1, 3)), ())
    assert outputs.tolist() == [[2, 2, 2]]
    assert state == ()
    outputs, state = tgr.scan(lambda x, h: (None, h + x), tgr.ones((4, 3)), tgr.zeros((3,)))
    assert outputs is None
    assert state.tolist() == [4, 4, 4]


def test_the_first_state_comes_from_the_cell_and_tuples_pass_for_it() -> None:
    cell = nn.LSTMCell(3, 4)
    xs = tgr.ones((5, 2, 3))
    zero = tgr.zeros((2, 4))
    for state in (None, (zero, zero), nn.LSTMState(zero, zero)):
        _, last, states = tgr.scan(cell, xs, state, return_states=True)
        assert type(last) is type(states) is nn.LSTMState
        assert states.c.shape == (5, 2, 4)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("checkpoint", [None, 2])
def test_the_gradient_at_a_state_that_is_handed_on_counts_only_what_comes_after(
    mode: str, reverse: bool, checkpoint: Any
) -> None:
    xs = tgr.tensor(np.random.default_rng(0).normal(size=(5, 1, 2)), requires_grad=True)
    kept = tgr.tensor([[0.5, 2.0]], dtype="float64", requires_grad=True)
    zero = tgr.tensor([[0.0, 0.0]], dtype="float64", requires_grad=True)

    def cell(x: Any, s: Any) -> Any:
        h = tgr.tanh(x * s["kept"] + 0.5 * s["h"] + s["same"] * s["x"])
        return h, {"h": h, "same": h, "kept": s["kept"], "x": x}

    begin = {"h": zero, "same": zero, "kept": kept, "x": zero}
    options: dict[str, Any] = {"mode": mode, "reverse": reverse, "checkpoint": checkpoint}
    outputs, _, states = tgr.scan(cell, xs, begin, return_states=True, **options)
    found = dict(zip(states, tgr.grad(tgr.sum(outputs), list(states.values())), strict=True))
    # Cut into two loops, the states between them can be moved.
    order = [4, 3, 2, 1, 0] if reverse else [0, 1, 2, 3, 4]
    for s in range(4):
        between = {k: tgr.tensor(v[order[s]], requires_grad=True) for k, v in states.items()}
        rest = sorted(order[s + 1 :])
        late, _ = tgr.scan(cell, xs[rest[0] : rest[-1] + 1], between, mode="eager", reverse=reverse)
        expected = dict(zip(between, tgr.grad(tgr.sum(late), list(between.values())), strict=True))
        # h is the output of its step, too, and what "same" is, is h.
        expected["h"] = expected["h"] + expected["same"] + 1.0
        for name, g in expected.items():
            np.testing.assert_allclose(found[name][order[s]].numpy(), g.numpy(), rtol=1e-12)


def test_steps_are_on_the_tape_and_nest() -> None:
    cell = nn.RNNCell(3, 3)

    def outer(x: Any, h: Any) -> tuple[Any, Any]:
        return tgr.scan(cell, tgr.stack([x, x]), h, reverse=True, mode="eager")

    outputs, _ = tgr.scan(outer, tgr.ones((3, 2, 3)), tgr.zeros((2, 3)), mode="eager")
    steps = tgr.Tape(outputs).steps
    assert [s.t for s in steps] == [0, 1, 2]
    assert {s.loop for s in steps} == {"outer"}
    assert [s.path for s in steps[1].steps] == [(1, 1), (1, 0)]
    assert {s.loop for s in steps[1].steps} == {"RNNCell"}


def test_nothing_is_recorded_without_grad() -> None:
    with tgr.no_grad():
        outputs, state = tgr.scan(nn.GRUCell(3, 3), tgr.ones((3, 2, 3)))
    assert not outputs.requires_grad
    assert not state.requires_grad


def test_a_function_in_the_package_of_its_name() -> None:
    import importlib

    room = importlib.import_module("tinygradrnn.scan.eager")
    assert tgr.scan is room.scan


# ------------------------------------------------------------------------------ ragged lengths


def one_by_one(cell: Any, xs: Any, first: Any, lengths: list[int], reverse: bool) -> Any:
    """Each sequence on its own, in its own length: what a batch with lengths must equal."""
    outputs, states = [], []
    time = xs.shape[0]
    for b, n in enumerate(lengths):
        state = tree.map(lambda leaf, b=b: leaf[b : b + 1], first)
        rows: list[Any] = [tgr.zeros((1, 3), "float64")] * time
        for t in range(n)[::-1] if reverse else range(n):
            rows[t], state = cell(xs[t, b : b + 1], state)
        outputs.append(tgr.stack(rows))
        states.append(state)
    return tgr.concat(outputs, axis=1), tree.map(lambda *s: tgr.concat(s, axis=0), *states)


lengths_of = st.integers(1, 5).flatmap(
    lambda time: st.tuples(st.just(time), st.lists(st.integers(0, time), min_size=1, max_size=4))
)


@given(lengths_of, st.booleans(), st.sampled_from(["rnn", "gru", "lstm"]))
@example((3, [0, 0]), True, "lstm")
@example((1, [1, 0]), False, "gru")
@example((4, [4, 4]), True, "rnn")
def test_ragged_batches_equal_each_sequence_alone(
    drawn: tuple[int, list[int]], reverse: bool, kind: str
) -> None:
    time, lengths = drawn
    make: Any = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}[kind]
    cell = make(2, 3, dtype="float64", rng=tgr.current_backend().rng(1))
    batch = len(lengths)
    xs = draw(time, batch, 2)
    leaves, structure = tree.flatten(cell.initial_state(batch))
    results = []
    for ragged in (True, False):
        first = [tgr.tensor(draw(batch, 3, seed=i), requires_grad=True) for i in range(len(leaves))]
        x = tgr.tensor(xs, requires_grad=True)
        state = structure.unflatten(first)
        if ragged:
            outputs, last = tgr.scan(cell, x, state, lengths=lengths, reverse=reverse)
        else:
            outputs, last = one_by_one(cell, x, state, lengths, reverse)
        ends = tree.flatten(last)[0]
        loss = (outputs * tgr.tensor(draw(time, batch, 3, seed=7))).sum()
        loss = loss + sum((leaf * leaf).sum() for leaf in ends)
        tensors = [x, *first, *cell.parameters()]
        gradients = tgr.grad(loss, tensors, allow_unused=True)
        results.append(
            [outputs.numpy(), *(leaf.numpy() for leaf in ends)]
            + [
                np.zeros(p.shape) if g is None else g.numpy()
                for p, g in zip(tensors, gradients, strict=True)
            ]
        )
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("reverse", [False, True])
def test_ragged_batches_equal_packed_sequences(reverse: bool) -> None:
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    layer: Any = torch.nn.LSTM(2, 3, bidirectional=True, dtype=torch.float64)
    suffix = "_l0_reverse" if reverse else "_l0"
    weights = {k: v for k, v in layer.state_dict().items() if k.endswith(suffix)}
    cell = nn.LSTMCell(2, 3, dtype="float64")
    cell.load_state_dict({k.removesuffix(suffix): v.numpy() for k, v in weights.items()})
    xs, lengths = draw(6, 4, 2), [3, 6, 1, 5]
    packed = pack_padded_sequence(torch.tensor(xs), torch.tensor(lengths), enforce_sorted=False)
    output, (h, c) = layer(packed)
    part = slice(3, 6) if reverse else slice(0, 3)
    expected = pad_packed_sequence(output)[0][..., part].detach().numpy()
    outputs, last = tgr.scan(cell, xs, lengths=lengths, reverse=reverse)
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-10, atol=1e-12)
    for mine, other in zip(last, (h, c), strict=True):
        np.testing.assert_allclose(mine.numpy(), other[int(reverse)].detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize("reverse", [False, True])
def test_what_stands_in_the_padding_reaches_nothing(reverse: bool) -> None:
    cell = nn.GRUCell(2, 3)
    xs = draw(4, 2, 2).astype("float32")
    xs[2:, 1] = np.nan
    x = tgr.tensor(xs, requires_grad=True)
    outputs, last = tgr.scan(cell, x, lengths=tgr.tensor([4, 2]), reverse=reverse)
    (outputs.sum() + last.sum()).backward()
    for p in (x, *cell.parameters()):
        assert p.grad is not None
        assert np.isfinite(p.grad.numpy()).all()
    assert np.all(outputs.numpy()[2:, 1] == 0)
    embedding = nn.Embedding(5, 2)
    ids = np.asarray([[0, 1], [2, -1]])  # -1: a customary padding
    outputs, _ = tgr.scan(lambda i, s: (embedding(i), s), ids, (), lengths=[2, 1])
    assert np.all(outputs.numpy()[1, 1] == 0)


def test_lengths_with_booleans_integers_and_structures() -> None:
    def cell(x: Any, n: Any) -> tuple[Any, Any]:
        return {"positive": x > 0, "n": n}, n + 1

    outputs, count = tgr.scan(cell, tgr.ones((3, 2)), np.zeros(2, "int64"), lengths=[1, 3])
    assert outputs["positive"].tolist() == [[True, True], [False, True], [False, True]]
    assert outputs["n"].tolist() == [[0, 0], [0, 1], [0, 2]]
    assert count.tolist() == [1, 3]


# ------------------------------------------------------------------------------------- mistakes

X = np.ones((3, 2, 4), "float32")
H = np.zeros((2, 4), "float32")
MISTAKES: list[tuple[Callable[[], Any], type[TinygradrnnError], str]] = [
    (lambda: tgr.scan(total, [], H), ShapeError, "no leaves"),
    (lambda: tgr.scan(total, X[:0], H), ShapeError, "no steps"),
    (lambda: tgr.scan(total, 1.0, H), ShapeError, "xs has no axes"),
    (lambda: tgr.scan(total, {"a": X, "b": (X[:2],)}, H), ShapeError, "xs['b'][0] has 2 steps"),
    (lambda: tgr.scan(total, X), ShapeError, "total has no initial_state"),
    (lambda: tgr.scan(nn.RNNCell(4, 4), X[0, 0]), ShapeError, "no batch axis"),
    (lambda: tgr.scan(lambda x, h: h, X, H), ShapeError, "returned Tensor; expected (output"),
    (lambda: tgr.scan(three, X, H), ShapeError, "three returned 3 values"),
    (
        lambda: tgr.scan(lambda x, s: (x, (s[0], (x, x))), X, (H, H)),
        ShapeError,
        "step 0: state[1]: expected a leaf; found tuple of 2",
    ),
    (
        lambda: tgr.scan(lambda x, h: (x, tgr.concat([h, h])), X, H),
        ShapeError,
        "step 0: state has shape (4, 4); before it was (2, 4)",
    ),
    (
        lambda: tgr.scan(lambda x, s: (x, {"h": s["h"].astype("float64")}), X, {"h": H}),
        DtypeError,
        "step 0: state['h'] is float64; before it was float32",
    ),
    (
        lambda: tgr.scan(lambda x, h: (x, h.numpy()), X, H),
        DtypeError,
        "step 0: state is a ndarray; expected a Tensor",
    ),
    (
        lambda: tgr.scan(lambda t, h: (h[: int(t)], h), np.arange(3), H),
        ShapeError,
        "step 1: output has shape (1, 4); before it was (0, 4)",
    ),
    (
        lambda: tgr.scan(lambda t, h: ([h] * int(t), h), np.arange(3), H, reverse=True),
        ShapeError,
        "step 1: output: expected list of 2; found list of 1",
    ),
    (lambda: tgr.scan(lambda x, h: (0.0, h), X, H), DtypeError, "step 0: output is a float"),
    (lambda: tgr.scan(total, X, H, lengths=[1, 4]), ShapeError, "lengths[1] is 4; expected 0 to 3"),
    (lambda: tgr.scan(total, X, H, lengths=[-1, 2]), ShapeError, "lengths[0] is -1"),
    (lambda: tgr.scan(total, X, H, lengths=[1, 2, 3]), ShapeError, "lengths have shape (3,)"),
    (lambda: tgr.scan(total, X, H, lengths=3), ShapeError, "lengths have shape ()"),
    (lambda: tgr.scan(total, X, H, lengths=[1.0, 2.0]), DtypeError, "expected integers"),
    (
        lambda: tgr.scan(lambda x, n: (x, n + 1), X, (tgr.ones(()),)[0], lengths=[1, 3]),
        ShapeError,
        "step 1: with lengths, state must begin with the batch; found ()",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES, ids=[m[2] for m in MISTAKES])
def test_mistakes_name_the_leaf_and_the_step(
    call: Callable[[], Any], error: type[TinygradrnnError], message: str
) -> None:
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_after_a_mistake_the_step_is_over() -> None:
    with pytest.raises(ShapeError):
        tgr.scan(lambda x, h: h, X, H)
    x = tgr.tensor([1.0], requires_grad=True)
    assert tgr.Tape(x * 2).steps == []


def test_on_the_strict_backend(strict: str) -> None:
    with tgr.use_backend(strict):
        outputs, last = tgr.scan(total, X, H, lengths=np.asarray([3, 1]), reverse=True)
    assert outputs.backend.name == strict
    assert last.numpy().tolist() == [[3] * 4, [1] * 4]
