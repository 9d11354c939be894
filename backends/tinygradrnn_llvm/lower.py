"""From a loop's body to nodes of rows, and from nodes to what is stored where and when.

Every value of a step is seen as rows, one for each sequence of the batch. Slices, joins and new
axes disappear here: they only say which columns of which node another one reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygradrnn.loop import Body, Call, Var


class Unsupported(Exception):
    """Why a body cannot be lowered."""


@dataclass(eq=False)
class Place:
    """Where rows are in memory.

    Attributes:
        kind: ``input``, ``constant``, ``carry`` (what enters the step), ``next`` (what leaves it),
            ``output``, or ``scratch``.
        index: Which of them.
        stride: Elements from one row to the next; 0 if all rows are one.
        dtype: Of the elements in memory.
        offset: Elements from the row's begin.
    """

    kind: str
    index: int
    stride: int
    dtype: np.dtype[Any]
    offset: int = 0


@dataclass(eq=False)
class Node:
    """A value of a step, a row of `width` columns for each sequence.

    Attributes:
        kind: ``leaf`` (from outside the step), ``op`` (element by element), ``view`` (columns of
            another node), ``pieces`` (columns of several), ``reduce`` or ``matmul``.
        shared: Whether all rows are equal.
        inputs: Nodes, or numbers.
        op: Of an ``op`` or a ``reduce``, its name.
        offset, repeats: A view begins at this column, and stays there if it `repeats`.
        starts: The first column of each piece.
        place: Where it is in memory, if it is.
        stage: After so many products in a row can it be computed.
        late: The last stage that is early enough.
    """

    kind: str
    width: int
    dtype: np.dtype[Any]
    shared: bool = False
    inputs: tuple[Any, ...] = ()
    op: str = ""
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    offset: int = 0
    repeats: bool = False
    starts: tuple[int, ...] = ()
    place: Place | None = None
    stage: int = 0
    late: int = 1 << 30
    flexible: Node | None = None  # a leaf (n,) in a batch of n: the same as a row shared by all
    flat: bool = False  # one number for each row, of shape (batch,)

    @property
    def nodes(self) -> list[Node]:
        return [x for x in self.inputs if isinstance(x, Node)]


IDENTITIES = frozenset(["positive", "gate", "clip_cotangent"])
COMPARISONS = frozenset(["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])
_SLOW = (
    "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "pow", "softplus",
)  # fmt: skip
ELEMENTWISE = frozenset([
    *COMPARISONS, *_SLOW,
    "add", "subtract", "multiply", "divide", "negative", "sqrt", "square", "abs", "sign",
    "floor", "ceil", "round", "relu", "maximum", "minimum", "clip", "where", "logical_and",
    "logical_or", "logical_xor", "logical_not", "isnan", "isinf", "isfinite", "astype",
])  # fmt: skip
MOVES = frozenset([
    "getitem", "reshape", "expand_dims", "squeeze", "broadcast_to", "permute_dims",
    "matrix_transpose",
])  # fmt: skip
REDUCTIONS = frozenset(["sum", "mean", "max", "min"])
COSTS = {
    **dict.fromkeys(
        ["exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "pow", "softplus"], 20
    ),
    **dict.fromkeys(["divide", "sqrt"], 6),
}


def supported_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype, if values of it can be computed with."""
    found = np.dtype(dtype)
    if found not in (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.bool)):
        raise Unsupported(f"values of {found}")
    return found


