"""RNN, GRU and LSTM against PyTorch's with the same weights, and what can be said without it."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygradrnn as tgr
from tinygradrnn import nn, tree
from tinygradrnn.errors import DtypeError, GradientError, ShapeError

KINDS = ["rnn", "relu", "gru", "lstm", "projected"]
CLASSES = {"gru": "GRU", "lstm": "LSTM", "projected": "LSTM"}
MORE: dict[str, Any] = {"relu": {"nonlinearity": "relu"}, "projected": {"proj_size": 2}}
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}

every_kind = pytest.mark.parametrize("kind", KINDS)


def seeded(seed: int = 0) -> Any:
    return tgr.current_backend().rng(seed)


def ours(kind: str, *sizes: int, dtype: str = "float64", **options: Any) -> Any:
    options = {"rng": seeded(), "dtype": dtype, **MORE.get(kind, {}), **options}
    return getattr(nn, CLASSES.get(kind, "RNN"))(*sizes, **options)


def draw(*shape: int) -> Any:
    return np.random.default_rng(math.prod(shape)).standard_normal(shape)


def flat(nesting: Any) -> list[Any]:
    return tree.flatten(nesting)[0]


def first_state(layer: Any, *batch: int) -> Any:
    """A state of the layer in NumPy arrays."""
    n = layer.num_layers * (1 + layer.bidirectional)
    h = draw(n, *batch, layer.proj_size or layer.hidden_size)
    return (h, draw(n, *batch, layer.hidden_size)) if isinstance(layer, nn.LSTM) else h


# --------------------------------------------------------------------------------- against PyTorch


@pytest.fixture(scope="module")
def plain_torch() -> Iterator[None]:
    """PyTorch without oneDNN and threads: waiting for these can take seconds on a busy machine."""
    import torch

    before = torch.backends.mkldnn.enabled, torch.get_num_threads()
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    torch.set_num_threads(1)
    yield
    torch.backends.mkldnn.enabled = before[0]
    torch.set_num_threads(before[1])


def compare(
    kind: str,
    dtype: str = "float64",
    *,
    inputs: int = 3,
    hidden: int = 4,
    time: int = 3,
    batch: int | None = 3,
    lengths: Any = None,
    with_state: bool = True,
    **options: Any,
) -> None:
    """Outputs, last states and the gradients of x, of the first states and of every parameter."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make = getattr(torch.nn, CLASSES.get(kind, "RNN"))
        more = {"dtype": getattr(torch, dtype), **MORE.get(kind, {}), **options}
        other = make(inputs, hidden, **more)
    mine = ours(kind, inputs, hidden, dtype=dtype, **options)
    mine.load_state_dict({key: value.numpy() for key, value in other.state_dict().items()})
    batched = () if batch is None else (batch,)
    first_axes = (time, *batched)
    batch_first = bool(batched) and options.get("batch_first", False)
    x = draw(*(first_axes[::-1] if batch_first else first_axes), inputs).astype(dtype)
    state = tree.map(lambda s: s.astype(dtype), first_state(mine, *batched)) if with_state else None

    def loss(leaves: list[Any], tensor: Any) -> Any:
        return sum((leaf * tensor(draw(*leaf.shape).astype(dtype))).sum() for leaf in leaves)

    a, s = tree.map(lambda v: tgr.tensor(v, requires_grad=True), (x, state))
    results = flat(mine(a, s, lengths=lengths))
    loss(results, tgr.tensor).backward()

    b, r = tree.map(lambda v: torch.tensor(v, requires_grad=True), (x, state))
    if lengths is None:
        output, last = other(b, r)
    else:
        rnn = torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(b, lengths, batch_first, enforce_sorted=False)
        output, last = other(packed, r)
        output = rnn.pad_packed_sequence(output, batch_first, total_length=time)[0]
    expected = flat((output, last))
    loss(expected, torch.tensor).backward()

    names = ["output", "h_n", "c_n"][: len(expected)]
    pairs = list(zip(names, results, (e.detach() for e in expected), strict=True))
    inputs_of = (["x", "h0", "c0"][: len(flat((b, r)))], flat((a, s)), flat((b, r)))
    weights = (list(mine.state_dict()), mine.parameters(), other.parameters())
    assert weights[0] == list(other.state_dict())
    for these in (inputs_of, weights):
        pairs += [(name, p.grad, q.grad) for name, p, q in zip(*these, strict=True)]
    for name, found, wanted in pairs:
        assert tuple(found.shape) == tuple(wanted.shape), name
        assert str(found.dtype) == dtype, name
        error = np.abs(found.numpy() - wanted.numpy()).max()
        most = np.abs(wanted.numpy()).max()
        assert error <= TOLERANCE[dtype] * most, f"{name}: {error} of {most}; {options}, {lengths}"


