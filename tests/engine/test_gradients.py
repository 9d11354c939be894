"""backward, grad, vjp, jvp, jacobian: what they return, and what they never touch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr


def leaf(values: Any) -> Any:
    return tgr.tensor(np.asarray(values, np.float64), requires_grad=True)


def test_shares_are_added_and_never_alias() -> None:
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    up = np.array([5.0, 7.0])
    (x + y + x + x - y).backward(up)
    assert x.grad.tolist() == [15, 21]
    assert y.grad.tolist() == [0, 0]
    up[:] = 0
    first = x.grad
    (x + y).backward(tgr.tensor([1.0, 1.0], dtype="float64"))
    assert first.tolist() == [15, 21]  # what was handed out stays as it was
    assert x.grad.tolist() == [16, 22]
    assert y.grad.tolist() == [1, 1]


def test_an_upstream_gradient_is_not_changed() -> None:
    x, y = leaf([1.0, 2.0]), leaf([1.0, 1.0])
    up = tgr.tensor([1.0, 1.0], dtype="float64")
    gx, gy = tgr.grad((x + y) + (x + y), [x, y], up)
    assert up.tolist() == [1, 1]
    assert gx.tolist() == gy.tolist() == [2, 2]


def test_the_callers_array_may_change_afterwards() -> None:
    a = np.array([1.0, 2.0])
    x: Any = tgr.tensor(a, requires_grad=True)
    y = (x * a).sum()
    a[:] = 100
    y.backward()
    assert x.grad.tolist() == [1, 2]
    out = x.numpy()
    out[:] = 0
    assert x.tolist() == [1, 2]


def test_a_weight_used_at_many_steps() -> None:
    rng = np.random.default_rng(0)
    w, b = leaf(rng.standard_normal((3, 3))), leaf(rng.standard_normal(3))
    xs = rng.standard_normal((50, 2, 3))
    loss = sum((tgr.tanh(x @ w + b).sum() for x in xs), tgr.tensor(0.0, dtype="float64"))
    dw, db = tgr.grad(loss, [w, b])
    slope = 1 - np.tanh(xs @ w.numpy() + b.numpy()) ** 2
    np.testing.assert_allclose(dw.numpy(), np.einsum("tbi,tbo->io", xs, slope), rtol=1e-10)
    np.testing.assert_allclose(db.numpy(), slope.sum((0, 1)), rtol=1e-10)


def test_gathered_products_are_worked_off_in_bulks(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygradrnn.backprop import Cotangents

    rng = np.random.default_rng(0)
    w = leaf(rng.standard_normal((3, 3)))
    xs = rng.standard_normal((20, 2, 3))

    def gradient() -> Any:
        total: Any = sum(((x @ w) ** 2).sum() for x in xs)
        return tgr.grad(total, w)[0].numpy()

    expected = gradient()
    monkeypatch.setattr(Cotangents, "BULK", 100)
    np.testing.assert_allclose(gradient(), expected, rtol=1e-12)


def test_a_scalar_needs_no_upstream_gradient_and_others_do() -> None:
    x = leaf([1.0, 2.0])
    with pytest.raises(tgr.errors.ShapeError, match=r"\(2,\)"):
        (x * 2).backward()
    with pytest.raises(tgr.errors.ShapeError, match=r"\(3,\).*\(2,\)"):
        (x * 2).backward(tgr.tensor([1.0, 1.0, 1.0], dtype="float64"))
    with pytest.raises(tgr.errors.DtypeError, match="float32"):
        (x * 2).backward(tgr.tensor([1.0, 1.0]))
    with pytest.raises(tgr.errors.GradientError, match="requires no gradient"):
        tgr.tensor([1.0]).sum().backward()


def test_grad_leaves_grad_alone_and_takes_any_place() -> None:
    x = leaf([0.5, 1.5])
    h = tgr.tanh(x)
    a, b = tgr.split(h * 2, 2)
    loss = (a * b).sum()
    gh, ga, gx = tgr.grad(loss, [h, a, x], retain_graph=True)
    assert x.grad is None
    np.testing.assert_allclose(ga.numpy(), b.numpy())
    np.testing.assert_allclose(gh.numpy(), 4 * h.numpy()[::-1])
    np.testing.assert_allclose(gx.numpy(), gh.numpy() * (1 - h.numpy() ** 2))
    with pytest.raises(tgr.errors.GradientError, match=r"inputs\[1\].*allow_unused"):
        tgr.grad(loss, [x, leaf([1.0])], retain_graph=True)
    assert tgr.grad(loss, [x, leaf([1.0])], allow_unused=True)[1] is None


def test_several_outputs_with_upstream_gradients() -> None:
    x = leaf([1.0, 2.0])
    (g,) = tgr.grad([x * 2, (x * x).sum()], x, [tgr.tensor([1.0, 10.0], dtype="float64"), None])
    assert g.tolist() == [2 + 2, 20 + 4]


def test_the_grad_of_a_gradient_to_third_order() -> None:
    x = leaf(1.3)
    y = tgr.sin(x)
    expected = [np.cos(1.3), -np.sin(1.3), -np.cos(1.3), np.sin(1.3)]
    for value in expected:
        (y,) = tgr.grad(y, x, create_graph=True)
        np.testing.assert_allclose(y.item(), value, rtol=1e-12)


def test_backward_with_create_graph_leaves_a_differentiable_grad() -> None:
    x = leaf([2.0])
    (x**3).sum().backward(create_graph=True)
    assert x.grad.requires_grad
    (gg,) = tgr.grad(x.grad.sum(), x)
    assert gg.tolist() == [12]


def test_mixed_precision_gradients_come_home_in_their_own_dtype() -> None:
    a: Any = tgr.tensor([1.0, 2.0], requires_grad=True)
    b = leaf([3.0, 4.0])
    (a * b).sum().backward()
    assert str(a.grad.dtype) == "float32"
    assert str(b.grad.dtype) == "float64"


def test_vjp_jvp_and_jacobian_agree() -> None:
    def f(x: Any, w: Any) -> Any:
        return tgr.tanh(x @ w), (x * x).sum()

    rng = np.random.default_rng(0)
    x, w, u, v = (rng.standard_normal(s) for s in ((2, 3), (3, 2), (2, 3), (3, 2)))
    outs, pull = tgr.vjp(f, x, w)
    cots = rng.standard_normal((2, 2)), np.asarray(0.7)
    gx, gw = pull(*cots)
    _, (d0, d1) = tgr.jvp(f, (x, w), (u, v))
    left = (d0.numpy() * cots[0]).sum() + d1.numpy() * cots[1]
    np.testing.assert_allclose(left, (gx.numpy() * u).sum() + (gw.numpy() * v).sum(), rtol=1e-10)
    jx, jw = tgr.jacobian(lambda x, w: f(x, w)[0], (tgr.tensor(x), tgr.tensor(w)))
    assert jx.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(
        d0.numpy(), np.tensordot(jx.numpy(), u, 2) + np.tensordot(jw.numpy(), v, 2), rtol=1e-10
    )
    np.testing.assert_allclose(outs[0].numpy(), np.tanh(x @ w))
    assert not gx.requires_grad
    assert not jx.requires_grad


def test_derivatives_nest() -> None:
    x = tgr.tensor([0.3, -0.8], dtype="float64")
    hessian = tgr.jacobian(lambda x: tgr.jacobian(lambda y: tgr.sin(y).sum(), x), x)
    np.testing.assert_allclose(hessian.numpy(), np.diag(-np.sin(x.numpy())))
    _, second = tgr.jvp(
        lambda x: tgr.jvp(tgr.sin, (x,), (tgr.ones_like(x),))[1], (x,), (tgr.ones_like(x),)
    )
    np.testing.assert_allclose(second.numpy(), -np.sin(x.numpy()))


def test_a_function_that_closes_over_a_weight_can_be_learned_through() -> None:
    w = leaf([2.0, 3.0])
    _, tangent = tgr.jvp(lambda x: (w * x * x).sum(), (leaf([1.0, 1.0]).detach(),), ([1.0, 0.0],))
    (g,) = tgr.grad(tangent, w)
    assert g.tolist() == [2, 0]


def test_wrong_tangents_are_named() -> None:
    with pytest.raises(tgr.errors.ShapeError, match=r"\(2,\).*\(3,\)"):
        tgr.jvp(tgr.sin, (tgr.ones(2),), (tgr.ones(3),))
    _, pull = tgr.vjp(tgr.sin, tgr.ones(2))
    with pytest.raises(tgr.errors.ShapeError, match=r"\(3,\).*\(2,\)"):
        pull(tgr.ones(3))


def test_an_operation_without_a_rule_says_its_name() -> None:
    from tinygradrnn.op import Op

    def unruly(xp: Any, x: Any, /) -> Any:
        return x * 1

    op = Op(unruly)
    try:
        with pytest.raises(tgr.errors.GradientError, match=r"unruly.*'x'"):
            op(leaf([1.0]))
    finally:
        del tgr.registry["unruly"]


def test_the_walk_keeps_no_more_than_it_must() -> None:
    import tracemalloc

    w = leaf(np.random.default_rng(0).standard_normal((64, 64)) / 8)
    h: Any = tgr.tensor(np.ones((4096, 64)))
    tracemalloc.start()
    for _ in range(40):
        h = tgr.tanh(h @ w)
    loss = h.sum()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    loss.backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * held  # the tape, and a bounded number of products that wait


def test_precisions_may_meet_in_one_accumulation(strict: str) -> None:
    for name in ("numpy", strict):
        with tgr.use_backend(name):
            x = tgr.tensor([1.0, 2.0], requires_grad=True)
            y = (x * tgr.tensor([1.0, 1.0], "float64")).sum()
            for _ in range(2):
                y = y + (x * x).sum().astype("float64")
            (g,) = tgr.grad(y, x)
            assert g.tolist() == [5, 9]
            assert "float32" in str(g.dtype)


def test_a_list_changed_after_the_call_changes_nothing() -> None:
    z = leaf(np.arange(6.0).reshape(2, 3))
    shift: Any = [1, 0]
    y = tgr.roll(z, shift, (0, 1))
    shift[:] = [0, 1]
    (g,) = tgr.grad(y, z, tgr.tensor(np.arange(6.0).reshape(2, 3)))
    assert g.tolist() == [[3, 4, 5], [0, 1, 2]]


def test_results_of_vjp_and_jvp_carry_no_hidden_tape() -> None:
    h = tangent = tgr.tensor([1.0])
    for _ in range(3):
        h, tangent = tgr.jvp(tgr.tanh, (h,), ([1.0],))
    assert not h.requires_grad
    assert not tangent.requires_grad
    y, pull = tgr.vjp(lambda x, i: tgr.take(x, i, axis=0), tgr.ones(3), tgr.tensor([1, 1]))
    assert not y.requires_grad
    gx, gi = pull([1.0, 2.0])
    assert gx.tolist() == [0, 3, 0]
    assert gi.tolist() == [0, 0]
