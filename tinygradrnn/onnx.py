"""ONNX: recurrent layers to other programs and back.

ONNX has the operators RNN, GRU and LSTM, which every runtime knows. A layer becomes one such node
for each of its layers, with the transpositions that make the graph's inputs and outputs those of
the layer. What differs is the order of the gates (ours, PyTorch's: LSTM i, f, g, o and GRU r, z, n;
ONNX: i, o, f, c and z, r, h), and that ONNX keeps directions on an axis of their own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygradrnn import nn
from tinygradrnn.convert import describe
from tinygradrnn.errors import CheckpointError, ShapeError

OPSET = 17  # 2022: old enough for deployed runtimes, new enough for batches of any size
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}  # ours, in the order of ONNX
_KINDS: dict[str, type[nn.RecurrentLayer]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


def _library() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise CheckpointError(
            "ONNX models need the package onnx: pip install 'tinygradrnn[onnx]'"
        ) from error
    return onnx


# ------------------------------------------------------------------------------------------ export


def to_model(layer: nn.RecurrentLayer, *, lengths: bool = False, state: bool = False) -> Any:
    """An ONNX model that computes what a layer does in evaluation.

    Its input is ``x``, then ``lengths`` (int64) and ``h_0`` (and ``c_0``) if asked for; its outputs
    are ``output`` and ``h_n`` (and ``c_n``): all shaped as the layer's own, with time and batch of
    any size. Dropout, which is for training, is not part of it.

    Args:
        layer: An nn.RNN, nn.GRU or nn.LSTM.
        lengths: Whether the model takes the length of each sequence. (Runtimes differ on a length
            of 0.)
        state: Whether it takes the first state; otherwise that is zero.

    Raises:
        ShapeError: The layer is none of these, or has a projection, which ONNX has not.
        CheckpointError: The package onnx is missing.

    >>> model = tgr.onnx.to_model(tgr.nn.GRU(3, 4), lengths=True)
    >>> [x.name for x in model.graph.input], [x.name for x in model.graph.output]
    (['x', 'lengths'], ['output', 'h_n'])
    """
    if not isinstance(layer, nn.RecurrentLayer):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ShapeError(f"to_model: layer is {describe(layer)}; expected an nn.RNN, GRU or LSTM")
    if layer.proj_size:
        raise ShapeError(f"to_model: {layer!r} has a projection, which ONNX's LSTM has not")
    return _Exporter(layer, lengths, state).model()


def save(
    path: str | os.PathLike[str],
    layer: nn.RecurrentLayer,
    *,
    lengths: bool = False,
    state: bool = False,
) -> None:
    """Write :func:`to_model` of a layer to a file, atomically.

    Raises:
        ShapeError: As for :func:`to_model`.
        CheckpointError: The package onnx is missing, or the file cannot be written.

    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tgr.onnx.save(os.path.join(folder, "gru.onnx"), tgr.nn.GRU(3, 4))
    ...     tgr.onnx.load(os.path.join(folder, "gru.onnx"))[0].layer
    GRU(3, 4)
    """
    from tinygradrnn.io import write_atomic

    write_atomic(path, to_model(layer, lengths=lengths, state=state).SerializeToString())


class _Exporter:
    def __init__(self, layer: nn.RecurrentLayer, lengths: bool, state: bool) -> None:
        self.onnx = _library()
        self.layer, self.lengths, self.state = layer, lengths, state
        self.kind = next(name for name, kind in _KINDS.items() if isinstance(layer, kind))
        self.dtype = self.onnx.helper.np_dtype_to_tensor_dtype(layer.cell().weight_ih.numpy().dtype)
        self.directions = 1 + layer.bidirectional
        self.states = ("h", "c") if self.kind == "LSTM" else ("h",)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        self.nodes.append(self.onnx.helper.make_node(op, inputs, outputs, outputs[0], **attributes))

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def model(self) -> Any:
        """The whole graph."""
        layer, helper = self.layer, self.onnx.helper
        first, swap = layer.batch_first, (1, 0, 2)
        shape = ["batch", "time"] if first else ["time", "batch"]
        n, size = layer.num_layers * self.directions, layer.hidden_size
        inputs = [helper.make_tensor_value_info("x", self.dtype, [*shape, layer.input_size])]
        below, lengths = "x", ""
        if first:
            self.add("Transpose", ["x"], ["x_time_first"], perm=swap)
            below = "x_time_first"
        if self.lengths:
            int64 = self.onnx.TensorProto.INT64
            inputs.append(helper.make_tensor_value_info("lengths", int64, ["batch"]))
            self.add("Cast", ["lengths"], ["lengths_int32"], to=self.onnx.TensorProto.INT32)
            lengths = "lengths_int32"
        begins: dict[str, list[str]] = {s: [""] * layer.num_layers for s in self.states}
        if self.state:
            for s in self.states:
                begin = helper.make_tensor_value_info(f"{s}_0", self.dtype, [n, "batch", size])
                inputs.append(begin)
                begins[s] = [f"{s}_0_l{k}" for k in range(layer.num_layers)]
                parts = self.constant(f"{s}_parts", np.full(layer.num_layers, self.directions))
                self.add("Split", [f"{s}_0", parts], begins[s], axis=0)
        for k in range(layer.num_layers):
            below = self.one_layer(k, below, lengths, [begins[s][k] for s in self.states])
        self.add(
            "Transpose" if first else "Identity",
            [below],
            ["output"],
            **({"perm": swap} if first else {}),
        )
        outputs = [
            helper.make_tensor_value_info("output", self.dtype, [*shape, size * self.directions])
        ]
        for s in self.states:
            ends = [f"{s}_l{k}" for k in range(layer.num_layers)]
            self.add("Concat", ends, [f"{s}_n"], axis=0)
            outputs.append(helper.make_tensor_value_info(f"{s}_n", self.dtype, [n, "batch", size]))
        graph = helper.make_graph(self.nodes, self.kind, inputs, outputs, self.constants)
        made = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="tinygradrnn",
            ir_version=8,  # that of the opset: runtimes refuse newer ones than they know
        )
        self.onnx.checker.check_model(made, full_check=True)
        return made

    def one_layer(self, k: int, x: str, lengths: str, begins: list[str]) -> str:
        """Add the node of a layer; return the name of its output, directions side by side."""
        cells = [self.layer.cell(k, bool(d)) for d in range(self.directions)]
        w = self.constant(f"W_l{k}", np.stack([self.ordered(c.weight_ih) for c in cells]))
        r = self.constant(f"R_l{k}", np.stack([self.ordered(c.weight_hh) for c in cells]))
        b = ""
        if self.layer.bias:
            pairs = [[self.ordered(c.bias_ih), self.ordered(c.bias_hh)] for c in cells]
            b = self.constant(f"B_l{k}", np.stack([np.concatenate(pair) for pair in pairs]))
        attributes: dict[str, Any] = {"hidden_size": self.layer.hidden_size}
        if self.directions == 2:
            attributes["direction"] = "bidirectional"
        if self.kind == "GRU":
            attributes["linear_before_reset"] = 1  # the reset gate after the product
        if self.kind == "RNN":
            attributes["activations"] = [
                {"tanh": "Tanh", "relu": "Relu"}[getattr(self.layer, "nonlinearity")]  # noqa: B009
            ] * self.directions
        ends = [f"{s}_l{k}" for s in self.states]
        self.add(self.kind, [x, w, r, b, lengths, *begins], [f"Y_l{k}", *ends], **attributes)
        # From (time, directions, batch, size) to (time, batch, directions * size).
        self.add("Transpose", [f"Y_l{k}"], [f"Y_l{k}_batch"], perm=(0, 2, 1, 3))
        flat = self.constant(f"flat_l{k}", np.asarray([0, 0, -1]))
        self.add("Reshape", [f"Y_l{k}_batch", flat], [f"output_l{k}"])
        return f"output_l{k}"

    def ordered(self, parameter: Any) -> Any:
        """A parameter with its gates in the order of ONNX."""
        gates = np.split(parameter.numpy(), len(_GATES[self.kind]))
        return np.concatenate([gates[i] for i in _GATES[self.kind]])


# ------------------------------------------------------------------------------------------ import


@dataclass(frozen=True)
class Imported:
    """A recurrent node of an ONNX model.

    Attributes:
        name: The node's name.
        layer: A layer with its weights, of one layer in one or both directions.
        reverse: Whether the node goes from the end to the start only. Then run its cell:
            ``tgr.scan(found.layer.cell(), xs, reverse=True)``.
    """

    name: str
    layer: nn.RecurrentLayer
    reverse: bool


def from_model(model: Any) -> list[Imported]:
    """The recurrent nodes of an ONNX model, as layers, in the order of the graph.

    Whoever wrote the model: with or without biases, of any direction, batch first or not. Stacked
    layers are one node each in ONNX and so become one layer each here. What the graph computes
    besides is left out, as are first states and lengths, which are given when the layer is called.

    Args:
        model: A ModelProto.

    Raises:
        ShapeError: A node has an attribute that our layers have no counterpart of, or its weights
            are not constants: names the node.
        CheckpointError: The package onnx is missing, or there are no such nodes.

    >>> layer = tgr.nn.LSTM(3, 4, bidirectional=True)
    >>> (found,) = tgr.onnx.from_model(tgr.onnx.to_model(layer))
    >>> bool(tgr.all(found.layer.weight_hh_l0 == layer.weight_hh_l0))
    True
    """
    onnx = _library()
    constants = {x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    constants[node.output[0]] = onnx.numpy_helper.to_array(attribute.t)
        if node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    found = [_layer(onnx, n, constants) for n in model.graph.node if n.op_type in _KINDS]
    if not found:
        raise CheckpointError("from_model: the graph has no RNN, GRU or LSTM node")
    return found


def load(path: str | os.PathLike[str]) -> list[Imported]:
    """:func:`from_model` of a file.

    Raises:
        ShapeError: As for :func:`from_model`.
        CheckpointError: The file cannot be read or is no ONNX model, or as for :func:`from_model`.

    >>> tgr.onnx.load("nowhere.onnx")
    Traceback (most recent call last):
    ...
    tinygradrnn.errors.CheckpointError: cannot read nowhere.onnx: No such file or directory
    """
    onnx = _library()
    try:
        model = onnx.load(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # of protobuf, whose classes are not ours to know
        raise CheckpointError(f"{path} is no ONNX model: {error}") from error
    return from_model(model)


_DEFAULT = {
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "RNN": ["Tanh"],
}


def _layer(onnx: Any, node: Any, constants: dict[str, Any]) -> Imported:
    kind, name = node.op_type, node.name or node.output[0] or node.output[-1]
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

    def refuse(what: str) -> ShapeError:
        return ShapeError(f"from_model: {kind} node {name!r}: {what}")

    def weight(position: int, what: str) -> Any:
        names = list(node.input)
        if position >= len(names) or not names[position]:
            return None
        if names[position] not in constants:
            raise refuse(
                f"{what} ({names[position]!r}) is computed by the graph; expected a constant"
            )
        return constants[names[position]]

    direction = given.get("direction", b"forward").decode()
    directions = 2 if direction == "bidirectional" else 1
    activations = [a.decode() for a in given.get("activations", ())]
    single = activations[: len(_DEFAULT[kind])] or _DEFAULT[kind]
    if activations and activations != single * directions:
        raise refuse(f"activations={activations}; expected the same in both directions")
    if single != _DEFAULT[kind] and not (kind == "RNN" and single == ["Relu"]):
        raise refuse(f"activations={activations}; expected {_DEFAULT[kind]}")
    if given.get("clip"):
        raise refuse(f"clip={given['clip']}; expected none")
    if given.get("input_forget"):
        raise refuse("input_forget=1; expected 0 (see nn.CoupledLSTMCell)")
    if kind == "GRU" and not given.get("linear_before_reset"):
        raise refuse("linear_before_reset=0; expected 1 (see nn.ChoGRUCell)")
    if kind == "LSTM" and weight(7, "P") is not None and weight(7, "P").any():
        raise refuse("peepholes P; expected none (see nn.PeepholeLSTMCell)")
    w, r, b = weight(1, "W"), weight(2, "R"), weight(3, "B")
    if w is None or r is None or w.ndim != 3 or r.ndim != 3:
        raise refuse("W and R; expected constants of three axes")
    order = np.argsort(_GATES[kind])

    def ours(stacked: Any) -> Any:
        gates = np.split(stacked, len(order))
        return np.concatenate([gates[i] for i in order])

    options: dict[str, Any] = {"nonlinearity": single[0].lower()} if kind == "RNN" else {}
    layer = _KINDS[kind](
        w.shape[2],
        r.shape[2],
        bias=b is not None,
        batch_first=bool(given.get("layout", 0)),
        bidirectional=directions == 2,
        dtype=str(w.dtype),
        **options,
    )
    state: dict[str, Any] = {}
    for d in range(directions):
        place = "l0" + "_reverse" * d
        state[f"weight_ih_{place}"], state[f"weight_hh_{place}"] = ours(w[d]), ours(r[d])
        if b is not None:
            for key, part in zip(("bias_ih", "bias_hh"), np.split(b[d], 2), strict=True):
                state[f"{key}_{place}"] = ours(part)
    layer.load_state_dict(state)
    return Imported(name, layer, direction == "reverse")
