"""What a watch block knows of the operations in it."""

from __future__ import annotations

import gc
import threading
from typing import Any, NamedTuple

import pytest

import tinygradrnn as tgr
from tinygradrnn.watch import _records, record_of


class Gated(tgr.nn.Cell):
    def __init__(self) -> None:
        self.w = tgr.nn.Linear(3, 4)
        self.u = tgr.nn.Linear(2, 4)

    def initial_state(self, batch_size: int) -> Any:
        return tgr.zeros((batch_size, 2))

    def forward(self, x: Any, state: Any) -> Any:
        gate, new = tgr.split(self.w(x) + self.u(state), 2, axis=-1)
        gate = tgr.sigmoid(gate)
        h = gate * state + (1 - gate) * tgr.tanh(new)
        return h, h


class Model(tgr.nn.Module):
    def __init__(self) -> None:
        self.cell = Gated()
        self.layers = [tgr.nn.Linear(2, 1)]

    def forward(self, xs: Any) -> Any:
        outputs, _ = tgr.scan(self.cell, xs)
        return self.layers[0](outputs)


def test_operations_know_their_source_their_layer_and_their_names() -> None:
    model = Model()
    with tgr.watch():
        result = model(tgr.ones((3, 5, 3)))
    found = {record.text: (n, record) for n in tgr.Tape(result) if (record := record_of(n))}
    node, record = found["tgr.tanh(new)"]
    assert (node.name, node.step and node.step.t) == ("tanh", 2)
    assert (record.target, record.input_names) == ("h", ("new",))
    assert record.statement == "h = gate * state + (1 - gate) * tgr.tanh(new)"
    assert record.layers == ("Model", "cell")
    assert record.function.endswith("Gated.forward")
    assert record.file == __file__
    split = next(r for n, r in found.values() if n.name == "split")
    assert split.names == ("gate", "new")
    assert [o.shape for o in split.outputs] == [(5, 2), (5, 2)]
    linear = [r for n, r in found.values() if n.name == "linear"]
    assert linear[-1].layers == ("Model", "layers.0")
    assert linear[-1].input_names[1:] == ("layers.0.weight", "layers.0.bias")
    assert record.inputs[0] is split.outputs[1]


def test_values_and_states_of_each_step_have_gradients() -> None:
    cell, xs = Gated(), tgr.ones((4, 2, 3))
    with tgr.watch() as seen:
        outputs, _ = tgr.scan(cell, xs)
        loss = tgr.sum(tgr.square(outputs))
    (name,) = seen.loops
    assert name == "Gated"
    steps = seen.loops[name]
    assert [s.t for s in steps] == [0, 1, 2, 3]
    assert [sorted(s.states) for s in steps] == [["h"]] * 4
    # By hand: the last state's gradient is that of the loss alone.
    (g,) = tgr.grad(loss, steps[-1].states["h"], retain_graph=True)
    assert tgr.all(g == 2 * outputs[-1])
    # And a gate's, through h = gate * state + (1 - gate) * tanh(new).
    last, before = steps[-1].values, steps[-2].states["h"]
    (of_gate,) = tgr.grad(loss, last["gate"], retain_graph=True)
    assert tgr.all(tgr.abs(of_gate - g * (before - tgr.tanh(last["new"]))) < 1e-6)


def test_loops_of_one_name_are_kept_apart_and_chunks_of_a_hand_written_loop_together() -> None:
    cell = tgr.nn.RNNCell(1, 2)
    with tgr.watch() as seen:
        tgr.scan(cell, tgr.ones((3, 1, 1)))
        tgr.scan(cell, tgr.ones((3, 1, 1)), reverse=True)
        tgr.scan(cell, tgr.ones((1, 1, 1)))
        tgr.scan(cell, tgr.ones((1, 1, 1)))
        h = tgr.ones((1,), dtype="float32") * tgr.tensor([1.0], requires_grad=True)
        for t in range(4):
            with tgr.step(t, "mine"):
                h = tgr.tanh(h)
    assert {name: [s.t for s in run] for name, run in seen.loops.items()} == {
        "RNNCell": [0, 1, 2],
        "RNNCell (2)": [2, 1, 0],
        "RNNCell (3)": [0],
        "RNNCell (4)": [0],
        "mine": [0, 1, 2, 3],
    }
    assert seen.loops["mine"][2].values["h"] is not None


