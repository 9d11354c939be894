"""ONNX, judged by onnxruntime, by ONNX's reference evaluator and by its own test vectors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn import nn, tree
from tinygradrnn.errors import CheckpointError, ShapeError

pytestmark = pytest.mark.oracle


def draw(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def layer_of(kind: str, **options: Any) -> Any:
    if kind == "relu":
        return nn.RNN(3, 4, nonlinearity="relu", **options)
    return getattr(nn, kind)(3, 4, **options)


def run(model: Any, **inputs: Any) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, inputs))


def ours(layer: Any, x: Any, **options: Any) -> list[Any]:
    output, state = layer(x, **options)
    return [output.numpy(), *(leaf.numpy() for leaf in tree.flatten(state)[0])]


def same(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


KINDS = pytest.mark.parametrize("kind", ["RNN", "relu", "GRU", "LSTM"])


@KINDS
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [False, True])
def test_onnxruntime_computes_the_same(
    kind: str, num_layers: int, bidirectional: bool, bias: bool, batch_first: bool
) -> None:
    layer = layer_of(
        kind,
        num_layers=num_layers,
        bidirectional=bidirectional,
        bias=bias,
        batch_first=batch_first,
        dropout=0.5 if num_layers > 1 else 0.0,
    ).eval()
    model = tgr.onnx.to_model(layer)
    for time, batch in ((5, 2), (1, 1), (7, 3)):
        x = draw(*((batch, time) if batch_first else (time, batch)), 3)
        same(run(model, x=x), ours(layer, x))


@KINDS
@pytest.mark.parametrize("bidirectional", [False, True])
def test_ragged_lengths_and_first_states(kind: str, bidirectional: bool) -> None:
    layer = layer_of(kind, num_layers=2, bidirectional=bidirectional)
    model = tgr.onnx.to_model(layer, lengths=True, state=True)
    n, x = 2 * (1 + bidirectional), draw(6, 4, 3)
    h, c = draw(n, 4, 4, seed=1), draw(n, 4, 4, seed=2)
    for lengths in ([3, 6, 1, 2], [6, 6, 6, 6]):
        given: Any = {"h_0": h, "c_0": c} if kind == "LSTM" else {"h_0": h}
        found = run(model, x=x, lengths=np.asarray(lengths), **given)
        state = (h, c) if kind == "LSTM" else h
        same(found, ours(layer, x, state=state, lengths=lengths))


def test_double_precision() -> None:
    layer = nn.LSTM(3, 4, dtype="float64")
    x = np.random.default_rng(0).standard_normal((5, 2, 3))
    from onnx.reference import ReferenceEvaluator

    # onnxruntime has no double precision here; the reference evaluator has.
    found: Any = ReferenceEvaluator(tgr.onnx.to_model(layer)).run(None, {"x": x})
    for a, b in zip(found, ours(layer, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@KINDS
@pytest.mark.parametrize("bidirectional", [False, True])
def test_there_and_back(kind: str, bidirectional: bool, tmp_path: Path) -> None:
    layer = layer_of(kind, num_layers=2, bidirectional=bidirectional)
    tgr.onnx.save(tmp_path / "layer.onnx", layer)
    lower, upper = tgr.onnx.load(tmp_path / "layer.onnx")
    assert not lower.reverse
    for found, k in ((lower, 0), (upper, 1)):
        for name, value in found.layer.state_dict().items():
            expected = layer.state_dict()[name.replace("_l0", f"_l{k}")]
            np.testing.assert_array_equal(value.numpy(), expected.numpy())
    x = draw(5, 2, 3)
    np.testing.assert_array_equal(upper.layer(lower.layer(x)[0])[0].numpy(), layer(x)[0].numpy())


# ---------------------------------------------------------------------- written by someone else


def node_model(op: str, inputs: dict[str, Any], outputs: list[str], **attributes: Any) -> Any:
    """A model of one node; what is not x is constant."""
    import onnx
    from onnx import helper

    constants = [
        onnx.numpy_helper.from_array(v, k) for k, v in inputs.items() if v is not None and k != "X"
    ]
    names = [k if v is not None else "" for k, v in inputs.items()]
    node = helper.make_node(op, names, outputs, name="the_node", **attributes)
    x = helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, inputs["X"].shape)
    ends = [helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, None) for o in outputs if o]
    graph = helper.make_graph([node], "graph", [x], ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("op", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("bias", [True, False])
def test_nodes_of_any_direction(op: str, gates: int, direction: str, bias: bool) -> None:
    d = 1 + (direction == "bidirectional")
    x = draw(5, 2, 3)
    weights = {
        "X": x,
        "W": draw(d, gates * 4, 3, seed=1),
        "R": draw(d, gates * 4, 4, seed=2),
        "B": draw(d, 2 * gates * 4, seed=3) if bias else None,
    }
    extra: Any = {"linear_before_reset": 1} if op == "GRU" else {}
    model = node_model(op, weights, ["Y", "Y_h"], hidden_size=4, direction=direction, **extra)
    y, y_h = run(model, X=x)
    (found,) = tgr.onnx.from_model(model)
    assert found.name == "the_node"
    assert found.reverse == (direction == "reverse")
    if found.reverse:
        outputs, state = tgr.scan(found.layer.cell(), x, reverse=True)
        output, end = outputs.numpy(), tree.flatten(state)[0][0].numpy()[None]
    else:
        output, end, *_ = ours(found.layer, x)
    same([output, end], [y.transpose(0, 2, 1, 3).reshape(5, 2, -1), y_h])


def test_batch_first_nodes() -> None:
    from onnx.reference import ReferenceEvaluator

    x = draw(2, 5, 3)
    weights = {"X": x, "W": draw(1, 16, 3, seed=1), "R": draw(1, 16, 4, seed=2)}
    model = node_model("LSTM", weights, ["Y", "Y_h", "Y_c"], hidden_size=4, layout=1)
    reference: Any = ReferenceEvaluator(model).run(None, {"X": x})
    y = reference[0]
    (found,) = tgr.onnx.from_model(model)
    assert found.layer.batch_first
    np.testing.assert_allclose(found.layer(x)[0].numpy(), y[:, :, 0], rtol=1e-5, atol=1e-6)


def vectors() -> list[Any]:
    """ONNX's own test cases of recurrent nodes, with the outputs it expects."""
    from onnx.backend.test.case import node as cases
    from onnx.backend.test.case.node import gru, lstm, rnn

    assert gru and lstm and rnn  # loading them makes the cases
    names = ("RNN", "GRU", "LSTM")
    return [c for c in cases._NodeTestCases if c.model.graph.node[0].op_type in names]


