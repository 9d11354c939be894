"""Calling an operation once for all steps: on arrays with time as one more axis in front.

Every operation works, at worst step by step. Sums over time, which is what the gradients of weights
are, are moved through whatever is linear: the sum of ``x_t.T @ g_t`` is one product of long
matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinygradrnn.backend import Array, Backend
from tinygradrnn.loop import Call, Operand, Var
from tinygradrnn.namespace import registry

Values = dict[Var, Array]


class Steps:
    """The values of a step's Vars, for all steps at once or the same at each.

    Attributes:
        stacked: Arrays ``(time, *shape)``.
        constant: Arrays ``shape``.
        added: Sums over time that the loop has made, ``shape``.
    """

    def __init__(self, backend: Backend, time: int) -> None:
        self.backend, self.time = backend, time
        self.stacked: Values = {}
        self.constant: Values = {}
        self.added: Values = {}

    def forward(self, name: str) -> Callable[..., Array]:
        """An operation's forward function on this backend."""
        operation: Any = registry[name]
        found = operation._forwards.get(self.backend) or operation._forward_on(self.backend)
        if operation.variadic:
            return lambda *arrays, **params: found(list(arrays), **params)
        return found

    def value(self, x: Operand) -> Any:
        """The array of a Var, stacked if there is one, or the number itself."""
        if not isinstance(x, Var):
            return x
        found = self.stacked.get(x)
        return self.constant[x] if found is None else found

    def call_once(self, call: Call) -> None:
        """Compute what is the same at every step."""
        out = self.forward(call.op)(*map(self.value, call.inputs), **call.params)
        self.constant[call.output] = out if out.shape else self.backend.xp.asarray(out)

    def call(self, call: Call) -> None:
        """Compute the result of all steps."""
        out = self._at_once(call)
        self.stacked[call.output] = self._one_by_one(call) if out is None else out

    # ------------------------------------------------------------------------- all at once

    def _at_once(self, call: Call) -> Array | None:
        operation: Any = registry[call.op]
        rule = _each_element if operation.elementwise else _RULES.get(call.op)
        return None if rule is None else rule(self, call)

    def _one_by_one(self, call: Call) -> Array:
        forward = self.forward(call.op)
        rows: list[Array] = []
        for t in range(self.time):
            values = [
                self.stacked[x][t, ...] if x in self.stacked else self.value(x)
                for x in call.inputs  # type: ignore[operator]
            ]
            rows.append(self.backend.xp.asarray(forward(*values, **call.params)))
        return self.backend.xp.stack(rows, axis=0)

    def is_stacked(self, x: Operand) -> bool:
        """Whether it differs from step to step."""
        return isinstance(x, Var) and x in self.stacked

    def aligned(self, x: Operand, ndim: int) -> Any:
        """The value of `x` with time in front of `ndim` axes, to broadcast as in a step."""
        value = self.value(x)
        if not isinstance(x, Var) or x not in self.stacked or len(x.shape) >= ndim:
            return value
        shape = (self.time, *(1,) * (ndim - len(x.shape)), *x.shape)
        return self.backend.xp.reshape(value, shape)

    def full(self, x: Operand) -> Array:
        """The value of a Var with its time axis, also if it is the same at every step."""
        assert isinstance(x, Var)
        value = self.stacked.get(x)
        if value is not None:
            return value
        return self.backend.xp.broadcast_to(self.constant[x], (self.time, *x.shape))

    # ----------------------------------------------------------------------- sums over time

    def total(self, x: Var, made: dict[Var, Call]) -> Array:
        """The sum of a Var over all steps.

        Args:
            x: The Var.
            made: The calls that were put off so far, by their output.
        """
        xp = self.backend.xp
        call = made.get(x)
        if x in self.constant:
            return self.constant[x] * self.time
        if call is not None and x not in self.stacked:
            rule = _TOTALS.get(call.op)
            found = None if rule is None else rule(self, call, made)
            if found is not None:
                return found
            for v in call.vars:
                self.ensure(v, made)
            self.call(call)
        return xp.sum(self.stacked[x], axis=0, dtype=x.dtype)

    def ensure(self, x: Var, made: dict[Var, Call]) -> None:
        """Compute a Var that was put off, and what it needs."""
        if x in self.stacked or x in self.constant:
            return
        todo = [made[x]]
        while todo:
            missing = [v for v in todo[-1].vars if v not in self.stacked and v not in self.constant]
            if missing:
                todo.extend(made[v] for v in missing)
            else:
                call = todo.pop()
                if call.output not in self.stacked:
                    self.call(call)


