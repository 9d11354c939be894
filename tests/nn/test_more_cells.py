"""More cells: each against its paper's equations in plain NumPy, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygradrnn as tgr
from tinygradrnn import nn, tree
from tinygradrnn.errors import DtypeError, ShapeError

INPUTS, HIDDEN = 2, 3
Weights = dict[str, Any]
Step = Callable[[Weights, Any, Any], Any]


# ------------------------------------------------------------------ the equations, gate by gate


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def part(w: Weights, k: int, x: Any, h: Any) -> Any:
    """``W_ik x + b_ik + W_hk h + b_hk`` of the k-th part."""
    rows = slice(k * HIDDEN, (k + 1) * HIDDEN)
    return (
        x @ w["weight_ih"][rows].T
        + w["bias_ih"][rows]
        + h @ w["weight_hh"][rows].T
        + w["bias_hh"][rows]
    )


def norm(w: Weights, name: str, x: Any) -> Any:
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return y * w[f"{name}.weight"] + w.get(f"{name}.bias", 0.0)


def concatenated(w: Weights, x: Any, h: Any) -> Any:
    return np.tanh(np.concatenate([h, x], axis=-1) @ w["weight"] + w["bias"])


def independent(w: Weights, x: Any, h: Any) -> Any:
    return np.maximum(x @ w["weight_ih"].T + w["bias"] + w["weight_hh"] * h, 0)


def cho(w: Weights, x: Any, h: Any) -> Any:
    r, z = sigmoid(part(w, 0, x, h)), sigmoid(part(w, 1, x, h))
    return z * h + (1 - z) * np.tanh(part(w, 2, x, r * h))


def minimal(w: Weights, x: Any, h: Any) -> Any:
    f = sigmoid(part(w, 0, x, h))
    return (1 - f) * h + f * np.tanh(part(w, 1, x, f * h))


def normed_gru(w: Weights, x: Any, h: Any) -> Any:
    a, b = x @ w["weight_ih"].T, h @ w["weight_hh"].T
    gates = norm(w, "norm_ig", a[..., : 2 * HIDDEN]) + norm(w, "norm_hg", b[..., : 2 * HIDDEN])
    r, z = sigmoid(gates[..., :HIDDEN]), sigmoid(gates[..., HIDDEN:])
    n = np.tanh(norm(w, "norm_in", a[..., -HIDDEN:]) + r * norm(w, "norm_hn", b[..., -HIDDEN:]))
    return (1 - z) * n + z * h


def min_gru(w: Weights, x: Any, h: Any) -> Any:
    z, n = np.split(x @ w["linear.weight"].T + w["linear.bias"], 2, axis=-1)
    return (1 - sigmoid(z)) * h + sigmoid(z) * n


def min_lstm(w: Weights, x: Any, h: Any) -> Any:
    f, i, n = np.split(x @ w["linear.weight"].T + w["linear.bias"], 3, axis=-1)
    f, i = sigmoid(f), sigmoid(i)
    return f / (f + i) * h + i / (f + i) * n


def plain_lstm(w: Weights, x: Any, state: Any) -> Any:
    h, c = state
    i, f, g, o = (part(w, k, x, h) for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def peephole(w: Weights, x: Any, state: Any) -> Any:
    h, c = state
    i = sigmoid(part(w, 0, x, h) + w["peephole_i"] * c)
    f = sigmoid(part(w, 1, x, h) + w["peephole_f"] * c)
    c = f * c + i * np.tanh(part(w, 2, x, h))
    return sigmoid(part(w, 3, x, h) + w["peephole_o"] * c) * np.tanh(c), c


def coupled(w: Weights, x: Any, state: Any) -> Any:
    h, c = state
    f = sigmoid(part(w, 0, x, h))
    c = f * c + (1 - f) * np.tanh(part(w, 1, x, h))
    return sigmoid(part(w, 2, x, h)) * np.tanh(c), c


def normed_lstm(w: Weights, x: Any, state: Any) -> Any:
    h, c = state
    y = norm(w, "norm_hh", h @ w["weight_hh"].T) + norm(w, "norm_ih", x @ w["weight_ih"].T)
    i, f, g, o = np.split(y + w["bias"], 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(norm(w, "norm_c", c)), c


CELLS: dict[Any, Step] = {
    nn.ConcatRNNCell: concatenated,
    nn.IndRNNCell: independent,
    nn.ChoGRUCell: cho,
    nn.MinimalGatedCell: minimal,
    nn.LayerNormGRUCell: normed_gru,
    nn.MinGRUCell: min_gru,
    nn.MinLSTMCell: min_lstm,
    nn.PeepholeLSTMCell: peephole,
    nn.CoupledLSTMCell: coupled,
    nn.LayerNormLSTMCell: normed_lstm,
    nn.DropoutLSTMCell: plain_lstm,  # in evaluation
}
every_cell = pytest.mark.parametrize("kind", CELLS, ids=lambda kind: kind.__name__)


def make(kind: Any, dtype: str = "float64", **options: Any) -> Any:
    """A cell none of whose parameters is 0 or 1."""
    cell = kind(INPUTS, HIDDEN, rng=tgr.current_backend().rng(0), dtype=dtype, **options).eval()
    rng = np.random.default_rng(1)
    for p in cell.parameters():
        p.assign(p + rng.uniform(0.1, 0.3, p.shape).astype(dtype))
    return cell


def a_state(cell: Any, batch: int, seed: int = 2) -> Any:
    rng = np.random.default_rng(seed)
    leaves, structure = tree.flatten(cell.initial_state(batch))
    return structure.unflatten(
        tgr.tensor(rng.standard_normal(leaf.shape), requires_grad=True) for leaf in leaves
    )


def a_sequence(time: int, batch: int, seed: int = 3) -> Any:
    values = np.random.default_rng(seed).standard_normal((time, batch, INPUTS))
    return tgr.tensor(values, requires_grad=True)


# -------------------------------------------------------------------------------- every cell


@every_cell
@pytest.mark.parametrize("batch", [1, 4])
def test_several_steps_by_the_equations(kind: Any, batch: int) -> None:
    cell, xs = make(kind), a_sequence(5, batch)
    state = a_state(cell, batch)
    outputs, last = tgr.scan(cell, xs, state)
    weights = {name: p.numpy() for name, p in cell.named_parameters()}
    expected: Any = tree.map(lambda leaf: leaf.numpy(), state)
    for t in range(5):
        expected = CELLS[kind](weights, xs.numpy()[t], expected)
        h = expected[0] if isinstance(expected, tuple) else expected
        np.testing.assert_allclose(outputs.numpy()[t], h, rtol=1e-12, atol=1e-14)
    for a, b in zip(tree.flatten(last)[0], tree.flatten(expected)[0], strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-12, atol=1e-14)


@every_cell
def test_gradients_of_everything(kind: Any) -> None:
    cell, xs = make(kind), a_sequence(3, 2)
    leaves, structure = tree.flatten(a_state(cell, 2))

    def f(xs: Any, *rest: Any) -> Any:
        outputs, last = tgr.scan(cell, xs, structure.unflatten(rest[: len(leaves)]))
        return outputs, *tree.flatten(last)[0]

    tgr.testing.gradcheck(f, [xs, *leaves, *cell.parameters()])


@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
def test_without_biases_and_in_both_precisions(kind: Any, dtype: str, bias: bool) -> None:
    cell = kind(INPUTS, HIDDEN, bias, dtype=dtype)
    names = [name for name, _ in cell.named_parameters()]
    assert any("bias" in name for name in names) == bias
    assert ("bias=False" in cell.extra_repr()) != bias
    outputs, state = tgr.scan(cell, tgr.ones((4, 2, INPUTS), dtype))
    assert outputs.shape == (4, 2, HIDDEN)
    for leaf in [outputs, *tree.flatten(state)[0], *tree.flatten(cell.initial_state(2))[0]]:
        assert leaf.dtype == dtype
    outputs.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in cell.parameters())


@every_cell
def test_the_seed_decides(kind: Any) -> None:
    seeds = (0, 0, 1)
    a, b, c = (kind(2, 3, rng=tgr.current_backend().rng(seed)) for seed in seeds)
    pairs = list(zip(a.parameters(), b.parameters(), strict=True))
    assert all((p.numpy() == q.numpy()).all() for p, q in pairs)
    pairs = list(zip(a.parameters(), c.parameters(), strict=True))
    assert any((p.numpy() != q.numpy()).any() for p, q in pairs)


@every_cell
def test_ragged_is_each_by_itself(kind: Any) -> None:
    cell, xs, lengths = make(kind), a_sequence(4, 3), [4, 2, 1]
    outputs, last = tgr.scan(cell, xs, lengths=lengths)
    for i, n in enumerate(lengths):
        alone, end = tgr.scan(cell, xs[:n, i : i + 1])
        np.testing.assert_allclose(outputs.numpy()[:n, i], alone.numpy()[:, 0], rtol=1e-12)
        assert (outputs.numpy()[n:, i] == 0).all()
        for a, b in zip(tree.flatten(last)[0], tree.flatten(end)[0], strict=True):
            np.testing.assert_allclose(a.numpy()[i], b.numpy()[0], rtol=1e-12)


@every_cell
def test_leading_axes_come_along(kind: Any) -> None:
    cell = make(kind)
    x = tgr.tensor(np.random.default_rng(0).standard_normal((5, 4, INPUTS)))
    state = tree.map(lambda leaf: leaf.reshape((5, 4, HIDDEN)), a_state(cell, 20))
    together = cell(x, state)[0]
    one = cell(x[1, 2], tree.map(lambda leaf: leaf[1, 2], state))[0]
    np.testing.assert_allclose(together.numpy()[1, 2], one.numpy(), rtol=1e-12)


@every_cell
def test_what_does_not_fit_is_named(kind: Any) -> None:
    cell = make(kind)
    good = cell.initial_state(2)
    for x, state in [
        (tgr.ones((2, INPUTS + 1), "float64"), good),  # another input size
        (tgr.ones((1, INPUTS), "float64"), good),  # would broadcast
        (tgr.ones((INPUTS,), "float64"), good),  # would broadcast
        (tgr.ones((2, INPUTS), "float64"), tree.map(lambda s: s[:, :1], good)),  # would broadcast
    ]:
        with pytest.raises(ShapeError):
            cell(x, state)
    with pytest.raises(ShapeError, match="hidden_size=0"):
        kind(2, 0)


@every_cell
def test_the_same_on_the_strict_backend(kind: Any, strict: str) -> None:
    results: list[list[Any]] = []
    for backend in ("numpy", strict):
        cell = make(kind).to(backend)
        xs = tgr.tensor(a_sequence(3, 2).numpy(), backend=backend)
        outputs, _ = tgr.scan(cell, xs, lengths=[3, 2])
        assert outputs.backend.name == backend
        (outputs * outputs).sum().backward()
        results.append([outputs.numpy(), *(p.grad.numpy() for p in cell.parameters())])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


# -------------------------------------------------------------------------- what equals what


def same_outputs(a: Any, b: Any) -> None:
    xs = a_sequence(4, 2)
    np.testing.assert_allclose(
        tgr.scan(a, xs)[0].numpy(), tgr.scan(b, xs)[0].numpy(), rtol=1e-12, atol=1e-14
    )


def test_the_stacked_form_is_the_plain_cell() -> None:
    plain, stacked = make(nn.RNNCell), make(nn.ConcatRNNCell)
    stacked.weight.assign(tgr.concat([plain.weight_hh, plain.weight_ih], axis=1).T)
    stacked.bias.assign(plain.bias_ih + plain.bias_hh)
    same_outputs(plain, stacked)


def test_both_grus_agree_where_nothing_is_reset_and_only_there() -> None:
    cho, gru = make(nn.ChoGRUCell), make(nn.GRUCell)
    cho.load_state_dict(gru.state_dict())
    with pytest.raises(AssertionError):
        same_outputs(cho, gru)
    for cell in (cho, gru):
        cell.bias_ih.assign(tgr.concat([tgr.full((HIDDEN,), 50.0, "float64"), cell.bias_ih[3:]]))
    same_outputs(cho, gru)


def test_without_peepholes_it_is_an_lstm() -> None:
    peephole, lstm = make(nn.PeepholeLSTMCell), make(nn.LSTMCell)
    peephole.load_state_dict(lstm.state_dict(), strict=False)
    for p in (peephole.peephole_i, peephole.peephole_f, peephole.peephole_o):
        p.assign(tgr.zeros_like(p))
    same_outputs(peephole, lstm)


def test_a_coupled_lstm_is_an_lstm_with_opposite_gates() -> None:
    coupled, lstm = make(nn.CoupledLSTMCell), make(nn.LSTMCell)
    for (name, p), q in zip(coupled.named_parameters(), lstm.parameters(), strict=True):
        f, g, o = np.split(p.numpy(), 3)
        q.assign(np.concatenate([-f, f, g, o]))  # 1 - sigmoid(a) = sigmoid(-a)
        assert q.name == name
    same_outputs(coupled, lstm)


def test_independent_units_are_a_plain_cell_with_a_diagonal_weight() -> None:
    ind = make(nn.IndRNNCell, nonlinearity="tanh")
    plain = make(nn.RNNCell)
    values = (ind.weight_ih.numpy(), np.diag(ind.weight_hh.numpy()), ind.bias.numpy(), np.zeros(3))
    for p, value in zip(plain.parameters(), values, strict=True):
        p.assign(value)
    same_outputs(ind, plain)
    assert repr(ind) == "IndRNNCell(2, 3, nonlinearity='tanh')"
    with pytest.raises(ShapeError, match="'relu' or 'tanh'"):
        nn.IndRNNCell(1, 1, nonlinearity="sin")


# -------------------------------------------------------------------------------- in parallel

parallel_cells = pytest.mark.parametrize("kind", [nn.MinGRUCell, nn.MinLSTMCell])


@parallel_cells
@given(time=st.integers(1, 6), batch=st.integers(1, 3), given_state=st.booleans())
def test_in_parallel_as_step_by_step(kind: Any, time: int, batch: int, given_state: bool) -> None:
    cell, xs = make(kind), a_sequence(time, batch)
    h0 = a_state(cell, batch) if given_state else None
    wanted = [xs, *cell.parameters(), *([h0] if given_state else [])]
    weights = tgr.tensor(np.random.default_rng(4).standard_normal((time, batch, HIDDEN)))
    found: list[list[Any]] = []
    for outputs, last in (tgr.scan(cell, xs, h0), cell.parallel(xs, h0)):
        loss = (outputs * weights).sum() + (last * last).sum()
        found.append([outputs, last, *tgr.grad(loss, wanted)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-11, atol=1e-13)


@parallel_cells
def test_gradients_in_parallel(kind: Any) -> None:
    cell, xs = make(kind), a_sequence(3, 2)
    h0 = a_state(cell, 2)
    tgr.testing.gradcheck(lambda xs, h0, *_: cell.parallel(xs, h0), [xs, h0, *cell.parameters()])


@parallel_cells
def test_what_does_not_fit_in_parallel(kind: Any) -> None:
    cell, xs = make(kind), a_sequence(3, 2)
    for bad in (xs[:0], xs[0, 0]):
        with pytest.raises(ShapeError, match="parallel: xs"):
            cell.parallel(bad)
    with pytest.raises(ShapeError, match="the state's h"):
        cell.parallel(xs, tgr.zeros((1, HIDDEN), "float64"))


def test_shut_gates_are_no_zero_by_zero() -> None:
    cell: Any = nn.MinLSTMCell(1, 1)
    cell.linear.weight.assign(tgr.zeros((3, 1)))
    cell.linear.bias.assign(tgr.tensor([-200.0, -200.0, 1.0]))  # both sigmoids are 0 in float32
    h, _ = cell(tgr.ones((1, 1)), tgr.zeros((1, 1)))
    assert float(h[0, 0]) == 0.5
    h.sum().backward()
    assert np.isfinite(cell.linear.bias.grad.numpy()).all()


# ---------------------------------------------------------------------------------- attention


def an_attention(seed: int = 0, **options: Any) -> Any:
    settings: dict[str, Any] = {"rng": tgr.current_backend().rng(seed), "dtype": "float64"}
    return nn.AttentionCell(nn.GRUCell(2 + 4, 3, **settings), 4, 5, **settings, **options)


def a_memory(time: int = 6, batch: int = 2) -> Any:
    values = np.random.default_rng(7).standard_normal((time, batch, 4))
    return tgr.tensor(values, requires_grad=True)


def test_attention_by_the_equations() -> None:
    cell, memory, xs = an_attention(), a_memory(), a_sequence(3, 2)
    state = a_state(cell, 2)
    outputs, last = tgr.scan(cell.over(memory, lengths=[6, 4]), xs, state)
    w, u, v = (m.weight.numpy() for m in (cell.of_query, cell.of_memory, cell.score))
    h = state
    for t in range(3):
        contexts: list[Any] = []
        for b, n in enumerate((6, 4)):
            source = memory.numpy()[:n, b]
            e = np.tanh(h.numpy()[b] @ w.T + source @ u.T) @ v[0]
            a = np.exp(e) / np.exp(e).sum()
            np.testing.assert_allclose(outputs.weights.numpy()[t, b, :n], a, rtol=1e-12)
            assert (outputs.weights.numpy()[t, b, n:] == 0).all()
            contexts.append(a @ source)
        np.testing.assert_allclose(outputs.context.numpy()[t], contexts, rtol=1e-12)
        h, _ = cell.cell(tgr.concat([xs[t], tgr.tensor(np.array(contexts))], axis=-1), h)
        np.testing.assert_allclose(outputs.h.numpy()[t], h.numpy(), rtol=1e-12)
    np.testing.assert_allclose(last.numpy(), h.numpy(), rtol=1e-12)


def test_gradients_of_attention() -> None:
    cell, xs = an_attention(), a_sequence(2, 2)

    def f(xs: Any, memory: Any, h: Any, *_: Any) -> Any:
        outputs, last = tgr.scan(cell.over(memory, [3, 2]), xs, h)
        return *outputs, last

    tgr.testing.gradcheck(f, [xs, a_memory(3), a_state(cell, 2), *cell.parameters()])


def test_padding_of_a_memory_is_never_looked_at() -> None:
    cell, xs = an_attention(), a_sequence(2, 2)
    values = a_memory().numpy()
    values[4:, 1] = np.nan
    memory = tgr.tensor(values, requires_grad=True)
    outputs, _ = tgr.scan(cell.over(memory, [6, 4]), xs)
    (g,) = tgr.grad((outputs.h * outputs.h).sum(), memory)
    assert np.isfinite(outputs.h.numpy()).all()
    assert np.isfinite(g.numpy()).all()
    assert (g.numpy()[4:, 1] == 0).all()
    assert (g.numpy()[:4, 1] != 0).any()


def test_a_memory_does_not_rename_the_parameters() -> None:
    cell = an_attention()
    names = [name for name, _ in cell.named_parameters()]
    bound = cell.over(a_memory())
    assert [p.name for p in cell.parameters()] == names
    assert list(bound.parameters()) == list(cell.parameters())
    assert (bound.input_size, bound.hidden_size, bound.output_size) == (2, 3, 3)


def test_a_query_of_ones_own() -> None:
    stack = nn.Stacked(nn.LSTMCell(6, 3), nn.LSTMCell(3, 5))
    cell = nn.AttentionCell(stack, 4, query=lambda state: state[-1].h)
    outputs, _ = tgr.scan(cell.over(tgr.ones((6, 2, 4))), tgr.ones((3, 2, 2)))
    assert outputs.h.shape == (3, 2, 5)
    np.testing.assert_allclose(outputs.weights.numpy(), 1 / 6, rtol=1e-6)


def test_attention_on_the_strict_backend(strict: str) -> None:
    cell = an_attention().to(strict)
    memory = tgr.tensor(a_memory().numpy(), backend=strict)
    xs = tgr.tensor(a_sequence(3, 2).numpy(), backend=strict)
    outputs, _ = tgr.scan(cell.over(memory, [6, 4]), xs, lengths=[3, 1])
    expected, _ = tgr.scan(
        an_attention().over(a_memory(), [6, 4]), a_sequence(3, 2), lengths=[3, 1]
    )
    np.testing.assert_allclose(outputs.context.numpy(), expected.context.numpy(), rtol=1e-12)
    outputs.h.sum().backward()


@pytest.mark.parametrize(
    ("memory", "lengths", "error", "message"),
    [
        ((6, 2, 5), None, ShapeError, "memory has shape"),
        ((2, 4), None, ShapeError, "memory has shape"),
        ((0, 2, 4), None, ShapeError, "a step at least"),
        ((6, 2, 4), [6], ShapeError, "lengths have shape"),
        ((6, 2, 4), [6, 7], ShapeError, r"lengths\[1\] is 7; expected 1 to 6"),
        ((6, 2, 4), [0, 6], ShapeError, r"lengths\[0\] is 0; expected 1 to 6"),
        ((6, 2, 4), [1.0, 2.0], DtypeError, "expected integers"),
    ],
)
def test_memories_that_do_not_fit(memory: Any, lengths: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        an_attention().over(tgr.ones(memory, "float64"), lengths)


def test_attention_without_sense() -> None:
    cell = an_attention()
    with pytest.raises(ShapeError, match="expected a batch of 2"):
        tgr.scan(cell.over(a_memory()), a_sequence(2, 1))
    with pytest.raises(ShapeError, match=r"cell\.over\(memory\)"):
        tgr.scan(cell, a_sequence(2, 2))
    with pytest.raises(ShapeError, match=r"input_size 4 .* memory_size=4"):
        nn.AttentionCell(nn.GRUCell(4, 3), 4)


# ------------------------------------------------------------------------------ initial values


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3), (1, 1), (6, 2, 2)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    rng = tgr.current_backend().rng(0)
    w = nn.init.orthogonal(shape, 2.0, rng=rng, dtype="float64").numpy()
    assert w.shape == shape
    w = w.reshape(shape[0], -1)
    product = w @ w.T if shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(min(w.shape)), atol=1e-13)


def test_orthogonal_matrices_are_uniform() -> None:
    # Under Haar's measure each entry has mean 0 and variance 1/n, the trace variance 1. QR without
    # the signs corrected has a first entry that is never positive.
    rng = tgr.current_backend().rng(0)
    many = np.array(
        [nn.init.orthogonal((3, 3), rng=rng, dtype="float64").numpy() for _ in range(4000)]
    )
    assert (np.abs(many.mean(0)) < 5 * np.sqrt(1 / 3 / 4000)).all()
    np.testing.assert_allclose((many**2).mean(0), 1 / 3, atol=0.03)
    traces = np.trace(many, axis1=1, axis2=2)
    assert abs(traces.mean()) < 5 / np.sqrt(4000)
    assert abs(traces.var() - 1) < 0.12
    assert abs((np.linalg.det(many) > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(4000)


def test_orthogonal_draws_from_its_generator_in_its_dtype() -> None:
    a, b = (nn.init.orthogonal((3, 3), rng=tgr.current_backend().rng(5)) for _ in range(2))
    assert (a.numpy() == b.numpy()).all()
    assert a.dtype == "float32"
    with pytest.raises(ShapeError, match="two axes"):
        nn.init.orthogonal((3,))


@pytest.mark.parametrize(
    ("kind", "names", "gate"),
    [
        (nn.LSTMCell, ("bias_ih", "bias_hh"), 1),
        (nn.PeepholeLSTMCell, ("bias_ih", "bias_hh"), 1),
        (nn.DropoutLSTMCell, ("bias_ih", "bias_hh"), 1),
        (nn.CoupledLSTMCell, ("bias_ih", "bias_hh"), 0),
        (nn.LayerNormLSTMCell, ("bias",), 1),
    ],
)
def test_forget_gate_bias(kind: Any, names: tuple[str, ...], gate: int) -> None:
    cell, untouched = make(kind), make(kind)
    nn.init.forget_gate_bias_(cell, 1.5)
    total: Any = sum(getattr(cell, name).numpy() for name in names)
    before: Any = sum(getattr(untouched, name).numpy() for name in names)
    rows = slice(gate * HIDDEN, (gate + 1) * HIDDEN)
    assert (total[rows] == 1.5).all()
    keep = np.ones(len(total), bool)
    keep[rows] = False
    assert (total[keep] == before[keep]).all()


def test_no_forget_gate_or_no_bias() -> None:
    with pytest.raises(ShapeError, match="GRUCell has no forget gate"):
        nn.init.forget_gate_bias_(nn.GRUCell(2, 3))
    with pytest.raises(ShapeError, match="LSTMCell has no bias"):
        nn.init.forget_gate_bias_(nn.LSTMCell(2, 3, bias=False))