@pytest.mark.oracle
@pytest.mark.usefixtures("plain_torch")
@every_kind
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_as_pytorch(kind: str, num_layers: int, bidirectional: bool, dtype: str) -> None:
    both = (False, True)
    for bias, batch_first, ragged, with_state in itertools.product(both, both, both, both):
        compare(
            kind,
            dtype,
            num_layers=num_layers,
            bidirectional=bidirectional,
            bias=bias,
            batch_first=batch_first,
            lengths=[2, 3, 1] if ragged else None,
            with_state=with_state,
        )


@pytest.mark.oracle
@pytest.mark.usefixtures("plain_torch")
@every_kind
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_single_sequence_as_pytorch(kind: str, batch_first: bool) -> None:
    for with_state in (False, True):
        options = {"num_layers": 2, "bidirectional": True, "batch_first": batch_first}
        compare(kind, batch=None, with_state=with_state, **options)


@pytest.mark.oracle
@pytest.mark.usefixtures("plain_torch")
@given(st.data())
def test_any_sizes_as_pytorch(data: st.DataObject) -> None:
    def integer(low: int, high: int, name: str) -> int:
        return data.draw(st.integers(low, high), name)

    time, batch = integer(1, 6, "time"), integer(1, 4, "batch")
    each = st.lists(st.integers(1, time), min_size=batch, max_size=batch)
    compare(
        data.draw(st.sampled_from(KINDS), "kind"),
        inputs=integer(1, 5, "inputs"),
        hidden=integer(3, 6, "hidden"),
        time=time,
        batch=batch,
        lengths=data.draw(st.none() | each, "lengths"),
        num_layers=integer(1, 3, "num_layers"),
        bidirectional=data.draw(st.booleans(), "bidirectional"),
        batch_first=data.draw(st.booleans(), "batch_first"),
    )


# -------------------------------------------------------------------------------------- parameters


def test_names_and_shapes_in_pytorchs_order() -> None:
    layer = ours("projected", 3, 4, num_layers=2, bidirectional=True)
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"]
    places = ["l0", "l0_reverse", "l1", "l1_reverse"]
    found = {key: value.shape for key, value in layer.state_dict().items()}
    assert list(found) == [f"{name}_{place}" for place in places for name in names]
    assert [found[f"{name}_l0"] for name in names] == [(16, 3), (16, 2), (16,), (16,), (2, 4)]
    assert found["weight_ih_l1_reverse"] == (16, 4)
    plain = ours("lstm", 3, 4, num_layers=2, bias=False)
    names = [f"weight_{x}_l{i}" for i in (0, 1) for x in ("ih", "hh")]
    assert list(plain.state_dict()) == names
    assert plain.weight_ih_l1.shape == (16, 4)


@every_kind
def test_initial_values_fill_the_range(kind: str) -> None:
    layer = ours(kind, 30, 25, num_layers=2)
    for name, value in layer.state_dict().items():
        assert 0.18 < float(abs(value.numpy()).max()) <= 0.2, name


def test_parameters_keep_the_layers_names_and_are_found_once() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.below = ours("gru", 3, 4, num_layers=2, bidirectional=True)

    model = Model()
    output, _ = model.below(draw(2, 1, 3), mode="eager")
    names = list(model.state_dict())
    assert names[0] == "below.weight_ih_l0"
    assert [p.name for p in model.parameters()] == names
    assert len(names) == 16
    tape = tgr.Tape(output)
    assert "below.weight_hh_l1_reverse" in str(tape)
    loops = ["GRU.l0", "GRU.l0_reverse", "GRU.l1", "GRU.l1_reverse"]
    assert [step.loop for step in tape.steps] == [loop for loop in loops for _ in range(2)]


@every_kind
@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_compute_the_same_and_stand_alone(kind: str, again: Any) -> None:
    layer = ours(kind, 3, 4, num_layers=2, dropout=0.5)
    other, x = again(layer), draw(5, 2, 3)
    before = layer(x)[0].numpy()
    np.testing.assert_array_equal(other(x)[0].numpy(), before)  # the same masks, too
    for parameter in other.parameters():
        parameter.assign(parameter * 0)
    assert not other.eval()(x)[0].numpy().any()
    assert layer.eval()(x)[0].numpy().any()


