"""The picture of the tape: its facts against the engine's own numbers, and what is drawn."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn.testing.cases import cases
from tinygradrnn.viz.gather import unroll
from tinygradrnn.viz.layout import inside
from tinygradrnn.viz.tape import TapePicture
from tinygradrnn.viz.unrolled import Unrolled
from tinygradrnn.viz.words import label

XS = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
PLANS: dict[str, dict[str, Any]] = {
    "compiled": {},
    "eager": {"mode": "eager"},
    "chunk": {"truncation": tgr.bptt.Chunk(2)},
    "eager chunk": {"truncation": tgr.bptt.Chunk(2), "mode": "eager"},
    "window": {"truncation": tgr.bptt.Window(2, 3)},
    "eager window": {"truncation": tgr.bptt.Window(2, 3), "mode": "eager"},
    "depth": {"truncation": tgr.bptt.Depth(3)},
    "random": {"truncation": tgr.bptt.Random(0.5, rng=tgr.current_backend().rng(3))},
    "clip": {"truncation": tgr.bptt.Clip(max_norm=0.01)},
    "checkpoint": {"checkpoint": "sqrt", "mode": "eager"},
    "compiled checkpoint": {"checkpoint": 2},
    "reverse": {"reverse": True},
    "lengths": {"lengths": [6, 3]},
    "eager lengths": {"lengths": [6, 3], "mode": "eager"},
}


def leaf(u: Unrolled, name: str) -> Any:
    (found,) = [u.items[n] for n in u.leaves if u.items[n].name == name]
    return found


@pytest.mark.parametrize("kind", [tgr.nn.RNNCell, tgr.nn.GRUCell, tgr.nn.LSTMCell])
@pytest.mark.parametrize("plan", PLANS)
def test_gradients_are_the_engines_own_and_the_tape_is_left_alone(kind: Any, plan: str) -> None:
    cell = kind(3, 4, dtype="float64")
    outputs, _ = tgr.scan(cell, XS.astype(np.float64), **PLANS[plan])
    loss = tgr.sum(tgr.square(outputs))
    u = unroll(loss)
    assert all(p.grad is None for p in cell.parameters())
    loss.backward()
    for name, p in cell.named_parameters():
        assert p.grad is not None
        expected = float(np.linalg.norm(p.grad.numpy()))
        assert leaf(u, name).gradients[0]["norm"] == pytest.approx(expected, rel=6e-5)
        # And so are the shares on the way, one for each use, and their running sum.
        n = leaf(u, name).number
        sums = [total for _, _, shares in u.visits for ref, _, total in shares if ref[0] == n]
        assert sums[-1]["norm"] == pytest.approx(expected, rel=6e-5)
        assert len(sums) >= len(XS)


def test_the_cotangent_that_goes_back_is_the_states() -> None:
    cell = tgr.nn.RNNCell(3, 4, dtype="float64")
    outputs, _, states = tgr.scan(cell, XS.astype(np.float64), return_states=True)
    loss = tgr.sum(tgr.square(outputs))
    (g,) = tgr.grad(loss, states, retain_graph=True)
    # What comes back over the boundary is dL/dh_t without the step's own loss, 2 h_t.
    back = np.linalg.norm((g - 2 * outputs).numpy(), axis=(1, 2))
    u = unroll(loss)
    (row,) = [r for r in u.rows if r.is_loop]
    # Numbers in a picture have five digits.
    for a, b in zip(row.boxes, row.boxes[1:], strict=False):
        crossing = u.between(a, b)
        assert crossing is not None
        assert crossing.names == ("h",)
        assert crossing.norm == pytest.approx(back[a.t or 0], rel=1e-4)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_cuts_are_where_the_plan_has_them(mode: str) -> None:
    for k in (1, 2, 3, 4):
        outputs, _ = tgr.scan(tgr.nn.LSTMCell(3, 4), XS, truncation=tgr.bptt.Chunk(k), mode=mode)
        u = unroll(tgr.mean(outputs))
        cuts = {c.second.t: c.silent for c in u.crossings if c.cut}
        if mode == "eager" and k == 1:  # nothing on the tape tells it from a cell without a state
            assert not cuts
            continue
        assert set(cuts) == {t for t in range(1, 6) if t % k == 0}
        # The state does go on there, and is drawn so; only no gradient comes back.
        assert mode == "eager" or set(cuts.values()) <= {("h", "c")}


def test_a_state_that_goes_on_without_its_history_is_known_by_its_array() -> None:
    outputs, _ = tgr.scan(tgr.nn.RNNCell(3, 4), XS, truncation=tgr.bptt.Chunk(1), mode="eager")
    u = unroll(tgr.mean(outputs))
    assert {c.second.t for c in u.crossings if c.cut} == {1, 2, 3, 4, 5}
    outputs, _ = tgr.scan(tgr.nn.LSTMCell(3, 4), XS, truncation=tgr.bptt.Chunk(2))
    lines = tgr.viz.tape(tgr.mean(outputs)).text(130).splitlines()
    (names,) = [line for line in lines if line.startswith("│ LSTMCell")]
    between = ["─────►", "╌╌┊╌╌►", "─────►", "╌╌┊╌╌►", "─────►"]
    assert re.findall(r"[─╌┊►]+", names) == between


@pytest.mark.parametrize("width", [60, 80, 100, 133])
@pytest.mark.parametrize("steps", [1, 4, 9, 40])
def test_text_keeps_to_its_width(width: int, steps: int) -> None:
    layer = tgr.nn.LSTM(3, 4, bidirectional=True)
    outputs, _ = layer(tgr.tensor(np.resize(XS, (steps, 2, 3))))
    text = tgr.viz.tape(tgr.mean(outputs)).text(width)
    drawn = [line for line in text.splitlines() if set(line) & set("╭│╰┌└")]
    assert max(map(len, drawn)) <= width


def test_each_run_of_a_loop_has_its_own_cuts() -> None:
    w = tgr.nn.Parameter(np.ones((4 + 3, 4), np.float32))

    def elman(x: Any, h: Any) -> Any:
        h = tgr.tanh(tgr.concat([h, x], axis=-1) @ w)
        return h, h

    first, h = tgr.scan(elman, XS, tgr.zeros((2, 4)), truncation=tgr.bptt.Chunk(2))
    second, _ = tgr.scan(elman, XS, h, truncation=tgr.bptt.Chunk(3), reverse=True)
    u = unroll(tgr.sum(first) + tgr.sum(second))
    a, b = [row for row in u.rows if row.is_loop]
    assert {(c.first.t, c.second.t) for c in u.crossings if c.cut and c.first.row is a} == {
        (1, 2),
        (3, 4),
    }
    assert {(c.first.t, c.second.t) for c in u.crossings if c.cut and c.first.row is b} == {(3, 2)}
    # Of two arrays on no tape no concat is on the tape; the state is known to go on all the same.
    assert {c.silent for c in u.crossings if c.cut} == {("h",)}


def test_gates_and_marks_are_shown() -> None:
    plan = tgr.bptt.Random(0.5, rng=tgr.current_backend().rng(0))
    outputs, _ = tgr.scan(tgr.nn.RNNCell(3, 4), XS, truncation=plan)
    u = unroll(tgr.mean(outputs))
    assert {c.factor for c in u.crossings if c.first.row is c.second.row} == {0.0, 2.0}
    outputs, _ = tgr.scan(tgr.nn.RNNCell(3, 4), XS, truncation=tgr.bptt.Depth(2))
    u = unroll(tgr.mean(outputs))
    # The losses of steps 2 to 5 reach one step back, and those of 0 and 1 to the beginning.
    assert {c.second.t for c in u.crossings if c.mark} == {1, 2, 3, 4}
    outputs, _ = tgr.scan(tgr.nn.RNNCell(3, 4), XS, truncation=tgr.bptt.Window(2, 3))
    picture = tgr.viz.tape(tgr.mean(outputs))
    assert {c.second.t for c in picture.unrolled.crossings if c.mark} == {1, 3}
    assert picture.svg().count(">some end here</text>") == 2
    assert "the way back of some losses ends before steps 1, 3" in picture.text()
    outputs, _ = tgr.scan(tgr.nn.RNNCell(3, 4), XS, truncation=tgr.bptt.Clip(max_norm=0.01))
    assert tgr.viz.tape(tgr.mean(outputs)).svg().count(">clipped</text>") == 5


def test_a_state_of_which_only_a_part_is_cut() -> None:
    w = tgr.tensor(0.5, requires_grad=True)

    def two(x: Any, state: Any) -> Any:
        a, b = state
        a = w * a + b.detach()
        b = w * b + x
        return a + b, (a, b)

    outputs, _ = tgr.scan(two, tgr.ones(3), (tgr.tensor(1.0), tgr.tensor(2.0)), mode="eager")
    u = unroll(tgr.sum(outputs))
    inner = [c for c in u.crossings if c.first.row is c.second.row]
    assert [c.cut for c in inner] == [False, False]
    assert tgr.viz.tape(tgr.sum(outputs)).text()


def test_what_comes_into_a_step() -> None:
    outputs, _ = tgr.scan(tgr.nn.LSTMCell(3, 4), XS)
    u = unroll(tgr.mean(outputs))
    first, second, *_ = next(row for row in u.rows if row.is_loop).boxes
    known = {
        f.name: (f.kind, [u.items[second.items[i]].text for i in f.users]) for f in second.feeds
    }
    assert known == {
        "x": ("data", ["linear(x, self.weight_ih, self.bias_ih)"]),
        "h": ("state", ["linear(h, self.weight_hh, self.bias_hh)"]),
        "c": ("state", ["sigmoid(f) * c"]),
    }
    assert second.data == ["x"]
    assert {f.kind for f in first.feeds} == {"data"}  # the first state is on no tape


def test_rows_columns_and_kinds() -> None:
    layer = tgr.nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    outputs, _ = layer(tgr.tensor(XS))
    u = unroll(tgr.mean(outputs))
    loops = [row for row in u.rows if row.is_loop]
    assert [r.name for r in loops] == ["LSTM.l0", "LSTM.l0_reverse", "LSTM.l1", "LSTM.l1_reverse"]
    assert [[b.t for b in r.boxes] for r in loops] == [[*range(6)], [*range(5, -1, -1)]] * 2
    assert u.times == [*range(6)]
    # The first step of each differs: its state is on no tape. All others of a layer are alike.
    assert all(len({b.kind for b in r.boxes[1:]}) == 1 for r in loops)
    assert {u.items[n].name for n in u.leaves} == {n for n, _ in layer.named_parameters()}
    assert leaf(u, "weight_hh_l0").uses == 6


def test_loops_inside_of_a_step_stand_side_by_side() -> None:
    w = tgr.nn.Parameter(np.ones((3, 3), np.float32))

    def inner(x: Any, h: Any) -> Any:
        h = tgr.tanh(x + h)
        return h, h

    def outer(x: Any, h: Any) -> Any:
        made, h = tgr.scan(inner, tgr.stack([x @ w, x, h]), h)
        return made[-1], h

    outputs, _ = tgr.scan(outer, XS, tgr.zeros((2, 3)), mode="eager")
    u = unroll(tgr.mean(outputs))
    (row,) = [r for r in u.rows if r.is_loop]
    drawn = inside(u, row.boxes[1])
    assert [frame[4] for frame in drawn.frames] == [f"inner, t = {t}" for t in range(3)]
    lefts = [frame[0] for frame in drawn.frames]
    assert lefts == sorted(lefts)
    assert len({frame[1] for frame in drawn.frames}) == 1


@pytest.mark.parametrize("kind", [tgr.nn.RNNCell, tgr.nn.GRUCell, tgr.nn.LSTMCell])
@pytest.mark.parametrize("plan", ["compiled", "eager", "window", "lengths"])
def test_nothing_in_a_step_stands_on_anything_else(kind: Any, plan: str) -> None:
    outputs, _ = tgr.scan(kind(3, 4), XS, **PLANS[plan])
    u = unroll(tgr.mean(outputs))
    for box in u.kinds:
        drawn = inside(u, box)
        spots = [*drawn.places, *(spot for spot, _, _ in drawn.ports)]
        for i, (x, y, w) in enumerate(spots):
            assert w / 2 <= x <= drawn.width - w / 2
            assert 0 < y < drawn.height
            for x2, y2, w2 in spots[:i]:
                assert y != y2 or abs(x - x2) >= (w + w2) / 2
            for wire in drawn.wires:
                assert all(y != wy or abs(x - wx) > w / 2 for wx, wy in wire)
                assert all(b <= a for (_, a), (_, b) in pairwise(wire))


def test_leaves_of_one_name_are_told_apart() -> None:
    first, second = tgr.nn.Linear(3, 3), tgr.nn.Linear(3, 3)

    class Both(tgr.nn.Module):
        def __init__(self) -> None:
            self.a, self.b = first, second

        def forward(self, x: Any) -> Any:
            return self.b(self.a(x))

    with tgr.watch():
        u = unroll(tgr.sum(Both()(tgr.ones((1, 3)))))
    assert [u.items[n].name for n in u.leaves] == ["a.weight", "a.bias", "b.weight", "b.bias"]


def test_names_and_source_come_with_a_compiled_loop() -> None:
    outputs, _ = tgr.scan(tgr.nn.LSTMCell(3, 4), XS)
    u = unroll(tgr.mean(outputs))
    names = {item.name for item in u.items}
    assert {"i, f, g, o", "c", "h", "from_x"} <= names
    tanh = next(item for item in u.items if item.text == "tanh(g)")
    assert tanh.input_names == ["g"]
    assert tanh.where.startswith("tinygradrnn/nn/cells.py:")
    assert tanh.layer == "LSTMCell"
    value = np.tanh(np.asarray(u.items[tanh.inputs[0][0]].values[2]["values"]))  # type: ignore[index]
    np.testing.assert_allclose(tanh.values[0]["values"], value, rtol=1e-4)


def test_every_number_of_a_compiled_loop_and_after_it_is_known() -> None:
    cell = tgr.nn.LSTMCell(3, 4)
    outputs, _ = tgr.scan(cell, XS)
    loss = tgr.mean(tgr.square(outputs))
    u = unroll(loss)
    for item in u.items:
        assert None not in item.values, item
        assert None not in item.gradients, item
    # What was not kept is computed again: here the mean, and the stack of what the steps return.
    (stack,) = [item for item in u.items if item.operation == "stack"]
    expected = float(np.linalg.norm(outputs.numpy()))
    assert stack.values[0]["norm"] == pytest.approx(expected, rel=6e-5)
    assert u.items[-1].values[0]["values"] == pytest.approx(float(loss), rel=6e-5)
    np.testing.assert_allclose(
        leaf(u, "bias_hh").values[0]["values"],
        cell.bias_hh.numpy(),
        rtol=1e-4,  # type: ignore[union-attr]
    )


def test_states_that_skip_steps_go_past_them() -> None:
    w = tgr.tensor(0.5, requires_grad=True)
    states = [w * 1.0, w * 2.0]
    for t in range(5):
        with tgr.step(t, "skip"):
            states.append(w * states[-1] + states[-2])
    u = unroll(states[-1])
    inner = [c for c in u.crossings if c.first.row is c.second.row and c.first.row.is_loop]
    steps = [(c.first.t, c.second.t, u.adjacent(c)) for c in inner]
    assert {(a, b) for a, b, near in steps if near} == {(0, 1), (1, 2), (2, 3), (3, 4)}
    assert {(a, b) for a, b, near in steps if not near} == {(0, 2), (1, 3), (2, 4)}


def test_a_loop_written_by_hand() -> None:
    w = tgr.tensor(0.5, requires_grad=True)
    h, losses = tgr.tensor(1.0), []
    for t in range(4):
        with tgr.step(t, "mine"):
            h = w * h
            if t == 2:
                h = h.detach()
        if t != 2:
            losses.append(h * h)
    u = unroll(losses[0] + losses[1] + losses[2])
    (row,) = [r for r in u.rows if r.is_loop]
    assert row.name == "mine"
    assert [b.t for b in row.boxes] == [0, 1, 3]  # nothing of step 2 is left on the tape
    text = tgr.viz.tape(losses[0] + losses[1] + losses[2]).text()
    assert "mine" in text
    assert "cut" in text


def test_a_freed_tape_says_what_to_do() -> None:
    for mode in ("eager", "compiled"):
        outputs, _ = tgr.scan(tgr.nn.RNNCell(3, 4), XS, mode=mode)
        loss = tgr.mean(outputs)
        loss.backward()
        picture = tgr.viz.tape(loss)
        assert "retain_graph=True" in picture.text()
        assert "retain_graph=True" in picture.svg()
        assert "retain_graph=True" in picture.html()
        assert len(picture.unrolled.notes) == 1
        assert mode == "eager" or "RNNCell over 6 steps" in picture.text()
    outputs, _ = tgr.scan(tgr.nn.RNNCell(3, 4), XS)
    assert "only a scalar" in tgr.viz.tape(outputs).text()


def test_a_title_of_signs_that_no_file_can_hold(tmp_path: Path) -> None:
    w = tgr.nn.Parameter(tgr.ones((2,)))
    picture = tgr.viz.tape(tgr.sum(w * w), title="a\x0b & <b> \udc80")
    root = ET.fromstring(picture.svg())
    assert "a\ufffd & <b> \ufffd" in "".join(root.itertext())
    for suffix in (".svg", ".html", ".txt"):
        assert picture.save(tmp_path / f"a{suffix}").stat().st_size > 100


def test_odd_tapes() -> None:
    x = tgr.tensor([1.0, math.nan], requires_grad=True)
    for result in (
        tgr.sum(x),
        tgr.sum(tgr.exp(x) * x),
        tgr.sum(tgr.zeros((0, 3)) * tgr.tensor(2.0, requires_grad=True)),
        tgr.tensor(3.0, requires_grad=True),
        tgr.scan(tgr.nn.RNNCell(3, 4), XS[:1])[0].sum(),
    ):
        picture = tgr.viz.tape(result)
        ET.fromstring(picture.svg())
        facts(picture)
        assert picture.text()
    two = tgr.viz.tape(tgr.sum(x), tgr.sum(x * x))
    assert len(two.unrolled.results) == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e38])
def test_numbers_that_are_none(bad: float) -> None:
    xs = XS.copy()
    xs[3, 0, 0] = bad
    cell = tgr.nn.RNNCell(3, 4, nonlinearity="relu")
    with np.errstate(all="ignore"):
        outputs, _ = tgr.scan(cell, xs)
        loss = tgr.sum(outputs * outputs)
    picture = tgr.viz.tape(loss, columns=4)
    ET.fromstring(picture.svg(expand=[3]))
    assert facts(picture)["rows"]
    assert picture.text()


def test_numbers_in_a_formula_are_no_data() -> None:
    w = tgr.tensor(3.0, requires_grad=True)
    scope: dict[str, Any] = {"tgr": tgr, "w": w}
    program = "with tgr.watch():\n    with tgr.step(0):\n        y = w * 2.0 + 1.5\n"
    exec(program, scope)  # a program whose source is nowhere to be read
    u = unroll(scope["y"])
    assert [item.text for item in u.items] == ["", "multiply(w, 2)", "add(x1, 1.5)"]
    assert [label(item) for item in u.items[1:]] == ["×", "+"]
    (row,) = u.rows
    assert row.boxes[0].feeds == []


def test_what_is_drawn_has_its_result() -> None:
    x = tgr.tensor([1.0, 2.0], requires_grad=True)
    with tgr.watch():
        loss = tgr.sum(x * x)
    picture = tgr.viz.tape(loss)
    assert "multiply, sum  →  loss = 5" in picture.text()
    assert "loss = 5" in picture.svg()
    flags = tgr.tensor([True, False])
    picture = tgr.viz.tape(tgr.sum(tgr.where(flags, x, 0.0)))
    assert picture.unrolled.items[1].gradients[0]["values"] == [1.0, 1.0]


def test_ten_thousand_operations_in_a_step() -> None:
    x = tgr.tensor([1.0], requires_grad=True)
    y = x
    with tgr.step(0):
        for _ in range(10_000):
            y = y + x
    picture = tgr.viz.tape(tgr.sum(y))
    assert leaf(picture.unrolled, "leaf 0").gradients[0]["values"] == [10001.0]
    ET.fromstring(picture.svg(expand=[0]))
    assert len(picture.html()) < 10_000_000


@pytest.mark.parametrize("case", cases(), ids=str)
def test_every_operation(case: Any) -> None:
    """Its gradients as the engine has them, and its values as they were."""
    tensors = case.tensors()
    with tgr.step(0):
        made = case.f(*tensors)
    outputs = [x for x in (made if isinstance(made, tuple | list) else [made]) if x.requires_grad]
    if not outputs:
        return
    loss = sum((tgr.sum(x * x) for x in outputs), start=tgr.tensor(0.0))
    u = unroll(loss)
    wanted = [x for x in tensors if x.requires_grad]
    found = tgr.grad(loss, wanted, allow_unused=True, retain_graph=True)
    expected = sorted(float(np.linalg.norm(g.numpy())) for g in found if g is not None)
    shown = [u.items[n].gradients[0] for n in u.leaves]
    norms = sorted(float(g["norm"]) for g in shown if g is not None)
    np.testing.assert_allclose(norms, expected, rtol=1e-4, atol=1e-12)
    assert float(u.items[-1].values[0]["values"]) == pytest.approx(float(loss), rel=1e-4)
    ET.fromstring(TapePicture(u, "", 8).svg(expand=[0]))


def test_from_one_device_to_another_and_back(strict: str) -> None:
    x = tgr.tensor([1.0, 2.0], requires_grad=True)
    y = x.to(strict) * 2.0
    picture = tgr.viz.tape(tgr.sum(y.to("numpy") * x))
    assert picture.unrolled.items[0].gradients[0]["values"] == [4.0, 8.0]
    assert picture.html()


def facts(picture: TapePicture) -> dict[str, Any]:
    """The data in a page."""
    found = re.search(r"const DATA = (\{.*?\});\n", picture.html())
    assert found
    return json.loads(found[1])


def test_the_still_picture_is_well_formed_and_says_all() -> None:
    cell = tgr.nn.LSTMCell(3, 4)
    outputs, _ = tgr.scan(cell, XS)
    picture = tgr.viz.tape(tgr.mean(outputs), title="A <b>title</b> & more")
    root = ET.fromstring(picture.svg(expand=[1]))
    texts = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "A <b>title</b> & more" in texts
    assert [t for t in texts if re.fullmatch(r"t = \d", t)] == [f"t = {t}" for t in range(6)]
    assert {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "c = +", "h = ×"} <= set(texts)
    assert {"sigmoid(i)", "sigmoid(f)", "tanh(g)", "sigmoid(o)", "tanh(c)"} <= set(texts)
    titles = [e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any("tanh(g)" in t and "tinygradrnn/nn/cells.py" in t for t in titles)
    assert sum("cotangent of the state back" in t for t in titles) == 5


def test_many_steps_are_rolled_up() -> None:
    xs = np.random.default_rng(1).normal(size=(200, 1, 3)).astype(np.float32)
    outputs, _ = tgr.scan(tgr.nn.LSTMCell(3, 64), xs)
    picture = tgr.viz.tape(tgr.mean(outputs))
    assert "× 194" in picture.svg()
    assert "t = 3 ... 196" in picture.svg()
    assert "t=2..197" in picture.text()
    assert max(map(len, picture.text().splitlines())) <= 100
    assert len(picture.svg()) < 200_000
    data = facts(picture)
    assert len(data["rows"][0]["boxes"]) == 200
    assert len(picture.html()) < 1_000_000
    assert "t = 77" in picture.svg(expand=[77])


def test_what_is_in_a_page_stays_data() -> None:
    evil = "</script><script>alert(1)</script>"
    w = tgr.nn.Parameter([1.0])
    w.name = evil
    html = tgr.viz.tape(tgr.sum(w * 2.0), title=evil).html()
    assert evil not in html
    assert html.count("<script>") == 1
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg|http-equiv", "", html)


def test_saving_and_notebooks(tmp_path: Path) -> None:
    picture = tgr.viz.tape(tgr.sum(tgr.tensor([1.0], requires_grad=True) * 2.0))
    for name in ("a.svg", "a.html", "a.txt"):
        assert picture.save(tmp_path / name).read_text(encoding="utf-8")
    with pytest.raises(tgr.TinygradrnnError, match=r"'a.png'; expected a name in"):
        picture.save(tmp_path / "a.png")
    assert picture._repr_html_().startswith("<iframe srcdoc=")
    assert str(picture) == picture.text()


def test_bad_arguments() -> None:
    with pytest.raises(tgr.TinygradrnnError, match=r"result 0 is a int; expected a Tensor"):
        tgr.viz.tape(3)
    with pytest.raises(tgr.TinygradrnnError, match="nothing was recorded"):
        tgr.viz.tape(tgr.ones(3))
    x = tgr.tensor(1.0, requires_grad=True)
    with pytest.raises(tgr.TinygradrnnError, match="columns=1; expected 3 or more"):
        tgr.viz.tape(x * 2.0, columns=1)
    with pytest.raises(tgr.TinygradrnnError, match="width=0; expected a number of columns"):
        tgr.viz.tape(x * 2.0).text(0)
    with pytest.raises(tgr.TinygradrnnError, match=r"expand=\[4\]; there are no such steps"):
        tgr.viz.tape(x * 2.0).svg(expand=[4])
    with pytest.raises(tgr.TinygradrnnError, match="expand=3; expected a list of steps"):
        tgr.viz.tape(x * 2.0).svg(expand=3)  # type: ignore[arg-type]
    with pytest.raises(tgr.TinygradrnnError, match="title=3; expected text"):
        tgr.viz.tape(x * 2.0, title=3)  # type: ignore[arg-type]
