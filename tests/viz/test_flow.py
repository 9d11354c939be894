"""Maps of gradients over time, against numbers found in other ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr

XS = np.random.default_rng(0).normal(size=(7, 3, 4))


def cell(kind: Any = tgr.nn.LSTMCell) -> Any:
    return kind(4, 5, dtype="float64", rng=tgr.current_backend().rng(0))


def total(output: Any, t: int) -> Any:
    return tgr.sum(tgr.square(output))


@pytest.mark.parametrize("kind", [tgr.nn.RNNCell, tgr.nn.GRUCell, tgr.nn.LSTMCell])
def test_states_as_in_the_anatomy(kind: Any) -> None:
    c = cell(kind)
    flow = tgr.viz.gradient_flow(c, XS, loss=total)
    found = tgr.bptt.anatomy(c, XS, loss=total)
    square = sum(m**2 for m in flow.maps[kind.__name__].values())
    np.testing.assert_allclose(np.sqrt(square), found.cotangents, rtol=1e-10)
    np.testing.assert_allclose(flow.losses, found.losses, rtol=1e-10)
    again = tgr.viz.gradient_flow(found)
    assert again.maps["states"]["h"] is found.cotangents


def test_a_gate_by_finite_differences() -> None:
    """The forget gate of step k is moved, and all later losses are looked at."""
    c = cell()
    flow = tgr.viz.gradient_flow(c, XS, values=["f"], loss=total)
    k, eps = 2, 1e-6

    def losses(push: Any) -> Any:
        state, found = c.initial_state(3), []
        for t, x in enumerate(XS):
            h, memory = state
            from_x, from_h = c.projections(tgr.tensor(x), h)
            i, f, g, o = tgr.split(from_x + from_h, 4, axis=-1)
            f = f + push if t == k else f
            memory = tgr.sigmoid(f) * memory + tgr.sigmoid(i) * tgr.tanh(g)
            h = tgr.sigmoid(o) * tgr.tanh(memory)
            state = h, memory
            found.append(float(total(h, t)))
        return np.asarray(found)

    slopes = np.zeros((7, 3, 5))
    for b in range(3):
        for j in range(5):
            push = np.zeros((3, 5))
            push[b, j] = eps
            slopes[:, b, j] = (losses(tgr.tensor(push)) - losses(tgr.tensor(-push))) / (2 * eps)
    expected = np.sqrt((slopes**2).sum(axis=(1, 2)))
    np.testing.assert_allclose(flow.maps["LSTMCell"]["f"][:, k], expected, rtol=1e-5, atol=1e-9)


def test_layers_and_directions() -> None:
    model = tgr.nn.GRU(4, 5, num_layers=2, bidirectional=True, dtype="float64")

    def run() -> list[Any]:
        outputs, _ = model(tgr.tensor(XS))
        return [tgr.sum(tgr.square(y)) for y in tgr.unstack(outputs)]

    flow = tgr.viz.gradient_flow(run, values=["h", "r"])
    assert list(flow.maps) == ["GRU.l0", "GRU.l0_reverse", "GRU.l1", "GRU.l1_reverse"]
    assert not np.triu(flow.maps["GRU.l1"]["h"], 1).any()
    assert not np.tril(flow.maps["GRU.l1_reverse"]["h"], -1).any()
    assert flow.maps["GRU.l0"]["h"].all()
    as_tensor = tgr.viz.gradient_flow(lambda: tgr.stack(run()))
    np.testing.assert_allclose(as_tensor.maps["GRU.l1"]["h"], flow.maps["GRU.l1"]["h"])


def test_plans_are_seen_as_their_masks() -> None:
    for plan in (tgr.bptt.Chunk(3), tgr.bptt.Depth(2), tgr.bptt.Window(2, 3)):
        flow = tgr.viz.gradient_flow(cell(tgr.nn.RNNCell), XS, truncation=plan)
        np.testing.assert_array_equal(flow.maps["RNNCell"]["h"] > 0, plan.mask(7) > 0)


@pytest.mark.parametrize("reverse", [False, True])
def test_gates_too_are_masked_by_a_plan(reverse: bool) -> None:
    c = cell()
    options: dict[str, Any] = {"values": ["h", "c", "f"], "loss": total, "reverse": reverse}
    whole = tgr.viz.gradient_flow(c, XS, **options)
    for plan in (tgr.bptt.Chunk(3), tgr.bptt.Depth(2), tgr.bptt.Window(2, 3)):
        found = tgr.viz.gradient_flow(c, XS, truncation=plan, **options)
        mask = plan.mask(7)[::-1, ::-1] if reverse else plan.mask(7)
        for name, full in whole.maps["LSTMCell"].items():
            np.testing.assert_allclose(found.maps["LSTMCell"][name], full * mask, rtol=1e-9)


def test_a_loop_that_is_one_node_is_refused() -> None:
    c = cell()
    for options in ({"checkpoint": 2}, {"truncation": tgr.bptt.Depth(2)}):

        def run(options: Any = options) -> Any:
            return [tgr.sum(y) for y in tgr.unstack(tgr.scan(c, XS, **options)[0])]

        with pytest.raises(tgr.TinygradrnnError, match=r"LSTMCell over \d steps is one node"):
            tgr.viz.gradient_flow(run)
    flow = tgr.viz.gradient_flow(c, XS, checkpoint=2)
    whole = tgr.viz.gradient_flow(c, XS)
    np.testing.assert_allclose(flow.maps["LSTMCell"]["c"], whole.maps["LSTMCell"]["c"], rtol=1e-9)


def test_a_value_has_the_name_that_the_cell_gives_it_and_not_that_of_a_layers_argument() -> None:
    class Own(tgr.nn.Cell):
        def __init__(self) -> None:
            self.w, self.u = (tgr.nn.Linear(n, 4, dtype="float64") for n in (8, 4))

        def forward(self, x: Any, h: Any) -> Any:
            h = tgr.tanh(self.w(tgr.concat([h, x], axis=-1)) + self.u(h))
            return h, h

    own, first = Own(), tgr.zeros((3, 4), "float64")
    xs = tgr.tensor(XS, requires_grad=True)
    flow = tgr.viz.gradient_flow(own, xs, first, values=["*"], loss=total)
    assert set(flow.maps["Own"]) == {"h", "x"}
    outputs, _ = tgr.scan(own, xs, first)
    for t in range(7):
        (g,) = tgr.grad(total(outputs[t], t), xs, retain_graph=True)
        expected = np.linalg.norm(g.numpy().reshape(7, -1), axis=1)
        np.testing.assert_allclose(flow.maps["Own"]["x"][t], expected, rtol=1e-9)
    with tgr.watch():
        text = tgr.viz.tape(tgr.sum(tgr.scan(own, XS, first)[0])).text()
    assert "↑ x, h " in text


def test_everything_with_a_name_and_a_cell_of_ones_own() -> None:
    w = tgr.tensor(0.5, requires_grad=True)

    def own(x: Any, h: Any) -> Any:
        fresh = tgr.tanh(x)
        h = w * h + fresh
        return h, h

    flow = tgr.viz.gradient_flow(own, XS, tgr.zeros((3, 4), "float64"), values=["*"])
    assert set(flow.maps["own"]) == {"h", "fresh", "x"}
    np.testing.assert_allclose(flow.maps["own"]["fresh"], flow.maps["own"]["h"], rtol=1e-10)
    # h_t = sum_k w^(t-k) tanh(x_k), so dL_t/dh_k = 2 h_t w^(t-k).
    h = np.zeros((3, 4))
    rows = []
    for x in XS:
        h = 0.5 * h + np.tanh(x)
        rows.append(np.linalg.norm(2 * h))
    expected = [[rows[t] * 0.5 ** (t - k) if k <= t else 0 for k in range(7)] for t in range(7)]
    np.testing.assert_allclose(flow.maps["own"]["h"], expected, rtol=1e-10)
    np.testing.assert_allclose(flow.profile("own", "h")[0], np.mean(rows))


def test_the_states_of_stacked_cells_are_told_apart() -> None:
    c = tgr.nn.Stacked(cell(), tgr.nn.GRUCell(5, 3, dtype="float64"))
    flow = tgr.viz.gradient_flow(c, XS, loss=total)
    assert list(flow.maps["Stacked"]) == ["0.h", "0.c", "1"]
    square = sum(m**2 for m in flow.maps["Stacked"].values())
    found = tgr.bptt.anatomy(c, XS, loss=total)
    np.testing.assert_allclose(np.sqrt(square), found.cotangents, rtol=1e-10)


def test_a_loop_inside_of_a_step_is_not_taken_for_the_one_around_it() -> None:
    w = tgr.tensor(0.5, requires_grad=True, dtype="float64")

    def inner(x: Any, h: Any) -> Any:
        h = w * h + x
        return h, h

    def outer(x: Any, h: Any) -> Any:
        _, h = tgr.scan(inner, tgr.stack([x, x]), h)
        return h, h

    flow = tgr.viz.gradient_flow(outer, XS, tgr.zeros((3, 4), "float64"), loss=total)
    assert flow.names == [("outer", "h")]
    found = tgr.bptt.anatomy(
        outer, XS, tgr.zeros((3, 4), "float64"), loss=total, parameters={"w": w}
    )
    np.testing.assert_allclose(flow.maps["outer"]["h"], found.cotangents, rtol=1e-10)


@pytest.mark.parametrize("plan", [tgr.bptt.Chunk(3), tgr.bptt.Depth(2)], ids=repr)
def test_a_plan_is_its_mask_times_the_whole(plan: Any) -> None:
    def own(x: Any, memory: Any) -> Any:
        memory = tgr.tanh(memory + x)
        return memory, memory

    first = tgr.zeros((3, 4), "float64")
    whole = tgr.viz.gradient_flow(own, XS, first, loss=total).maps["own"]["memory"]
    found = tgr.viz.gradient_flow(own, XS, first, loss=total, truncation=plan)
    expected = whole * plan.mask(7)
    np.testing.assert_allclose(found.maps["own"]["memory"], expected, rtol=1e-10)


@pytest.mark.parametrize("factor", [0.02, 30.0])
def test_norms_whose_squares_do_not_fit_into_float32(factor: float) -> None:
    def scaled(x: Any, h: Any) -> Any:
        h = factor * h + 0.0 * x
        return h, h

    xs, h = np.zeros((17, 1, 1), "float32"), tgr.tensor([[1.0]], dtype="float32")
    rate = lambda output, t: tgr.sum(output)  # noqa: E731
    expected = [[factor ** (t - k) * (k <= t) for k in range(17)] for t in range(17)]
    flow = tgr.viz.gradient_flow(scaled, xs, h, loss=rate)
    np.testing.assert_allclose(flow.maps["scaled"]["h"], expected, rtol=1e-5)
    found = tgr.bptt.anatomy(scaled, xs, h, loss=rate, parameters=[])
    np.testing.assert_allclose(found.cotangents, expected, rtol=1e-5)
    assert found.rate == pytest.approx(factor)


def test_a_state_handed_on_counts_from_its_step_on() -> None:
    def keeps(x: Any, s: Any) -> Any:
        h = x * s["m"]
        return h, {"h": h, "m": s["m"]}

    first = {"h": tgr.zeros((3, 4), "float64"), "m": tgr.ones((3, 4), "float64")}
    flow = tgr.viz.gradient_flow(keeps, XS, first, values=["m"], loss=total).maps["keeps"]["m"]
    later = np.linalg.norm(2 * XS**2, axis=(1, 2))
    np.testing.assert_allclose(flow, np.tril(np.ones((7, 7)), -1) * later[:, None])
    found = tgr.bptt.anatomy(keeps, XS, first, loss=total, parameters=[]).cotangents
    own = np.linalg.norm(2 * XS, axis=(1, 2))  # h is the output
    np.testing.assert_allclose(found, flow + np.diag(own))


def test_decay_in_full_and_truncated() -> None:
    c = cell(tgr.nn.RNNCell)
    plans = [tgr.bptt.Chunk(3), tgr.bptt.Depth(4)]
    found = tgr.viz.decay(c, XS, plans=plans)
    flow = tgr.viz.gradient_flow(c, XS, loss=total)
    np.testing.assert_allclose(found.curves["full"], flow.maps["RNNCell"]["h"][-1, ::-1], rtol=1e-9)
    assert [int((v > 0).sum()) for v in found.curves.values()] == [7, 1, 4]
    np.testing.assert_allclose(found.curves["Depth(k=4)"][:4], found.curves["full"][:4], rtol=1e-9)


def test_a_loop_from_the_end_is_the_mirror_image() -> None:
    c, plans = cell(), [tgr.bptt.Chunk(3), tgr.bptt.Depth(2)]
    flow = tgr.viz.gradient_flow(c, XS, loss=total)
    other = tgr.viz.gradient_flow(c, XS[::-1].copy(), loss=total, reverse=True)
    np.testing.assert_allclose(other.profile("LSTMCell", "c"), flow.profile("LSTMCell", "c"))
    assert (flow.profile("LSTMCell", "c") > 0).all()
    found = tgr.viz.decay(c, XS, plans=plans).curves
    mirrored = tgr.viz.decay(c, XS[::-1].copy(), plans=plans, reverse=True).curves
    for name, curve in found.items():
        np.testing.assert_allclose(mirrored[name], curve, rtol=1e-9)


def test_the_last_loss_of_padded_sequences_and_names_of_plans() -> None:
    c = cell()
    whole = tgr.viz.decay(c, XS[:5]).curves["full"]
    padded = tgr.viz.decay(c, XS, lengths=[5, 5, 5]).curves["full"]
    np.testing.assert_allclose(padded, [*whole, 0, 0], rtol=1e-9)
    draws = {"one": tgr.bptt.Random(0.5, rng=1), "other": tgr.bptt.Random(0.5, rng=2)}
    assert list(tgr.viz.decay(c, XS, plans=draws).curves) == ["full", "one", "other"]
    assert list(tgr.viz.decay(c, XS, plans=tgr.bptt.Chunk(2)).curves) == ["full", "Chunk(k=2)"]
    for plans, said in (
        (list(draws.values()), "decay: two plans are called"),
        ({"full": tgr.bptt.Chunk(2)}, "a plan is called 'full'"),
        ([3], "decay: 3 is no plan"),
    ):
        with pytest.raises(tgr.TinygradrnnError, match=said):
            tgr.viz.decay(c, XS, plans=plans)  # type: ignore[arg-type]


def test_fewer_losses_than_steps() -> None:
    c = cell()

    def last() -> Any:
        return [tgr.sum(tgr.square(tgr.scan(c, XS)[0][-1]))]

    flow = tgr.viz.gradient_flow(last)
    assert flow.maps["LSTMCell"]["h"].shape == (1, 7)
    square = sum(m[0] ** 2 for m in flow.maps["LSTMCell"].values())
    np.testing.assert_allclose(np.sqrt(square), tgr.viz.decay(c, XS).curves["full"][::-1])
    with pytest.raises(tgr.TinygradrnnError, match="1 losses and 7 steps of LSTMCell"):
        flow.profile("LSTMCell", "h")


def test_a_loop_by_hand() -> None:
    c = cell(tgr.nn.RNNCell)

    def by_hand() -> Any:
        h, losses = tgr.zeros((3, 5), "float64"), []
        for t in range(7):
            with tgr.step(t, "mine"):
                y, h = c(tgr.tensor(XS[t]), h)
                losses.append(total(y, t))
        return losses

    with pytest.raises(tgr.TinygradrnnError, match=r"no scan ran.*some of \[.*'h'\]"):
        tgr.viz.gradient_flow(by_hand)
    found = tgr.viz.gradient_flow(by_hand, values=["h"]).maps["mine"]["h"]
    np.testing.assert_allclose(found, tgr.viz.gradient_flow(c, XS).maps["RNNCell"]["h"], rtol=1e-9)


def test_singular_values_of_a_linear_cell() -> None:
    turn = np.array([[0.6, -0.8], [0.8, 0.6]]) * np.array([2.0, 0.5])

    def linear(x: Any, h: Any) -> Any:
        h = h @ tgr.tensor(turn) + x
        return h, h

    xs = np.zeros((6, 1, 2))
    found = tgr.viz.spectrum(linear, xs, tgr.zeros((1, 2), "float64"), parameters=[])
    expected = [np.linalg.svd(np.linalg.matrix_power(turn, t), compute_uv=False) for t in range(6)]
    np.testing.assert_allclose(found.values, expected, rtol=1e-9)


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib: pip install -e '.[plot]'")
    c = cell()
    flow = tgr.viz.gradient_flow(c, XS, values=["h", "c", "i", "f", "o"])
    figure = flow.plot()
    assert [a.get_title() for a in figure.axes if a.get_title()] == ["h", "c", "i", "f", "o"]
    assert len([a for a in flow.plot(only=["h"]).axes if a.images]) == 1
    for chart in (flow, tgr.viz.decay(c, XS), tgr.viz.spectrum(c, XS)):
        assert chart._repr_svg_().startswith("<svg")
        for suffix in (".svg", ".png", ".pdf"):
            assert chart.save(tmp_path / f"a{suffix}").stat().st_size > 1000
        with pytest.raises(tgr.TinygradrnnError, match=r"'a.gif'; expected a name in"):
            chart.save(tmp_path / "a.gif")


def test_bad_arguments() -> None:
    error = tgr.TinygradrnnError
    with pytest.raises(error, match=r"values has \['nope'\]; the cell's own names are \['c', 'f'"):
        tgr.viz.gradient_flow(cell(), XS, values=["nope"])
    with pytest.raises(error, match="source is 3"):
        tgr.viz.gradient_flow(3, XS)
    with pytest.raises(error, match="xs is missing; LSTMCell needs its inputs"):
        tgr.viz.gradient_flow(cell())
    with pytest.raises(error, match="the function returned a float"):
        tgr.viz.gradient_flow(lambda: 3.0)
    with pytest.raises(error, match="no loss depends on any state"):
        tgr.viz.gradient_flow(cell(), XS, loss=lambda output, t: None)
    with pytest.raises(error, match=r"loss\(output, 0\) has shape \(3, 5\)"):
        tgr.viz.gradient_flow(cell(), XS, loss=lambda output, t: output)
    with pytest.raises(error, match="only="):
        tgr.viz.gradient_flow(cell(), XS).plot(only=["z"])