def test_a_replaced_parameter_is_used() -> None:
    layer = ours("gru", 3, 4, bias=False)
    layer.weight_ih_l0 = nn.Parameter(tgr.zeros((12, 3), "float64"))
    assert not layer(draw(5, 2, 3))[0].numpy().any()


@every_kind
def test_the_same_on_the_strict_backend(kind: str, strict: str) -> None:
    x, results = draw(4, 2, 3), []
    for backend in ("numpy", strict):
        layer = ours(kind, 3, 4, num_layers=2, bidirectional=True, dropout=0.5).to(backend)
        output, last = layer(tgr.tensor(x, backend=backend), lengths=[4, 2])
        assert output.backend.name == backend
        (output * output).sum().backward()
        grads = [p.grad.numpy() for p in layer.parameters()]
        results.append([output.numpy(), *(s.numpy() for s in flat(last)), *grads])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


# ------------------------------------------------------------------------------------------ running


@every_kind
def test_a_layer_is_its_cell_under_scan(kind: str) -> None:
    layer = ours(kind, 3, 4)
    make = getattr(nn, CLASSES.get(kind, "RNN") + "Cell")
    cell = make(3, 4, dtype="float64", **MORE.get(kind, {}))
    weights = layer.state_dict().items()
    cell.load_state_dict({key.removesuffix("_l0"): value for key, value in weights})
    x, state = draw(5, 2, 3), first_state(layer, 2)
    found = layer(x, state)
    one = tree.map(lambda leaf: leaf[0], state)
    output, last = tgr.scan(cell, x, one)
    np.testing.assert_array_equal(found[0].numpy(), output.numpy())
    for a, b in zip(flat(found[1]), flat(last), strict=True):
        np.testing.assert_array_equal(a.numpy()[0], b.numpy())


@every_kind
@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_are_as_each_sequence_alone(kind: str, batch_first: bool) -> None:
    options = {"num_layers": 2, "bidirectional": True, "batch_first": batch_first}
    layer = ours(kind, 3, 4, **options)
    lengths = [2, 0, 5, 3]
    x, state = draw(4, 5, 3), first_state(layer, 4)
    for i, length in enumerate(lengths):
        x[i, length:] = np.nan
    together = layer(x if batch_first else x.swapaxes(0, 1), state, lengths=lengths)
    output = together[0].numpy() if batch_first else together[0].numpy().swapaxes(0, 1)
    for i, length in enumerate(lengths):
        own = tree.map(lambda s, i=i: s[:, i], state)
        if length:
            alone, own = layer(x[i, :length], own)
            np.testing.assert_allclose(output[i, :length], alone.numpy(), rtol=1e-12, atol=1e-12)
        assert not output[i, length:].any()
        leaves = (flat(s) for s in (together[1], own))
        for all_of_them, one in zip(*leaves, strict=True):
            one = one.numpy() if length else one
            np.testing.assert_allclose(all_of_them.numpy()[:, i], one, rtol=1e-12, atol=1e-12)


def test_an_lstm_names_its_state_and_takes_it_again() -> None:
    layer, x = ours("lstm", 3, 4, num_layers=2), draw(6, 2, 3)
    whole, last = layer(x)
    assert type(last) is nn.LSTMState
    _, state = layer(x[:4])
    rest, end = layer(x[4:], state)
    np.testing.assert_array_equal(rest.numpy(), whole.numpy()[4:])
    np.testing.assert_array_equal(end.c.numpy(), last.c.numpy())


def test_options_reach_every_scan() -> None:
    x = draw(30, 2, 3)
    layer = ours("lstm", 3, 4, num_layers=2, bidirectional=True)

    def gradients(**options: Any) -> tuple[int, tuple[Any, ...]]:
        output, _ = layer(x, mode="eager", **options)
        saved = tgr.Tape(output).nbytes
        return saved, tgr.grad((output * output).sum(), list(layer.parameters()))

    saved, grads = gradients()
    less, same = gradients(checkpoint="sqrt")
    assert less < saved / 2
    for a, b in zip(grads, same, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_truncated_layers_are_layers_run_on_chunks() -> None:
    layer, x = ours("lstm", 3, 4, num_layers=2), tgr.tensor(draw(7, 2, 3))
    weights = list(layer.parameters())
    whole, _ = layer(x, truncation=tgr.bptt.Chunk(3))
    parts, state = [], None
    for start in (0, 3, 6):
        output, state = layer(x[start : start + 3], state)
        state = tree.map(tgr.Tensor.detach, state)
        parts.append(output)
    chunked = tgr.concat(parts)
    np.testing.assert_array_equal(whole.numpy(), chunked.numpy())
    pairs = [tgr.grad((y * y).sum(), weights) for y in (whole, chunked)]
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-12)