Rule = Callable[[Steps, Call], Any]


def _dims(x: Operand) -> int:
    return len(x.shape) if isinstance(x, Var) else 0


def _each_element(s: Steps, call: Call) -> Array:
    shape = call.output.shape
    if all(v.shape == shape and v in s.stacked for v in call.vars):
        return s.forward(call.op)(*map(s.value, call.inputs), **call.params)
    ndim = max(map(_dims, call.inputs))
    out = s.forward(call.op)(*[s.aligned(x, ndim) for x in call.inputs], **call.params)
    return s.backend.xp.reshape(out, (s.time, *call.output.shape))


def _matmul(s: Steps, call: Call) -> Array | None:
    a, b = call.inputs
    assert isinstance(a, Var) and isinstance(b, Var)
    xp, x, y = s.backend.xp, s.value(a), s.value(b)
    product = s.forward("matmul")
    if not s.is_stacked(b):
        if len(a.shape) == 1 or len(b.shape) != 2:
            return product(x, y) if len(b.shape) <= 2 else None
        rows = math.prod(x.shape[:-1])  # one large product, not one for each step
        out = product(xp.reshape(x, (rows, x.shape[-1])), y)
        return xp.reshape(out, (s.time, *call.output.shape))
    if min(len(a.shape), len(b.shape)) < 2:
        return None
    ndim = max(len(a.shape), len(b.shape))
    return product(s.aligned(a, ndim), s.aligned(b, ndim))


def _shift(axis: Any, ndim: int) -> Any:
    """Axes of a step as axes behind time."""
    if axis is None:
        return tuple(range(1, ndim + 1))
    if isinstance(axis, (tuple, list)):
        return tuple(a % ndim + 1 for a in axis)
    return axis % ndim + 1


def _along(extra: int = 0) -> Rule:
    """Operations of one array with an ``axis``; `extra` axes more in the result than before."""

    def rule(s: Steps, call: Call) -> Array | None:
        (x,) = call.inputs
        ndim = _dims(x) + extra
        params = dict(call.params)
        if params["axis"] is None and call.op in ("argmax", "argmin", "cumulative_sum", "roll"):
            return None
        if ndim == 0:
            return s.value(x)
        params["axis"] = _shift(params["axis"], ndim)
        return s.forward(call.op)(s.value(x), **params)

    return rule


def _squeeze(s: Steps, call: Call) -> Array:
    return s.backend.xp.reshape(s.value(call.inputs[0]), (s.time, *call.output.shape))


def _broadcast_to(s: Steps, call: Call) -> Array:
    shape = call.output.shape
    return s.backend.xp.broadcast_to(s.aligned(call.inputs[0], len(shape)), (s.time, *shape))


def _permute_dims(s: Steps, call: Call) -> Array:
    (x,) = call.inputs
    axes = (0, *_shift(call.params["axes"], _dims(x)))
    return s.backend.xp.permute_dims(s.value(x), axes)


def _joined(extra: int) -> Rule:
    def rule(s: Steps, call: Call) -> Array:
        axis = _shift(call.params["axis"], _dims(call.inputs[0]) + extra)
        return s.forward(call.op)(*map(s.full, call.inputs), axis=axis)

    return rule


def _getitem(s: Steps, call: Call) -> Array:
    return s.value(call.inputs[0])[(slice(None), *call.params["key"])]


def _place(s: Steps, call: Call) -> Array:
    key, shape = call.params["key"], call.params["shape"]
    return s.forward("place")(
        s.value(call.inputs[0]), key=(slice(None), *key), shape=(s.time, *shape)
    )


def _take(s: Steps, call: Call) -> Array | None:
    x, indices = call.inputs
    axis = call.params["axis"]
    axis = 0 if axis is None else axis % _dims(x)
    if s.is_stacked(x) and s.is_stacked(indices):
        return None
    if s.is_stacked(x):
        return s.forward("take")(s.value(x), s.value(indices), axis=axis + 1)
    if axis != 0:
        return None
    return s.forward("take")(s.value(x), s.value(indices), axis=0)


