"""Truncation plans: each is exactly the gradient that its mask says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygradrnn as tgr
from tinygradrnn import bptt, nn, tree
from tinygradrnn.errors import DtypeError, GradientError, ShapeError

PLANS: dict[str, Any] = {
    "full": bptt.Full,
    "chunk": lambda: bptt.Chunk(3),
    "window": lambda: bptt.Window(2, 5),
    "window to the end": lambda: bptt.Window(4, 100),
    "depth 1": lambda: bptt.Depth(1),
    "depth": lambda: bptt.Depth(3),
    "random": lambda: bptt.Random(0.4, rng=5),
    "power law": lambda: bptt.Random.power_law(3, 2.0, rng=5),
    "by distance": lambda: bptt.Random(lambda d: 0.0 if d < 3 else 0.5, rng=1),
}
every_plan = pytest.mark.parametrize("name", PLANS)


def draw(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def gradients(
    cell: Any, xs: Any, loss: Any, plan: Any, state: Any = None, **options: Any
) -> list[Any]:
    """Of the sum of the steps' losses, with respect to the weights and xs."""
    x = tgr.tensor(xs, requires_grad=True)
    outputs, *_ = tgr.scan(cell, x, state, truncation=plan, **options)
    total: Any = sum((loss(tree.map(lambda o, t=t: o[t], outputs), t) for t in range(len(xs))), 0.0)
    found = tgr.grad(total, [*cell.parameters(), x], allow_unused=True)
    return [g.numpy() for g in found if g is not None]


# ---------------------------------------------------------------- from masks and step Jacobians


@every_plan
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"lengths": [7, 0, 4]}], ids=str)
@pytest.mark.parametrize("make", [nn.RNNCell, nn.LSTMCell, nn.MinGRUCell], ids=lambda c: c.__name__)
def test_the_gradient_is_the_one_of_the_mask(name: str, options: Any, make: Any) -> None:
    cell, xs, w = make(2, 3, dtype="float64"), draw(7, 3, 2), tgr.tensor(draw(7, 3, 3))

    def loss(output: Any, t: int) -> Any:
        return tgr.sum(output * w[t]) + tgr.sum(output**3)

    found = gradients(cell, xs, loss, PLANS[name](), **options)
    form = bptt.closed_form(cell, xs, loss=loss, truncation=PLANS[name](), **options)
    for a, b in zip(found, form.parameters, strict=False):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-12)


def by_hand(x: Any, w: float, u: Any, mask: Any) -> float:
    """dL/dw of ``h_t = tanh(w h_{t-1} + x_t)``, ``L = sum_t u_t h_t``, every term by itself."""
    h = [0.0]
    for x_t in x:
        h.append(float(np.tanh(w * h[-1] + x_t)))
    slope = [1 - value**2 for value in h]
    total = 0.0
    for s in range(len(x)):
        for i in range(s + 1):
            through = np.prod([slope[j + 1] * w for j in range(i + 1, s + 1)])
            total += mask[s, i] * u[s] * through * slope[i + 1] * h[i]
    return total