def test_a_state_from_before_an_update_is_refused() -> None:
    layer, x = ours("gru", 3, 4), draw(5, 2, 3)
    _, state = layer(x)
    layer(x, state)
    layer.weight_hh_l0.assign(layer.weight_hh_l0 * 0.5)
    with pytest.raises(GradientError, match=r"state was computed .*weight_hh_l0"):
        layer(x, state)
    layer(x, state.detach())


# ------------------------------------------------------------------------------------------ dropout


def test_dropout_is_drawn_from_the_rng_and_only_in_training() -> None:
    x = draw(5, 2, 3)

    def run(p: float, seed: int = 0, train: bool = True) -> Any:
        layer = ours("gru", 3, 4, num_layers=2, dropout=p, rng=seeded(seed)).train(train)
        return layer(x)[0].numpy()

    np.testing.assert_array_equal(run(0.5), run(0.5))
    np.testing.assert_array_equal(run(0.5, train=False), run(0.0))
    assert (run(0.5) != run(0.0)).any()
    layer = ours("gru", 3, 4, num_layers=2, dropout=0.5)
    assert (layer(x)[0].numpy() != layer(x)[0].numpy()).any()  # a new mask for each call


def test_dropout_is_between_layers() -> None:
    x = draw(5, 2, 3)
    single = ours("lstm", 3, 4, dropout=1.0)
    np.testing.assert_array_equal(single(x)[0].numpy(), single.eval()(x)[0].numpy())
    layer = ours("lstm", 3, 4, num_layers=2, dropout=1.0)
    output, last = layer(x)
    assert output.numpy().any()
    np.testing.assert_array_equal(output.numpy(), layer(2 * x)[0].numpy())  # nothing comes through
    np.testing.assert_array_equal(last.h.numpy()[0], layer.eval()(x)[1].h.numpy()[0])


# -------------------------------------------------------------------------------------- projection


def test_a_cell_with_a_projection() -> None:
    cell = nn.LSTMCell(2, 3, proj_size=2, rng=seeded(), dtype="float64")
    assert [p.shape for p in cell.parameters()] == [(12, 2), (12, 2), (12,), (12,), (2, 3)]
    assert [s.shape for s in cell.initial_state(5)] == [(5, 2), (5, 3)]
    assert repr(cell) == "LSTMCell(2, 3, proj_size=2)"
    x = tgr.tensor(draw(3, 2, 2), requires_grad=True)

    def f(x: Any, *weights: Any) -> Any:
        output, state = tgr.scan(cell, x)
        return output, *state

    tgr.testing.gradcheck(f, [x, *cell.parameters()])
    tgr.testing.gradgradcheck(f, [x, *cell.parameters()])


def test_a_projection_projects_what_the_plain_cell_computes() -> None:
    cell = nn.LSTMCell(3, 4, proj_size=2, rng=seeded(), dtype="float64")
    plain = nn.LSTMCell(3, 4, dtype="float64")
    weights = dict(cell.state_dict())
    w = weights.pop("weight_hr").numpy()
    weights["weight_hh"] = weights["weight_hh"].numpy() @ w  # W_hh (W_hr m)
    plain.load_state_dict(weights)
    x = draw(5, 2, 3)
    (projected, (h, c)), (full, state) = tgr.scan(cell, x), tgr.scan(plain, x)
    np.testing.assert_allclose(projected.numpy(), full.numpy() @ w.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(h.numpy(), projected.numpy()[-1], rtol=0)
    np.testing.assert_allclose(c.numpy(), state.c.numpy(), rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.RNN(0, 4), r"RNN: input_size=0; expected a positive integer"),
        (lambda: nn.GRU(3, 4.0), r"GRU: hidden_size=4.0; expected a positive integer"),  # type: ignore[arg-type]
        (lambda: nn.LSTM(3, 4, num_layers=0), r"LSTM: num_layers=0; expected a positive"),
        (lambda: nn.RNN(3, 4, 1, "sin"), r"nonlinearity='sin'; expected 'tanh' or 'relu'"),
        (lambda: nn.GRU(3, 4, dropout=1.5), r"GRU: dropout=1.5; expected a probability"),
        (lambda: nn.GRU(3, 4, dropout=True), r"GRU: dropout=True; expected a probability"),
        (lambda: nn.GRU(3, 4, dropout="a"), r"GRU: dropout='a'; expected a prob"),  # type: ignore[arg-type]
        (lambda: nn.LSTM(3, 4, proj_size=4), r"LSTM: proj_size=4; .* less than hidden_size=4"),
        (lambda: nn.LSTM(3, 4, proj_size=-1), r"LSTM: proj_size=-1; expected 0, or less"),
        (lambda: nn.LSTMCell(3, 4, proj_size=4), r"LSTMCell: proj_size=4; expected 0"),
        (lambda: nn.GRU(3, 4, proj_size=2), r"GRU: proj_size=2; only an LSTM"),
        (lambda: nn.RNN(3, 4, proj_size=2), r"RNN: proj_size=2; only an LSTM"),
    ],
)
def test_arguments_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make()


