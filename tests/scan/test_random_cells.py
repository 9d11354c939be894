"""Cells that nobody thought of: random graphs of operations, eager against compiled."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygradrnn as tgr
from tinygradrnn import nn, tree

BACKENDS = [b.name for b in tgr.backends() if b.usable and b.name != "strict"]


class Pair(NamedTuple):
    first: Any
    second: Any


class Maker:
    """Draws a cell: a list of calls on values that have names, of which some become the state."""

    def __init__(self, random: Random, dtype: str) -> None:
        self.random, self.dtype = random, dtype
        self.numbers = np.random.default_rng(random.randrange(1 << 30))
        self.batch = random.choice([1, 2, 3, 5])
        self.sizes = [random.choice([1, 2, 3, 5, self.batch]) for _ in range(2)]
        self.time = random.choice([1, 2, 4])
        self.weights: dict[str, Any] = {}
        self.steps: list[tuple[str, Callable[[dict[str, Any]], Any]]] = []
        self.shapes: dict[str, tuple[int, ...]] = {}

    def array(self, *shape: int) -> Any:
        """Random numbers of this cell's dtype."""
        return (0.7 * self.numbers.standard_normal(shape)).astype(self.dtype)

    def weight(self, *shape: int) -> str:
        """A new weight; every third is a plain tensor without a gradient."""
        name = f"w{len(self.weights)}"
        value = tgr.tensor(self.array(*shape))
        trained = self.random.random() < 0.7
        self.weights[name] = nn.Parameter(value) if trained else value
        return name

    def value(self, ndim: int | None = None, rows: bool = False) -> str:
        """A value that is there already."""
        names = [
            n
            for n, s in self.shapes.items()
            if (ndim is None or len(s) == ndim) and (not rows or (s and s[0] == self.batch))
        ]
        return self.random.choice(names)

    def add(self, shape: tuple[int, ...], f: Callable[[dict[str, Any]], Any]) -> str:
        """A new value."""
        name = f"v{len(self.steps)}"
        self.steps.append((name, f))
        self.shapes[name] = shape
        return name

    def like(self, shape: tuple[int, ...]) -> str:
        """A value of a shape: one that is there, or a weight of it."""
        names = [n for n, s in self.shapes.items() if s == shape]
        if names and self.random.random() < 0.8:
            return self.random.choice(names)
        return self.weight(*shape)

    # -------------------------------------------------------------------------------- calls

    def unary(self) -> None:
        a = self.value()
        f = self.random.choice(
            [
                tgr.tanh, tgr.sigmoid, tgr.sin, tgr.cos, tgr.relu, tgr.softplus, tgr.gelu, tgr.abs,
                tgr.negative, lambda x: tgr.exp(tgr.tanh(x)), lambda x: tgr.square(tgr.tanh(x)),
                lambda x: tgr.log(1.5 + tgr.tanh(x)), lambda x: tgr.sqrt(1.5 + tgr.tanh(x)),
                lambda x: 1 - x, lambda x: 0.5 * x + 1, lambda x: 1 / (2 + tgr.tanh(x)),
                lambda x: tgr.expm1(tgr.tanh(x)), lambda x: tgr.log1p(0.5 + 0.4 * tgr.tanh(x)),
                lambda x: tgr.clip(x, -0.8, 0.9), lambda x: tgr.tanh(x) ** 3,
            ]
        )  # fmt: skip
        self.add(self.shapes[a], lambda v: f(v[a]))

    def binary(self) -> None:
        a = self.value()
        shape = self.shapes[a]
        # Anything that broadcasts against it: some sizes 1, some leading axes missing.
        other = tuple(1 if self.random.random() < 0.2 else n for n in shape)
        other = other[self.random.choice([0, 0, 0, len(other) and 1]) :]
        b = self.like(other)
        f = self.random.choice(
            [
                tgr.add, tgr.add, tgr.subtract, tgr.multiply, tgr.multiply, tgr.maximum,
                tgr.minimum, lambda x, y: x / (2 + tgr.tanh(y)),
                lambda x, y: tgr.where(x > y, x, 2 * y), lambda x, y: y - x,
                lambda x, y: tgr.where((x < y) | (y < 0.1), x * y, x),
            ]
        )  # fmt: skip
        self.add(shape, lambda v: f(v[a], v[b]))

    def product(self) -> None:
        a = self.value(2)
        rows, n = self.shapes[a]
        m = self.random.choice([*self.sizes, 4])
        turned, bias = self.random.random() < 0.4, self.random.random() < 0.5
        w = self.weight(m, n) if turned else self.weight(n, m)
        c = self.weight(m)
        if turned:
            self.add((rows, m), lambda v: tgr.linear(v[a], v[w], v[c] if bias else None))
        else:
            self.add((rows, m), lambda v: v[a] @ v[w] + v[c] if bias else v[a] @ v[w])

    def joined(self) -> None:
        parts = [self.value(2, rows=True) for _ in range(self.random.choice([2, 2, 3]))]
        shape = self.batch, sum(self.shapes[p][1] for p in parts)
        if shape[1] > 16:
            return
        name = self.add(shape, lambda v: tgr.concat([v[p] for p in parts], axis=-1))
        if self.random.random() < 0.7:
            w = self.weight(shape[1], self.sizes[0])
            self.add((self.batch, self.sizes[0]), lambda v: v[name] @ v[w])

    def parts(self) -> None:
        a = self.value(2)
        rows, n = self.shapes[a]
        if n < 2:
            return
        cut = self.random.randrange(1, n)
        if self.random.random() < 0.5:
            self.add((rows, cut), lambda v: tgr.split(v[a], [cut, n - cut], axis=-1)[0])
            self.add((rows, n - cut), lambda v: tgr.split(v[a], [cut, n - cut], axis=-1)[1])
        else:
            self.add((rows, n - cut), lambda v: v[a][:, cut:])
            self.add((rows,), lambda v: v[a][:, -1])
            self.add((rows, n), lambda v: v[a][:, ::-1])

    def reduced(self) -> None:
        a = self.value()
        shape = self.shapes[a]
        if not shape:
            return
        axis = self.random.choice([-1, 0, len(shape) - 1])
        keep = self.random.random() < 0.6
        f = self.random.choice([tgr.sum, tgr.mean, tgr.max, tgr.min, tgr.logsumexp, tgr.var])
        at = axis % len(shape)
        made = tuple(1 if i == at else n for i, n in enumerate(shape) if keep or i != at)
        self.add(made, lambda v: f(v[a], axis=axis, keepdims=keep))

    def along(self) -> None:
        a = self.value()
        if not self.shapes[a]:
            return
        f = self.random.choice(
            [
                lambda x: tgr.softmax(x, axis=-1),
                lambda x: tgr.log_softmax(x, axis=0),
                lambda x: tgr.standardize(x, eps=0.1),
                lambda x: tgr.cumulative_sum(x, axis=x.ndim - 1),
                lambda x: tgr.flip(x, axis=0),
                lambda x: tgr.roll(x, 1, axis=-1),
            ]
        )
        self.add(self.shapes[a], lambda v: f(v[a]))

    def shaped(self) -> None:
        a = self.value()
        shape = self.shapes[a]
        if not shape or len(shape) > 2:
            return
        kind = self.random.randrange(4)
        if kind == 0 and len(shape) == 2:
            self.add(shape[::-1], lambda v: v[a].T if hasattr(v[a], "T") else v[a])
        elif kind == 1:
            self.add((*shape, 1), lambda v: tgr.expand_dims(v[a], axis=-1))
        elif kind == 2:
            size = int(np.prod(shape))
            self.add((size,), lambda v: tgr.reshape(v[a], (size,)))
        else:
            self.add((2, *shape), lambda v: tgr.stack([v[a], tgr.tanh(v[a])], axis=0))

    def outer(self) -> None:
        a, b = self.value(2, rows=True), self.value(2, rows=True)
        n, m = self.shapes[a][1], self.shapes[b][1]
        if n * m > 30:
            return
        made = self.add(
            (self.batch, n, m), lambda v: v[a][:, :, None] * tgr.expand_dims(v[b], axis=1)
        )
        self.add((self.batch, n), lambda v: (v[made] @ v[b][:, :, None])[:, :, 0])

    def fit(self, a: str, shape: tuple[int, ...]) -> str:
        """A value of a shape that depends on `a`."""
        if self.shapes[a] == shape:
            return a
        return self.add(shape, lambda v: tgr.tanh(tgr.broadcast_to(tgr.mean(v[a]), shape)))

    # --------------------------------------------------------------------------------- cell

    def cell(self) -> tuple[Callable[[Any, Any], Any], Any, Any]:
        """A cell, its inputs and its first state."""
        random = self.random
        rows = lambda: (self.batch, random.choice(self.sizes))  # noqa: E731
        x_shapes = [rows() for _ in range(random.choice([1, 1, 2]))]
        shapes = [
            random.choice([rows(), rows(), rows(), (), (self.batch,), (self.batch, 2, 3), (3,)])
            for _ in range(random.choice([1, 1, 2, 3]))
        ]
        if not any(len(s) == 2 for s in shapes):
            shapes[0] = rows()
        self.shapes |= {f"x{i}": s for i, s in enumerate(x_shapes)}
        self.shapes |= {f"h{i}": s for i, s in enumerate(shapes)}
        kinds = [self.unary, self.binary, self.binary, self.product, self.joined, self.parts]
        kinds += [self.reduced, self.along, self.shaped, self.outer]
        for _ in range(random.randrange(1, 14)):
            random.choice(kinds)()
        recent = [n for n in self.shapes if n.startswith("v")] or ["h0"]
        new: list[str] = []
        for i, shape in enumerate(shapes):
            same = [n for n, s in self.shapes.items() if s == shape]
            how = random.random()
            if how < 0.1:
                new.append(f"h{i}")  # as it was
            elif how < 0.5:
                new.append(random.choice(same))
            else:
                new.append(self.fit(random.choice(recent), shape))
        damped = [random.random() < 0.7 for _ in shapes]
        outputs = [random.choice(list(self.shapes)) for _ in range(random.choice([1, 1, 2]))]
        steps, weights = list(self.steps), dict(self.weights)
        xs: Any = [
            tgr.tensor(self.array(self.time, *s), requires_grad=random.random() < 0.7)
            for s in x_shapes
        ]
        state: Any = [
            tgr.tensor(self.array(*s), requires_grad=random.random() < 0.7) for s in shapes
        ]
        wrap = {1: lambda a: a[0], 2: lambda a: Pair(*a), 3: lambda a: {"a": a[0], "b": a[1:]}}
        as_xs, as_state = wrap[len(xs)], wrap[len(state)]
        make = (
            as_state if random.random() < 0.7 else (lambda a: as_state(a) if len(a) != 2 else (*a,))
        )

        def cell(x: Any, h: Any) -> Any:
            v: dict[str, Any] = dict(weights)
            v.update((f"x{i}", leaf) for i, leaf in enumerate(tree.flatten(x)[0]))
            old = tree.flatten(h)[0]
            v.update((f"h{i}", leaf) for i, leaf in enumerate(old))
            for name, f in steps:
                v[name] = f(v)
            result = [tgr.tanh(v[n]) if d else v[n] for n, d in zip(new, damped, strict=True)]
            made = [v[n] for n in outputs]
            return (made[0] if len(made) == 1 else made), make(result)

        return cell, as_xs(xs), as_state(state)