def test_scan_runs_eagerly_unless_told_otherwise_and_as_before_afterwards() -> None:
    cell, xs = tgr.nn.GRUCell(2, 3), tgr.ones((4, 1, 2))
    with tgr.watch() as seen:
        watched, _ = tgr.scan(cell, xs)
        compiled, _ = tgr.scan(cell, xs, mode="compiled")
    assert len(seen.loops) == 1
    assert [n.name for n in tgr.Tape(compiled)] == ["GRUCell over 4 steps"]
    assert tgr.all(tgr.abs(watched - compiled) < 1e-6)
    assert len(tgr.Tape(tgr.scan(cell, xs)[0])) == 1


def test_nothing_is_noted_outside_of_the_block_or_kept_after_the_tape() -> None:
    x = tgr.tensor([1.0], requires_grad=True)
    before = len(_records)
    with tgr.watch():
        y = tgr.exp(x)
    z = tgr.exp(x)
    assert record_of(tgr.Tape(y)[0]) is not None
    assert record_of(tgr.Tape(z)[0]) is None
    assert len(_records) == before + 1
    del y
    gc.collect()
    assert len(_records) == before


def test_other_threads_are_not_watched() -> None:
    x = tgr.tensor([1.0], requires_grad=True)
    made: list[Any] = []
    with tgr.watch() as seen, tgr.step(0):
        thread = threading.Thread(target=lambda: made.append(tgr.exp(x)))
        thread.start()
        thread.join()
    assert record_of(tgr.Tape(made[0])[0]) is None
    assert not seen.loops


@pytest.mark.parametrize("source", ["y = x *\\\n  x", "y = x * x"])
def test_source_that_is_not_there(source: str) -> None:
    names: dict[str, Any] = {"x": tgr.tensor([1.0], requires_grad=True)}
    with tgr.watch():
        exec(compile(source, "<nowhere>", "exec"), names)
    record = record_of(tgr.Tape(names["y"])[0])
    assert record is not None
    assert (record.file, record.line, record.text, record.target) == ("<nowhere>", 1, "", "")


def test_a_gradient_of_a_gradient_points_to_where_it_was_asked_for() -> None:
    x = tgr.tensor([2.0], requires_grad=True)
    with tgr.watch():
        y = tgr.sum(x * x * x)
        (g,) = tgr.grad(y, x, create_graph=True)
    record = record_of(tgr.Tape(g)[-1])
    assert record is not None
    assert record.text == "tgr.grad(y, x, create_graph=True)"


def test_layers_that_use_the_same_names_are_told_apart() -> None:
    cell = tgr.nn.Stacked([tgr.nn.LSTMCell(2, 3), tgr.nn.LSTMCell(3, 3)])
    with tgr.watch() as seen:
        outputs, _ = tgr.scan(cell, tgr.ones((4, 1, 2)))
    last = seen.loops["Stacked"][-1]
    gates = {name for name in last.values if name.endswith(".f")}
    assert len(gates) == 2
    assert "f" not in last.values
    first, second = (
        tgr.grad(tgr.sum(outputs[-1]), last.values[name], retain_graph=True)[0]
        for name in sorted(gates)
    )
    # By hand for the upper one, with o and f before their sigmoids:
    # dh/df = o tanh'(c) sigmoid'(f) c_before.
    f, o = last.values["cells.1.f"], last.values["cells.1.o"]
    c, before = last.states["1.c"], seen.loops["Stacked"][-2].states["1.c"]
    slope = tgr.sigmoid(f) * (1 - tgr.sigmoid(f)) * before
    expected = tgr.sigmoid(o) * (1 - tgr.tanh(c) ** 2) * slope
    assert tgr.all(tgr.abs(second - expected) < 1e-6)
    assert not tgr.all(tgr.abs(first - second) < 1e-6)


def test_states_of_all_kinds_have_names() -> None:
    class Kept(NamedTuple):
        h: Any
        more: Any

    w = tgr.tensor(0.5, requires_grad=True)

    def cell(x: Any, state: Any) -> Any:
        new = tgr.tree.map(lambda leaf: leaf * w + x, state)
        return x, new

    one = tgr.zeros((1,))
    for state, names in (
        (one, ["h"]),  # where the cell gives it no name
        ((one, one), ["0", "1"]),
        ({"a": one, "b": (one, one)}, ["a", "b.0", "b.1"]),
        (Kept(one, [one]), ["h", "more.0"]),
    ):
        with tgr.watch() as seen:
            tgr.scan(cell, tgr.ones((2, 1)), state)
        assert list(seen.loops["cell"][-1].states) == names
