"""At least one call of every operation: what the tests, a plugin's author and the oracles run.

A case has its inputs as NumPy arrays, so that it can be run on any backend and in any precision.
Values stay clear of kinks unless the case says that it sits on one; then only its forward value and
its documented gradient are compared, not finite differences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinygradrnn as tgr


@dataclass(frozen=True)
class Case:
    """One call of an operation.

    Attributes:
        op: The operation's name in the registry.
        label: What is special about the call.
        f: The call, as a function of Tensors.
        arrays: Its inputs: float64 arrays are differentiated, integers and booleans are not.
        kink: Whether it sits on a kink or a tie.
    """

    op: str
    label: str
    f: Callable[..., Any]
    arrays: tuple[Any, ...]
    kink: bool = False

    def __str__(self) -> str:
        return f"{self.op}-{self.label}"

    def tensors(self, dtype: str = "float64", backend: Any = None) -> list[Any]:
        """The inputs as Tensors; those of floating-point numbers require a gradient."""
        return [
            tgr.tensor(a, dtype=dtype, requires_grad=True, backend=backend)
            if a.dtype.kind == "f"
            else tgr.tensor(a, backend=backend)
            for a in self.arrays
        ]


def cases() -> list[Case]:
    """The table, always the same."""
    table: list[Case] = []
    rng = np.random.default_rng(20)

    def draw(*shape: int, low: float = -2.0, high: float = 2.0) -> Any:
        return np.asarray(rng.uniform(low, high, shape))

    def away(*shape: int) -> Any:
        """Values well away from integers and from zero, of both signs."""
        return np.asarray(rng.uniform(0.2, 0.8, shape) + rng.integers(0, 3, shape)) * rng.choice(
            [-1.0, 1.0], shape
        )

    def apart(*shape: int) -> Any:
        """Values of which no two are near each other."""
        n = int(np.prod(shape))
        return np.asarray(rng.permutation(n) * 0.37 - 0.18 * n + 0.05).reshape(shape)

    def case(op: str, label: str, f: Any, *arrays: Any, kink: bool = False) -> None:
        table.append(Case(op, label, f, arrays, kink))

    def call(name: str, **params: Any) -> Any:
        return lambda *xs: tgr.registry[name](*xs, **params)

    # ---- functions of one array, in every layout
    anywhere = {"exp", "expm1", "square", "sin", "cos", "tanh", "sigmoid", "softplus", "gelu"}
    anywhere |= {"negative", "positive"}
    bent = {"abs", "sign", "floor", "ceil", "round", "relu"}
    positive = {"log", "log1p", "sqrt"}
    for name in sorted(anywhere | bent | positive):
        make = {True: away, False: lambda *s: draw(*s, low=0.3, high=2.0)}[name not in positive]
        f = call(name)
        case(name, "matrix", f, make(2, 3))
        case(name, "0-d", f, make())
        case(name, "empty", f, make(0, 3))
        case(name, "transposed", lambda x, f=f: f(x.mT), make(2, 3))
        case(name, "strided", lambda x, f=f: f(x[::2, ::-1]), make(4, 3))
        case(name, "fan-out", lambda x, f=f: f(x) * x + f(x), make(3))
    for name in ("tanh", "sigmoid", "softplus", "gelu"):
        case(name, "saturated", call(name), np.array([-40.0, -3.0, 3.0, 40.0]))
    for name in ("abs", "sign", "relu"):
        case(name, "at the kink", call(name), np.array([-1.0, 0.0, 1.0]), kink=True)

    # ---- functions of two arrays
    pairs = [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2, 2)), ((2, 1, 2), (3, 1))]
    pairs += [((0, 3), (3,)), ((1,), (2, 0)), ((), ())]
    for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum", "pow"):
        f = call(name)
        for a, b in pairs:
            x, y = draw(*a, low=0.4), draw(*b, low=1.0)
            if name in ("maximum", "minimum"):
                x, y = away(*a), away(*b) + 0.11
            case(name, f"{a} {b}", f, x, y)
        case(name, "number on the right", lambda x, f=f: f(x, 1.5), draw(2, 2, low=0.4, high=1.2))
        case(name, "number on the left", lambda x, f=f: f(1.5, x), draw(2, 2, low=0.4, high=1.2))
        if name not in ("maximum", "minimum"):
            case(name, "itself twice", lambda x, f=f: f(x, x), draw(3, low=0.4))
    for name in ("remainder", "floor_divide"):
        x, y = np.array([[5.3, -5.3, 7.9], [0.4, 2.2, -0.6]]), np.array([2.0, 3.0, -2.5])
        case(name, "matrix and vector", call(name), x, y)
        case(name, "number on the right", lambda x, n=name: tgr.registry[n](x, 2.0), x)
    for exponent in (0, 1, 2, 3, 0.5, -1, -2.0):
        case("pow", f"** {exponent}", lambda x, e=exponent: x**e, draw(3, low=0.4))
    case("pow", "negative base", lambda x: x**3, np.array([-1.5, -0.3]))
    case("pow", "exponent zero", call("pow"), draw(3, low=0.4), np.zeros(3))
    zero = np.array([0.0, 0.0, 0.0, 2.0]), np.array([0.0, 1.0, 2.0, 0.0])
    case("pow", "base zero", call("pow"), *zero, kink=True)
    ties = np.array([1.0, 2.0, 2.0, 0.0]), np.array([1.0, 3.0, 2.0, 1.0])
    case("maximum", "ties", call("maximum"), *ties, kink=True)
    case("minimum", "ties", call("minimum"), *ties, kink=True)
    for bounds in ((-0.9, 0.9), (None, 0.9), (-0.9, None), (None, None)):
        case("clip", str(bounds), call("clip", min=bounds[0], max=bounds[1]), apart(2, 3))
    ends = np.array([-1.0, 1.0, 0.0, 2.0])
    case("clip", "at its ends", call("clip", min=-1, max=1), ends, kink=True)
    mask = np.array([[True, False, True], [False, False, True]])
    case("where", "matrices", call("where"), mask, draw(2, 3), draw(2, 3))
    case("where", "broadcast", call("where"), mask, draw(3), draw(2, 1))
    case("where", "number", lambda m, x: tgr.where(m, x, 0.0), mask, draw(2, 3))
    case("astype", "the same", lambda x: x.astype(x.dtype), draw(2, 3))

    # ---- products
    forms = [((2, 3), (3, 2)), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 2, 3), (3, 2))]
    forms += [((2, 2, 3), (2, 3, 2)), ((2, 3), (2, 3, 2)), ((2, 1, 2, 3), (2, 3, 2))]
    forms += [((3,), (2, 3, 2)), ((2, 2, 3), (3,)), ((0, 3), (3, 2)), ((2, 0), (0, 2))]
    for a, b in forms:
        case("matmul", f"{a} {b}", call("matmul"), draw(*a), draw(*b))
    case("matmul", "itself twice", lambda x: x @ x, draw(2, 2))
    case("matmul", "transposed", lambda x, y: x.mT @ y[::-1], draw(3, 2), draw(3, 2))

    def unrolled(x: Any, w: Any) -> Any:
        h = x
        for _ in range(3):
            h = tgr.tanh(h @ w)
        return h

    case("matmul", "a weight used at three steps", unrolled, draw(2, 3), draw(3, 3))
    case(
        "matmul",
        "a weight in products of all kinds",
        lambda x, w: (x @ w).sum() + (x[:1] @ w).sum() + (x[0] @ w).sum() + (w * w).sum(),
        draw(2, 3),
        draw(3, 2),
    )
    case(
        "add",
        "a bias used at three steps",
        lambda x, b: tgr.tanh(tgr.tanh(x + b) + b) * b,
        draw(2, 3),
        draw(3),
    )
    for lead in ((2,), (), (2, 2), (0,)):
        case("linear", f"{lead}", call("linear"), draw(*lead, 3), draw(2, 3), draw(2))
        case("linear", f"{lead} no bias", call("linear"), draw(*lead, 3), draw(2, 3))
    case("vecdot", "broadcast", call("vecdot"), draw(2, 3), draw(3))
    case("vecdot", "axis 0", call("vecdot", axis=0), draw(3, 2), draw(3, 2))
    case("tensordot", "2 axes", call("tensordot", axes=2), draw(2, 2, 3), draw(2, 3, 2))
    case("tensordot", "none", call("tensordot", axes=0), draw(2), draw(3))
    named = ([0, 2], [1, 0])
    case("tensordot", "named", call("tensordot", axes=named), draw(2, 2, 3), draw(3, 2, 2))

    # ---- reductions
    for axis in (None, 0, -1, (0, 2), (1,)):
        for keepdims in (False, True):
            params = {"axis": axis, "keepdims": keepdims}
            for name in ("sum", "mean", "var", "std", "logsumexp", "max", "min"):
                make = apart if name in ("max", "min") else draw
                case(name, f"{axis} {keepdims}", call(name, **params), make(2, 3, 2))
    for name in ("sum", "mean", "logsumexp", "max", "min", "prod"):
        case(name, "0-d", call(name), draw())
    case("sum", "empty", call("sum", axis=0), draw(0, 2))
    case("var", "corrected", call("var", correction=1), draw(4))
    case("std", "corrected", call("std", axis=0, correction=1), draw(4, 2))
    case("std", "all equal", call("std", axis=0), np.ones((3, 2)), kink=True)
    for axis in (-1, 0, (0, 2), None):
        case("standardize", f"{axis}", call("standardize", axis=axis), draw(3, 3, 4))
    case("standardize", "large eps", call("standardize", eps=0.5), draw(4))
    case("logsumexp", "large", call("logsumexp"), np.array([800.0, 801.0, -900.0]))
    for name in ("max", "min"):
        equal = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
        case(name, "ties", call(name, axis=1), equal, kink=True)
        case(name, "ties, all axes", call(name), equal, kink=True)
    for n in (1, 2, 3, 5):
        case("prod", f"of {n}", call("prod", axis=1), draw(2, n))
    holes = np.array([[0.0, 1.5, 2.0], [0.0, 0.0, -3.0]])
    case("prod", "zeros", call("prod", axis=1, keepdims=True), holes)
    case("prod", "two axes", call("prod", axis=(0, 2)), draw(2, 2, 2))
    case("prod", "empty", call("prod"), draw(0))
    for axis in (0, 1, -1):
        case("cumulative_sum", f"{axis}", call("cumulative_sum", axis=axis), draw(2, 3))
    case("cumulative_sum", "vector", call("cumulative_sum"), draw(4))
    more = {"axis": -1, "include_initial": True}
    case("cumulative_sum", "with a first zero", call("cumulative_sum", **more), draw(2, 3))

    # ---- shapes
    case("reshape", "inferred", call("reshape", shape=(3, -1)), draw(2, 3))
    case("reshape", "of a transposed", lambda x: x.mT.reshape(-1), draw(2, 3))
    case("permute_dims", "negative", call("permute_dims", axes=(2, 0, -2)), draw(2, 3, 2))
    case("matrix_transpose", "batch", call("matrix_transpose"), draw(2, 3, 2))
    case("moveaxis", "to the end", call("moveaxis", source=0, destination=-1), draw(2, 3, 2))
    case("expand_dims", "last", call("expand_dims", axis=-1), draw(2, 3))
    case("squeeze", "two", call("squeeze", axis=(0, 2)), draw(1, 3, 1))
    case("squeeze", "all", call("squeeze"), draw(1, 3, 1))
    case("broadcast_to", "up", call("broadcast_to", shape=(2, 3, 2)), draw(3, 1))
    for axis in (0, 1, -1):
        case("concat", f"{axis}", lambda x, y, a=axis: tgr.concat([x, y, x], a), *two(draw))
        case("stack", f"{axis}", lambda x, y, a=axis: tgr.stack([x, y, x], a), *two(draw))
        case("unstack", f"{axis}", call("unstack", axis=axis), draw(2, 3))
        case("flip", f"{axis}", call("flip", axis=axis), draw(2, 3))
        case("roll", f"{axis}", call("roll", shift=2, axis=axis), draw(2, 3))
    # Within their limits these are what they look like: the identity.
    case("gate", "", lambda x: tgr.gate(x), draw(2, 3))
    case("clip_cotangent", "norm", call("clip_cotangent", max_norm=1e3), draw(2, 3))
    case("clip_cotangent", "value", call("clip_cotangent", max_value=1e3), draw(2, 3))
    case("hold", "", lambda x, y: tgr.hold(x, y, tgr.equal(x, x)), *two(draw))
    case("hold", "some", lambda x, y: tgr.hold(x, y, tgr.tensor([[True], [False]])), *two(draw))
    case("trajectory", "", lambda x, y: tgr.trajectory([x, y, x]), *two(draw))
    case("unstack", "one used", lambda x: tgr.unstack(x)[1] * 2, draw(3, 2))
    case("split", "equal parts", call("split", sections=2, axis=-1), draw(2, 4))
    case("split", "sizes", call("split", sections=[1, 0, 2]), draw(3, 2))
    case("split", "some used", lambda x: tgr.split(x, 3)[1] * tgr.split(x, 3)[2], draw(6))
    case("flip", "all", call("flip"), draw(2, 3))
    case("roll", "flat", call("roll", shift=-4), draw(2, 3))
    case("roll", "two axes", call("roll", shift=(1, -1), axis=(0, 1)), draw(2, 3))

    # ---- indices
    keys: list[Any] = [0, -1, (slice(None), 1), slice(0, 2), (..., 0), None, (slice(None), None, 0)]
    keys += [(slice(None, None, 2), slice(1, 3)), slice(None, None, -1), slice(5, None, -2)]
    keys += [slice(0, 100), slice(2, 2)]
    for key in keys:
        case("getitem", str(key), lambda x, k=key: x[k], draw(3, 4, 2))
    i, j = np.array([2, 0, 2]), np.array([1, 1, -1])
    case("getitem", "integers", lambda x, i: x[i], draw(3, 4), i)
    case("getitem", "pairs", lambda x, i, j: x[i, j], draw(3, 4), i, j)
    case("getitem", "apart", lambda x, i, j: x[i, :, j], draw(3, 2, 3), i, j)
    case("getitem", "second axis", lambda x, i: x[:, i], draw(2, 3, 2), i)
    case("getitem", "beside a number", lambda x, i: x[0, i], draw(2, 3, 2), i)
    case("getitem", "mask", lambda x, m: x[m], draw(2, 3), mask)
    case("getitem", "mask of rows", lambda x, m: x[m, 1:], draw(3, 2), mask[0])
    case("getitem", "empty mask", lambda x, m: x[m], draw(2), np.array([False, False]))
    case("place", "slice", call("place", key=(slice(1, 3),), shape=(4, 2)), draw(2, 2))
    case("place", "new axis", call("place", key=(None, 1), shape=(3, 2)), draw(1, 2))
    many = np.array([[2, 0], [2, -1]])
    case("take", "repeated", call("take", axis=0), draw(3, 2), i)
    case("take", "table", call("take", axis=-1), draw(2, 3), many)
    case("take", "none", call("take", axis=0), draw(3, 2), np.zeros(0, np.int64))
    case("add_at", "repeated", call("add_at", size=4), draw(3, 2), i)
    case("add_at", "table", call("add_at", size=3, axis=1), draw(2, 2, 2), many)
    along = np.array([[1, 0, 1], [0, 0, 1]])
    case("take_along_axis", "0", call("take_along_axis", axis=0), draw(2, 3), along)
    case("take_along_axis", "broadcast", call("take_along_axis"), draw(2, 3), along[:1, :2])

    # ---- losses and the recurrence
    for name in ("softmax", "log_softmax"):
        for axis in (0, -1):
            case(name, f"{axis}", call(name, axis=axis), draw(2, 3))
        case(name, "large", call(name), np.array([800.0, 801.0, 790.0]))
    target = np.array([2, 0])
    for how in ("mean", "sum", "none"):
        case("cross_entropy", how, call("cross_entropy", reduction=how), draw(2, 3), target)
        case("mse", how, call("mse", reduction=how), draw(2, 3), draw(2, 3))
    case("cross_entropy", "time", call("cross_entropy"), draw(2, 2, 3), np.array([[0, 1], [2, 2]]))
    for time in (0, 1, 2, 5):
        f = call("linear_recurrence")
        case("linear_recurrence", f"{time} steps", f, draw(time, 2), draw(time, 2))
        case("linear_recurrence", f"{time} from", f, draw(time, 2), draw(time, 2), draw(2))
    factors = call("linear_recurrence")
    case("linear_recurrence", "one factor", lambda b: factors(b, 0.5), draw(3, 2))
    for shape in ((2,), (3, 1), ()):
        case("linear_recurrence", f"factors {shape}", factors, draw(3, 2), draw(*shape), draw(2))
    case("transfer", "and back", lambda x: x.to("numpy").to(x.backend) * 2, draw(2, 3))
    case("transfer", "home", lambda x: tgr.transfer(x, x.backend, x.backend), draw(2, 3))

    # ---- what has no gradient
    x, y = np.array([[1.0, -2.0, 3.0]]), np.array([1.0, 2.0, -3.0])
    for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
        case(name, "broadcast", call(name), x, y)
    a, b = np.array([True, False, True]), np.array([[True], [False]])
    for name in ("logical_and", "logical_or", "logical_xor"):
        case(name, "broadcast", call(name), a, b)
    case("logical_not", "vector", call("logical_not"), a)
    odd = np.array([1.0, np.inf, -np.inf, np.nan])
    for name in ("isnan", "isinf", "isfinite"):
        case(name, "odd", call(name), odd, kink=True)
    for name in ("zeros_like", "ones_like"):
        case(name, "matrix", call(name), x)
    for name in ("argmax", "argmin"):
        case(name, "axis", call(name, axis=1, keepdims=True), apart(2, 3))
        case(name, "all", call(name), apart(2, 3))
    for name in ("any", "all"):
        case(name, "axis", call(name, axis=0), np.array([[True, False], [True, True]]))
    case("nonzero", "matrix", call("nonzero"), mask)
    case("flat_positions", "axis 1", call("flat_positions", shape=(2, 3), axis=1), along)
    case("ravel_index", "pair", lambda i, j: tgr.ravel_index([i, j], sizes=(3, 4)), i, j)
    case("sum", "of booleans", call("sum"), mask)
    return table


def two(draw: Any) -> tuple[Any, Any]:
    """Two arrays to be joined."""
    return draw(2, 3), draw(2, 3)