@every_plan
@given(st.integers(1, 12), st.integers(0, 99))
def test_the_gradient_is_the_one_of_the_mask_by_hand(name: str, time: int, seed: int) -> None:
    x, u = draw(time, seed=seed), draw(time, seed=seed + 1)
    w = tgr.tensor(1.3, "float64", requires_grad=True)

    def cell(x: Any, h: Any) -> Any:
        h = tgr.tanh(w * h + x)
        return h, h

    # A first state that is on the tape: the last step back is one like any other.
    first = tgr.tensor(0.0, "float64", requires_grad=True)
    outputs, _ = tgr.scan(cell, x, first, truncation=PLANS[name]())
    (found,) = tgr.grad(tgr.sum(outputs * u), w)
    expected = by_hand(x, 1.3, u, PLANS[name]().mask(time))
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@every_plan
def test_forward_is_untouched_and_checkpointing_changes_nothing(name: str) -> None:
    cell, xs = nn.LSTMCell(2, 3, dtype="float64"), draw(9, 2, 2)
    plain = tgr.scan(cell, xs, return_states=True)
    other = tgr.scan(cell, xs, truncation=PLANS[name](), return_states=True)
    for a, b in zip(tree.flatten(plain)[0], tree.flatten(other)[0], strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())

    def loss(output: Any, t: int) -> Any:
        return tgr.sum(output**2)

    found = gradients(cell, xs, loss, PLANS[name]())
    again = gradients(cell, xs, loss, PLANS[name](), checkpoint=3)
    for a, b in zip(found, again, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


@every_plan
def test_losses_on_states_and_on_the_last_one(name: str) -> None:
    # The same loss read from the outputs and from the states of a cell whose output is its state.
    cell, xs, w = nn.RNNCell(2, 3, dtype="float64"), draw(8, 2, 2), tgr.tensor(draw(8, 2, 3))

    def found(where: int) -> list[Any]:
        results = tgr.scan(cell, xs, truncation=PLANS[name](), return_states=True)
        value = results[where] * (w if where != 1 else w[-1])
        return [g.numpy() for g in tgr.grad(tgr.sum(value), list(cell.parameters()))]

    for a, b in zip(found(0), found(2), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    last_output, _ = tgr.scan(cell, xs, truncation=PLANS[name]())
    expected = tgr.grad(tgr.sum(last_output[-1] * w[-1]), list(cell.parameters()))
    for a, b in zip(found(1), expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-9, atol=1e-12)


def test_plans_that_are_each_other() -> None:
    for time in (1, 5, 8):
        np.testing.assert_array_equal(bptt.Window(3, 3).mask(time), bptt.Chunk(3).mask(time))
        np.testing.assert_array_equal(bptt.Window(1, 4).mask(time), bptt.Depth(4).mask(time))
        np.testing.assert_array_equal(bptt.Depth(time).mask(time), bptt.Full().mask(time))
        np.testing.assert_array_equal(bptt.Random(0.0).mask(time), np.tri(time))


def test_chunks_are_what_training_on_chunks_does() -> None:
    cell, xs = nn.GRUCell(2, 3, dtype="float64"), draw(10, 2, 2)
    expected = [np.zeros(p.shape) for p in cell.parameters()]
    state = cell.initial_state(2)
    for start in range(0, 10, 4):
        outputs, state = tgr.scan(cell, xs[start : start + 4], bptt.detach(state))
        for g, e in zip(tgr.grad(tgr.sum(outputs**2), list(cell.parameters())), expected):  # noqa: B905
            e += g.numpy()
    found = gradients(cell, xs, lambda o, t: tgr.sum(o**2), bptt.Chunk(4))
    for a, b in zip(found, expected, strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------- random


@pytest.mark.parametrize(
    "plan", [bptt.Random(0.3, rng=0), bptt.Random.power_law(4, rng=0)], ids=["constant", "power"]
)
def test_random_truncation_is_unbiased_where_chunks_are_not(plan: Any) -> None:
    cell = nn.RNNCell(2, 3, dtype="float64", rng=tgr.current_backend().rng(0))
    xs = draw(10, 1, 2)

    def flat(plan: Any) -> Any:
        found = gradients(cell, xs, lambda o, t: tgr.sum(o * (t + 1)), plan)[:-1]
        return np.concatenate([g.ravel() for g in found])

    full, chunk = flat(bptt.Full()), flat(bptt.Chunk(3))
    samples = np.stack([flat(plan) for _ in range(1500)])
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    moved = error > 0
    z = (samples.mean(axis=0) - full)[moved] / error[moved]
    # 27 derivatives that share their draws: the worst of them beyond 4.5 has a chance below 2e-4.
    assert np.abs(z).max() < 4.5
    assert np.sqrt((z**2).mean()) < 2
    assert np.abs((chunk - full)[moved] / error[moved]).max() > 10


def test_the_mean_of_random_masks_is_the_full_one() -> None:
    plan = bptt.Random.power_law(5, 3.0, rng=0)
    masks = np.stack([plan.mask(6) for _ in range(20000)])
    error = masks.std(axis=0) / np.sqrt(len(masks)) + 1e-12
    assert (np.abs(masks.mean(axis=0) - np.tri(6)) / error).max() < 4.5
    assert not np.array_equal(masks[0], masks[1])  # drawn anew


def test_a_seed_and_a_generator() -> None:
    same = [bptt.Random(0.5, rng=7).mask(20) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    shared = tgr.current_backend().rng(7)
    np.testing.assert_array_equal(bptt.Random(0.5, rng=shared).mask(20), same[0])


# ------------------------------------------------------------------------------- clipping the way


def test_clipping_on_the_way_back() -> None:
    xs, first = draw(6, 2, 3), tgr.tensor(draw(2, 3, seed=1), requires_grad=True)

    def cell(x: Any, h: Any) -> Any:
        return h, 3.0 * h + x

    plain, last = tgr.scan(cell, xs, first)
    limits: Any
    for limits in ({"max_norm": 0.5}, {"max_value": 0.2}, {"max_norm": 0.5, "max_value": 0.2}):
        outputs, last, states = tgr.scan(
            cell, xs, first, truncation=bptt.Clip(**limits), return_states=True
        )
        np.testing.assert_array_equal(outputs.numpy(), plain.numpy())
        g, along = tgr.grad(tgr.sum(last), [first, states])
        # By hand: every step back multiplies by 3 and clips.
        expected = np.ones((2, 3))
        rows = [expected]
        for _ in range(6):
            expected = 3 * expected
            if "max_value" in limits:
                expected = np.clip(expected, -limits["max_value"], limits["max_value"])
            if "max_norm" in limits:
                norm = np.linalg.norm(expected, axis=1, keepdims=True)
                expected = expected * np.minimum(1, limits["max_norm"] / norm)
            rows.append(expected)
        np.testing.assert_allclose(g.numpy(), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(along.numpy(), np.stack(rows[:-1][::-1]), rtol=1e-9, atol=1e-12)


def test_clipping_with_another_plan() -> None:
    cell, xs = nn.RNNCell(2, 3, dtype="float64"), draw(9, 2, 2)

    def loss(output: Any, t: int) -> Any:
        return tgr.sum(output**2)

    wide = bptt.Clip(max_norm=1e9, plan=bptt.Window(2, 4))
    for a, b in zip(
        gradients(cell, xs, loss, wide), gradients(cell, xs, loss, bptt.Window(2, 4)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    with pytest.raises(ShapeError, match="no mask"):
        wide.mask(3)


def test_a_cotangent_that_is_no_number_stays_visible() -> None:
    x = tgr.tensor([1.0, 2.0], requires_grad=True)
    y = tgr.clip_cotangent(x, max_norm=1.0) * tgr.tensor([np.nan, 1.0], "float32")
    (g,) = tgr.grad(y.sum(), x)
    assert np.isnan(g.numpy()).any()


def test_the_clip_has_a_gradient_itself() -> None:
    x = tgr.tensor(draw(2, 3), requires_grad=True)

    def clipped(x: Any, up: Any) -> Any:
        return tgr.grad(tgr.sum(tgr.clip_cotangent(x * x, 0.7, 0.6) * up), x, create_graph=True)[0]

    tgr.testing.gradcheck(clipped, [x, tgr.tensor(draw(2, 3, seed=2), requires_grad=True)])
    zero = tgr.tensor(np.zeros((2, 3)), requires_grad=True)
    (g,) = tgr.grad(tgr.sum(clipped(zero, tgr.zeros((2, 3), "float64"))), zero)
    assert np.isfinite(g.numpy()).all()


# ------------------------------------------------------------------------ dL/dh_t of every step


@pytest.mark.oracle
@pytest.mark.parametrize("options", [{}, {"checkpoint": 3}, {"truncation": bptt.Chunk(4)}], ids=str)
def test_the_gradient_of_every_state(options: Any) -> None:
    import torch

    cell, other = nn.LSTMCell(2, 3, dtype="float64"), torch.nn.LSTMCell(2, 3, dtype=torch.float64)
    cell.load_state_dict({k: v.numpy() for k, v in other.state_dict().items()})
    xs = draw(8, 2, 2)
    outputs, _, states = tgr.scan(cell, xs, return_states=True, **options)
    loss = tgr.sum(outputs**3) + tgr.sum(states.c[2] * states.c[5])
    found = tgr.grad(loss, [states.h, states.c])
    h, c = torch.zeros(2, 2, 3, dtype=torch.float64)
    hs: list[Any] = []
    cs: list[Any] = []
    for t, x in enumerate(torch.tensor(xs)):
        cut = "truncation" in options and t == 4
        h, c = other(x, (h.detach(), c.detach()) if cut else (h, c))
        h.retain_grad()
        c.retain_grad()
        hs.append(h)
        cs.append(c)
    (sum((h**3).sum() for h in hs) + (cs[2] * cs[5]).sum()).backward()
    for ours, theirs in zip(found, (hs, cs), strict=True):
        expected = np.stack([x.grad.numpy() for x in theirs])
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_states_under_sweeps() -> None:
    # The sum over all losses of dL_s/dh_t, as far as each loss reaches.
    w = tgr.tensor(2.0, "float64", requires_grad=True)

    def cell(x: Any, h: Any) -> Any:
        h = w * h + x
        return h, h

    outputs, _, states = tgr.scan(
        cell, np.ones(5), np.zeros(()), truncation=bptt.Depth(3), return_states=True
    )
    (g,) = tgr.grad(tgr.sum(outputs), states, retain_graph=True)
    # h_t reaches the losses of t, t+1 and t+2.
    assert g.tolist() == [7, 7, 7, 3, 1]
    (unused,) = tgr.grad(tgr.sum(outputs), states, allow_unused=True)
    assert unused.tolist() == g.tolist()


def test_the_gradient_of_states_of_ragged_batches() -> None:
    cell, xs = nn.LSTMCell(2, 3, dtype="float64"), draw(6, 3, 2)
    every: Any = ({}, {"checkpoint": 2}, {"truncation": bptt.Depth(9)}, {"reverse": True})
    for options in every:
        outputs, last, states = tgr.scan(cell, xs, lengths=[6, 2, 0], return_states=True, **options)
        loss = tgr.sum(outputs**2) + tgr.sum(last.c[1] ** 3)
        found = tgr.grad(loss, [states.h, states.c])
        for b, n in enumerate((6, 2)):
            mine: Any = {"reverse": True} if "reverse" in options else {}
            o, end, alone = tgr.scan(cell, xs[:n, b : b + 1], return_states=True, **mine)
            loss = tgr.sum(o**2) + (tgr.sum(end.c[0] ** 3) if b == 1 else 0.0)
            for ragged, whole in zip(found, tgr.grad(loss, [alone.h, alone.c]), strict=True):
                np.testing.assert_allclose(
                    ragged.numpy()[:n, b], whole.numpy()[:, 0], rtol=1e-10, atol=1e-13
                )


def test_one_tensor_as_the_output_of_several_steps() -> None:
    w = tgr.tensor([2.0], requires_grad=True)
    kept: list[Any] = []

    def cell(x: Any, h: Any) -> Any:
        if not kept:
            kept.append(w * w)
        return kept[0], tgr.tanh(x + h * kept[0])

    outputs, _ = tgr.scan(cell, tgr.ones((4, 1)), tgr.zeros((1,)), truncation=bptt.Depth(1))
    (g,) = tgr.grad(outputs.sum(), w)
    assert g.tolist() == [16]


def test_second_gradients_of_states_and_through_plans() -> None:
    cell, xs = nn.GRUCell(2, 3, dtype="float64"), draw(5, 2, 2)
    for plan in (bptt.Full(), bptt.Chunk(2), bptt.Random(0.3, rng=0)):
        outputs, _, states = tgr.scan(cell, xs, truncation=plan, return_states=True)
        (g,) = tgr.grad(tgr.sum(outputs**2), states, create_graph=True)
        (gg,) = tgr.grad(tgr.sum(g**2), cell.weight_hh)
        assert np.isfinite(gg.numpy()).all()
        assert gg.numpy().any()
    outputs, _ = tgr.scan(cell, xs, truncation=bptt.Depth(2))
    with pytest.raises(GradientError, match="use bptt"):
        tgr.grad(tgr.sum(outputs), cell.weight_hh, create_graph=True)


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bptt.Chunk(0), "Chunk: k=0; expected a positive number of steps"),
        (lambda: bptt.Depth(2.0), "Depth: k=2.0"),  # type: ignore[arg-type]
        (lambda: bptt.Window(4, 3), "expected k2 of at least k1"),
        (lambda: bptt.Window(True, 3), "Window: k1=True"),
        (lambda: bptt.Random(1.0), "probability of 1.0"),
        (lambda: bptt.Random(-0.1), "probability of -0.1"),
        (lambda: bptt.Random(lambda d: 2.0).mask(3), "probability of 2.0"),
        (lambda: bptt.Random.power_law(16, 1.0), "expected both above 1"),
        (lambda: bptt.Clip(), "expected one or both"),
        (lambda: bptt.Random("a"), "probability of 'a'"),  # type: ignore[arg-type]
        (lambda: bptt.Random(lambda d: None).mask(3), "probability of None"),  # type: ignore
        (lambda: bptt.Chunk(2).mask(2.5), "mask: steps=2.5"),  # type: ignore[arg-type]
        (lambda: bptt.Clip("a"), "Clip: max_norm='a'"),  # type: ignore[arg-type]
        (lambda: bptt.Clip(max_norm=-1.0), "positive"),
        (lambda: tgr.clip_cotangent(tgr.ones((2,)), max_norm=0.0), "clip_cotangent: max_norm=0.0"),
    ],
)
def test_plans_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make()


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (bptt.Schedule((1.0,) * 3), "3 gates, 3 reaches; expected one of each of 4 steps"),
        (bptt.Schedule((1.0,) * 4, (0, 0)), "2 reaches"),
        (bptt.Schedule((1.0,) * 4, (0, 2, 0, 0)), r"reach\[1\] is 2; expected 0 to 1"),
        (bptt.Schedule((1.0, np.nan, 1.0, 1.0)), r"gates\[1\] is nan"),
    ],
)
def test_schedules_that_do_not_fit(schedule: Any, message: str) -> None:
    class Own(bptt.Truncation):
        def schedule(self, steps: int) -> Any:
            return schedule

    with pytest.raises(ShapeError, match=message):
        tgr.scan(nn.RNNCell(2, 3), tgr.ones((4, 1, 2)), truncation=Own())


def test_arguments_of_another_kind() -> None:
    with pytest.raises(DtypeError, match="Clip: plan is 3"):
        bptt.Clip(1.0, plan=3)  # type: ignore[arg-type]
    with pytest.raises(DtypeError, match="no Clip"):
        bptt.Clip(1.0, plan=bptt.Clip(2.0))
    with pytest.raises(DtypeError, match="Random: rng is 'x'"):
        bptt.Random(0.1, rng="x")  # type: ignore[arg-type]
    with pytest.raises(DtypeError, match="detach: state is a int"):
        bptt.detach(3)
    with pytest.raises(DtypeError, match="scan: cell is 5"):
        tgr.scan(5, tgr.ones((4, 1)), ())  # type: ignore[arg-type]
    with pytest.raises(DtypeError, match="scan: cell is <class"):
        tgr.scan(nn.RNNCell, tgr.ones((4, 1)), ())  # type: ignore[arg-type]
    with pytest.raises(DtypeError, match="RNNCell: h is a tuple"):
        tgr.scan(nn.RNNCell(1, 2), tgr.ones((4, 1, 1)), (tgr.ones((1, 2)),))
    with pytest.raises(ShapeError, match="lengths are"):
        tgr.scan(nn.RNNCell(1, 2), tgr.ones((4, 2, 1)), lengths=[[1], [1, 2]])


@pytest.mark.parametrize("plan", [5, "chunk", bptt.Chunk], ids=str)
def test_what_is_no_plan(plan: Any) -> None:
    with pytest.raises(DtypeError, match=r"scan: truncation is .* expected a plan"):
        tgr.scan(nn.RNNCell(2, 3), tgr.ones((4, 1, 2)), truncation=plan)