def results(maker: Maker, cell: Any, xs: Any, state: Any, options: dict[str, Any]) -> list[Any]:
    """Outputs, last state, states, and the gradients of everything."""
    outputs, last, states = tgr.scan(cell, xs, state, return_states=True, **options)
    leaves = [leaf for part in (outputs, last, states) for leaf in tree.flatten(part)[0]]
    wanted = [x for x in (*tree.flatten(xs)[0], *tree.flatten(state)[0]) if x.requires_grad]
    wanted += [w for w in maker.weights.values() if w.requires_grad]
    weights = np.random.default_rng(0)
    total = tgr.zeros((), dtype=maker.dtype)
    for leaf in leaves:
        total = total + tgr.sum(leaf * weights.standard_normal(leaf.shape).astype(maker.dtype))
    found = list(leaves)
    gradients: Any = [None] * len(wanted)
    if total.requires_grad and wanted:
        gradients = tgr.grad(total, wanted, allow_unused=True)
    if "lengths" in options:  # eagerly, a step that no sequence misses holds no state
        pairs = zip(gradients, wanted, strict=True)
        gradients = [tgr.zeros_like(x) if g is None else g for g, x in pairs]
    return [x.numpy() for x in (*found, *(g for g in gradients if g is not None))]


def compare(random: Random, backend: str, dtype: str, **options: Any) -> None:
    with tgr.use_backend(backend):
        maker = Maker(random, dtype)
        cell, xs, state = maker.cell()
        if options.pop("lengths", False):
            options["lengths"] = [random.randrange(maker.time + 1) for _ in range(maker.batch)]
        try:
            with np.errstate(all="ignore"):
                eager = results(maker, cell, xs, state, {**options, "mode": "eager"})
        except tgr.errors.ShapeError:
            if options.pop("lengths", None) is None:
                raise
            eager = results(maker, cell, xs, state, {**options, "mode": "eager"})
        with np.errstate(all="ignore"):
            try:
                compiled = results(maker, cell, xs, state, {**options, "mode": "compiled"})
            except tgr.errors.UntraceableError as why:
                assert "must begin with the batch" in str(why)
                return
        assert len(eager) == len(compiled)
        bound = {"float64": 1e-9, "float32": 2e-3}[dtype]
        for a, b in zip(eager, compiled, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            scale = max(np.abs(a).max(initial=0.0), 1e-3)
            if np.isfinite(scale) and scale < 1e6:
                np.testing.assert_allclose(b, a, rtol=0, atol=bound * scale)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_eager_and_compiled(backend: str, random: Random) -> None:
    compare(random, backend, "float64", reverse=random.random() < 0.3)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_options(backend: str, random: Random) -> None:
    plans = [None, tgr.bptt.Chunk(2), tgr.bptt.Window(1, 2), tgr.bptt.Depth(2)]
    compare(
        random,
        backend,
        "float64",
        lengths=random.random() < 0.5,
        reverse=random.random() < 0.5,
        truncation=random.choice(plans),
        checkpoint=random.choice([None, "sqrt", 1]),
    )


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_single_precision(backend: str, random: Random) -> None:
    compare(random, backend, "float32")
