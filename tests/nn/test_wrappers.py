"""Wrappers: what each computes, alone and around each other."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygradrnn as tgr
from tinygradrnn import nn, tree
from tinygradrnn.errors import DtypeError, ShapeError

SIZE = 3


def rng(seed: int = 0) -> Any:
    return tgr.current_backend().rng(seed)


def cell(kind: Any = nn.GRUCell, inputs: int = SIZE, hidden: int = SIZE) -> Any:
    return kind(inputs, hidden, rng=rng(), dtype="float64")


@dataclasses.dataclass
class Parts:
    a: Any
    b: Any


class Nested(nn.Cell):
    """A state of dicts, dataclasses, a count and None; an output that is no leaf of it."""

    input_size = hidden_size = SIZE

    def __init__(self) -> None:
        self.inner = cell(nn.RNNCell)

    def initial_state(self, batch_size: int) -> Any:
        zero = tgr.zeros((batch_size, SIZE), "float64")
        count = tgr.zeros((batch_size,), "int64")
        return {"h": Parts(zero, [zero]), "count": count, "nothing": None}

    def forward(self, x: Any, state: Any) -> Any:
        h, _ = self.inner(x, state["h"].a)
        b = 0.5 * (state["h"].b[0] + h)
        return h + b, {"h": Parts(h, [b]), "count": state["count"] + 1, "nothing": None}


def a_sequence(time: int = 5, batch: int = 2, size: int = SIZE) -> Any:
    values = np.random.default_rng(3).standard_normal((time, batch, size))
    return tgr.tensor(values, requires_grad=True)


def leaves(state: Any) -> list[Any]:
    return [leaf.numpy() for leaf in tree.flatten(state)[0]]


def same(a: Any, b: Any, rtol: float = 1e-12) -> None:
    pairs = list(zip(leaves(a), leaves(b), strict=True))
    assert pairs
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-14)


def gradcheck(wrapped: Any, first: Any = None) -> None:
    """Of outputs and last state, to x, the first state and all parameters."""
    given = [] if first is None else tree.flatten(first)[0]
    units = [leaf for leaf in given if "float" in str(leaf.dtype)]
    places = {id(unit): i for i, unit in enumerate(units)}

    def f(xs: Any, *rest: Any) -> Any:
        state = None
        if first is not None:
            state = tree.map(
                lambda leaf: rest[places[id(leaf)]] if id(leaf) in places else leaf, first
            )
        outputs, last = tgr.scan(wrapped, xs, state)
        found = tree.flatten((outputs, last))[0]
        return tuple(leaf for leaf in found if "float" in str(leaf.dtype))

    tgr.testing.gradcheck(f, [a_sequence(3), *units, *wrapped.parameters()])


def with_gradients(state: Any) -> Any:
    """The same state of numbers that are not zero, each of which wants a gradient."""
    draw = np.random.default_rng(5)

    def renew(leaf: Any) -> Any:
        if "float" not in str(leaf.dtype):
            return leaf
        return tgr.tensor(draw.standard_normal(leaf.shape), requires_grad=True)

    return tree.map(renew, state)


# -------------------------------------------------------------------------- around each other

BASES: list[Callable[[], Any]] = [
    lambda: cell(nn.GRUCell),
    lambda: cell(nn.LSTMCell),
    lambda: cell(nn.MinGRUCell),
    lambda: nn.LSTMCell(SIZE, 4, proj_size=SIZE, rng=rng(), dtype="float64"),
    Nested,
]
WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "plain": nn.CellWrapper,
    "residual": nn.Residual,
    "learned": nn.LearnedState,
    "stacked": lambda inner: nn.Stacked(cell(nn.LSTMCell), inner, dropout=0.3, rng=rng(1)),
    "recurrent": lambda inner: nn.RecurrentDropout(inner, 0.3, rng=rng(2)),
    "zoneout": lambda inner: nn.Zoneout(inner, 0.3, rng=rng(3)),
    "variational": lambda inner: nn.VariationalDropout(inner, 0.3, 0.3, 0.3, rng=rng(4)),
}


@given(
    st.sampled_from(BASES),
    st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=4),
    st.booleans(),
    st.integers(1, 3),
)
def test_in_any_order(base: Any, names: list[str], training: bool, batch: int) -> None:
    wrapped = nn.CellWrapper(base())
    for name in names:
        wrapped = WRAPPERS[name](wrapped)
    wrapped.train(training)
    assert (wrapped.input_size, wrapped.output_size) == (SIZE, SIZE)
    xs, first = a_sequence(4, batch), wrapped.initial_state(batch)
    lengths = [4, 2, 1][:batch]
    outputs, last = tgr.scan(wrapped, xs, first, lengths=lengths)
    assert outputs.shape == (4, batch, SIZE)
    assert tree.flatten(last)[1] == tree.flatten(first)[1]
    for old, new in zip(tree.flatten(first)[0], tree.flatten(last)[0], strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
    (outputs * outputs).sum().backward()
    if names.count("learned") < 2:  # the outer one's state is in place of the inner one's
        assert all(p.grad is not None for p in wrapped.parameters())
    if not training:  # the same without the noise, which is then not there; but for zoneout's mean
        again, _ = tgr.scan(wrapped, xs, lengths=lengths)
        same(outputs, again)
        if "zoneout" not in names:
            calm = base()
            for name in names:
                if name not in ("recurrent", "variational"):
                    calm = WRAPPERS[name](calm)
            same(outputs, tgr.scan(calm.eval(), xs, lengths=lengths)[0])


def test_names_sizes_and_seeds_of_what_is_within() -> None:
    wrapped = nn.Residual(nn.VariationalDropout(cell(nn.LSTMCell), state=0.5))
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    assert [p.name for p in wrapped.parameters()] == [f"cell.cell.{name}" for name in names]
    assert not hasattr(nn.CellWrapper(nn.Cell()), "input_size")
    assert not hasattr(nn.CellWrapper(nn.Cell()), "hidden_size")
    assert nn.CellWrapper(nn.Cell()).output_size is None
    stack = nn.Stacked(nn.GRUCell(2, 5), nn.LSTMCell(5, 4, proj_size=3))
    assert (stack.input_size, stack.hidden_size, stack.output_size) == (2, 4, 3)
    other = copy.deepcopy(wrapped)  # with the generator, so the same masks
    same(tgr.scan(wrapped, a_sequence())[0], tgr.scan(other, a_sequence())[0])


def test_what_is_computed_again_meets_the_same_noise() -> None:
    wrapped = nn.DropoutLSTMCell(SIZE, SIZE, p=0.3, rng=rng(), dtype="float64")
    for name in ("recurrent", "learned", "variational", "zoneout", "residual"):
        wrapped = WRAPPERS[name](wrapped)
    found: list[list[Any]] = []
    for checkpoint in (None, "sqrt"):
        other = copy.deepcopy(wrapped)
        outputs, _ = tgr.scan(other, a_sequence(9), lengths=[9, 5], checkpoint=checkpoint)
        (outputs * outputs).sum().backward()
        found.append([outputs.numpy(), *(p.grad.numpy() for p in other.parameters())])
    for a, b in zip(*found, strict=True):
        assert (a == b).all()


@pytest.mark.parametrize("name", sorted(WRAPPERS))
def test_on_the_strict_backend(name: str, strict: str) -> None:
    results: list[list[Any]] = []
    for backend in ("numpy", strict):
        wrapped = WRAPPERS[name](cell(nn.LSTMCell)).to(backend)
        outputs, state = tgr.scan(wrapped, tgr.tensor(a_sequence().numpy(), backend=backend))
        assert outputs.backend.name == backend
        outputs.sum().backward()
        grads = [p.grad.numpy() for p in wrapped.parameters()]
        results.append([outputs.numpy(), *leaves(state), *grads])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(WRAPPERS))
def test_float32_stays_float32(name: str) -> None:
    inner = nn.LSTMCell(SIZE, SIZE)
    wrapped = WRAPPERS[name](inner) if name != "stacked" else nn.Stacked([inner, inner])
    for mode in (True, False):
        outputs, state = tgr.scan(wrapped.train(mode), tgr.ones((3, 2, SIZE)))
        kinds = {str(leaf.dtype) for leaf in tree.flatten((outputs, state))[0]}
        assert kinds <= {"float32", "bool"}


@pytest.mark.parametrize(
    "wrap", [nn.Zoneout, nn.RecurrentDropout, lambda c, p: nn.VariationalDropout(c, state=p)]
)
def test_rates_that_make_no_sense(wrap: Any) -> None:
    for p in (-0.1, 1.5, "much"):
        with pytest.raises(ShapeError, match="probability from 0 to 1"):
            wrap(cell(), p)
    with pytest.raises(ShapeError, match=r"(p|state)\.c=2"):
        wrap(cell(nn.LSTMCell), nn.LSTMState(0.1, 2))
    with pytest.raises(ShapeError, match="rates do not fit the state"):
        wrap(cell(), nn.LSTMState(0.1, 0.2))


# ------------------------------------------------------------------------------------ stacked


def test_a_stack_is_one_scan_after_the_other() -> None:
    cells = [cell(nn.GRUCell, 3, 4), cell(nn.LSTMCell, 4, 5), cell(nn.RNNCell, 5, 2)]
    xs, outputs = a_sequence(), a_sequence()
    together, states = tgr.scan(nn.Stacked(*cells), xs, lengths=[5, 3])
    for one, state in zip(cells, states, strict=True):
        outputs, last = tgr.scan(one, outputs, lengths=[5, 3])
        same(last, state)
    same(together, outputs)
    same(together, tgr.scan(nn.Stacked(cells), xs, lengths=[5, 3])[0])
    assert len(list(nn.Stacked(cells).parameters())) == 12


def test_gradients_of_a_stack() -> None:
    stack = nn.Stacked(cell(nn.GRUCell), nn.Residual(cell(nn.LSTMCell)))
    gradcheck(stack, with_gradients(stack.initial_state(2)))


def test_dropout_is_between_the_layers_only() -> None:
    cells = [cell(nn.GRUCell), cell(nn.RNNCell)]
    stack, xs = nn.Stacked(*cells, dropout=1.0), a_sequence()
    outputs, states = tgr.scan(stack, xs)
    same(outputs, tgr.scan(cells[1], tgr.zeros_like(xs))[0])
    same(states[0], tgr.scan(cells[0], xs)[1])
    same(tgr.scan(stack.eval(), xs)[0], tgr.scan(nn.Stacked(*cells), xs)[0])


def test_stacks_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"cells\[0\] gives an output of size 4, cells\[1\] takes"):
        nn.Stacked(nn.GRUCell(3, 4), nn.GRUCell(3, 4))
    with pytest.raises(ShapeError, match="no cells"):
        nn.Stacked([])
    stack = nn.Stacked(cell(), cell())
    zero = tgr.zeros((2, SIZE), "float64")
    for state in (zero, (zero,)):
        with pytest.raises(ShapeError, match="a tuple of 2, one per cell"):
            stack(zero, state)


# ----------------------------------------------------------------------- residual and learned


def test_residual() -> None:
    inner, xs = cell(nn.LSTMCell), a_sequence()
    outputs, state = tgr.scan(nn.Residual(inner), xs)
    plain, last = tgr.scan(inner, xs)
    same(outputs, plain + xs)
    same(state, last)


def test_residuals_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"GRUCell has shape \(2, 4\), x has \(2, 3\)"):
        tgr.scan(nn.Residual(cell(nn.GRUCell, 3, 4)), a_sequence())
    attention = nn.AttentionCell(nn.GRUCell(6, 3), 3)
    with pytest.raises(DtypeError, match="AttentionOutput; expected Tensors"):
        tgr.scan(nn.Residual(attention.over(tgr.ones((4, 2, 3)))), tgr.ones((5, 2, 3)))


@pytest.mark.parametrize("base", BASES)
def test_a_learned_first_state(base: Any) -> None:
    inner, xs = base(), a_sequence()
    wrapped = nn.LearnedState(inner)
    same(tgr.scan(wrapped, xs)[0], tgr.scan(inner, xs)[0])  # zeros at first
    for p in wrapped.first:
        p.assign(p + 0.5)
    state = wrapped.initial_state(2)
    units = [leaf for leaf in tree.flatten(state)[0] if "float" in str(leaf.dtype)]
    assert len(units) == len(wrapped.first)
    assert all((leaf.numpy() == 0.5).all() for leaf in units)
    assert [leaf.shape for leaf in units] == [(2, *p.shape) for p in wrapped.first]
    gradcheck(wrapped)


def test_a_learned_state_needs_a_batch() -> None:
    class Odd(nn.Cell):
        def initial_state(self, batch_size: int) -> Any:
            return {"h": tgr.zeros((3, batch_size))}

    with pytest.raises(ShapeError, match=r"state\['h'\] of Odd's first state has shape \(3, 1\)"):
        nn.LearnedState(Odd())


# ------------------------------------------------------------------------------ bidirectional


def test_both_directions() -> None:
    there, back, xs = cell(nn.GRUCell, 3, 4), cell(nn.LSTMCell, 3, 2), a_sequence()
    layer = nn.Bidirectional(there, back)
    outputs, (h, state) = layer(xs, lengths=[5, 3])
    a, last_a = tgr.scan(there, xs, lengths=[5, 3])
    b, last_b = tgr.scan(back, xs, reverse=True, lengths=[5, 3])
    same(outputs, tgr.concat([a, b], axis=-1))
    same((h, state), (last_a, last_b))

    first = with_gradients((there.initial_state(2), back.initial_state(2)))
    outputs, last, states = layer(xs, first, return_states=True)
    a, last_a, states_a = tgr.scan(there, xs, first[0], return_states=True)
    b, last_b, states_b = tgr.scan(back, xs, first[1], reverse=True, return_states=True)
    same(outputs, tgr.concat([a, b], axis=-1))
    same((last, states), ((last_a, last_b), (states_a, states_b)))
    same(layer(xs, (first[0], None))[1], (last_a, tgr.scan(back, xs, reverse=True)[1]))


@pytest.mark.oracle
def test_both_directions_as_pytorch() -> None:
    import torch

    theirs = torch.nn.GRU(3, 4, bidirectional=True, dtype=torch.float64)
    layer = nn.Bidirectional(cell(nn.GRUCell, 3, 4), cell(nn.GRUCell, 3, 4))
    weights = {k: v.numpy() for k, v in theirs.state_dict().items()}
    for mine, suffix in ((layer.forward_cell, "_l0"), (layer.backward_cell, "_l0_reverse")):
        mine.load_state_dict({name: weights[name + suffix] for name in mine.state_dict()})
    expected, h = theirs(torch.tensor(a_sequence().numpy()))
    outputs, last = layer(a_sequence())
    np.testing.assert_allclose(outputs.numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(np.stack(leaves(last)), h.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_one_state_is_no_pair() -> None:
    layer = nn.Bidirectional(cell(), cell())
    with pytest.raises(ShapeError, match="expected a pair"):
        layer(a_sequence(), tgr.zeros((2, SIZE), "float64"))


# ------------------------------------------------------------------------ variational dropout


class Probe(nn.Cell):
    """Shows what it is given, and carries h and c on as they come."""

    input_size = hidden_size = 40

    def initial_state(self, batch_size: int) -> Any:
        one = tgr.ones((batch_size, self.hidden_size), "float64")
        return nn.LSTMState(one, one)

    def forward(self, x: Any, state: Any) -> Any:
        fresh = self.initial_state(x.shape[0])
        return tgr.concat([x, state.h, state.c], axis=-1), fresh


def shown(wrapped: Any, time: int = 6, batch: int = 50) -> list[Any]:
    """What the probe within was given for x, h and c, at each step."""
    outputs, _ = tgr.scan(wrapped, tgr.ones((time, batch, 40), "float64"))
    return np.split(outputs.numpy(), 3, axis=-1)


def half_dropped(values: Any) -> bool:
    """Whether values are 0 or 2, each half of the time: within 5 standard deviations."""
    assert set(np.unique(values)) == {0.0, 2.0}
    return bool(abs((values == 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(values.size))


def test_one_mask_for_a_sequence() -> None:
    wrapped = nn.VariationalDropout(Probe(), input=0.5, state=0.5, rng=rng())
    x, h, c = shown(wrapped)
    for values in (x, h):
        assert half_dropped(values[0])
        assert (values == values[0]).all()
    assert (x != h).any()
    assert (c == 1).all()  # a number does not reach memory cells
    other, _, _ = shown(wrapped)
    assert (other != x).any()  # but every sequence draws its own
    for values in shown(wrapped.eval()):
        assert (values == 1).all()


def test_a_mask_of_the_output_and_rates_by_leaf() -> None:
    wrapped = nn.VariationalDropout(cell(nn.LSTMCell), output=0.5, rng=rng())
    xs = a_sequence(5, 4)
    outputs, (_, masks) = tgr.scan(wrapped, xs)
    plain, _ = tgr.scan(cell(nn.LSTMCell), xs)
    same(outputs, plain * masks.output.astype("float64") * 2)
    x, h, c = shown(nn.VariationalDropout(Probe(), state=nn.LSTMState(0.0, 0.5), rng=rng()))
    assert (x == 1).all()
    assert (h == 1).all()
    assert half_dropped(c[0])


def test_variational_dropout_is_a_function_of_x_and_state() -> None:
    wrapped = nn.VariationalDropout(cell(nn.LSTMCell), 0.4, 0.4, 0.4, rng=rng(1))
    first, xs = wrapped.initial_state(2), a_sequence(4)
    outputs, last = tgr.scan(wrapped, xs, first)
    a, middle = tgr.scan(wrapped, xs[:2], first)
    b, end = tgr.scan(wrapped, xs[2:], middle)
    same(outputs, tgr.concat([a, b]))
    same(last, end)
    gradcheck(wrapped, with_gradients(first))


def test_equation_7_for_an_lstm() -> None:
    inner = cell(nn.LSTMCell)
    wrapped, x = nn.VariationalDropout(inner, 0.5, 0.0, 0.5, rng=rng(2)), a_sequence(1)[0]
    state = wrapped.initial_state(2)._replace(state=with_gradients(inner.initial_state(2)))
    h, c = state.state
    masks: Any = state.masks
    m_x, m_h = (2.0 * mask.astype("float64") for mask in (masks.input, masks.state[0]))
    by_hand = inner(m_x * x, (m_h * h, c))
    output, (new, masks_after) = wrapped(x, state)
    same((output, new), by_hand)
    assert masks_after is masks
    plain = state._replace(state=(h, c))  # a plain tuple has no leaf named c; the cell's own has
    same(wrapped(x, plain)[0], output)


def test_states_without_masks() -> None:
    wrapped = nn.VariationalDropout(cell(nn.LSTMCell), state=0.5)
    plain = cell(nn.LSTMCell).initial_state(2)
    with pytest.raises(ShapeError, match="the state is LSTMState; expected a VariationalState"):
        tgr.scan(wrapped, a_sequence(), plain)
    evaluated = wrapped.eval().initial_state(2)
    tgr.scan(wrapped, a_sequence(), evaluated)
    with pytest.raises(ShapeError, match="one without masks"):
        tgr.scan(wrapped.train(), a_sequence(), evaluated)


def test_masks_of_another_batch_or_of_no_size() -> None:
    wrapped = nn.VariationalDropout(cell(), input=0.5)
    state = wrapped.initial_state(1)  # would broadcast
    with pytest.raises(ShapeError, match=r"a mask of shape \(1, 3\) for a value of shape \(2, 3\)"):
        wrapped(tgr.ones((2, SIZE), "float64"), state)

    class Sizeless(nn.Cell):
        def initial_state(self, batch_size: int) -> Any:
            return tgr.zeros((batch_size, 2))

    with pytest.raises(ShapeError, match="Sizeless has no input_size"):
        nn.VariationalDropout(Sizeless(), input=0.5)
    with pytest.raises(ShapeError, match="Sizeless has no hidden_size"):
        nn.VariationalDropout(Sizeless(), output=0.5)
    assert nn.VariationalDropout(Sizeless(), state=0.5).initial_state(3).masks is not None


# -------------------------------------------------------------------------- recurrent dropout


def test_a_new_mask_at_each_step() -> None:
    wrapped = nn.RecurrentDropout(Probe(), 0.5, rng=rng())
    x, h, c = shown(wrapped)
    assert (x == 1).all()
    assert (c == 1).all()
    assert half_dropped(h)
    agree = [(a == b).mean() for a, b in pairwise(h)]
    assert all(abs(share - 0.5) < 0.06 for share in agree)
    _, h, c = shown(nn.RecurrentDropout(Probe(), nn.LSTMState(0.5, 0.5), rng=rng()))
    assert half_dropped(h)
    assert half_dropped(c)
    assert (h != c).any()
    for values in shown(wrapped.eval()):
        assert (values == 1).all()


def test_everything_dropped() -> None:
    inner, xs = cell(nn.GRUCell), a_sequence()
    outputs, _ = tgr.scan(nn.RecurrentDropout(inner, 1.0), xs)
    zero = inner.initial_state(2)
    same(outputs, tgr.stack([inner(x, zero)[0] for x in xs]))


class Plain(Probe):
    """The same, of any pair."""

    def forward(self, x: Any, state: Any) -> Any:
        return super().forward(x, nn.LSTMState(*state))


def test_a_plain_tuple_does_not_lose_its_memory() -> None:
    # Its leaves have no names, so which one is c is asked of the cell.
    x, first = tgr.ones((2, 40), "float64"), Probe().initial_state(2)
    for state in (first, tuple(first)):
        output, _ = nn.RecurrentDropout(Plain(), 1.0)(x, state)
        _, h, c = tgr.split(output, 3, axis=-1)
        assert (h.numpy() == 0).all()
        assert (c.numpy() == 1).all()


def test_dropout_without_memory_loss() -> None:
    lstm, xs = nn.DropoutLSTMCell(3, 4, p=1.0, rng=rng(), dtype="float64"), a_sequence()
    state = lstm.initial_state(2)._replace(c=tgr.ones((2, 4), "float64"))
    _, (_, c) = lstm(xs[0], state)
    from_x, from_h = lstm.projections(xs[0], state.h)
    same(c, tgr.sigmoid(tgr.split(from_x + from_h, 4, axis=-1)[1]))  # nothing written: c' = f * c
    lstm.dropout.p = 0.5
    assert (tgr.scan(lstm, xs)[0].numpy() != tgr.scan(lstm, xs)[0].numpy()).any()


# ------------------------------------------------------------------------------------ zoneout


def test_zoneout_keeps_some_units() -> None:
    inner, xs = cell(nn.LSTMCell, 3, 200), a_sequence(1, 40)
    state = with_gradients(inner.initial_state(40))
    wrapped = nn.Zoneout(inner, nn.LSTMState(h=0.2, c=0.6), rng=rng())
    output, mixed = wrapped(xs[0], state)
    _, new = inner(xs[0], state)
    assert output is mixed.h
    for old, fresh, found, p in zip(state, new, mixed, (0.2, 0.6), strict=True):
        kept = found.numpy() == old.numpy()
        assert (kept | (found.numpy() == fresh.numpy())).all()
        assert abs(kept.mean() - p) < 5 * np.sqrt(p * (1 - p) / kept.size)
    again = wrapped(xs[0], state)[1]
    assert (again.h.numpy() != mixed.h.numpy()).any()


def test_zoneout_expects_in_evaluation() -> None:
    inner, xs = cell(nn.LSTMCell), a_sequence()
    wrapped = nn.Zoneout(inner, nn.LSTMState(h=0.25, c=0.5)).eval()
    state = with_gradients(inner.initial_state(2))
    outputs, last = tgr.scan(wrapped, xs, state)
    h, c = state
    for t in range(5):
        _, new = inner(xs[t], (h, c))
        h, c = 0.25 * h + 0.75 * new.h, 0.5 * c + 0.5 * new.c
        same(outputs[t], h)
    same(last, (h, c))
    gradcheck(wrapped, state)


def test_zoneout_of_none_and_of_all() -> None:
    xs = a_sequence()
    for base in BASES:
        inner = base()
        first = with_gradients(inner.initial_state(2))
        same(tgr.scan(nn.Zoneout(inner, 0.0), xs, first), tgr.scan(inner, xs, first))
        _, last = tgr.scan(nn.Zoneout(inner, 1.0), xs, first)
        for old, new in zip(tree.flatten(first)[0], tree.flatten(last)[0], strict=True):
            if "float" in str(old.dtype):
                same(old, new)
            else:
                assert (new.numpy() == 5).all()  # the count of steps is no unit


def test_noise_meets_only_a_state_it_knows() -> None:
    x, one = tgr.ones((2, SIZE), "float64"), tgr.zeros((2, SIZE), "float64")
    with pytest.raises(ShapeError, match="Zoneout: state"):
        nn.Zoneout(cell(nn.LSTMCell))(x, [one, one])
    with pytest.raises(ShapeError, match="1 floating-point Tensors; expected 2"):
        nn.RecurrentDropout(cell(nn.LSTMCell))(x, one)
