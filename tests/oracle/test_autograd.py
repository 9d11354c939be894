"""Gradients against HIPS autograd, for the operations that it has, and whole recurrent cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr

pytestmark = pytest.mark.oracle

UNARY = ["exp", "expm1", "log", "log1p", "sqrt", "square", "abs", "tanh", "sin", "cos", "negative"]
BINARY = ["add", "subtract", "multiply", "divide", "maximum", "minimum", "matmul"]
REDUCTIONS = ["sum", "mean", "prod", "max", "min", "var", "std"]


def compare(f: Any, theirs: Any, arrays: list[Any]) -> None:
    import autograd

    xs = [tgr.tensor(a, requires_grad=True) for a in arrays]
    y = f(*xs)
    rng = np.random.default_rng(1)
    up = rng.standard_normal(y.shape)
    found = tgr.grad(y, xs, tgr.tensor(up))
    for i, g in enumerate(found):
        expected = autograd.grad(lambda *a: (theirs(*a) * up).sum(), i)(*arrays)
        np.testing.assert_allclose(g.numpy(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str) -> None:
    import autograd.numpy as anp

    x = np.random.default_rng(0).uniform(0.2, 2, (3, 4))
    compare(tgr.registry[name], getattr(anp, name), [x])


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("shapes", [((3, 4), (4, 4)), ((4,), (4, 4)), ((2, 3, 4), (4, 4))])
def test_binary(name: str, shapes: tuple[Any, Any]) -> None:
    import autograd.numpy as anp

    rng = np.random.default_rng(0)
    a, b = (rng.uniform(0.2, 2, s) for s in shapes)
    if name != "matmul":
        b = b[:1]
    compare(tgr.registry[name], getattr(anp, name), [a, b])


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_reduction(name: str, axis: Any) -> None:
    import autograd.numpy as anp

    x = np.random.default_rng(0).uniform(0.2, 2, (3, 4))
    compare(
        lambda x: tgr.registry[name](x, axis=axis), lambda x: getattr(anp, name)(x, axis=axis), [x]
    )


def test_an_unrolled_network() -> None:
    import autograd.numpy as anp

    rng = np.random.default_rng(0)
    xs, w, u, b = (rng.standard_normal(s) * 0.5 for s in ((7, 2, 3), (3, 4), (4, 4), (4,)))

    def unroll(tanh: Any, stack: Any) -> Any:
        def f(xs: Any, w: Any, u: Any, b: Any) -> Any:
            h, hs = np.zeros((2, 4)), []
            for t in range(7):
                h = tanh(xs[t] @ w + h @ u + b)
                hs.append(h)
            return stack(hs)

        return f

    compare(unroll(tgr.tanh, tgr.stack), unroll(anp.tanh, anp.stack), [xs, w, u, b])
