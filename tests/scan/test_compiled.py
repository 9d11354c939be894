"""The compiled mode as its user meets it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn import nn
from tinygradrnn.errors import GradientError, UntraceableError

BACKENDS = [b.name for b in tgr.backends() if b.usable and b.name != "strict"]
RNG = np.random.default_rng(0)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    with tgr.use_backend(request.param):
        yield request.param


def gradients(loss: Any, cell: Any, **options: Any) -> list[Any]:
    return [g.numpy() for g in tgr.grad(loss, list(cell.parameters()), **options)]


def equal(a: Any, b: Any) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-13)


def inputs(*shape: int) -> Any:
    return tgr.tensor(RNG.standard_normal(shape), requires_grad=True)


def test_forwards_before_the_first_backward(backend: str) -> None:
    cell = nn.LSTMCell(3, 4, dtype="float64")
    many = [inputs(6, 2, 3) for _ in range(3)]
    losses = [tgr.scan(cell, xs, mode="compiled")[0].sum() for xs in many]
    eager = [tgr.scan(cell, xs, mode="eager")[0].sum() for xs in many]
    for i in (1, 0, 2):
        equal(gradients(losses[i], cell), gradients(eager[i], cell))


def test_outputs_and_states_that_are_kept_stay_as_they_are(backend: str) -> None:
    cell = nn.GRUCell(64, 96)
    xs = [RNG.standard_normal((20, 32, 64)).astype("float32") for _ in range(6)]
    expected = [tgr.scan(cell, x, mode="eager") for x in xs]
    found = [tgr.scan(cell, x, mode="compiled") for x in xs]
    for (y, h), (y_eager, h_eager) in zip(found, expected, strict=True):
        np.testing.assert_allclose(y.numpy(), y_eager.numpy(), atol=2e-6)
        np.testing.assert_allclose(h.numpy(), h_eager.numpy(), atol=2e-6)


def test_backward_twice(backend: str) -> None:
    cell, xs = nn.RNNCell(3, 4, dtype="float64"), inputs(5, 2, 3)
    loss = tgr.scan(cell, xs, mode="compiled")[0].sum()
    equal(gradients(loss, cell, retain_graph=True), gradients(loss, cell))
    with pytest.raises(GradientError, match="already freed"):
        gradients(loss, cell)


def test_gradients_of_gradients(backend: str) -> None:
    cell, xs = nn.GRUCell(3, 4, dtype="float64"), inputs(5, 2, 3)

    def second(mode: str) -> list[Any]:
        outputs, _ = tgr.scan(cell, xs, mode=mode)
        (g,) = tgr.grad((outputs**2).sum(), xs, create_graph=True)
        return gradients((g**2).sum(), cell)

    equal(second("compiled"), second("eager"))


def test_the_gradient_of_every_state(backend: str) -> None:
    cell, xs = nn.LSTMCell(3, 4, dtype="float64"), inputs(7, 2, 3)

    def of_states(mode: str, **options: Any) -> list[Any]:
        outputs, last, states = tgr.scan(cell, xs, mode=mode, return_states=True, **options)
        wanted = [*states, *last]
        return [g.numpy() for g in tgr.grad((outputs**2).sum() + last.c.sum(), wanted)]

    for options in ({}, {"reverse": True}, {"lengths": [7, 3]}, {"checkpoint": 3}):
        equal(of_states("compiled", **options), of_states("eager", **options))


@pytest.mark.parametrize("inner_mode", ["auto", "eager"])
@pytest.mark.parametrize("inner_options", [{}, {"checkpoint": "sqrt"}, {"reverse": True}], ids=str)
@pytest.mark.parametrize("outer_options", [{}, {"checkpoint": 2}], ids=str)
def test_scans_in_scans(inner_mode: str, inner_options: Any, outer_options: Any) -> None:
    inner = nn.RNNCell(2, 2, dtype="float64")
    xs = RNG.standard_normal((6, 5, 2, 2))

    def run(inner_mode: str, mode: str, inner_options: Any, **options: Any) -> list[Any]:
        def outer(x: Any, h: Any) -> Any:
            outputs, h = tgr.scan(inner, x, h, mode=inner_mode, **inner_options)
            return outputs[-1], h

        outputs, _ = tgr.scan(outer, xs, tgr.zeros((2, 2), "float64"), mode=mode, **options)
        return gradients((outputs**2).sum(), inner)

    plain = {k: v for k, v in inner_options.items() if k == "reverse"}
    expected = run("eager", "eager", plain)
    for mode in ("auto", "eager"):
        equal(run(inner_mode, mode, inner_options, **outer_options), expected)


def test_threads_that_share_a_cell_from_its_first_call_on(backend: str) -> None:
    cell = nn.LSTMCell(5, 7, dtype="float64")
    many = [inputs(9, 1 + i % 3, 5) for i in range(12)]
    expected = [gradients(tgr.scan(cell, x, mode="eager")[0].sum(), cell) for x in many]
    found: dict[int, list[Any]] = {}
    ready = threading.Barrier(6)

    def work(start: int) -> None:
        with tgr.use_backend(backend):
            ready.wait()
            for i in range(start, 12, 6):
                found[i] = gradients(tgr.scan(cell, many[i], mode="compiled")[0].sum(), cell)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i in range(12):
        equal(found[i], expected[i])


def test_training_is_the_same(backend: str) -> None:
    def train(mode: str) -> list[Any]:
        rng = tgr.current_backend().rng(0)
        cell = nn.GRUCell(3, 4, dtype="float64", rng=rng)
        optimizer = tgr.optim.Adam(cell.parameters(), lr=0.05)
        state: Any = tgr.zeros((2, 4), "float64")
        xs = np.random.default_rng(1).standard_normal((30, 2, 3))
        for start in range(0, 30, 6):
            outputs, state = tgr.scan(cell, xs[start : start + 6], state, mode=mode)
            optimizer.zero_grad()
            ((outputs - 0.3) ** 2).mean().backward()
            optimizer.step()
            state = tgr.bptt.detach(state)
        return [p.numpy() for p in cell.parameters()]

    for a, b in zip(train("compiled"), train("eager"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)


@pytest.mark.parametrize(
    ("shape", "hidden"),
    [((1, 1, 1), 1), ((4, 4, 4), 4), ((3, 0, 2), 5), ((2, 5, 30), 50), ((3, 33, 17), 19)],
    ids=str,
)
def test_odd_sizes(backend: str, shape: tuple[int, int, int], hidden: int) -> None:
    cell, xs = nn.LSTMCell(shape[2], hidden, dtype="float64"), inputs(*shape)
    loss = (tgr.scan(cell, xs, mode="compiled")[0] ** 2).sum()
    eager = (tgr.scan(cell, xs, mode="eager")[0] ** 2).sum()
    for a, b in zip(gradients(loss, cell), gradients(eager, cell), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_what_is_no_number_stays_where_it_is(backend: str) -> None:
    cell = nn.GRUCell(3, 4, dtype="float64")
    xs = RNG.standard_normal((5, 3, 3))
    xs[2, 1, 0], xs[1, 2, 2] = np.nan, np.inf
    with np.errstate(all="ignore"):
        found, _ = tgr.scan(cell, xs, mode="compiled")
        expected, _ = tgr.scan(cell, xs, mode="eager")
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-12)
    assert np.isfinite(found.numpy()[:, 0]).all()


def test_errors_come_up_as_they_do_eagerly() -> None:
    def wrong(x: Any, h: Any) -> Any:
        return h, h @ x

    for mode in ("auto", "eager"):
        with pytest.raises(tgr.errors.ShapeError, match="matmul"):
            tgr.scan(wrong, np.ones((3, 2, 4)), np.ones((2, 4)), mode=mode)
    with pytest.raises(UntraceableError, match="wrong cannot be compiled: ShapeError"):
        tgr.scan(wrong, np.ones((3, 2, 4)), np.ones((2, 4)), mode="compiled")

    def grows(x: Any, h: Any) -> Any:
        return h, tgr.concat([h, x], axis=-1)

    with pytest.raises(tgr.errors.ShapeError, match="step 0: state has shape"):
        tgr.scan(grows, np.ones((3, 2, 4)), np.ones((2, 4)))


def test_a_backend_without_compiled_loops(strict: Any) -> None:
    with tgr.use_backend(strict):
        cell = nn.RNNCell(2, 3)
        assert "runs no such loop" in str(tgr.explain(cell, tgr.ones((4, 2, 2))).reason)
        tgr.scan(cell, tgr.ones((4, 2, 2)))
        with pytest.raises(UntraceableError, match="runs no such loop"):
            tgr.scan(cell, tgr.ones((4, 2, 2)), mode="compiled")


def test_an_explanation(backend: str) -> None:
    cell = nn.LSTMCell(3, 4)
    found = tgr.explain(cell, tgr.ones((10, 2, 3)))
    text = str(found)
    assert found.compiled and found.reason is None
    assert set(found.sources) == {"forward", "backward"}
    assert [row.flops for row in found.forward if row.flops] == [2 * 2 * 3 * 16, 2 * 2 * 4 * 16]
    assert found.saved_bytes == sum(size for *_, size in found.saved)
    for part in ("before the loop", "only as a sum over all steps", "weight_hh.T", "SOURCE"):
        assert part in text
    products = [row for row in found.backward if "@" in row.text]
    assert [row.place for row in products] == ["in", "sum", "sum"]  # x needs no gradient here


def test_the_lecture_s_stacked_form_leaves_the_loop_too(backend: str) -> None:
    w = nn.Parameter(tgr.tensor(RNG.standard_normal((7, 4))))

    def cell(x: Any, h: Any) -> Any:
        h = tgr.tanh(tgr.concat([h, x], axis=-1) @ w)
        return h, h

    xs, h = inputs(6, 2, 3), tgr.zeros((2, 4), "float64")
    plan = tgr.explain(cell, xs, h)
    assert [r.place for r in plan.forward if r.flops] == ["before", "in"]
    assert [r.place for r in plan.backward if r.flops] == ["in", "after", "sum"]
    for a, b in zip(
        *(tgr.grad(tgr.scan(cell, xs, h, mode=m)[0].sum(), [xs, w]) for m in ("compiled", "eager")),
        strict=True,
    ):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-14)


class Parts(nn.Cell):
    """A state of parts of several shapes and kinds, which depend on each other."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.w = nn.Parameter(rng.normal(size=(3, 4)))
        self.u = nn.Parameter(rng.normal(size=(4,)) / 2)

    def initial_state(self, batch_size: int) -> Any:
        some = tgr.tensor(np.ones((batch_size, 4)), requires_grad=True)
        return {"h": some, "m": some[:, 0], "s": tgr.mean(some), "n": tgr.zeros(1, "int64")}

    def forward(self, x: Any, state: Any) -> Any:
        h = tgr.tanh(x @ self.w + state["h"] * self.u + state["s"])
        m = state["m"] / 2 + tgr.sum(h, axis=-1)
        return h, {"h": h, "m": m, "s": tgr.mean(m) / 3, "n": state["n"] + 1}


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "Parts"])
@pytest.mark.parametrize(
    "options", [{}, {"reverse": True}, {"checkpoint": "sqrt"}, {"return_states": True}], ids=repr
)
@pytest.mark.parametrize(("time", "batch"), [(1, 1), (2, 3), (13, 2)])
def test_gates_of_a_random_plan(
    backend: str, kind: str, options: Any, time: int, batch: int
) -> None:
    """Gates are a part of the loop, and cuts are not: what is behind one has no gradient at all."""
    cell: Any = Parts() if kind == "Parts" else getattr(nn, kind)(3, 4, dtype="float64")
    xs = tgr.tensor(np.random.default_rng(0).normal(size=(time, batch, 3)), requires_grad=True)
    for seed in range(4):
        begin = cell.initial_state(batch)
        found: list[Any] = []
        for mode in ("eager", "compiled"):
            plan = tgr.bptt.Random(0.4, rng=seed)
            result = tgr.scan(cell, xs, begin, truncation=plan, mode=mode, **options)
            leaves = [x for x in tgr.tree.flatten(result)[0] if "float" in str(x.dtype)]
            loss = tgr.sum(tgr.stack([tgr.sum(tgr.sin(x * (i + 1))) for i, x in enumerate(leaves)]))
            first = [x for x in tgr.tree.flatten(begin)[0] if x.requires_grad]
            wanted = [xs, *cell.parameters(), *first]
            found.append(tgr.grad(loss, wanted, allow_unused=True, retain_graph=True))
        for a, b in zip(*found, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-11, atol=1e-12)


