"""What is recorded, what is kept, and when it is let go."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn.tape import Node


@pytest.fixture
def without_gc() -> Iterator[None]:
    """Only reference counting: what needs the cycle collector leaks here."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def leaf(*shape: int) -> Any:
    return tgr.tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)


def alive(nodes: list[weakref.ref[Node]]) -> int:
    return sum(r() is not None for r in nodes)


def watch(result: Any) -> list[weakref.ref[Node]]:
    return [weakref.ref(n) for n in tgr.Tape(result)]


def chain(x: Any) -> Any:
    a, b = tgr.split(tgr.tanh(x @ x), 2)
    return (tgr.concat([a * b, b[::-1]]) ** 2).sum()


def test_a_dropped_result_frees_its_nodes(without_gc: None) -> None:
    x = leaf(4, 4)
    loss = chain(x)
    nodes = watch(loss)
    assert alive(nodes) == len(nodes) > 5
    del loss
    assert alive(nodes) == 0


def test_a_dropped_leaf_is_freed(without_gc: None) -> None:
    x = leaf(4, 4)
    chain(x).backward()
    refs = [weakref.ref(x), weakref.ref(x.edge), weakref.ref(x.grad)]
    del x
    assert all(r() is None for r in refs)


def test_gradients_with_a_tape_are_freed(without_gc: None) -> None:
    x = leaf(4, 4)
    (g,) = tgr.grad(chain(x), x, create_graph=True)
    nodes = watch(g.sum())
    del g
    assert alive(nodes) == 0


def test_backward_frees_what_was_saved_as_it_goes() -> None:
    x = leaf(50, 50)
    loss = chain(x)
    tape = tgr.Tape(loss)
    assert tape.nbytes > 50 * 50 * 8
    saved = [weakref.ref(a) for n in tape for a in n.saved_arrays() if a is not x.array]
    assert saved
    loss.backward()
    assert tape.nbytes == 0
    assert all(r() is None for r in saved)
    assert "freed" in str(tape)


def test_no_grad_records_nothing() -> None:
    x = leaf(3)
    with tgr.no_grad():
        y = tgr.exp(x) * x
        a, _ = tgr.split(x, [1, 2])
        with tgr.enable_grad():
            z = x * 2
    assert not y.requires_grad
    assert not a.requires_grad
    assert z.requires_grad
    with pytest.raises(tgr.errors.GradientError, match="no gradient"):
        y.sum().backward()


def test_detach_cuts() -> None:
    x = leaf(3)
    y = (x.detach() * x).sum()
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), x.numpy())


def test_a_million_nodes_and_linear_cost() -> None:
    def run(n: int) -> float:
        x: Any = tgr.tensor(1.0, requires_grad=True, dtype="float64")
        y = x
        for _ in range(n):
            y = y + x
        start = time.perf_counter()
        y.backward()
        seconds = time.perf_counter() - start
        assert x.grad.item() == n + 1
        return seconds

    run(1000)
    small = min(run(50_000) for _ in range(3))
    large = run(1_000_000)  # and its release, node by node, overflows no stack
    assert large / small < 20 * 3  # 20 times the nodes; the rest is for caches and a busy machine


def test_a_second_backward_says_what_to_do() -> None:
    x = leaf(3)
    loss = (x * x).sum()
    loss.backward()
    with pytest.raises(tgr.errors.GradientError, match=r"retain_graph=True.*detach"):
        loss.backward()
    kept = (x * x).sum()
    kept.backward(retain_graph=True)
    kept.backward()
    np.testing.assert_allclose(x.grad.numpy(), 6 * x.numpy())


def test_a_gradient_below_a_freed_part_can_still_be_had() -> None:
    x = leaf(3)
    y = tgr.exp(x)
    y.sum().backward()
    (g,) = tgr.grad((y * y).sum(), y)
    np.testing.assert_allclose(g.numpy(), 2 * y.numpy())


def test_steps_are_contiguous_and_nest() -> None:
    x = leaf(2, 2)
    h = x * 1
    for t in range(3):
        with tgr.step(t, "outer"):
            h = tgr.tanh(h)
            for s in range(2):
                with tgr.step(s, "inner"):
                    h = h @ x
            h = h * 2
    tape = tgr.Tape(h.sum())
    assert [s.path for s in tape.steps] == [(0,), (1,), (2,)]
    assert [len(s) for s in tape.steps] == [4, 4, 4]
    assert [s.loop for s in tape.steps[1].steps] == ["inner", "inner"]
    assert [s.path for s in tape.steps[1].steps] == [(1, 0), (1, 1)]
    assert tape[0].step is None
    order = [n.index for n in tape]
    assert order == sorted(order)
    text = str(tape)
    assert "1.0" in text
    assert "matmul" in text


def test_the_backward_of_a_step_is_in_that_step() -> None:
    x = leaf(2)
    h = x
    for t in range(2):
        with tgr.step(t):
            h = tgr.tanh(h)
    (g,) = tgr.grad(h.sum(), x, create_graph=True)
    assert [s.t for s in tgr.Tape(g).steps] == [0, 1, 0]  # 1 is joined: its way back comes next


def test_recording_is_per_thread() -> None:
    x = leaf(3)
    seen: list[bool] = []
    with tgr.no_grad(), tgr.step(7):
        thread = threading.Thread(target=lambda: seen.append((x * 2).requires_grad))
        thread.start()
        thread.join()
        seen.append((x * 2).requires_grad)
    assert seen == [True, False]


def test_threads_share_leaves() -> None:
    x = leaf(20, 20)
    expected = tgr.grad(chain(x), x)[0].numpy()
    found: list[Any] = []

    def work() -> None:
        found.extend(tgr.grad(chain(x), x)[0].numpy() for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(np.array_equal(f, expected) for f in found)


def test_an_empty_tape_says_so() -> None:
    with pytest.raises(tgr.errors.GradientError, match="requires_grad"):
        tgr.Tape(tgr.tensor([1.0]))


def test_one_step_object_may_be_entered_again() -> None:
    s = tgr.step(0)
    with s, s:
        pass
    x = leaf(2)
    assert tgr.Tape(x * 2)[0].step is None


def test_no_grad_decorates() -> None:
    @tgr.no_grad()
    def f(x: Any) -> Any:
        return x * 2

    assert not f(leaf(2)).requires_grad
