"""The CuPy backend's loops without a GPU: the kernels compile, and compute what NumPy does.

NVRTC needs no GPU to compile for one. And as the kernels are plain C++, a compiler for the host
makes functions of them, which take the GPU's place in a backend of NumPy arrays.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygradrnn as tgr
from tinygradrnn import nn, tree
from tinygradrnn.loop import Body, Call, Runner, Var
from tinygradrnn_cupy.functions import OPERATIONS, TYPES
from tinygradrnn_cupy.kernels import kernels, source
from tinygradrnn_cupy.loops import Device, compile_loop
from tinygradrnn_numpy import NumpyBackend

# ------------------------------------------------------------------- a GPU's place taken by a CPU

# Declared by hand: reading <cmath> takes longer than all the rest.
HOST = """
#define ONE(name) inline double name(double a) { return __builtin_##name(a); } \\
    inline float name(float a) { return __builtin_##name##f(a); }
#define TWO(name) inline double name(double a, double b) { return __builtin_##name(a, b); } \\
    inline float name(float a, float b) { return __builtin_##name##f(a, b); }
ONE(exp) ONE(expm1) ONE(log) ONE(log1p) ONE(sqrt) ONE(sin) ONE(cos) ONE(tanh)
ONE(floor) ONE(ceil) ONE(rint) ONE(fabs) TWO(pow) TWO(fmod) TWO(copysign)
#define __global__
#define __device__
struct Index { int x; };
static thread_local Index blockIdx, threadIdx;
"""


def compiler() -> str:
    found = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if found is None:
        pytest.skip("no C++ compiler for the host (g++)")
    return found


class StandIn:
    """What a loop uses of CuPy, for NumPy arrays."""

    class RawModule:
        def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
            lines = [HOST, code]
            self.types: dict[str, list[str]] = {}
            for name, text in re.findall(r'extern "C" __global__ void (\w+)\((.*?)\)', code):
                parameters = text.split(", ")
                self.types[name] = [p.split("*")[0].removeprefix("const ") for p in parameters]
                pointers = ", ".join(f"({t}*)p[{n}]" for n, t in enumerate(self.types[name]))
                lines.append(
                    f'extern "C" void all_{name}(int blocks, void** p) {{'
                    f" for (int i = 0; i < 256 * blocks; i++) {{"
                    f" blockIdx.x = i / 256; threadIdx.x = i % 256; {name}({pointers}); }} }}"
                )
            self.library = build("\n".join(lines))

        def get_function(self, name: str) -> Callable[..., None]:
            run, types = getattr(self.library, f"all_{name}"), self.types[name]

            def launch(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
                assert block == (256,)
                assert [TYPES[x.dtype] for x in arguments] == types
                assert all(x.flags.c_contiguous for x in arguments)
                addresses = [x.ctypes.data for x in arguments]
                run(*grid, (ctypes.c_void_p * len(types))(*addresses))

            return launch

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


MACHINE = Device(StandIn(), nullcontext())


@cache
def build(text: str) -> ctypes.CDLL:
    with TemporaryDirectory() as folder:
        path = Path(folder, "kernels.cpp")
        path.write_text(text)
        library = path.with_suffix(".so")
        flags = ["-std=c++17", "-O0", "-w", "-fPIC", "-shared", "-fwrapv", "-ffp-contract=off"]
        command = [compiler(), *flags, str(path), "-o", str(library)]
        made = subprocess.run(command, capture_output=True, text=True)
        assert made.returncode == 0, f"{made.stderr}\n{text}"
        return ctypes.CDLL(str(library))


class Generated(NumpyBackend):
    """NumPy arrays, but loops as on a GPU."""

    name = "generated"
    # As the library's own: a scan looks through the code of everything else that a cell refers to,
    # and the generator of a cell's random numbers refers to its backend.
    __module__ = "tinygradrnn"

    def __init__(self, fuses: bool = False) -> None:
        super().__init__()
        self.fuses_from = 1 if fuses else None  # type: ignore[misc]

    def compile_loop(self, body: Body) -> Runner | None:
        return compile_loop(body, MACHINE)


@cache
def generated(fuses: bool = False) -> Generated:
    compiler()
    return Generated(fuses)


# ------------------------------------------------------------------------------------- every cell

SIZES = (3, 4)


def rng() -> Any:
    return tgr.current_backend().rng(1)


CELLS: dict[str, Callable[[str], Any]] = {
    **{
        kind.__name__: lambda dtype, kind=kind: kind(*SIZES, dtype=dtype, rng=rng())
        for kind in (
            *(nn.RNNCell, nn.GRUCell, nn.LSTMCell, nn.ConcatRNNCell, nn.IndRNNCell),
            *(nn.ChoGRUCell, nn.MinimalGatedCell, nn.LayerNormGRUCell, nn.MinGRUCell),
            *(nn.MinLSTMCell, nn.PeepholeLSTMCell, nn.CoupledLSTMCell, nn.LayerNormLSTMCell),
        )
    },
    "DropoutLSTMCell": lambda dtype: nn.DropoutLSTMCell(*SIZES, dtype=dtype, rng=rng()).eval(),
    "VariationalDropout": lambda dtype: nn.VariationalDropout(
        nn.GRUCell(*SIZES, dtype=dtype, rng=rng()), state=0.3, input=0.2, rng=rng()
    ),
    "Zoneout": lambda dtype: nn.Zoneout(
        nn.LSTMCell(*SIZES, dtype=dtype, rng=rng()), 0.3, rng=rng()
    ).eval(),
    "Stacked": lambda dtype: nn.Stacked(
        nn.LSTMCell(*SIZES, dtype=dtype, rng=rng()),
        nn.Residual(nn.GRUCell(4, 4, dtype=dtype, rng=rng())),
    ),
    "AttentionCell": lambda dtype: nn.AttentionCell(
        nn.GRUCell(3 + 2, 4, dtype=dtype, rng=rng()), 2, 3, dtype=dtype, rng=rng()
    ).over(tgr.tensor(np.random.default_rng(5).standard_normal((5, 2, 2)), dtype=dtype)),
}


def results(make: Any, dtype: str, mode: str, time: int = 7, **options: Any) -> list[Any]:
    """Outputs, last state, states on the way, and the gradients of everything."""
    cell = make(dtype)
    values = np.random.default_rng(0).standard_normal((time, 2, 3))
    xs = tgr.tensor(values, dtype=dtype, requires_grad=True)
    outputs, last, states = tgr.scan(
        cell, xs, cell.initial_state(2), return_states=True, mode=mode, **options
    )
    leaves = tree.flatten((outputs, last, states))[0]
    loss: Any = sum(tgr.sum(tgr.sin(leaf)) for leaf in leaves if "float" in str(leaf.dtype))
    wanted = [xs, *cell.parameters()]
    found = tgr.grad(loss, wanted, allow_unused=True)
    return [x.numpy() for x in (*leaves, *[g for g in found if g is not None])]


def agree(found: list[Any], expected: list[Any], dtype: str) -> None:
    tolerance = {"float64": 1e-11, "float32": 2e-5}[dtype]
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


OPTIONS: list[dict[str, Any]] = [{}, {"lengths": [7, 3]}, {"reverse": True}, {"checkpoint": 3}]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("dtype", "fuses"), [("float64", False), ("float32", True)])
def test_every_cell(name: str, dtype: str, fuses: bool) -> None:
    backend = generated(fuses)
    for options in OPTIONS:
        expected = results(CELLS[name], dtype, "eager", **options)
        with tgr.use_backend(backend):
            agree(results(CELLS[name], dtype, "compiled", **options), expected, dtype)


# ---------------------------------------------------------------------------- bodies made by hand


def function(name: str) -> Callable[..., Any]:
    """An operation on NumPy arrays, as a body is given it."""
    operation: Any = tgr.registry[name]
    backend = tgr.get_backend("numpy")
    found = operation._forwards.get(backend) or operation._forward_on(backend)
    return (lambda *arrays, **how: found(list(arrays), **how)) if operation.variadic else found


class Program:
    """A body that is made call by call, together with what it computes in one step."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.values: dict[Var, Any] = {}

    def var(self, value: Any) -> Var:
        v = Var(value.shape, value.dtype, f"v{len(self.values)}")
        self.values[v] = value
        return v

    def call(self, op: str, *inputs: Any, **params: Any) -> Var:
        with np.errstate(all="ignore"):
            arrays = [self.values[x] if isinstance(x, Var) else x for x in inputs]
            out = self.var(np.asarray(function(op)(*arrays, **params)))
        self.calls.append(Call(op, inputs, params, out))
        return out

    def body(self, **parts: Any) -> Body:
        functions = {c.op: function(c.op) for c in self.calls}
        empty: Any = {"inputs": [], "constants": [], "carried": [], "outputs": []}
        return Body(calls=self.calls, functions=functions, **(empty | parts))


def steps(body: Body, inputs: Any, constants: Any, carried: Any, order: range) -> Any:
    """What a body computes, call by call."""
    outputs = [np.zeros((len(order), *v.shape), v.dtype) for v in body.outputs]
    state = list(carried)
    for t in order:
        values = dict(zip(body.constants, constants, strict=True))
        values.update(zip(body.inputs, [x[t, ...] for x in inputs], strict=True))
        values.update(zip([a for a, _ in body.carried], state, strict=True))
        for c in body.calls:
            arrays = [values[x] if isinstance(x, Var) else x for x in c.inputs]
            values[c.output] = np.asarray(body.functions[c.op](*arrays, **c.params))
        for out, v in zip(outputs, body.outputs, strict=True):
            out[t] = values[v]
        state = [np.array(values[b]) for _, b in body.carried]
    return outputs, state


def run(body: Body, inputs: Any, constants: Any, carried: Any, order: range) -> Any:
    """The same by kernels."""
    compiler()
    runner = compile_loop(body, MACHINE)
    assert runner is not None
    outputs = [np.zeros((len(order), *v.shape), v.dtype) for v in body.outputs]
    return outputs, runner(inputs, constants, carried, outputs, order)


FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, 1e-3, 5.3, -5.3, 40.0, -40.0]
FLOATS += [1e30, np.inf, -np.inf, np.nan]
NUMBERS: dict[str, list[Any]] = {
    "float32": FLOATS,
    "float64": FLOATS,
    "bool": [False, True],
    "int64": [0, 1, -1, 2, -2, 7, -7, 100, 2**63 - 1, -(2**63)],
    "int8": [0, 1, -1, 2, -2, 7, -7, 100, 127, -128],
    "uint8": [0, 1, 2, 7, 100, 255],
}


def arguments(name: str, dtype: str) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Calls of an operation of each element: arrays are marked by their number among all pairs."""
    operation: Any = tgr.registry[name]
    number: Any = True if dtype == "bool" else 3 if "int" in dtype else 1.5
    params: list[dict[str, Any]] = [{}]
    if name == "clip":
        params = [{"min": a, "max": b} for a, b in [(-1, 2), (None, 2), (1, None), (None, None)]]
        params += [{"min": 2, "max": -1}]
    elif name == "astype":
        params = [{"dtype": np.dtype(d)} for d in NUMBERS]
    count = len(operation.arrays)
    if name == "where":
        yield from (([0, *pair], {}) for pair in [(1, 2), (1, number), (number, 1)])
    elif count == 1:
        yield from (([1], how) for how in params)
    else:
        two = 2 if dtype != "bool" else True
        yield from (([*pair], {}) for pair in [(1, 2), (1, number), (number, 1), (1, two)])


def warns_nothing(x: Any, dtype: Any) -> bool:
    """Whether a cast from floats is defined."""
    return np.dtype(dtype).kind in "fb" or x.dtype.kind != "f"


def every_operation(dtype: str) -> tuple[Body, list[Any], list[str]]:
    """A body that calls every operation of each element, its inputs and what it calls."""
    pairs = list(itertools.product(NUMBERS[dtype], repeat=2))
    one, two = (np.array(column, dtype) for column in zip(*pairs, strict=True))
    if "float" in dtype:  # quotients that rounding brings just below an integer are among these
        rng = np.random.default_rng(0)
        one = np.append(one, rng.uniform(-1e6, 1e6, 200).astype(dtype))
        two = np.append(two, rng.uniform(-3, 3, 200).astype(dtype))
    program = Program()
    arrays = [np.arange(len(one)) % 3 == 0, one, two]
    variables = [program.var(x) for x in arrays]
    found: dict[Var, str] = {}
    for name in sorted(OPERATIONS):
        for inputs, params in arguments(name, dtype):
            if name == "astype" and not warns_nothing(one, params["dtype"]):
                continue
            # A bool is no mark: True is a number here.
            given = [variables[x] if type(x) is int and x < 3 else x for x in inputs]
            try:
                v = program.call(name, *given, **params)
            except (TypeError, ValueError, OverflowError, tgr.errors.DtypeError):
                continue  # NumPy has no such function
            found[v] = f"{name} {inputs} {params}"
    body = program.body(inputs=variables, outputs=list(found))
    return body, [np.stack([x, x[::-1]]) for x in arrays], list(found.values())


@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_operation_of_each_element(dtype: str) -> None:
    body, columns, found = every_operation(dtype)
    with np.errstate(all="ignore"):
        expected, _ = steps(body, columns, [], [], range(2))
        outputs, _ = run(body, columns, [], [], range(2))
    text = body.notes["source"]
    assert len(found) > len(OPERATIONS) or dtype in ("bool", "uint8")
    if "float" in dtype:
        assert set(body.notes["stages"]) == {k for k in body.notes["stages"] if k in text}
    for a, b, what in zip(outputs, expected, found, strict=True):
        exact = {"float32": 3e-6, "float64": 1e-14}.get(str(a.dtype), 0)
        np.testing.assert_allclose(a, b, rtol=exact, atol=exact / 10, err_msg=what)
        if "round" not in what and "floor" not in what and a.dtype.kind == "f":
            continue
        np.testing.assert_array_equal(np.signbit(a), np.signbit(b), err_msg=what)


def test_every_operation_that_says_so_is_of_each_element() -> None:
    known = {name for name, f in tgr.registry.items() if getattr(f, "elementwise", False)}
    assert known == OPERATIONS


# ------------------------------------------------------------------------------- random programs

SHAPES = [(), (3,), (2, 3), (2, 1), (3, 2), (1, 3), (2, 2, 3), (6,), (2, 0)]


def random_call(program: Program, rng: np.random.Generator) -> Var:
    """One more call, of anything that fits."""

    def pick(fits: Callable[[Var], bool] = lambda v: True) -> Var:
        found = [v for v in program.values if fits(v)]
        if not found:
            raise ValueError("nothing fits")
        # What came last more often: chains are long then.
        return found[-1 - min(int(rng.geometric(0.2)), len(found)) + 1]

    def key(shape: tuple[int, ...]) -> tuple[Any, ...]:
        made: list[Any] = []
        for n in shape:
            step = int(rng.choice([1, 1, 2, -1]))
            a, b = sorted(rng.integers(0, n + 1, 2).tolist())
            ends = slice(a, b, step) if step > 0 else slice(b - 1 if b else 0, None, step)
            made += [None] * (rng.random() < 0.1)
            made.append(int(rng.integers(n)) if n and rng.random() < 0.3 else ends)
        return tuple(made)

    op = str(
        rng.choice(
            [
                *("add", "multiply", "clip", "where", "maximum", "less", "negative", "subtract"),
                *("getitem", "getitem", "getitem", "reshape", "expand_dims", "squeeze", "flip"),
                *("permute_dims", "matrix_transpose", "broadcast_to", "concat", "stack", "place"),
                *("sum", "matmul", "cumulative_sum", "astype", "zeros_like"),
            ]
        )
    )
    real = lambda v: v.dtype.kind == "f"  # noqa: E731
    if op in ("add", "multiply", "maximum", "less", "subtract"):
        other = pick(real) if rng.random() < 0.8 else float(rng.uniform(-1, 1))
        return program.call(op, pick(real), other)
    if op == "where":
        return program.call(op, pick(lambda v: v.dtype.kind == "b"), pick(real), pick(real))
    x = pick(real)
    n = len(x.shape)
    if op == "getitem":
        return program.call(op, x, key=tgr.ops.indexing.resolve_key(key(x.shape), x.shape))
    if op == "place":
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        where = key(shape)
        x = pick(lambda v: real(v) and v.shape == np.zeros(shape)[where].shape)
        return program.call(op, x, key=where, shape=shape)
    if op in ("concat", "stack"):
        axis = int(rng.integers(n + (op == "stack")))
        like = [v for v in program.values if v.shape == x.shape and v.dtype == x.dtype]
        pieces = [like[i] for i in rng.integers(0, len(like), int(rng.integers(1, 4)))]
        return program.call(op, *pieces, axis=axis)
    if op == "matmul":
        y = pick(lambda v: v.dtype == x.dtype and v.shape[:1] == x.shape[-1:] and len(v.shape) < 3)
        return program.call(op, x, y)
    params: dict[str, Any] = {}
    if op == "reshape":
        size = int(np.prod(x.shape))
        fitting = [s for s in [*SHAPES, (size,), (1, size)] if np.prod(s, dtype=int) == size]
        params["shape"] = fitting[int(rng.integers(len(fitting)))]
    elif op == "broadcast_to":
        params["shape"] = (2, *[3 if k == 1 else k for k in x.shape])
    elif op == "permute_dims":
        params["axes"] = tuple(rng.permutation(n).tolist())
    elif op in ("expand_dims", "sum", "flip", "cumulative_sum"):
        params["axis"] = int(rng.integers(n + 1) if op == "expand_dims" else rng.integers(-n, n))
        params |= {"keepdims": False} if op == "sum" else {}
        params |= {"include_initial": False} if op == "cumulative_sum" else {}
    elif op == "squeeze":
        params["axis"] = None
    elif op == "clip":
        params |= {"min": -1.0, "max": 1.0}
    elif op == "astype":
        params["dtype"] = np.dtype(rng.choice(["float32", "float64"]))
    return program.call(op, x, **params)


@given(st.integers(0, 2**32 - 1))
def test_random_programs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = Program()

    def some(count: int) -> list[Var]:
        shapes = [SHAPES[i] for i in rng.integers(0, len(SHAPES), count)]
        return [program.var(np.asarray(rng.standard_normal(s))) for s in shapes]

    inputs, constants, entering = some(3), some(2), some(4)
    mask = program.var(rng.random((2, 1)) < 0.5)
    while len(program.calls) < 25:
        with suppress(ValueError, IndexError, tgr.errors.TinygradrnnError):
            random_call(program, rng)
    every = list(program.values)
    alike = {a: [v for v in every if (v.shape, v.dtype) == (a.shape, a.dtype)] for a in entering}
    carried = [(a, alike[a][int(rng.integers(len(alike[a])))]) for a in entering]
    later = [*entering, *[c.output for c in program.calls]]
    outputs = [later[i] for i in sorted(set(rng.integers(0, len(later), 6).tolist()))]
    body = program.body(
        inputs=[*inputs, mask], constants=constants, carried=carried, outputs=outputs
    )
    columns: list[Any] = [np.asarray(rng.standard_normal((5, *v.shape))) for v in inputs]
    columns[0] = np.array(columns[0], order="F")
    columns[1] = np.broadcast_to(columns[1][0], columns[1].shape)
    columns.append(rng.random((5, 2, 1)) < 0.5)
    same = [np.array(program.values[v], order="F") for v in constants]
    state = [program.values[a] for a in entering]
    given = [*columns, *same, *state]
    before = [np.array(x) for x in given]
    order = range(4, -1, -1) if seed % 2 else range(5)
    tolerance = 1e-4 if np.dtype("float32") in {v.dtype for v in every} else 1e-10
    with np.errstate(all="ignore"):
        expected, ends = steps(body, columns, same, state, order)
        found, left = run(body, columns, same, state, order)
    for a, b in zip([*found, *left], [*expected, *ends], strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    for a, b in zip(given, before, strict=True):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------------------------ and details


def stages(make: Any) -> dict[str, list[str]]:
    """What a cell's loops do at each step."""
    found: dict[str, list[str]] = {}

    class Listing(Generated):
        def compile_loop(self, body: Body) -> Runner | None:
            runner = super().compile_loop(body)
            found[body.name] = body.notes["stages"]
            return runner

    compiler()
    with tgr.use_backend(Listing()):
        results(make, "float32", "compiled")
    return found


def test_a_step_is_few_kernels() -> None:
    found = stages(lambda dtype: nn.LSTMCell(*SIZES, dtype=dtype))
    assert found["LSTMCell forward"] == ["matmul", "k0_LSTMCell_forward"]
    assert len(found["LSTMCell backward"]) <= 3


def test_what_kernels_do_not_know_is_left_to_functions() -> None:
    program = Program()
    x, h = (program.var(np.linspace(-1, 1, 6, dtype="float16").reshape(2, 3)) for _ in range(2))
    y = program.call("add", program.call("tanh", x), h)
    left = program.call("getitem", y, key=(slice(0, 2, 1), slice(0, 2, 1)))
    both = program.call(
        "concat", left, program.call("getitem", x, key=(slice(0, 2, 1), slice(2, 3, 1))), axis=1
    )
    body = program.body(inputs=[x], carried=[(h, both)], outputs=[left, h])
    columns, begin = np.linspace(-1, 1, 30, dtype="float16").reshape(5, 2, 3), program.values[h]
    expected, ends = steps(body, [columns], [], [begin], range(5))
    found, last = run(body, [columns], [], [begin], range(5))
    assert not any(stage.startswith("k0") for stage in body.notes["stages"])
    for a, b in zip([*found, *last], [*expected, *ends], strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_arrays_than_a_kernel_takes() -> None:
    program = Program()
    h = program.var(np.ones(3))
    many = [program.call("multiply", h, 1.0 + k) for k in range(1000)]
    body = program.body(carried=[(h, h)], outputs=many)
    found, _ = run(body, [], [], [np.ones(3)], range(2))
    np.testing.assert_array_equal([x[1, 2] for x in found], np.arange(1.0, 1001.0))
    assert all(len(k.slots) <= 480 for k in kernels(body))
    # One element of all of them is more than one kernel can do.
    program = Program()
    inputs = [program.var(np.ones(3)) for _ in range(500)]
    total = inputs[0]
    for x in inputs[1:]:
        total = program.call("add", total, x)
    assert compile_loop(program.body(inputs=inputs, outputs=[total]), MACHINE) is None


def test_a_chain_of_thousands() -> None:
    program = Program()
    h = start = program.var(np.ones(3))
    for _ in range(3999):
        h = program.call("add", h, 1.0)
    _, (last,) = run(program.body(carried=[(start, h)]), [], [], [np.zeros(3)], range(2))
    np.testing.assert_array_equal(last, [7998.0] * 3)


def test_states_that_change_places_and_stand_in_line() -> None:
    program = Program()
    a, b, c, x = (program.var(np.ones(2)) for _ in range(4))
    body = program.body(inputs=[x], carried=[(a, x), (b, a), (c, b)], outputs=[c])
    columns, zero = np.arange(10.0).reshape(5, 2), [np.zeros(2)] * 3
    expected, ends = steps(body, [columns], [], zero, range(5))
    found, last = run(body, [columns], [], zero, range(5))
    np.testing.assert_array_equal([*last, found[0][4]], [*ends, expected[0][4]])
    assert not any(np.shares_memory(x, columns) for x in found)


def test_outputs_of_any_layout() -> None:
    program = Program()
    h = program.var(np.ones((2, 3)))
    y = program.call("add", h, 1.0)
    runner = compile_loop(program.body(carried=[(h, y)], outputs=[y]), MACHINE)
    assert runner is not None
    out = np.zeros((3, 2, 4)).transpose(2, 1, 0)
    (last,) = runner([], [], [np.zeros((2, 3))], [out], range(3, -1, -1))
    np.testing.assert_array_equal(out[:, 1, 1], [4, 3, 2, 1])
    np.testing.assert_array_equal(last, np.full((2, 3), 4.0))


def test_several_threads_at_once() -> None:
    program = Program()
    h, w = program.var(np.ones((2, 3))), program.var(np.ones((3, 3)))
    new = program.call("clip", program.call("matmul", h, w), min=-5.0, max=5.0)
    body = program.body(constants=[w], carried=[(h, new)], outputs=[new])
    compiler()
    runner = compile_loop(body, MACHINE)
    assert runner is not None

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        weight, begin = rng.standard_normal((3, 3)), rng.standard_normal((2, 3))
        out = np.zeros((200, 2, 3))
        runner([], [weight], [begin], [out], range(200))
        (expected,), _ = steps(body, [], [weight], [begin], range(200))
        np.testing.assert_array_equal(out, expected)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(16)))