X, H, C = draw(5, 2, 3), draw(2, 2, 4), draw(2, 2, 4)


@pytest.mark.parametrize(
    ("kind", "x", "state", "options", "message"),
    [
        ("gru", draw(3), None, {}, r"GRU: x has shape \(3,\); expected \(time, batch, 3\) or"),
        ("gru", draw(5, 2, 4), None, {}, r"GRU: x has shape \(5, 2, 4\); expected"),
        ("gru", draw(1, 5, 2, 3), None, {}, r"GRU: x has shape \(1, 5, 2, 3\); expected"),
        ("gru", X, (H,), {}, r"GRU: state: expected a leaf; found tuple of 1"),
        ("gru", X, H[:1], {}, r"GRU: state has shape \(1, 2, 4\); expected \(2, 2, 4\), \(num_la"),
        ("gru", X[:, 0], H, {}, r"state has shape \(2, 2, 4\); expected \(2, 4\), \(num_la"),
        ("lstm", X, H, {}, r"LSTM: state: expected LSTMState of h, c; found ndarray"),
        ("lstm", X, (H, C, C), {}, r"LSTM: state: expected LSTMState of h, c; found tuple of 3"),
        ("lstm", X, (H, C[:, :1]), {}, r"state.c has shape \(2, 1, 4\); expected \(2, 2, 4\)"),
        ("projected", X, (H, C), {}, r"state.h has shape \(2, 2, 4\); expected \(2, 2, 2\)"),
        ("rnn", X, None, {"lengths": [5]}, r"lengths have shape \(1,\)"),
        ("rnn", X, None, {"lengths": [5, 6]}, r"lengths\[1\] is 6; expected 0 to 5"),
        ("rnn", X[:, 0], None, {"lengths": [5]}, r"RNN: lengths given, but x is a single"),
        ("rnn", X, None, {"reverse": True}, r"RNN: reverse is an option of tgr.scan alone"),
        ("rnn", X[:0], None, {}, r"no steps"),
    ],
)
def test_inputs_that_do_not_fit(kind: str, x: Any, state: Any, options: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        ours(kind, 3, 4, num_layers=2)(x, state, **options)


def test_the_expected_axes_are_those_of_batch_first() -> None:
    with pytest.raises(ShapeError, match=r"expected \(batch, time, 3\) or \(time, 3\)"):
        ours("rnn", 3, 4, batch_first=True)(draw(2, 5, 4))


def test_another_dtype_is_refused() -> None:
    with pytest.raises(DtypeError, match="float64"):
        ours("lstm", 3, 4, dtype="float32")(X)
    with pytest.raises(DtypeError, match="int64"):
        ours("lstm", 3, 4)(X.astype("int64"))


def test_printing() -> None:
    assert repr(nn.RNN(3, 4, 2, "relu")) == "RNN(3, 4, num_layers=2, nonlinearity='relu')"
    assert repr(nn.GRU(3, 4, bias=False, batch_first=True)) == (
        "GRU(3, 4, bias=False, batch_first=True)"
    )
    assert repr(nn.LSTM(3, 4, bidirectional=True, proj_size=2, dropout=0.1)) == (
        "LSTM(\n  3, 4, bidirectional=True, proj_size=2\n  dropout: Dropout(p=0.1)\n)"
    )
