"""The birth of a NaN or an infinity is found: where, and with what."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn.errors import AnomalyError

GATES = ("i", "f", "g", "o")


class Poisoned(tgr.nn.Cell):
    """An LSTM in which the last feature of x decides what happens to one gate: multiplied by
    sqrt(scale * (1 + 2 p)), which is 1 at p = 0, NaN at p = -1 and has no slope at p = -0.5.
    """

    def __init__(self, gate: str, size: int = 3) -> None:
        rng = tgr.current_backend().rng(0)
        self.poisoned, self.size = gate, size
        self.w = tgr.nn.Linear(2 + size, 4 * size, rng=rng)
        self.scale = tgr.nn.Parameter([1.0])

    def initial_state(self, batch_size: int) -> Any:
        return {"h": tgr.zeros((batch_size, self.size)), "c": tgr.ones((batch_size, self.size))}

    def forward(self, x: Any, state: Any) -> Any:
        poison = self.scale * (1 + 2 * x[:, 2:])
        z = self.w(tgr.concat([x[:, :2], state["h"]], axis=-1))
        i, f, g, o = tgr.split(z, 4, axis=-1)
        if self.poisoned == "i":
            i = i * tgr.sqrt(poison)
        elif self.poisoned == "f":
            f = f * tgr.sqrt(poison)
        elif self.poisoned == "g":
            g = g * tgr.sqrt(poison)
        else:
            o = o * tgr.sqrt(poison)
        c = tgr.sigmoid(f) * state["c"] + tgr.sigmoid(i) * tgr.tanh(g)
        h = tgr.sigmoid(o) * tgr.tanh(c)
        return h, {"h": h, "c": c}


def inputs(time: int, step: int, poison: float, row: int = 1) -> Any:
    xs = np.random.default_rng(0).normal(size=(time, 2, 3)).astype(np.float32)
    xs[..., 2] = 0
    xs[step, row, 2] = poison
    return xs


BACKENDS = [
    pytest.param(name, mode, id=f"{name}-{mode}")
    for name in ("numpy", "llvm")
    for mode in ("eager", "compiled")
]


def on(name: str) -> Any:
    if not any(info.name == name and info.usable for info in tgr.backends()):
        pytest.skip(f"the backend {name} is not usable here")
    return tgr.use_backend(name)


@pytest.mark.parametrize(("backend", "mode"), BACKENDS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("step", [0, 4, 6])
@pytest.mark.parametrize("reverse", [False, True])
def test_forward(backend: str, mode: str, gate: str, step: int, reverse: bool) -> None:
    with on(backend):
        cell, xs = Poisoned(gate), tgr.tensor(inputs(7, step, -1.0))
        with pytest.raises(AnomalyError) as found, tgr.detect_anomaly():
            tgr.scan(cell, xs, reverse=reverse, mode=mode)
    error = found.value
    assert (error.direction, error.operation, error.loop) == ("forward", "sqrt", "Poisoned")
    assert (error.step, error.gate, error.index) == (step, gate, (1, 0))
    assert error.layers == ("Poisoned",)
    assert error.inputs["poison"].tolist() == [[1.0], [-1.0]]
    assert error.statement == f"{gate} = {gate} * tgr.sqrt(poison)"
    text = str(error)
    assert text.startswith(
        f"forward, step {step} of Poisoned: NaN is born in {gate}: sqrt gives nan at [1, 0]"
    )
    assert f"{__file__}:{error.line}, in Poisoned.forward" in text
    assert "poison: float32 (2, 1)" in text


@pytest.mark.parametrize(("backend", "mode"), BACKENDS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("step", [0, 3, 6])
def test_backward(backend: str, mode: str, gate: str, step: int) -> None:
    with on(backend):
        cell, xs = Poisoned(gate), tgr.tensor(inputs(7, step, -0.5))
        with tgr.detect_anomaly():
            outputs, state = tgr.scan(cell, xs, mode=mode)
            loss = tgr.sum(tgr.square(outputs)) + tgr.sum(state["c"])
            assert math.isfinite(loss.item())
            with pytest.raises(AnomalyError) as found:
                loss.backward()
    error = found.value
    assert (error.direction, error.operation, error.loop) == ("backward", "sqrt", "Poisoned")
    assert (error.step, error.gate, error.index) == (step, gate, (1, 0))
    assert error.statement == f"{gate} = {gate} * tgr.sqrt(poison)"
    assert error.inputs["out"].tolist() == [[1.0], [0.0]]
    assert abs(error.inputs["cotangent"][1, 0]) > 0
    assert "the gradient of sqrt with respect to x (poison) is" in str(error)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("kind", [tgr.nn.LSTMCell, tgr.nn.GRUCell])
def test_gates_that_are_stacked_in_one_weight(kind: Any, mode: str) -> None:
    for k, gate in enumerate(kind.gates):
        cell = kind(2, 3)
        bias = cell.bias_hh.numpy().copy()
        bias[3 * k + 1] = np.nan
        cell.bias_hh.assign(bias)
        with pytest.raises(AnomalyError) as found, tgr.detect_anomaly():
            tgr.scan(cell, tgr.ones((4, 2, 2)), mode=mode)
        assert (found.value.gate, found.value.step) == (gate, 0)
        assert found.value.index == (0, 3 * k + 1)
        assert f"NaN came in with bias_hh, into {gate}" in str(found.value)


def test_the_layer_is_named() -> None:
    class Model(tgr.nn.Module):
        def __init__(self) -> None:
            self.encoder = tgr.nn.LSTM(2, 3, num_layers=2, bidirectional=True)
            self.heads = {"out": tgr.nn.Linear(6, 1)}

        def forward(self, x: Any) -> Any:
            return self.heads["out"](self.encoder(x)[0])

    model = Model()
    weight = model.encoder.weight_hh_l1_reverse  # type: ignore[attr-defined]
    weight.assign(np.full(weight.shape, np.inf, np.float32))
    with pytest.raises(AnomalyError) as found, tgr.detect_anomaly():
        model(tgr.ones((4, 2, 2)))
    assert found.value.layers == ("Model", "encoder", "LSTM.l1_reverse")
    assert (found.value.loop, found.value.step) == ("LSTM.l1_reverse", 3)
    model = Model()
    head = model.heads["out"].weight
    head.assign(np.full(head.shape, np.nan, np.float32))
    with pytest.raises(AnomalyError) as found, tgr.detect_anomaly():
        model(tgr.ones((4, 2, 2)))
    assert found.value.layers == ("Model", "heads.out")
    assert found.value.step is None


def test_an_infinity_of_too_large_numbers() -> None:
    x = tgr.tensor([1.0, 100.0], requires_grad=True)
    expected = r"an infinity is born in y: exp gives inf at \[1\]"
    with pytest.raises(AnomalyError, match=expected), tgr.detect_anomaly():
        y = tgr.exp(x)
    with tgr.detect_anomaly(infinities=False):
        y = tgr.exp(x)
        with pytest.raises(AnomalyError, match="subtract gives nan"):
            y - y


def test_masks_of_infinity_and_clean_runs_pass() -> None:
    with tgr.detect_anomaly():
        scores = tgr.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
        hidden = tgr.where(tgr.tensor([[True, False, True]]), scores, -math.inf)
        tgr.softmax(hidden, axis=-1)[0, 0].backward()
    assert scores.grad is not None
    np.testing.assert_allclose(scores.grad.numpy()[0, 1], 0.0)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("options", [{}, {"checkpoint": "sqrt"}, {"lengths": [9, 4]}])
def test_nothing_changes_where_nothing_is_wrong(mode: str, options: Any) -> None:
    xs = np.random.default_rng(1).normal(size=(9, 2, 3)).astype(np.float32)

    def gradients() -> list[Any]:
        rng = tgr.current_backend().rng(3)
        cell = tgr.nn.LSTMCell(3, 4, rng=rng)
        outputs, _ = tgr.scan(cell, xs, mode=mode, **options)
        tgr.sum(tgr.square(outputs)).backward()
        return [p.grad.numpy() for p in cell.parameters() if p.grad is not None]

    plain = gradients()
    with tgr.detect_anomaly():
        watched = gradients()
    assert len(plain) == 4
    for a, b in zip(plain, watched, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_truncation_and_checkpointing() -> None:
    options: Any
    for options in ({"checkpoint": 3}, {"truncation": tgr.bptt.Chunk(3)}):
        for mode in ("eager", "compiled"):
            cell, xs = Poisoned("f"), tgr.tensor(inputs(9, 5, -0.5))
            with pytest.raises(AnomalyError) as found, tgr.detect_anomaly():
                tgr.scan(cell, xs, mode=mode, **options)[0].sum().backward()
            assert (found.value.step, found.value.operation) == (5, "sqrt")


def test_a_loop_written_by_hand_and_second_derivatives() -> None:
    w = tgr.tensor([2.0], requires_grad=True)
    with tgr.detect_anomaly():
        h = tgr.ones((1,))
        for t in range(5):
            with tgr.step(t, "mine"):
                h = tgr.sqrt(h * w - (1.0 if t == 3 else 0.0) * h * w)
                if t == 3:
                    break
        with pytest.raises(AnomalyError) as found:
            h.sum().backward()
    assert (found.value.loop, found.value.step, found.value.gate) == ("mine", 3, "h")
    x = tgr.tensor([0.0], requires_grad=True)
    with tgr.detect_anomaly():
        y = tgr.sum(x**1.5)
        (g,) = tgr.grad(y, x, create_graph=True)
        with pytest.raises(AnomalyError, match="backward"):
            g.sum().backward()


def test_a_number_that_is_wrong_before_it_comes_to_a_weight_is_not_blamed_on_it() -> None:
    with tgr.detect_anomaly(), pytest.raises(AnomalyError) as found:
        tgr.scan(tgr.nn.RNNCell(3, 4), tgr.tensor(inputs(6, 2, math.nan)))
    assert "NaN came in with x" in str(found.value)
    assert (found.value.step, found.value.index) == (2, (1, 0))


def test_a_step_that_gets_infinities_on_purpose() -> None:
    def running_maximum(x: Any, best: Any) -> Any:
        best = tgr.maximum(x, best)
        return best, best

    first = tgr.full((2, 3), -math.inf)
    for mode in ("eager", "compiled"):
        with tgr.detect_anomaly():
            outputs, _ = tgr.scan(running_maximum, inputs(5, 0, -math.inf), first, mode=mode)
    assert outputs.shape == (5, 2, 3)


def test_a_block_within_a_block() -> None:
    one, other = tgr.detect_anomaly(), tgr.watch()
    for outer, inner in (
        (one, other),
        (other, one),
        (one, one),
        (one, tgr.detect_anomaly(infinities=False)),
        (tgr.detect_anomaly(infinities=False), one),
    ):
        with outer, inner, pytest.raises(AnomalyError, match="divide gives inf"):
            1.0 / tgr.zeros((1,))
        w = tgr.tensor([0.0], requires_grad=True)
        with outer, inner, pytest.raises(AnomalyError, match="gradient of sqrt"):
            tgr.sqrt(w).sum().backward()
    with tgr.watch() as outer, tgr.watch() as inner:
        tgr.scan(tgr.nn.RNNCell(2, 3), tgr.ones((2, 1, 2)))
    assert len(outer.loops["RNNCell"]) == len(inner.loops["RNNCell"]) == 2


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_finite_shares_whose_sum_is_not(mode: str) -> None:
    w = tgr.tensor(1.0, requires_grad=True)

    def cell(x: Any, h: Any) -> Any:
        return w * x, h

    with tgr.detect_anomaly():
        outputs, _ = tgr.scan(cell, tgr.full((5,), 1e38), tgr.tensor(0.0), mode=mode)
        loss = tgr.sum(outputs - outputs.detach())
        with pytest.raises(AnomalyError) as found:
            loss.backward()
    assert (found.value.direction, found.value.operation) == ("backward", "sum")
    assert "an infinity is born: the gradient of w, the sum of 5 finite shares" in str(found.value)
    with tgr.detect_anomaly(infinities=False):
        outputs, _ = tgr.scan(cell, tgr.full((5,), 1e38), tgr.tensor(0.0), mode=mode)
        tgr.sum(outputs - outputs.detach()).backward()


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_what_comes_in_wrong_and_is_not_touched_is_let_through(mode: str) -> None:
    w = tgr.tensor([1.0, 1.0], requires_grad=True)
    xs, first = np.ones((4, 2), np.float32), tgr.tensor([math.nan, 1.0])
    xs[2, 1] = math.nan
    with tgr.detect_anomaly():
        outputs, _ = tgr.scan(lambda x, h: (x, (h[0], w * h[1])), xs, (first, w), mode=mode)
        assert np.isnan(outputs.numpy()).sum() == 1
        outputs, _ = tgr.scan(lambda x, h: (w * h, w * h), xs, tgr.ones((2,)), mode=mode)
        outputs.backward(tgr.full((4, 2), math.inf))
    assert w.grad is not None and bool(tgr.all(tgr.isinf(w.grad)))


def test_several_statements_in_a_line() -> None:
    def three(x: Any) -> Any:
        one = 1.0; y = tgr.log(x); return y + one  # noqa: E702  # fmt: skip

    with tgr.detect_anomaly(), pytest.raises(AnomalyError) as found:
        three(tgr.tensor([-1.0]))
    assert (found.value.gate, found.value.statement) == ("y", "y = tgr.log(x)")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the plugin's library
def test_on_another_device(strict: str) -> None:
    with tgr.use_backend(strict):
        cell = Poisoned("o")
        with pytest.raises(AnomalyError) as found, tgr.detect_anomaly():
            tgr.scan(cell, tgr.tensor(inputs(4, 2, -1.0)))
    assert (found.value.step, found.value.gate) == (2, "o")
