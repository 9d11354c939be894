"""A peephole LSTM op by op, forward and backward: ours, PyTorch, autograd and MyGrad.

    pip install -e '.[bench]' && python benchmarks/eager.py

Sizes are (time, batch, input, hidden). Every contestant runs the same operations in float32 and
ends with the gradients of all weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import contest

SIZES = [(64, 1, 64, 64), (64, 16, 64, 128), (64, 32, 128, 256)]


def data(size: contest.Size) -> tuple[dict[str, Any], Any, Any]:
    """Weights, inputs and the first state, the same for all."""
    time, batch, inputs, hidden = size
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)

    weights = {
        "w": draw(inputs, 4 * hidden),
        "u": draw(hidden, 4 * hidden),
        "b": draw(4 * hidden),
        "pi": draw(hidden),
        "pf": draw(hidden),
        "po": draw(hidden),
    }
    return weights, draw(time, batch, inputs), np.zeros((batch, hidden), np.float32)


def unroll(p: Any, xs: Any, h: Any, sigmoid: Any, tanh: Any, split: Any, stack: Any) -> Any:
    """The peephole LSTM (Gers & Schmidhuber 2000) and the mean square of its outputs."""
    c, outputs = h, []
    for x in xs:
        i, f, g, o = split(x @ p["w"] + h @ p["u"] + p["b"])
        i = sigmoid(i + p["pi"] * c)
        f = sigmoid(f + p["pf"] * c)
        c = f * c + i * tanh(g)
        o = sigmoid(o + p["po"] * c)
        h = o * tanh(c)
        outputs.append(h)
    return (stack(outputs) ** 2).mean()


def tinygradrnn(size: contest.Size) -> Callable[[], Any]:
    import tinygradrnn as tgr

    weights, xs, h = data(size)
    p = {k: tgr.tensor(v, requires_grad=True) for k, v in weights.items()}
    x, h0 = tgr.unstack(tgr.tensor(xs)), tgr.tensor(h)

    def run() -> Any:
        loss = unroll(
            p, x, h0, tgr.sigmoid, tgr.tanh, lambda z: tgr.split(z, 4, axis=-1), tgr.stack
        )
        return tgr.grad(loss, list(p.values()))

    return run


def pytorch(size: contest.Size) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(contest.THREADS)
    weights, xs, h = data(size)
    p = {k: torch.tensor(v, requires_grad=True) for k, v in weights.items()}
    x, h0 = torch.tensor(xs).unbind(), torch.tensor(h)

    def run() -> Any:
        loss = unroll(
            p, x, h0, torch.sigmoid, torch.tanh, lambda z: z.chunk(4, dim=-1), torch.stack
        )
        return torch.autograd.grad(loss, list(p.values()))

    return run


def autograd(size: contest.Size) -> Callable[[], Any]:
    import autograd
    import autograd.numpy as anp

    weights, xs, h = data(size)

    def sigmoid(x: Any) -> Any:
        return 0.5 * anp.tanh(0.5 * x) + 0.5

    def loss(p: Any) -> Any:
        return unroll(p, xs, h, sigmoid, anp.tanh, lambda z: anp.split(z, 4, axis=-1), anp.stack)

    gradient = autograd.grad(loss)
    return lambda: gradient(weights)


def mygrad(size: contest.Size) -> Callable[[], Any]:
    import mygrad as mg

    weights, xs, h = data(size)
    hidden = size[-1]

    def split(z: Any) -> Any:
        return tuple(z[:, k * hidden : (k + 1) * hidden] for k in range(4))

    def run() -> Any:
        p = {k: mg.tensor(v) for k, v in weights.items()}
        loss = unroll(p, xs, h, mg.nnet.sigmoid, mg.tanh, split, mg.stack)
        loss.backward()
        return [v.grad for v in p.values()]

    return run


CONTESTANTS = {f.__name__: f for f in (tinygradrnn, pytorch, autograd, mygrad)}


def make(contestant: str, size: contest.Size) -> Callable[[], Any]:
    return CONTESTANTS[contestant](size)


if __name__ == "__main__":
    contest.main(__file__, list(CONTESTANTS), SIZES, make)