_RULES: dict[str, Rule] = {
    "matmul": _matmul,
    **dict.fromkeys(
        ["sum", "mean", "prod", "max", "min", "any", "all", "argmax", "argmin", "flip"], _along()
    ),
    **dict.fromkeys(("cumulative_sum", "roll"), _along()),
    "expand_dims": _squeeze,
    "squeeze": _squeeze,
    "reshape": _squeeze,
    "broadcast_to": _broadcast_to,
    "permute_dims": _permute_dims,
    "matrix_transpose": lambda s, call: s.backend.xp.matrix_transpose(s.value(call.inputs[0])),
    "concat": _joined(0),
    "stack": _joined(1),
    "getitem": _getitem,
    "place": _place,
    "take": _take,
}


# ------------------------------------------------------------------------------ sums over time

Total = Callable[[Steps, Call, dict[Var, Call]], Any]


def _total_product(s: Steps, call: Call, made: dict[Var, Call]) -> Array | None:
    """The sum of ``a_t.T @ b_t``: one product of matrices whose rows are put end to end."""
    a, b = call.inputs
    assert isinstance(a, Var) and isinstance(b, Var)
    turned = made.get(a)
    if turned is None or turned.op not in ("matrix_transpose", "permute_dims"):
        return None
    source = turned.inputs[0]
    if not isinstance(source, Var) or len(source.shape) != 2 or len(b.shape) != 2:
        return None
    if turned.op == "permute_dims" and tuple(turned.params["axes"]) not in ((1, 0), (-1, -2)):
        return None
    xp = s.backend.xp
    s.ensure(b, made)
    joined = made.get(source)
    is_row = joined is not None and joined.op == "concat" and joined.params["axis"] % 2 == 1
    if joined is not None and is_row and source not in s.stacked:
        return xp.concat([_rows_times_rows(s, v, b, made) for v in joined.vars], axis=0)
    return _rows_times_rows(s, source, b, made)


def _rows_times_rows(s: Steps, source: Var, b: Var, made: dict[Var, Call]) -> Array:
    s.ensure(source, made)
    xp = s.backend.xp
    x, y = s.full(source), s.full(b)
    rows = s.time * source.shape[0]
    x = xp.reshape(x, (rows, source.shape[1]))
    y = xp.reshape(y, (rows, b.shape[1]))
    return s.forward("matmul")(xp.matrix_transpose(x), y)


def _total_sum(s: Steps, call: Call, made: dict[Var, Call]) -> Array | None:
    (x,) = call.inputs
    assert isinstance(x, Var)
    if x in s.added:
        return s.forward("sum")(s.added[x], **call.params)
    s.ensure(x, made)
    if not s.is_stacked(x):
        return None
    axes = _shift(call.params["axis"], len(x.shape))
    axes = axes if isinstance(axes, tuple) else (axes,)
    out = s.backend.xp.sum(s.value(x), axis=(0, *axes))
    return s.backend.xp.reshape(out, call.output.shape)


def _through(s: Steps, call: Call, made: dict[Var, Call]) -> Array | None:
    """Of a linear operation: the operation of the sums."""
    if not all(isinstance(x, Var) and x.shape for x in call.inputs):
        return None
    if call.op in ("add", "subtract") and len({v.shape for v in call.vars}) != 1:
        return None
    totals = [s.total(v, made) for v in call.vars]
    return s.forward(call.op)(*totals, **call.params)


def _total_add_at(s: Steps, call: Call, made: dict[Var, Call]) -> Array | None:
    """The gradient of an embedding: all steps' rows are added up at once."""
    x, indices = call.inputs
    if call.params["axis"] not in (0, None):
        return None
    assert isinstance(x, Var) and isinstance(indices, Var)
    for v in (x, indices):
        s.ensure(v, made)
    return s.forward("add_at")(s.full(x), s.full(indices), size=call.params["size"], axis=0)


_TOTALS: dict[str, Total] = {
    "matmul": _total_product,
    "sum": _total_sum,
    "add_at": _total_add_at,
    **dict.fromkeys(
        [
            "add",
            "subtract",
            "negative",
            "reshape",
            "expand_dims",
            "squeeze",
            "matrix_transpose",
            "permute_dims",
            "concat",
            "getitem",
            "place",
        ],
        _through,
    ),
}
