"""Truncation plans beside the full gradient, against sums over products of step Jacobians."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn import bptt
from tinygradrnn.errors import DtypeError, GradientError, ShapeError

T = 7
XS = np.random.default_rng(0).normal(size=(T, 3, 2))
PLANS = [bptt.Chunk(3), bptt.Window(2, 3), bptt.Depth(2)]


def cell() -> Any:
    return tgr.nn.GRUCell(2, 4, dtype="float64", rng=tgr.current_backend().rng(0))


def rate(output: Any, t: int) -> Any:
    return tgr.sum(tgr.square(output - 0.1 * t))


def loss(model: Any, xs: Any, truncation: Any) -> Any:
    outputs, _ = tgr.scan(model, xs, truncation=truncation)
    return sum((rate(outputs[t], t) for t in range(1, T)), rate(outputs[0], 0))


def exact(model: Any, plan: Any = None) -> Any:
    found = bptt.closed_form(model, XS, loss=rate, truncation=plan)
    return np.concatenate([g.numpy().ravel() for g in found.parameters])


@pytest.mark.parametrize(
    ("plan", "reach"), [(PLANS[0], 3), (PLANS[1], 3), (PLANS[2], 2), (bptt.Full(), T)]
)
def test_a_fixed_plan_is_what_the_closed_form_says(plan: Any, reach: int) -> None:
    model = cell()
    full, cut = exact(model), exact(model, plan)
    found = bptt.audit(model, XS, [plan], loss=loss, seeds=3)
    row = found[repr(plan)]
    size = np.linalg.norm(full)
    assert found.norm == pytest.approx(size, rel=1e-9)
    assert row.bias == pytest.approx(np.linalg.norm(cut - full) / size, rel=1e-9, abs=1e-12)
    assert row.cosine == pytest.approx(cut @ full / (np.linalg.norm(cut) * size), rel=1e-9)
    assert row.deviation == pytest.approx(0, abs=1e-12)
    assert row.reach == reach


class Fixed(bptt.Truncation):
    def __init__(self, *gates: float) -> None:
        self.gates = gates

    def schedule(self, steps: int) -> bptt.Schedule:
        return bptt.Schedule(self.gates)


def test_a_random_plan_is_unbiased_and_varies_as_its_draws_do() -> None:
    model, p, seeds = cell(), 0.3, 400
    full = exact(model)
    # Every way the draws can fall, with its probability.
    mean, variance = np.zeros_like(full), 0.0
    for cuts in product((False, True), repeat=T - 1):
        chance = np.prod([p if cut else 1 - p for cut in cuts])
        g = exact(model, Fixed(1.0, *(0.0 if cut else 1 / (1 - p) for cut in cuts)))
        mean += chance * g
        variance += chance * float(((g - full) ** 2).sum())
    np.testing.assert_allclose(mean, full, rtol=1e-9)
    plans = {"drawn": bptt.Random(p, rng=5)}
    row = bptt.audit(model, XS, plans, loss=loss, seeds=seeds)["drawn"]
    assert row.deviation == pytest.approx(np.sqrt(variance) / np.linalg.norm(full), rel=0.15)
    assert row.bias_error == pytest.approx(row.deviation / np.sqrt(seeds))
    assert row.bias < 3 * row.bias_error


def test_a_bias_is_told_from_chance() -> None:
    class Careless(bptt.Truncation):
        """Cuts at random, and does not make up for it."""

        def __init__(self) -> None:
            self.random = bptt.Random(0.4, rng=0)

        def schedule(self, steps: int) -> bptt.Schedule:
            gates = self.random.schedule(steps).gates
            return bptt.Schedule(tuple([min(gate, 1.0) for gate in gates]))

    row = bptt.audit(cell(), XS, {"careless": Careless()}, loss=loss, seeds=200)["careless"]
    assert row.bias > 5 * row.bias_error > 0


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_what_the_tape_keeps_is_that_of_the_loss_as_it_runs(mode: str) -> None:
    model, plan = cell(), bptt.Chunk(2)

    def run(model: Any, xs: Any, truncation: Any) -> Any:
        outputs, _ = tgr.scan(model, xs, truncation=truncation, mode=mode)
        return tgr.sum(outputs)

    found = bptt.audit(model, XS, [plan], loss=run, seeds=2)
    assert found[repr(plan)].kept == tgr.Tape(run(model, XS, plan)).nbytes
    assert found[repr(plan)].kept > T * 3 * 4 * 8  # the states at least


def test_layers_losses_and_parameters_of_ones_own() -> None:
    layer, xs = tgr.nn.LSTM(2, 4, num_layers=2), tgr.tensor(XS.astype(np.float32))
    found = bptt.audit(layer, xs, PLANS, seeds=2)
    assert [row.name for row in found.rows] == ["Full()", *map(repr, PLANS)]
    assert [row.reach for row in found.rows] == [T, 3, 3, 2]
    assert found["Full()"].bias < 1e-6 and found["Full()"].time == 1
    assert all(row.seconds > 0 for row in found.rows)
    readout, batch = tgr.nn.Linear(4, 1), {"x": xs, "y": tgr.ones((T, 3, 1))}

    def own(model: Any, batch: Any, truncation: Any) -> Any:
        return tgr.mse(readout(model(batch["x"], truncation=truncation)[0]), batch["y"])

    weights = list(readout.parameters())
    alone = bptt.audit(layer, batch, [bptt.Chunk(4)], loss=own, parameters=weights, seeds=2)
    # No way of the read-out's goes through time.
    assert alone["Chunk(k=4)"].bias == pytest.approx(0, abs=1e-6)


def test_on_another_backend(strict: str) -> None:
    with tgr.use_backend(strict):
        model, xs = tgr.nn.RNNCell(2, 4), tgr.tensor(XS.astype("float32"))
        found = bptt.audit(model, xs, [bptt.Chunk(3)], seeds=2)
    assert 0 < found["Chunk(k=3)"].bias < 1


def test_as_text_and_as_a_picture(tmp_path: Path) -> None:
    found = bptt.audit(cell(), XS, [bptt.Depth(1), bptt.Random(0.5, rng=0)], seeds=4)
    head, rule, *rows = str(found).splitlines()
    assert head.split()[:2] == ["plan", "cosine"] and set(rule) == {"-", " "}
    assert [row.split()[0] for row in rows] == ["Full()", "Depth(k=1)", "Random(0.5)"]
    assert "±" in rows[2] and "±" not in rows[1]
    assert len({len(row) for row in [head, rule, *rows]}) == 1
    pytest.importorskip("matplotlib", reason="no matplotlib: pip install -e '.[plot]'")
    panels = found.plot().axes
    names = [text.get_text() for text in panels[0].get_yticklabels()]
    assert names == ["Random(0.5)", "Depth(k=1)", "Full()"]
    assert [bar.get_width() for bar in panels[1].patches] == [r.bias for r in found.rows[::-1]]
    assert found.save(tmp_path / "a.svg").stat().st_size > 1000
    odd = bptt.audit(cell(), XS, {"$y_{<b>$": bptt.Depth(1)}, seeds=2).save(tmp_path / "b.svg")
    assert "$y_{&lt;b&gt;$" in odd.read_text(encoding="utf-8")


def test_bad_arguments() -> None:
    model = cell()
    with pytest.raises(GradientError, match="did not follow its truncation; hand it on"):
        bptt.audit(model, XS, PLANS, loss=lambda m, xs, truncation: tgr.sum(tgr.scan(m, xs)[0]))
    with pytest.raises(GradientError, match=r"model\.eval\(\)"):
        bptt.audit(tgr.nn.DropoutLSTMCell(2, 4, p=0.5), XS.astype("float32"), PLANS)
    with pytest.raises(GradientError, match="the full gradient's norm is 0"):
        bptt.audit(model, XS, PLANS, loss=lambda *given: 0 * loss(*given))
    with pytest.raises(GradientError, match="does not depend on any of the parameters"):
        bptt.audit(model, XS, PLANS, loss=lambda m, xs, truncation: tgr.ones(()))
    with pytest.raises(GradientError, match="give its parameters"):
        bptt.audit(lambda x, h: (h, h), XS, PLANS, loss=loss)
    with pytest.raises(ShapeError, match="seeds=1; expected at least 2"):
        bptt.audit(model, XS, PLANS, loss=loss, seeds=1)
    with pytest.raises(DtypeError, match="audit: 8 is no plan"):
        bptt.audit(model, XS, [8], loss=loss)  # type: ignore[list-item]
    with pytest.raises(ShapeError, match=r"two plans are called 'Random\(0.5\)'"):
        bptt.audit(model, XS, [bptt.Random(0.5), bptt.Random(0.5)], loss=loss)
    with pytest.raises(ShapeError, match=r"Chunk\(k=2\) is called 'Full\(\)'"):
        bptt.audit(model, XS, {"Full()": bptt.Chunk(2)}, loss=loss)
    with pytest.raises(DtypeError, match="audit: plans is None"):
        bptt.audit(model, XS, None, loss=loss)  # type: ignore[arg-type]
    with pytest.raises(GradientError, match="there are no parameters"):
        bptt.audit(model, XS, PLANS, loss=loss, parameters=[])
    with pytest.raises(DtypeError, match=r"audit: loss\(model, batch, truncation\) is 3.0"):
        bptt.audit(model, XS, PLANS, loss=lambda *given: 3.0)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"audit: loss\(model, batch, truncation\) has shape"):
        bptt.audit(model, XS, PLANS, loss=lambda m, xs, truncation: tgr.scan(m, xs)[0])
    with pytest.raises(ShapeError, match="no plan 'Chunk'"):
        bptt.audit(model, XS, PLANS, loss=loss, seeds=2)["Chunk"]