def test_the_vectors_of_onnx() -> None:
    import onnx

    agreed: list[str] = []
    refused: dict[str, str] = {}
    cases = vectors()
    for case in cases:
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        (node,) = model.graph.node
        inputs, expected = case.data_sets[0]
        given = dict(zip([n for n in node.input if n], inputs, strict=True))
        for name, value in given.items():  # there they are inputs; a model has them as constants
            if name != node.input[0]:
                model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        try:
            (found,) = tgr.onnx.from_model(model)
        except ShapeError as error:
            refused[case.name] = str(error)
            continue
        more = list(node.input[4:6]) + [""] * 2
        lengths, begin = given.get(more[0]), given.get(more[1])
        if begin is not None and node.op_type == "LSTM":
            begin = (begin, given[node.input[6]])
        x = given[node.input[0]]
        if found.reverse:
            output = tgr.scan(found.layer.cell(), x, lengths=lengths, reverse=True)[0].numpy()
        else:
            output, *_ = ours(found.layer, x, lengths=lengths, state=begin)
        outputs = dict(zip([n for n in node.output if n], expected, strict=True))
        y, y_h = outputs.get("Y"), outputs.get("Y_h")
        if y is not None and not found.layer.batch_first:
            y = y.transpose(0, 2, 1, 3).reshape(output.shape)
        if y is not None:
            np.testing.assert_allclose(output, y.reshape(output.shape), rtol=1e-5, atol=1e-6)
        if y_h is not None and not found.layer.batch_first and not found.layer.bidirectional:
            end = output[0 if found.reverse else -1]
            np.testing.assert_allclose(end, y_h[0], rtol=1e-5, atol=1e-6)
        agreed.append(case.name)
    assert len(agreed) >= 9
    # All others reset before the product, or have peepholes: nn.ChoGRUCell, nn.PeepholeLSTMCell.
    assert all("linear_before_reset" in r or "peepholes" in r for r in refused.values()), refused


def test_a_model_that_pytorch_wrote(tmp_path: Path) -> None:
    import torch

    theirs = torch.nn.GRU(3, 4, num_layers=2, bidirectional=True).eval()
    x = torch.randn(5, 2, 3)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(theirs, (x,), str(tmp_path / "theirs.onnx"), dynamo=False)
    except Exception as error:
        pytest.skip(f"PyTorch cannot export here: {error}")
    lower, upper = tgr.onnx.load(tmp_path / "theirs.onnx")
    found = upper.layer(lower.layer(x.numpy())[0])[0]
    np.testing.assert_allclose(found.numpy(), theirs(x)[0].detach().numpy(), rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("GRU", {}, "GRU node 'the_node': linear_before_reset=0"),
        ("RNN", {"activations": ["Sigmoid"]}, r"activations=\['Sigmoid'\]"),
        ("LSTM", {"clip": 1.0}, "clip=1.0; expected none"),
        ("LSTM", {"input_forget": 1}, "input_forget=1"),
    ],
)
def test_nodes_that_have_no_counterpart(op: str, attributes: Any, message: str) -> None:
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    weights = {"X": draw(5, 2, 3), "W": draw(1, gates * 4, 3), "R": draw(1, gates * 4, 4)}
    model = node_model(op, weights, ["Y"], hidden_size=4, **attributes)
    with pytest.raises(ShapeError, match=message):
        tgr.onnx.from_model(model)


def test_weights_that_are_computed() -> None:
    weights = {"X": draw(5, 2, 3), "W": draw(1, 4, 3), "R": draw(1, 4, 4)}
    model = node_model("RNN", weights, ["Y"], hidden_size=4)
    del model.graph.initializer[0]
    with pytest.raises(ShapeError, match=r"'the_node': W \('W'\) is computed by the graph"):
        tgr.onnx.from_model(model)


def test_what_is_no_layer_and_no_model(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="has a projection"):
        tgr.onnx.to_model(nn.LSTM(3, 4, proj_size=2))
    with pytest.raises(ShapeError, match="RNN, GRU or LSTM"):
        tgr.onnx.to_model(nn.Linear(3, 4))  # type: ignore[arg-type]
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(CheckpointError, match=r"no ONNX model|no RNN, GRU or LSTM"):
        tgr.onnx.load(tmp_path / "text.onnx")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CheckpointError, match=r"pip install 'tinygradrnn\[onnx\]'"):
        tgr.onnx.to_model(nn.RNN(3, 4))