# -------------------------------------------------------------------------- NVIDIA's own compiler


@cache
def nvrtc() -> ctypes.CDLL:
    """NVIDIA's compiler, from its package on PyPI: it asks for no GPU and no driver."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for builtins in Path(folder).glob("*/lib/libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)  # it is looked for by its name
            (library,) = builtins.parent.glob("libnvrtc.so.*")
            return ctypes.CDLL(str(library))
    pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc")


def compiled(text: str) -> str:
    """The PTX of CUDA C++, once it has become code for a GPU."""
    library = nvrtc()
    program = ctypes.c_void_p()

    def get(what: str) -> str:
        size = ctypes.c_size_t()
        assert getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
        buffer = ctypes.create_string_buffer(size.value)
        assert getattr(library, f"nvrtcGet{what}")(program, buffer) == 0
        return buffer.raw.decode(errors="replace")

    made = library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), None, 0, None, None)
    assert made == 0
    try:
        # The others are what CuPy adds to ours.
        flags = [b"--std=c++17", b"--gpu-architecture=sm_90", b"-ftz=true"]
        flags += [b"--device-as-default-execution-space"]
        array = (ctypes.c_char_p * len(flags))(*flags)
        status = library.nvrtcCompileProgram(program, len(flags), array)
        assert status == 0, f"{get('ProgramLog')}\n{text}"
        assert get("CUBIN").startswith("\x7fELF")
        return get("PTX")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


class Keeping(NumpyBackend):
    """Keeps the bodies that it runs."""

    name = "keeping"
    __module__ = "tinygradrnn"  # as above

    def __init__(self, fuses: bool) -> None:
        super().__init__()
        self.fuses_from = 1 if fuses else None  # type: ignore[misc]

    def compile_loop(self, body: Body) -> Runner | None:
        BODIES.append(body)
        return super().compile_loop(body)


BODIES: list[Body] = []


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_compiles_for_a_gpu(name: str) -> None:
    nvrtc()
    for dtype, fuses in itertools.product(["float32", "float64"], [False, True]):
        BODIES.clear()
        with tgr.use_backend(Keeping(fuses)):
            results(CELLS[name], dtype, "compiled", lengths=[7, 3])
        assert len(BODIES) > 1
        for body in BODIES:
            text = compiled(source(kernels(body)))
            assert ".entry k0_" in text
            assert (dtype == "float64") == (".f64" in text)  # as slow as that is on many GPUs


@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_operation_compiles_for_a_gpu(dtype: str) -> None:
    compiled(source(kernels(every_operation(dtype)[0])))


def test_an_error_in_cuda_is_found() -> None:
    nvrtc()
    with pytest.raises(AssertionError, match="undefined"):
        compiled('extern "C" __global__ void k(float* p) { p[0] = undefined; }')


def test_arrays_of_more_elements_than_an_int_counts() -> None:
    program = Program()
    x = Var((2**16, 2**16), np.dtype("float32"))
    y = Var((2**16, 2**16), np.dtype("float32"))
    program.calls.append(Call("tanh", (x,), {}, y))
    body = program.body(inputs=[x], outputs=[y])
    (kernel,) = kernels(body)
    assert "const long long i = (long long)blockIdx.x" in kernel.source
    compiled(source([kernel]))