def test_an_explanation_speaks_the_cells_language() -> None:
    """Names are the cell's own; a new state has a prime, a gradient a d."""
    xs = tgr.tensor(np.ones((5, 2, 3), "float32"), requires_grad=True)
    plan = tgr.explain(nn.LSTMCell(3, 4), xs)
    texts = [row.text for row in plan.forward]
    assert {"i = sum_3[:, :4]", "f = sum_3[:, 4:8]", "o = sum_3[:, 12:]"} <= set(texts)
    assert "h' = sigmoid(o) * tanh(c')" in texts
    back = {row.text.split(" = ")[0] for row in plan.backward}
    assert {"dh", "dc", "dx", "dweight_ih", "dweight_hh", "dbias_ih"} <= back
    assert {name for name, _, _ in plan.saved} >= {"sigmoid(f)", "tanh(g)", "c", "h"}
    used = [row.text for row in plan.backward if row.place == "in"]
    assert "sum_4 = dy + dh'" in used

    class Counting(nn.Cell):
        def forward(self, x: Any, state: Any) -> Any:
            new = {"level": tgr.tanh(x + state["level"]), "more": (state["more"][0] * 2.0,)}
            return x, new

    cell = Counting()
    some = tgr.zeros((2, 3))
    plan = tgr.explain(cell, xs, {"level": some, "more": (some,)})
    assert any("x + level" in row.text for row in plan.forward)
    assert any("more.0 * 2.0" in row.text for row in plan.forward)
