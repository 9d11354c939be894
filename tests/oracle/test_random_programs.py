"""Random compositions of operations against PyTorch: values, gradients, gradients of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr

pytestmark = pytest.mark.oracle

N = 3


def compose(seed: int, xs: list[Any], lib: Any, flip: Any) -> Any:
    """A program drawn from `seed`, the same for both libraries, and the sum of its squares.

    `lib` has the functions by our names; `flip` reverses the first axis.
    """
    rng = np.random.default_rng(seed)
    pool = list(xs)
    for _ in range(int(rng.integers(4, 14))):
        kind = int(rng.integers(7))
        a, b = (pool[int(rng.integers(len(pool)))] for _ in range(2))
        name = str(rng.choice(["tanh", "sigmoid", "exp", "sin", "square", "abs"]))
        pair = str(rng.choice(["add", "multiply", "subtract", "maximum"]))
        whole = a.ndim >= 1 and a.shape[-1] == N
        if kind <= 1:
            pool.append(getattr(lib, name)(lib.tanh(a)))
        elif kind == 2 and b.shape == pool[0].shape:
            pool.append(getattr(lib, pair)(a if whole and a.ndim <= 2 else b, b))
        elif kind == 3 and whole:
            pool.append(a @ xs[1])  # the one weight, used again and again
        elif kind == 4 and whole:
            pool.append(lib.softmax(a, -1))
        elif kind == 5 and whole:
            first, rest = a[..., :1], a[..., 1:]
            pool.append(lib.concat([rest, first * first], -1))
        elif kind == 6 and a.ndim >= 2:
            pool.append(flip(a) * 1.5 + a)
    return sum((p * p).sum() for p in pool)


def ours() -> tuple[Any, Any]:
    return tgr, lambda x: x[::-1]


def theirs() -> tuple[Any, Any]:
    import torch

    class Names:
        tanh, sigmoid, exp, sin = torch.tanh, torch.sigmoid, torch.exp, torch.sin
        square, abs, add, multiply = torch.square, torch.abs, torch.add, torch.mul
        subtract, maximum, softmax, concat = torch.sub, torch.maximum, torch.softmax, torch.cat

    return Names, lambda x: x.flip(0)


@pytest.mark.parametrize("seed", range(60))
def test_a_random_program(seed: int) -> None:
    import torch

    rng = np.random.default_rng(seed)
    batch = int(rng.integers(1, 4))
    shapes = [(batch, N), (N, N), (N,), (1, N), (2, batch, N)]
    arrays = [rng.standard_normal(s) * 0.6 for s in shapes]
    xs = [tgr.tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    loss, their_loss = compose(seed, xs, *ours()), compose(seed, ts, *theirs())
    np.testing.assert_allclose(loss.item(), their_loss.item(), rtol=1e-10)
    gs = tgr.grad(loss, xs, create_graph=True)
    tgs: Any = torch.autograd.grad(their_loss, ts, create_graph=True)
    loss.backward(retain_graph=True)  # the walk that is not recorded gathers products
    for x, g, tg in zip(xs, gs, tgs, strict=True):
        np.testing.assert_allclose(g.numpy(), tg.detach().numpy(), rtol=1e-8, atol=1e-9)
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), tg.detach().numpy(), rtol=1e-8, atol=1e-9)
    hs = tgr.grad(sum((g * g).sum() for g in gs), xs)
    ths: Any = torch.autograd.grad(sum((g * g).sum() for g in tgs), ts)
    for h, th in zip(hs, ths, strict=True):
        expected = th.numpy()
        np.testing.assert_allclose(
            h.numpy(), expected, rtol=1e-7, atol=1e-8 * np.abs(expected).max()
        )
