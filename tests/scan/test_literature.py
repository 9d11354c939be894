"""Cells from the literature, beyond the library's own: each compiles, and computes the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn import nn, tree

BACKENDS = [b.name for b in tgr.backends() if b.usable and b.name != "strict"]
B, T, F, H = 3, 6, 4, 5
Cell = Callable[[Any, Any], Any]


class Weights:
    """Makes trained weights and remembers them."""

    def __init__(self) -> None:
        self.numbers, self.all = np.random.default_rng(0), list[Any]()

    def __call__(self, *shape: int, scale: float = 0.5) -> Any:
        values = scale * self.numbers.standard_normal(shape)
        self.all.append(nn.Parameter(tgr.tensor(values)))
        return self.all[-1]


def zeros(*shape: int) -> Any:
    return tgr.zeros((B, *shape), dtype="float64")


def sru(w: Weights) -> tuple[Cell, Any]:
    """Simple recurrent unit (Lei et al. 2018): the state is only ever scaled."""
    u, v, b = w(F, 3 * H), w(2, H), w(2, H)
    p = w(F, H)

    def cell(x: Any, c: Any) -> Any:
        z, f_x, r_x = tgr.split(x @ u, 3, axis=-1)
        f = tgr.sigmoid(f_x + v[0] * c + b[0])
        r = tgr.sigmoid(r_x + v[1] * c + b[1])
        c = f * c + (1 - f) * z
        return r * c + (1 - r) * (x @ p), c

    return cell, zeros(H)


def highway(w: Weights) -> tuple[Cell, Any]:
    """Recurrent highway network of depth 3 (Zilly et al. 2017)."""
    w_x = w(F, 2 * H)
    layers = [(w(H, 2 * H), w(2 * H)) for _ in range(3)]

    def cell(x: Any, s: Any) -> Any:
        for depth, (r, b) in enumerate(layers):
            both = s @ r + b + (x @ w_x if depth == 0 else 0.0)
            h, t = tgr.split(both, 2, axis=-1)
            s = tgr.tanh(h) * tgr.sigmoid(t) + s * (1 - tgr.sigmoid(t))
        return s, s

    return cell, zeros(H)


def clockwork(w: Weights) -> tuple[Cell, Any]:
    """Clockwork RNN (Koutnik et al. 2014): parts of the state move at every 1, 2, 4 steps."""
    w_x, w_h = w(F, 6), w(6, 6)
    periods = tgr.tensor(np.repeat([1, 2, 4], 2))
    mask = tgr.tensor(np.triu(np.ones((6, 6))))

    def cell(x: Any, state: Any) -> Any:
        h, t = state
        new = tgr.tanh(x @ w_x + h @ (w_h * mask))
        h = tgr.where(t % periods == 0, new, h)
        return h, (h, t + 1)

    return cell, (zeros(6), tgr.tensor(np.zeros((), np.int64)))


def multiplicative(w: Weights) -> tuple[Cell, Any]:
    """Multiplicative LSTM (Krause et al. 2016)."""
    w_mx, w_mh, w_x, w_m, b = w(F, H), w(H, H), w(F, 4 * H), w(H, 4 * H), w(4 * H)

    def cell(x: Any, state: dict[str, Any]) -> Any:
        m = (x @ w_mx) * (state["h"] @ w_mh)
        i, f, g, o = tgr.split(x @ w_x + m @ w_m + b, 4, axis=-1)
        c = tgr.sigmoid(f) * state["c"] + tgr.sigmoid(i) * tgr.tanh(g)
        h = tgr.sigmoid(o) * tgr.tanh(c)
        return h, {"h": h, "c": c}

    return cell, {"h": zeros(H), "c": zeros(H)}


def diagonal(w: Weights) -> tuple[Cell, Any]:
    """Linear recurrent unit (Orvieto et al. 2023): complex and diagonal, in two real parts."""
    nu, theta, b, c, d = w(H), w(H), w(2, F, H), w(2, H, F), w(F)

    def cell(x: Any, state: Any) -> Any:
        re, im = state
        size = tgr.exp(-tgr.exp(nu))
        a, o = size * tgr.cos(theta), size * tgr.sin(theta)
        scale = tgr.sqrt(1 - size * size)
        re, im = a * re - o * im + scale * (x @ b[0]), a * im + o * re + scale * (x @ b[1])
        return re @ c[0] - im @ c[1] + d * x, (re, im)

    return cell, (zeros(H), zeros(H))


def antisymmetric(w: Weights) -> tuple[Cell, Any]:
    """Gated antisymmetric RNN (Chang et al. 2019): stable by its weights."""
    m, v, u, b = w(H, H), w(F, H), w(F, H), w(2, H)

    def cell(x: Any, h: Any) -> Any:
        a = m - m.T - 0.1 * tgr.eye(H, dtype="float64")
        z = tgr.sigmoid(h @ a + x @ u + b[0])
        h = h + 0.1 * z * tgr.tanh(h @ a + x @ v + b[1])
        return h, h

    return cell, zeros(H)


def fast_gated(w: Weights) -> tuple[Cell, Any]:
    """FastGRNN (Kusupati et al. 2018): one matrix for gate and candidate, of low rank."""
    w1, w2, u1, u2, b, s = w(F, 2), w(2, H), w(H, 2), w(2, H), w(2, H), w(2)

    def cell(x: Any, h: Any) -> Any:
        both = (x @ w1) @ w2 + (h @ u1) @ u2
        z, n = tgr.sigmoid(both + b[0]), tgr.tanh(both + b[1])
        h = (tgr.sigmoid(s[0]) * (1 - z) + tgr.sigmoid(s[1])) * n + z * h
        return h, h

    return cell, zeros(H)


def exponential(w: Weights) -> tuple[Cell, Any]:
    """The sLSTM with its stabiliser (Beck et al. 2024, equations 8 to 17)."""
    w_x, r, b = w(F, 4 * H), w(H, 4 * H), w(4 * H)

    def cell(x: Any, state: Any) -> Any:
        h, c, n, m = state
        z, i, f, o = tgr.split(x @ w_x + h @ r + b, 4, axis=-1)
        top = tgr.maximum(f + m, i)
        i, f = tgr.exp(i - top), tgr.exp(f + m - top)
        c, n = f * c + i * tgr.tanh(z), f * n + i
        h = tgr.sigmoid(o) * c / n
        return h, (h, c, n, top)

    return cell, (zeros(H), zeros(H), zeros(H) + 1.0, zeros(H) - 0.3)


def matrix_memory(w: Weights) -> tuple[Cell, Any]:
    """Delta rule fast weights (Schlag et al. 2021): the state is a matrix for each sequence."""
    q_, k_, v_, b_ = w(F, H), w(F, H), w(F, 2), w(F, 1)

    def cell(x: Any, memory: Any) -> Any:
        q, k = tgr.softmax(x @ q_, axis=-1), tgr.softmax(x @ k_, axis=-1)
        old = (memory @ k[:, :, None])[:, :, 0]
        new = tgr.sigmoid(x @ b_) * (x @ v_ - old)
        memory = memory + new[:, :, None] * k[:, None, :]
        return (memory @ q[:, :, None])[:, :, 0], memory

    return cell, zeros(2, H)


def neural_stack(w: Weights) -> tuple[Cell, Any]:
    """A stack that is pushed and popped a little (Joulin & Mikolov 2015)."""
    w_x, w_h, a_, d_ = w(F, H), w(1, H), w(H, 3), w(H, 1)

    def cell(x: Any, state: Any) -> Any:
        h, stack = state
        h = tgr.sigmoid(x @ w_x + stack[:, :1] @ w_h)
        push, pop, keep = tgr.split(tgr.softmax(h @ a_, axis=-1), 3, axis=-1)
        down = tgr.concat([tgr.sigmoid(h @ d_), stack[:, :-1]], axis=-1)
        up = tgr.concat([stack[:, 1:], zeros(1) - 1.0], axis=-1)
        stack = push * down + pop * up + keep * stack
        return h, (h, stack)

    return cell, (zeros(H), zeros(4) - 1.0)


def memory_network(w: Weights) -> tuple[Cell, Any]:
    """Reading and writing a memory by content (Graves et al. 2014), one head each."""
    w_x, w_r, k_, e_, a_ = w(F, H), w(2, H), w(H, 2), w(H, 2), w(H, 2)

    def address(memory: Any, key: Any) -> Any:
        dots = (memory @ key[:, :, None])[:, :, 0]
        size = tgr.sqrt(tgr.sum(memory * memory, axis=-1) * tgr.sum(key * key, axis=-1)[:, None])
        return tgr.softmax(5.0 * dots / (size + 1e-3), axis=-1)

    def cell(x: Any, state: Any) -> Any:
        memory, read = state
        h = tgr.tanh(x @ w_x + read @ w_r)
        weights = address(memory, h @ k_)
        memory = memory * (1 - weights[:, :, None] * tgr.sigmoid(h @ e_)[:, None, :])
        memory = memory + weights[:, :, None] * tgr.tanh(h @ a_)[:, None, :]
        read = tgr.sum(weights[:, :, None] * memory, axis=1)
        return h, (memory, read)

    return cell, (zeros(3, 2) + tgr.tensor(np.linspace(-1, 1, 6).reshape(3, 2)), zeros(2))


def experts(w: Weights) -> tuple[Cell, Any]:
    """A step by several experts, mixed by a gate."""
    gate, each = w(F + H, 3), [(w(F + H, H), w(H)) for _ in range(3)]

    def cell(x: Any, h: Any) -> Any:
        both = tgr.concat([x, h], axis=-1)
        shares = tgr.softmax(both @ gate, axis=-1)
        made = tgr.stack([tgr.tanh(both @ u + b) for u, b in each], axis=1)
        h = tgr.sum(shares[:, :, None] * made, axis=1)
        return h, h

    return cell, zeros(H)


def shift_register(w: Weights) -> tuple[Cell, Any]:
    """NARX (Lin et al. 1996): the state is the last three outputs."""
    u, v = w(F, H), w(3 * H, H)

    def cell(x: Any, past: Any) -> Any:
        y = tgr.tanh(x @ u + tgr.concat(list(past), axis=-1) @ v)
        return y, (y, past[0], past[1])

    return cell, (zeros(H), zeros(H) + 0.1, zeros(H) - 0.2)


def differential(w: Weights) -> tuple[Cell, Any]:
    """A differential equation between inputs, by Runge and Kutta (Rubanova et al. 2019)."""
    f_, g_, gates = w(H, H), w(H), w(F + H, H)

    def slope(h: Any) -> Any:
        return tgr.tanh(h @ f_ + g_) - h

    def cell(x: Any, h: Any) -> Any:
        for _ in range(2):
            k1 = slope(h)
            k2 = slope(h + 0.25 * k1)
            h = h + 0.5 * k2
        z = tgr.sigmoid(tgr.concat([x, h], axis=-1) @ gates)
        h = z * h + (1 - z) * tgr.tanh(h)
        return h, h

    return cell, zeros(H) + 0.1


def echo(w: Weights) -> tuple[Cell, Any]:
    """A leaky echo state network (Jaeger 2001): only the way out is trained."""
    w_in, w_res, out = w(F, H).detach(), w(H, H).detach(), w(H, 2)
    del w.all[:2]

    def cell(x: Any, h: Any) -> Any:
        h = 0.7 * h + 0.3 * tgr.tanh(x @ w_in + h @ w_res)
        return h @ out, h

    return cell, zeros(H)


def phased(w: Weights) -> tuple[Cell, Any]:
    """Phased LSTM's time gate (Neil et al. 2016), over a state that only leaks."""
    u, v, period, shift = w(F, H), w(H, H), w(H), w(H)

    def cell(x: Any, state: Any) -> Any:
        h, t = state
        phase = ((t - shift) / (2.0 + tgr.softplus(period))) % 1.0
        gate = tgr.where(
            phase < 0.1, 20.0 * phase, tgr.where(phase < 0.2, 4.0 - 20.0 * phase, 0.001 * phase)
        )
        h = gate * tgr.tanh(x @ u + h @ v) + (1 - gate) * h
        return h, (h, t + 1.0)

    return cell, (zeros(H), tgr.tensor(0.3, dtype="float64"))