class Graph:
    """The nodes of a body.

    Attributes:
        batch: The number of rows.
        node: The node of each Var.
        products: The matmul nodes in order, each with the index of its constant.
    """

    def __init__(self, body: Body) -> None:
        self.body = body
        self.batched = any(len(a.shape) > 1 for a, _ in body.carried)
        ndim = max((len(a.shape) for a, _ in body.carried), default=0)
        if ndim > 2:
            raise Unsupported(f"a state of {ndim} dimensions")
        sizes = {a.shape[0] for a, _ in body.carried if len(a.shape) == 2}
        if not self.batched and ndim == 1:
            # States of numbers, one for each sequence, look like one state without a batch: rows
            # of one column are the slower reading, so it is taken as one row.
            sizes = {1}
        if len(sizes) > 1:
            raise Unsupported(f"states of batches {sorted(sizes)}")
        self.batch = sizes.pop() if sizes else 1
        self.node: dict[Var, Node] = {}
        self.products: list[Node] = []
        self.matrices: list[int] = []
        self._positions: dict[Any, Any] = {}
        for kind, variables in (
            ("input", body.inputs),
            ("constant", body.constants),
            ("carry", [a for a, _ in body.carried]),
        ):
            for i, v in enumerate(variables):
                leaf = None if v in self.node else self._leaf(kind, i, v)
                if leaf is not None:
                    self.node[v] = leaf
        self.constants = {v: i for i, v in enumerate(body.constants)}
        for call in body.calls:
            self.node[call.output] = self._call(call)
        for v in (*body.outputs, *(b for _, b in body.carried)):
            self._as_rows(self.value(v), v)

    def _leaf(self, kind: str, index: int, v: Var) -> Node | None:
        if kind == "constant" and (len(v.shape) > 1 and v.shape[0] not in (1, self.batch)):
            return None  # a matrix: only products ask for it
        dtype = supported_dtype(v.dtype)
        shape = v.shape
        if 0 in shape:
            raise Unsupported("an array without elements")
        if not self.batched:
            if len(shape) > 2 or (len(shape) == 2 and shape[0] != 1):
                if kind == "constant":
                    return None
                raise Unsupported(f"an array of shape {shape} beside one row")
            width = math.prod(shape)
            return Node("leaf", width, dtype, place=Place(kind, index, width, dtype))
        if len(shape) == 2 and shape[0] == self.batch:
            return Node("leaf", shape[1], dtype, place=Place(kind, index, shape[1], dtype))
        if len(shape) > 2:
            if kind == "constant":
                return None
            raise Unsupported(f"an array of shape {shape}")
        if len(shape) == 2 and shape[0] != 1:
            raise Unsupported(f"an array of shape {shape} in a batch of {self.batch}")
        width = shape[-1] if shape else 1
        shared = Node("leaf", width, dtype, True, place=Place(kind, index, 0, dtype))
        if shape == (self.batch,):
            place = Place(kind, index, 1, dtype)
            shared = None if kind == "carry" and self.batch > 1 else shared
            return Node("leaf", 1, dtype, place=place, flexible=shared, flat=True)
        return shared

    def value(self, v: Var) -> Node:
        """The node of a Var."""
        node = self.node.get(v)
        if node is None:
            raise Unsupported(f"{v!r} of shape {v.shape} is used as rows")
        return node

    def _as_rows(self, node: Node, v: Var) -> None:
        if self.batched and self.batch > 1 and node.shared and node.flexible is None:
            raise Unsupported(f"{v!r}, which leaves the step, is shared by the batch")
        if self.batched and (len(v.shape) not in (1, 2) or v.shape[0] != self.batch):
            raise Unsupported(f"{v!r} of shape {v.shape} leaves a step of {self.batch} rows")

    def _call(self, call: Call) -> Node:
        op, params, out = call.op, call.params, call.output
        if 0 in out.shape:
            raise Unsupported("an array without elements")
        if op in IDENTITIES:
            (source,) = call.vars
            return self.value(source)
        if op == "matmul":
            return self._matmul(call)
        dtype = supported_dtype(out.dtype)
        if op in MOVES:
            (source,) = call.vars
            return self._move(self.value(source), source, call)
        if op in REDUCTIONS:
            return self._reduce(call, dtype)
        if op == "concat":
            return self._concat(call, dtype)
        if op == "place":
            return self._place(call, dtype)
        if op in ("zeros_like", "ones_like"):
            (source,) = call.vars
            node = self.value(source)
            number = 1.0 if op == "ones_like" else 0.0
            return Node("op", node.width, dtype, node.shared, (number,), "number", flat=node.flat)
        if op == "hold":
            new, old, going = call.inputs
            call = Call("where", (going, new, old), {}, out)
            op, params = "where", {}
        if op in ELEMENTWISE:
            return self._elementwise(op, params, call, dtype)
        raise Unsupported(f"the operation {op}")

    # ------------------------------------------------------------------------------ operations

    def _elementwise(self, op: str, params: Any, call: Call, dtype: np.dtype[Any]) -> Node:
        out = call.output
        given = [self.value(x) if isinstance(x, Var) else x for x in call.inputs]
        shapes = [x.shape if isinstance(x, Var) else () for x in call.inputs]
        flat = False
        if self.batched:
            if len(out.shape) > 2:
                raise Unsupported(f"{op} of three dimensions")
            one = [
                x for x, s in zip(given, shapes, strict=True) if isinstance(x, Node) and len(s) == 1
            ]
            flat = len(out.shape) == 1 and out.shape == (self.batch,) and all(x.flat for x in one)
            if not flat:
                given = [
                    x.flexible if isinstance(x, Node) and x.flat and x.flexible else x
                    for x in given
                ]
                if self.batch > 1 and any(isinstance(x, Node) and x.flat for x in given):
                    raise Unsupported(f"{op} mixes numbers of a batch with columns")
        elif len(out.shape) > 1 and math.prod(out.shape[:-1]) != 1:
            raise Unsupported(f"{op} makes several rows of one")
        width = 1 if flat else (out.shape[-1] if out.shape else 1)
        if any(isinstance(x, Node) and x.width not in (1, width) for x in given):
            raise Unsupported(f"{op} of {shapes}")
        shared = self.batched and all(x.shared for x in given if isinstance(x, Node))
        if op == "pow":
            exponent = given[1]
            if not isinstance(exponent, int | float) or not isinstance(given[0], Node):
                raise Unsupported("pow with a computed exponent")
            if exponent != 0.5 and (exponent != int(exponent) or abs(exponent) > 16):
                raise Unsupported(f"pow with the exponent {exponent}")
        if op == "clip" and any(isinstance(x, float) and math.isnan(x) for x in params.values()):
            raise Unsupported("clip at NaN")
        return Node("op", width, dtype, shared, tuple(given), op, params, flat=flat)

    def _matmul(self, call: Call) -> Node:
        x, w = call.inputs
        if not (isinstance(x, Var) and isinstance(w, Var)):
            raise Unsupported("matmul of a number")
        if w not in self.constants or len(w.shape) != 2:
            raise Unsupported(f"matmul of {x.shape} with {w.shape}, which is no constant matrix")
        source = self.value(x)
        if len(x.shape) > 2 or (self.batched and len(x.shape) != 2) or source.width != w.shape[0]:
            raise Unsupported(f"matmul of {x.shape}")
        dtype = supported_dtype(call.output.dtype)
        if not (np.dtype(x.dtype) == np.dtype(w.dtype) == dtype) or dtype.kind != "f":
            raise Unsupported("matmul of two types")
        if self.batched and source.shared and self.batch > 1:
            raise Unsupported("matmul of a row that is shared by the batch")
        node = Node("matmul", w.shape[1], dtype, False, (source,))
        self.products.append(node)
        self.matrices.append(self.constants[w])
        return node

    def _move(self, node: Node, source: Var, call: Call) -> Node:
        """A view, found by moving the numbers of the elements instead of the elements."""
        op, params, out = call.op, call.params, call.output
        index = np.arange(math.prod(source.shape)).reshape(source.shape)
        if op == "getitem":
            moved = index[params["key"]]
        elif op == "reshape":
            moved = np.reshape(index, params["shape"])
        elif op == "broadcast_to":
            moved = np.broadcast_to(index, params["shape"])
        elif op in ("expand_dims", "squeeze"):
            moved = np.reshape(index, out.shape)
        elif op == "permute_dims":
            moved = np.permute_dims(index, params["axes"])
        else:
            moved = index.mT
        if moved.shape != tuple(out.shape):
            raise Unsupported(f"{op} from {source.shape} to {out.shape}")
        flat_out = self.batched and moved.ndim == 1
        readings = [node] if node.flexible is None else [node, node.flexible]
        for reading in readings:
            found = self._view(reading, moved, flat_out)
            if found is not None:
                return found
        raise Unsupported(f"{op} from {source.shape} to {out.shape}, which mixes rows")

    def _view(self, node: Node, moved: Any, flat_out: bool) -> Node | None:
        rows = self.batch if self.batched else 1
        step = 0 if node.shared else node.width  # from a row's first element to the next row's
        shapes: list[tuple[tuple[int, ...], bool]] = []
        if flat_out and moved.shape == (rows,) and not node.shared:
            shapes.append(((rows, 1), True))
        if moved.ndim == 2 and moved.shape[0] == rows:
            shapes.append((moved.shape, False))
        if not self.batched or (node.shared and moved.ndim <= 2):
            shapes.append(((1, moved.size), False))
        for shape, flat in shapes:
            if math.prod(shape) != moved.size:
                continue
            grid = np.reshape(moved, shape)
            first = int(grid[0, 0])
            width = shape[1]
            for repeats in (False, True):
                row = np.full(width, first) if repeats else np.arange(first, first + width)
                expected = row + step * np.arange(shape[0])[:, None]
                if np.array_equal(grid, expected):
                    shared = node.shared
                    repeats = repeats and width > 1
                    if first == 0 and width == node.width and not repeats and flat == node.flat:
                        return node
                    return Node(
                        "view", width, node.dtype, shared, (node,), offset=first,
                        repeats=repeats, flat=flat,
                    )  # fmt: skip
        return None

    def _last_axis(self, op: str, axis: Any, ndim: int) -> bool:
        axes = axis if isinstance(axis, tuple) else tuple(range(ndim)) if axis is None else (axis,)
        return {a % ndim for a in axes} == {ndim - 1}

    def _reduce(self, call: Call, dtype: np.dtype[Any]) -> Node:
        (source,) = call.vars
        node = self.value(source)
        ndim, axis = len(source.shape), call.params.get("axis")
        if self.batched and node.flexible is not None:
            node = node.flexible
        if self.batched and (node.flat or not (ndim == 2 or node.shared)):
            raise Unsupported(f"{call.op} over the batch")
        if ndim == 0 or node.dtype.kind != "f" or dtype != node.dtype:
            raise Unsupported(f"{call.op} of {source.shape}, {node.dtype}")
        row = not self.batched and math.prod(source.shape[:-1]) == 1 and axis is None
        if not row and not self._last_axis(call.op, axis, ndim):
            raise Unsupported(f"{call.op} over the batch")
        flat = self.batched and ndim == 2 and not call.params.get("keepdims")
        if flat and node.shared:
            flat = False
        return Node("reduce", 1, dtype, node.shared, (node,), call.op, flat=flat)

    def _concat(self, call: Call, dtype: np.dtype[Any]) -> Node:
        ndim = len(call.output.shape)
        if not self._last_axis("concat", call.params.get("axis", 0), ndim):
            raise Unsupported("concat along the batch")
        parts = [self.value(v) for v in call.vars]
        if self.batched:
            parts = [x.flexible or x for x in parts]
        if any(x.flat for x in parts) or len(parts) != len(call.inputs):
            raise Unsupported("concat along the batch")
        if any(x.dtype != dtype for x in parts):
            raise Unsupported("concat of two types")
        starts = np.cumsum([0, *(x.width for x in parts)])
        shared = self.batched and all(x.shared for x in parts)
        return Node(
            "pieces", int(starts[-1]), dtype, shared, tuple(parts),
            starts=tuple(int(s) for s in starts[:-1]),
        )  # fmt: skip

    def _place(self, call: Call, dtype: np.dtype[Any]) -> Node:
        (source,) = call.vars
        node = self.value(source)
        shape = tuple(call.params["shape"])
        target = np.full(shape, -1)
        key = call.params["key"]
        target[key] = np.arange(math.prod(source.shape)).reshape(source.shape)
        rows = self.batch if self.batched and len(shape) == 2 else 1
        if self.batched and len(shape) == 2 and shape[0] != rows:
            raise Unsupported("place along the batch")
        if (self.batched and len(shape) != 2) or (not self.batched and math.prod(shape[:-1]) != 1):
            raise Unsupported(f"place in {shape}")
        if node.shared and self.batch > 1:
            raise Unsupported("place of what the batch shares")
        grid = target.reshape(rows, -1)
        hit = np.flatnonzero(grid[0] >= 0)
        first = int(hit[0]) if len(hit) else 0
        expected = np.full(grid.shape, -1)
        expected[:, first : first + node.width] = np.arange(rows * node.width).reshape(rows, -1)
        if not np.array_equal(grid, expected):
            raise Unsupported("place of more than a slice of columns")
        width = grid.shape[1]
        parts: list[tuple[int, Any]] = [(0, 0.0), (first, node), (first + node.width, 0.0)]
        ends = [first, first + node.width, width]
        kept = [(s, x) for (s, x), end in zip(parts, ends, strict=True) if end > s]
        return Node(
            "pieces", width, dtype, False, tuple(x for _, x in kept),
            starts=tuple(s for s, _ in kept),
        )  # fmt: skip
