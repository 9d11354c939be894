"""Loops as machine code: the same numbers as calling each operation by itself."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llvmlite")

import tinygradrnn as tgr
from tinygradrnn.loop import Body, Call, Var
from tinygradrnn.scan.stacked import Steps
from tinygradrnn_llvm import LlvmBackend, machine, threads
from tinygradrnn_llvm.emit import Writer
from tinygradrnn_llvm.loops import Unsupported, compile_loop, lowered

STEPS = Steps(LlvmBackend(), 0)
AVX2 = ["avx", "avx2", "fma", "bmi", "bmi2", "sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2"]


def haswell() -> machine.Machine:
    """This machine as if it had no vectors of 512 bits."""
    here = machine.host()
    if not here.triple.startswith("x86_64") or here.bits < 256:
        pytest.skip("the machine has no AVX2")
    return machine.machine("haswell", dict.fromkeys(AVX2, True), here.triple)


@dataclass
class Maker:
    """Makes a body call by call, with values at hand to know shapes."""

    dtype: str = "float64"
    inputs: list[Var] = field(default_factory=list)
    constants: list[Var] = field(default_factory=list)
    entering: list[Var] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def _var(self, group: list[Var], shape: tuple[int, ...], dtype: Any) -> Var:
        group.append(Var(shape, np.dtype(dtype or self.dtype), f"v{len(group)}"))
        return group[-1]

    def input(self, *shape: int, dtype: Any = None) -> Var:
        return self._var(self.inputs, shape, dtype)

    def constant(self, *shape: int, dtype: Any = None) -> Var:
        return self._var(self.constants, shape, dtype)

    def carry(self, *shape: int, dtype: Any = None) -> Var:
        return self._var(self.entering, shape, dtype)

    def __call__(self, op: str, *inputs: Any, **params: Any) -> Var:
        values = [np.ones(x.shape, x.dtype) if isinstance(x, Var) else x for x in inputs]
        with np.errstate(all="ignore"):
            out = np.asarray(STEPS.forward(op)(*values, **params))
        made = Var(out.shape, out.dtype, f"{op}{len(self.calls)}")
        self.calls.append(Call(op, inputs, params, made))
        return made

    def body(self, leaving: Sequence[Var], outputs: Sequence[Var] = ()) -> Body:
        pairs = list(zip(self.entering, leaving, strict=True))
        functions = {call.op: STEPS.forward(call.op) for call in self.calls}
        return Body(
            self.calls, self.inputs, self.constants, pairs, list(outputs), functions, "test"
        )


def interpret(
    body: Body, inputs: Any, constants: Any, carried: Any, outputs: Any, order: range
) -> list[Any]:
    """What a runner has to do, one operation at a time."""
    state = list(carried)
    for t in order:
        values: dict[Var, Any] = dict(zip(body.constants, constants, strict=True))
        values.update((v, x[t]) for v, x in zip(body.inputs, inputs, strict=True))
        values.update((a, x) for (a, _), x in zip(body.carried, state, strict=True))
        for call in body.calls:
            arrays = [values[x] if isinstance(x, Var) else x for x in call.inputs]
            with np.errstate(all="ignore"):
                values[call.output] = body.functions[call.op](*arrays, **call.params)
        for v, y in zip(body.outputs, outputs, strict=True):
            y[t] = values[v]
        state = [values[b] for _, b in body.carried]
    return state


def arrays_for(body: Body, time: int, seed: int) -> tuple[list[Any], list[Any], list[Any]]:
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...], dtype: Any) -> Any:
        if np.dtype(dtype).kind == "b":
            return rng.random(shape) < 0.5
        return (rng.standard_normal(shape) * 0.7).astype(dtype)

    return (
        [draw((time, *v.shape), v.dtype) for v in body.inputs],
        [draw(v.shape, v.dtype) for v in body.constants],
        [draw(a.shape, a.dtype) for a, _ in body.carried],
    )


def check(
    body: Body,
    time: int = 5,
    order: range | None = None,
    seed: int = 0,
    target: machine.Machine | None = None,
    change: Callable[[Any], Any] = lambda x: x,
    special: Callable[[list[Any]], object] | None = None,
) -> Any:
    """Compare machine code with calling each operation, and return the runner."""
    order = range(time) if order is None else order
    run = compile_loop(body, target)
    inputs, constants, carried = arrays_for(body, time, seed)
    if special:
        special([*inputs, *constants, *carried])
    expected = [np.full((time, *v.shape), 7, v.dtype) for v in body.outputs]
    left = interpret(body, inputs, constants, carried, expected, order)
    outputs = [np.full((time, *v.shape), 7, v.dtype) for v in body.outputs]
    given = [[change(x) for x in group] for group in (inputs, constants, carried)]
    found = run(given[0], given[1], given[2], outputs, order)
    for before, now in zip((inputs, constants, carried), given, strict=True):
        for x, y in zip(before, now, strict=True):
            np.testing.assert_array_equal(x, y)
    assert len(found) == len(left)
    for x, y in zip([*outputs, *found], [*expected, *left], strict=True):
        assert x.dtype == y.dtype
        assert x.shape == np.shape(y)
        scale = np.abs(y[np.isfinite(y)]).max(initial=1) if x.dtype.kind == "f" else 1
        error = 1e-5 if x.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(x, y, rtol=error, atol=error * scale)
    given_arrays = [*given[0], *given[1], *given[2], *outputs]
    assert not any(np.shares_memory(x, y) for x in found for y in given_arrays)
    return run


def lstm(batch: int, hidden: int, dtype: str = "float64") -> Body:
    m = Maker(dtype)
    x, w = m.input(batch, 4 * hidden), m.constant(hidden, 4 * hidden)
    h, c = m.carry(batch, hidden), m.carry(batch, hidden)
    gates = m("add", x, m("matmul", h, w))
    parts = [
        m("getitem", gates, key=(slice(None), slice(k * hidden, (k + 1) * hidden)))
        for k in range(4)
    ]
    i, f, o = (m("sigmoid", parts[k]) for k in (0, 1, 3))
    g = m("tanh", parts[2])
    c = m("add", m("multiply", f, c), m("multiply", i, g))
    h = m("multiply", o, m("tanh", c))
    return m.body([h, c], [h, c, i, f, o, g])


SIZES = [(1, 1), (1, 64), (2, 3), (3, 50), (4, 4), (5, 17), (13, 33), (25, 20)]


@pytest.mark.parametrize(("batch", "hidden"), SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_odd_sizes(batch: int, hidden: int, dtype: str) -> None:
    run = check(lstm(batch, hidden, dtype))
    assert type(run).__name__ == "Loop"


@pytest.mark.parametrize("order", [range(4, -1, -1), range(1, 4), range(3, 0, -1), range(0)])
def test_reversed_and_partial_orders(order: range) -> None:
    check(lstm(3, 5), order=order)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("batch", "hidden"), [(1, 9), (3, 50), (13, 33)])
def test_a_processor_with_vectors_of_256_bits(dtype: str, batch: int, hidden: int) -> None:
    check(lstm(batch, hidden, dtype), target=haswell())


def test_code_for_another_architecture() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    arm = machine.machine("generic", {"neon": True}, "aarch64-unknown-linux-gnu")
    source = str(Writer(lowered(lstm(5, 17, "float32"), arm), arm))
    module, processor = machine.optimized(source, arm)
    assert "fmla" in processor.emit_assembly(module)


def test_arrays_in_any_layout() -> None:
    def turned(x: Any) -> Any:
        return np.ascontiguousarray(x.T).T

    def apart(x: Any) -> Any:
        return np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x

    def backwards(x: Any) -> Any:
        return np.ascontiguousarray(x[::-1])[::-1]

    for change in (turned, apart, backwards):
        check(lstm(3, 6), change=change)
    m = Maker()
    x, h = m.input(3, 6), m.carry(3, 6)
    body = m.body([m("add", x, h)])
    run = compile_loop(body)
    (found,) = run([np.broadcast_to(np.ones(6), (4, 3, 6))], [], [np.zeros((3, 6))], [], range(4))
    np.testing.assert_array_equal(found, np.full((3, 6), 4.0))


def test_outputs_that_are_not_contiguous() -> None:
    body = lstm(3, 4)
    run = compile_loop(body)
    inputs, constants, carried = arrays_for(body, 5, 1)
    expected = [np.full((5, *v.shape), 7.0) for v in body.outputs]
    outputs = [np.full((5, v.shape[0], 2 * v.shape[1]), 7.0)[..., ::2] for v in body.outputs]
    order = range(3, 0, -1)
    interpret(body, inputs, constants, carried, expected, order)
    run(inputs, constants, carried, outputs, order)
    for x, y in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)


def test_states_change_places_and_stay() -> None:
    m = Maker()
    a, b, c, _ = (m.carry(3, 4) for _ in range(4))
    x = m.input(3, 4)
    made = m("add", a, x)
    check(m.body([b, made, c, made], [a, made, c]))


@pytest.mark.parametrize("width", [1, 5, 16, 32, 40])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_added_up_over_time(width: int, batch: int, dtype: str) -> None:
    m = Maker(dtype)
    total, other, last = (m.carry(batch, width) for _ in range(3))
    x = m.input(batch, width)
    grown = m("add", total, m("tanh", x))
    more = m("add", other, m("multiply", other, x))
    check(m.body([grown, more, other], [m("square", grown)]))
    check(m.body([grown, total, m("add", last, grown)], [grown]))


def test_a_state_that_is_a_product_or_an_input() -> None:
    m = Maker()
    w, x = m.constant(5, 5), m.input(3, 5)
    a, b = m.carry(3, 5), m.carry(3, 5)
    check(m.body([m("matmul", a, w), x], [m("matmul", b, w), a]))


def test_several_products_one_after_the_other() -> None:
    m = Maker()
    first, second, third = m.constant(7, 9), m.constant(9, 7), m.constant(7, 7)
    h, x = m.carry(3, 7), m.input(3, 7)
    a = m("tanh", m("matmul", h, first))
    b = m("add", m("matmul", a, second), m("matmul", m("multiply", h, x), third))
    check(m.body([m("tanh", b)], [a, b]))


def test_one_matrix_in_two_products_and_as_rows() -> None:
    m = Maker()
    w, h = m.constant(4, 4), m.carry(4, 4)
    check(m.body([m("tanh", m("add", m("matmul", h, w), m("matmul", m("add", h, w), w)))]))


@pytest.mark.parametrize("width", [1, 5, 16, 40])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reductions_over_the_last_axis(width: int, dtype: str) -> None:
    m = Maker(dtype)
    h, x = m.carry(3, width), m.input(3, width)
    y = m("add", h, x)
    centred = m("subtract", y, m("mean", y, axis=-1, keepdims=True))
    variance = m("mean", m("square", centred), axis=-1, keepdims=True)
    normal = m("divide", centred, m("sqrt", m("add", variance, 1e-5)))
    e = m("exp", m("subtract", normal, m("max", normal, axis=1, keepdims=True)))
    soft = m("divide", e, m("sum", e, axis=-1, keepdims=True))
    low = m("expand_dims", m("min", soft, axis=-1, keepdims=False), axis=1)
    check(m.body([m("add", soft, low)], [normal, variance, low]))


def test_slices_and_joins() -> None:
    m = Maker()
    h, x = m.carry(3, 11), m.input(3, 6)
    left = m("getitem", h, key=(slice(None), slice(0, 4)))
    right = m("getitem", h, key=(slice(None), slice(4, 11)))
    joined = m("concat", m("tanh", right), x, left, axis=-1)
    part = m("getitem", joined, key=(slice(None), slice(3, 14)))
    put = m("place", left, key=(slice(None), slice(5, 9)), shape=(3, 11))
    column = m("getitem", joined, key=(slice(None), slice(2, 3)))
    check(m.body([m("add", m("multiply", part, column), put)], [joined, put]))


def test_masks_and_numbers_for_each_sequence() -> None:
    m = Maker()
    going, h = m.input(5, dtype="bool"), m.carry(5, 3)
    scale, x = m.input(5), m.input(5, 3)
    rows = m("reshape", going, shape=(5, 1))
    column = m("expand_dims", scale, axis=1)
    new = m("tanh", m("add", m("multiply", h, column), x))
    held = m("where", rows, new, h)
    positive = m("logical_and", m("greater", new, 0.0), rows)
    check(m.body([held], [m("where", positive, new, 0.0), positive]))


EVERYWHERE = [
    *("exp", "log", "tanh", "sigmoid", "relu", "sign", "sqrt", "isnan", "isfinite", "abs"),
    *("round", "softplus", "log1p", "expm1", "floor", "ceil", "sin", "cos"),
]


@pytest.mark.parametrize("op", EVERYWHERE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_finite(op: str, dtype: str) -> None:
    def special(arrays: list[Any]) -> None:
        arrays[0][0] = np.resize([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, -3.5, 700.0], (2, 9))

    m = Maker(dtype)
    x, h = m.input(2, 9), m.carry(2, 9)
    made = m(op, x)
    more = m("maximum", x, h), m("minimum", h, x), m("clip", x, min=-1.0, max=2.0)
    check(m.body([h], [made, *more]), special=special)


# -------------------------------------------------------- shapes that could be read in two ways


def test_a_batch_as_large_as_the_features() -> None:
    m = Maker()
    h, table, bias = m.carry(4, 4), m.constant(4, 4), m.constant(4)
    x, number = m.input(4), m.input(4, 1)
    y = m("add", m("add", m("multiply", h, table), bias), m("add", x, number))
    check(m.body([m("tanh", y)], [m("sum", y, axis=1, keepdims=True)]))


def numbers_of_sequences(m: Maker) -> Body:
    h, n, x = m.carry(3, 5), m.carry(3), m.input(3, 5)
    y = m("add", h, m("expand_dims", n, axis=1))
    held = m("where", m("greater", n, 0.0), n, 1.0)
    return m.body([y, m("add", held, m("sum", m("multiply", x, y), axis=1, keepdims=False))], [n])


def one_state_without_a_batch(m: Maker) -> Body:
    h, w, x = m.carry(5), m.constant(5, 5), m.input(5)
    y = m("tanh", m("add", m("matmul", h, w), x))
    return m.body([y], [y, m("sum", y, axis=None, keepdims=False)])


def a_number_beside_a_vector(m: Maker) -> Body:
    h, s, x = m.carry(4), m.carry(), m.input(4)
    y = m("add", m("multiply", h, s), x)
    return m.body([y, m("mean", y, axis=-1, keepdims=False)], [y])


def one_row(m: Maker) -> Body:
    h, w, s = m.carry(1, 5), m.constant(5, 5), m.carry(1)
    return m.body([m("tanh", m("matmul", h, w)), m("add", s, 1.0)])


def a_constant_as_column_and_as_row(m: Maker) -> Body:
    h, n = m.carry(3, 3), m.constant(3)
    y = m("multiply", m("expand_dims", n, axis=1), h)
    return m.body([m("multiply", m("expand_dims", n, axis=0), y)], [y])


def nothing_at_all(m: Maker) -> Body:
    h = m.carry(3, 4)
    return m.body([h], [h])


def a_thin_product(m: Maker) -> Body:
    h, w, v = m.carry(3, 4), m.constant(4, 1), m.constant(1, 4)
    y = m("matmul", m("matmul", h, w), v)
    return m.body([m("tanh", y)], [y])


def two_precisions(m: Maker) -> Body:
    single, double = np.dtype("float32"), np.dtype("float64")
    h, x = m.carry(3, 4, dtype=single), m.input(3, 4, dtype=double)
    y = m("multiply", x, m("astype", h, dtype=double))
    return m.body([m("add", h, m("astype", x, dtype=single))], [y])


READINGS = [
    *(numbers_of_sequences, one_state_without_a_batch, a_number_beside_a_vector, one_row),
    *(a_constant_as_column_and_as_row, nothing_at_all, a_thin_product, two_precisions),
]


@pytest.mark.parametrize("make", READINGS, ids=lambda make: make.__name__)
def test_shapes_of_all_kinds(make: Callable[[Maker], Body]) -> None:
    check(make(Maker()))


AMBIGUOUS = {
    "a sum over the batch": lambda m, h: m("add", h, m("sum", h, axis=0, keepdims=True)),
    "a sum over all": lambda m, h: m("add", h, m("sum", h, axis=(0, 1), keepdims=True)),
    "a transpose": lambda m, h: m("matrix_transpose", h),
    "a slice of the batch": lambda m, h: m(
        "concat", m("getitem", h, key=(slice(1, 4),)), m("getitem", h, key=(slice(0, 1),)), axis=0
    ),
    "sums of rows as columns": lambda m, h: m("add", h, m("sum", h, axis=1, keepdims=False)),
    "another shape": lambda m, h: m("reshape", m("reshape", h, shape=(2, 8)), shape=(4, 4)),
    "a column turned to a row": lambda m, h: m(
        "add", h, m("reshape", m("getitem", h, key=(slice(None), slice(0, 1))), shape=(1, 4))
    ),
    "a product with itself": lambda m, h: m("matmul", h, h),
    "a matrix on the left": lambda m, h: m("matmul", m.constant(4, 4), h),
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_mixes_rows_is_right_all_the_same(what: str) -> None:
    m = Maker()
    h = m.carry(4, 4)
    leaving = AMBIGUOUS[what](m, h)
    body = m.body([m("tanh", leaving)], [leaving])
    run = LlvmBackend().compile_loop(body)
    assert run is not None
    inputs, constants, carried = arrays_for(body, 3, 0)
    outputs, expected = np.empty((3, 4, 4)), np.empty((3, 4, 4))
    interpret(body, inputs, constants, carried, [expected], range(3))
    run(inputs, constants, carried, [outputs], range(3))
    np.testing.assert_allclose(outputs, expected, rtol=1e-12, atol=1e-12)


FALLBACKS = {
    "states of batches": lambda m, h: (m.carry(3, 2), m("tanh", h)),
    "floor_divide": lambda m, h: m("floor_divide", h, 2.0),
    "which mixes rows": lambda m, h: m("sum", m("expand_dims", h, axis=0), axis=0, keepdims=False),
    "over the batch": lambda m, h: m("multiply", h, m("sum", h, axis=0, keepdims=True)),
    "no constant matrix": lambda m, h: m("matmul", h, m.input(4, 4)),
    "values of int64": lambda m, h: m("add", h, m.input(4, dtype="int64")),
}


@pytest.mark.parametrize("reason", FALLBACKS)
def test_the_reason_of_a_fallback(reason: str) -> None:
    m = Maker()
    made = FALLBACKS[reason](m, m.carry(4, 4))
    leaving = list(made) if isinstance(made, tuple) else [made]
    body = m.body([leaving[-1], *leaving[:-1]][: len(m.entering)])
    with pytest.raises(Unsupported, match=reason):
        compile_loop(body)
    assert LlvmBackend().compile_loop(body) is not None
    assert body.notes["fallback"]


# ------------------------------------------------------------------------------ random bodies


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    dtype = draw(st.sampled_from(["float32", "float64"]))
    batch, width = draw(st.sampled_from([(1, 3), (3, 3), (2, 5), (5, 1), (3, 17), (13, 8)]))
    m = Maker(dtype)
    rows = [m.carry(batch, width) for _ in range(draw(st.integers(1, 3)))]
    rows += [m.input(batch, width), m.constant(batch, width)]
    shared = [m.constant(width), m.constant(1, width), m.constant()]
    columns, masks = [m.input(batch, 1)], [m.input(batch, 1, dtype="bool")]
    some = lambda group: draw(st.sampled_from(group))  # noqa: E731
    for _ in range(draw(st.integers(1, 14))):
        kind = draw(st.integers(0, 10))
        x = some(rows)
        if kind < 3:
            op = some(["add", "subtract", "multiply", "maximum", "minimum"])
            pair = [x, some([*rows, *shared, *columns, 0.5])]
            rows.append(m(op, *(pair if draw(st.booleans()) else pair[::-1])))
        elif kind < 5:
            rows.append(m(some(["tanh", "sigmoid", "relu", "negative", "abs", "sin", "sign"]), x))
        elif kind == 5:
            key = (
                (slice(None), slice(0, 1))
                if draw(st.booleans())
                else (slice(None), slice(width - 1, width))
            )
            columns.append(m("getitem", x, key=key))
        elif kind == 6:
            op = some(["sum", "mean", "max", "min"])
            columns.append(m("tanh", m(op, x, axis=some([-1, 1]), keepdims=True)))
        elif kind == 7:
            cut = draw(st.integers(0, width))
            parts = [
                m("getitem", some(rows), key=(slice(None), slice(a, b)))
                for a, b in ((0, cut), (cut, width))
                if a < b
            ]
            rows.append(m("concat", *parts, axis=-1))
        elif kind == 8:
            masks.append(
                m(some(["less", "greater_equal", "not_equal"]), x, some([*rows, *columns]))
            )
        elif kind == 9:
            rows.append(m("where", some(masks), x, some([*rows, 0.25])))
        else:
            rows.append(m("tanh", m("matmul", x, m.constant(width, width))))
    bounded = [m("clip", some(rows), min=-4.0, max=4.0) for _ in m.entering]
    swapped = draw(st.booleans()) and len(bounded) > 1
    leaving = [*m.entering[1:], bounded[0]] if swapped else bounded
    outputs = list(dict.fromkeys(some([*rows, *columns]) for _ in range(draw(st.integers(0, 3)))))
    return m.body(leaving, [v for v in outputs if v not in (*m.inputs, *m.constants)])


@settings(max_examples=60)
@given(bodies(), st.integers(0, 99), st.sampled_from([range(3), range(2, -1, -1), range(1)]))
def test_random_bodies(body: Body, seed: int, order: range) -> None:
    check(body, time=3, seed=seed, order=order)


@settings(max_examples=15)
@given(bodies(), st.integers(0, 99))
def test_random_bodies_with_vectors_of_256_bits(body: Body, seed: int) -> None:
    check(body, time=3, seed=seed, target=haswell())


# ------------------------------------------------------------------------------------ threads


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_threads(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "count", lambda: count)
    for batch in (1, 2, 7, 25):
        check(lstm(batch, 40), time=20)


def test_helpers_that_fell_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "count", lambda: 3)
    for _ in range(3):
        check(lstm(9, 40), time=20)
        time.sleep(0.03)


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [("2", "3", 2), (None, "3,2", 3), ("many", None, 4), ("99", "1", 4)],
)
def test_the_number_of_threads(
    own: str | None, others: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    for name, value in (("TINYGRADRNN_NUM_THREADS", own), ("OMP_NUM_THREADS", others)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert threads.count.__wrapped__() == expected


def test_runners_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "count", lambda: 3)
    body = lstm(9, 32)
    run = compile_loop(body)
    inputs, constants, carried = arrays_for(body, 30, 0)
    expected = [np.zeros((30, *v.shape)) for v in body.outputs]
    interpret(body, inputs, constants, carried, expected, range(30))
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            outputs = [np.zeros((30, *v.shape)) for v in body.outputs]
            run(inputs, constants, carried, outputs, range(30))
            if not all(np.allclose(x, y, 1e-12) for x, y in zip(outputs, expected, strict=True)):
                wrong.append("an output")

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


# ------------------------------------------------------------------------------- whole scans

CELLS = sorted(
    name
    for name in tgr.nn.__all__
    if name.endswith("Cell") and name not in ("Cell", "GatedCell", "AttentionCell", "HiddenCell")
    and "Dropout" not in name and "Zoneout" not in name
)  # fmt: skip


def both_ways(cell: Any, xs: Any, mode: str, **how: Any) -> list[Any]:
    x = tgr.tensor(xs, requires_grad=True)
    outputs, last = tgr.scan(cell, x, mode=mode, **how)
    leaves = tgr.tree.flatten((outputs, last))[0]
    weights = [np.cos(np.arange(leaf.size)).reshape(leaf.shape) for leaf in leaves]
    wanted = [x, *cell.parameters()]
    found = tgr.grad(leaves, wanted, weights, allow_unused=True)
    return [leaf.numpy() for leaf in leaves] + [g.numpy() for g in found if g is not None]


@pytest.mark.parametrize("name", CELLS)
def test_every_cell(name: str) -> None:
    make = getattr(tgr.nn, name)
    xs = np.random.default_rng(0).standard_normal((6, 2, 3))
    for how in ({}, {"lengths": [6, 3]}, {"reverse": True}):
        results: list[list[Any]] = []
        state: Any = None
        for backend, mode in (("numpy", "eager"), ("llvm", "compiled")):
            with tgr.use_backend(backend):
                cell = make(3, 4, dtype="float64")
                if state is None:
                    state = {k: np.array(v) for k, v in cell.state_dict().items()}
                cell.load_state_dict(state)
                results.append(both_ways(cell, xs, mode, **how))
        for x, y in zip(*results, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12 * max(1, np.abs(y).max()))