CELLS = [
    sru, highway, clockwork, multiplicative, diagonal, antisymmetric, fast_gated, exponential,
    matrix_memory, neural_stack, memory_network, experts, shift_register, differential, echo,
    phased,
]  # fmt: skip


def results(make: Any, mode: str, **options: Any) -> list[Any]:
    w = Weights()
    cell, state = make(w)
    xs = tgr.tensor(np.random.default_rng(1).standard_normal((T, B, F)), requires_grad=True)
    begin = tree.map(lambda s: tgr.tensor(s, requires_grad="float" in str(s.dtype)), state)
    outputs, last, states = tgr.scan(cell, xs, begin, mode=mode, return_states=True, **options)
    leaves = [outputs, *tree.flatten(last)[0], *tree.flatten(states)[0]]
    loss: Any = sum(tgr.sum(tgr.sin(leaf * 1.0)) for leaf in leaves if "float" in str(leaf.dtype))
    wanted = [xs, *(s for s in tree.flatten(begin)[0] if s.requires_grad), *w.all]
    gradients = tgr.grad(loss, wanted, allow_unused=True)
    return [None if x is None else x.numpy() for x in (*leaves, *gradients)]


def compare(found: list[Any], expected: list[Any]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", CELLS, ids=lambda f: f.__name__)
def test_compiled_and_eager(make: Any, backend: str) -> None:
    with tgr.use_backend(backend):
        compare(results(make, "compiled"), results(make, "eager"))


@pytest.mark.parametrize("make", CELLS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "options",
    [
        {"reverse": True, "truncation": tgr.bptt.Chunk(3)},
        {"truncation": tgr.bptt.Window(2, 3)},
        {"checkpoint": "sqrt"},
    ],
    ids=str,
)
def test_options(make: Any, options: dict[str, Any]) -> None:
    compare(results(make, "compiled", **options), results(make, "eager", **options))


@pytest.mark.parametrize(
    "make", [c for c in CELLS if c not in (clockwork,)], ids=lambda f: f.__name__
)
def test_four_ways(make: Any) -> None:
    w = Weights()
    cell, state = make(w)
    xs = np.random.default_rng(1).standard_normal((3, B, F))
    tgr.testing.verify_cell(cell, xs, state, parameters=w.all, mode="compiled")
