"""Optimisers: PyTorch's numbers, what they leave alone, and going on bit for bit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn import nn, optim
from tinygradrnn.errors import CheckpointError, DtypeError, ShapeError

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.01, "centered": True}),
    ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.7, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.5, 0.7), "eps": 1e-2, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "betas": (0.5, 0.7), "weight_decay": 0.3}),
]
IDS = [f"{name}-{'-'.join(options)}" for name, options in CASES]
SHAPES = [(3, 2), (), (4,)]


def parameters(dtype: str = "float64", backend: str = "numpy") -> list[nn.Parameter]:
    rng = np.random.default_rng(0)
    return [nn.Parameter(rng.standard_normal(s), dtype, backend) for s in SHAPES]


def give_gradients(ps: list[Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for p in ps:
        g = rng.standard_normal(p.shape)
        p.grad = tgr.tensor(g, str(p.dtype).rpartition(".")[2], backend=p.backend)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_twenty_steps_are_pytorchs(name: str, options: dict[str, Any], dtype: str) -> None:
    import torch

    mine = parameters(dtype)
    other = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in mine]
    ours: Any = getattr(optim, name)(mine, **options)
    theirs: Any = getattr(torch.optim, name)(other, **options)
    for i in range(20):
        give_gradients(mine, i)
        for p, q in zip(mine, other, strict=True):
            assert p.grad is not None
            q.grad = torch.tensor(p.grad.numpy())
        if i == 10:  # a schedule
            ours.lr = theirs.param_groups[0]["lr"] = np.float64(0.003)
        if i == 5:  # parameters without a gradient stay and do not count the step
            mine[0].grad = other[0].grad = None
        ours.step()
        theirs.step()
        tolerance = 1e-6 if dtype == "float32" else 1e-12
        for p, q in zip(mine, other, strict=True):
            assert str(p.dtype) == dtype
            np.testing.assert_allclose(
                p.numpy(), q.detach().numpy(), rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_the_same_on_the_strict_backend(name: str, options: dict[str, Any], strict: str) -> None:
    here, there = parameters(), parameters(backend=strict)
    both = [getattr(optim, name)(ps, **options) for ps in (here, there)]
    for i in range(3):
        for ps, optimizer in zip((here, there), both, strict=True):
            give_gradients(ps, i)
            optimizer.step()
    for p, q in zip(here, there, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-12)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_going_on_bit_for_bit(name: str, options: dict[str, Any]) -> None:
    ps = parameters("float32")
    optimizer: Any = getattr(optim, name)(ps, **options)
    for i in range(3):
        give_gradients(ps, i)
        optimizer.step()
    optimizer.lr = 0.123
    stored = optimizer.state_dict()
    numbers = {k: v for k, v in stored.items() if not isinstance(v, np.ndarray)}
    arrays = {k: v for k, v in stored.items() if isinstance(v, np.ndarray)}
    frozen = {k: v.copy() for k, v in arrays.items()}
    others = [nn.Parameter(p) for p in ps]
    resumed: Any = getattr(optim, name)(others)
    for i in range(3, 6):
        give_gradients(ps, i)
        optimizer.step()
    resumed.load_state_dict({**json.loads(json.dumps(numbers)), **arrays})
    assert resumed.state_dict().keys() == stored.keys()
    for i in range(3, 6):
        give_gradients(others, i)
        resumed.step()
    for p, q in zip(ps, others, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    for key, value in frozen.items():  # a snapshot: neither of the two has written to it
        np.testing.assert_array_equal(arrays[key], value)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_tapes_and_gradients_are_not_written_to(name: str, options: dict[str, Any]) -> None:
    w = nn.Parameter(np.asarray([1.0, -2.0]))
    optimizer: Any = getattr(optim, name)([w], **options)
    (w * w).sum().backward()
    for _ in range(3):
        kept = (w * w * w).sum()
        values, gradient = w.numpy(), w.grad
        assert gradient is not None
        before = gradient.numpy()
        optimizer.step()
        assert w.grad is gradient
        np.testing.assert_array_equal(gradient.numpy(), before)
        (g,) = tgr.grad(kept, w)
        np.testing.assert_allclose(g.numpy(), 3 * values**2)


def test_a_model_may_move_between_two_steps(strict: str) -> None:
    results: list[list[Any]] = []
    for move in (False, True):
        ps = parameters()
        optimizer = optim.Adam(ps, lr=0.1)
        for i in range(4):
            if move and i == 2:
                for p in ps:
                    p.move(strict)
            give_gradients(ps, i)
            optimizer.step()
        results.append([p.numpy() for p in ps])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_it_learns() -> None:
    model = nn.Linear(3, 1, rng=tgr.current_backend().rng(0))
    xs = tgr.tensor(np.random.default_rng(0).standard_normal((50, 3)).astype("float32"))
    target = xs @ tgr.tensor([[1.0], [-2.0], [3.0]]) + 0.5
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss = tgr.mse(model(xs), target)
        loss.backward()
        optimizer.step()
    assert float(loss) < 1e-4  # pyright: ignore[reportPossiblyUnboundVariable]
    np.testing.assert_allclose(model.weight.numpy(), [[1, -2, 3]], atol=0.02)


def test_zero_grad_and_printing() -> None:
    ps = parameters()
    give_gradients(ps, 0)
    optimizer = optim.SGD(iter(ps), 0.5)
    optimizer.zero_grad()
    assert all(p.grad is None for p in ps)
    optimizer.step()
    assert optimizer.state_dict()["steps"] == [0, 0, 0]
    assert repr(optimizer).startswith("SGD(3 parameters, lr=0.5, momentum=0.0")


def test_an_overflow_is_not_a_warning() -> None:
    w = nn.Parameter([1.0])
    w.grad = tgr.tensor([3e38])
    optim.Adam([w]).step()
    assert not np.isnan(w.numpy()).any()


# ------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda ps: optim.SGD([]), "no parameters"),
        (lambda ps: optim.SGD([*ps, ps[1]]), "parameters[3] is parameters[1] again"),
        (lambda ps: optim.SGD(ps, -0.1), "lr=-0.1"),
        (lambda ps: optim.SGD(ps, float("nan")), "lr=nan"),
        (lambda ps: optim.SGD(ps, float("inf")), "lr=inf"),
        (lambda ps: optim.SGD(ps, momentum=-1), "momentum=-1"),
        (lambda ps: optim.SGD(ps, weight_decay=-1), "weight_decay"),
        (lambda ps: optim.SGD(ps, nesterov=True), "nesterov"),
        (lambda ps: optim.SGD(ps, momentum=0.9, dampening=0.1, nesterov=True), "nesterov"),
        (lambda ps: optim.RMSprop(ps, alpha=-1), "alpha"),
        (lambda ps: optim.RMSprop(ps, eps=-1), "eps"),
        (lambda ps: optim.Adam(ps, betas=(1.0, 0.9)), "Adam: betas[0]=1.0"),
        (lambda ps: optim.AdamW(ps, betas=(0.9, -0.1)), "AdamW: betas[1]=-0.1"),
    ],
)
def test_numbers_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(ShapeError) as raised:
        make(parameters())
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_learning_rate_is_checked_whenever_it_is_set() -> None:
    optimizer = optim.SGD(parameters())
    with pytest.raises(ShapeError, match="lr"):
        optimizer.lr = -1
    optimizer.lr = 2
    assert optimizer.lr == 2.0


def test_only_parameters() -> None:
    with pytest.raises(DtypeError, match=r"parameters\[0\] is a Tensor"):
        optim.SGD([tgr.tensor([1.0], requires_grad=True)])  # type: ignore[list-item]


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    def trained() -> optim.Adam:
        ps = parameters()
        optimizer = optim.Adam(ps, lr=0.1)
        give_gradients(ps, 0)
        optimizer.step()
        return optimizer

    optimizer = trained()
    good = optimizer.state_dict()

    def changed(**changes: Any) -> dict[str, Any]:
        return {k: v for k, v in {**good, **changes}.items() if v is not None}

    for bad, message in [
        ({}, "not its state"),
        (changed(lr=None), "not its state"),
        (changed(lr=-1.0), "lr=-1.0"),
        (changed(lr="fast"), "not its state"),
        (changed(steps=3), "not its state"),
        (changed(steps=[1, 1]), "2 parameters, expected 3"),
        (changed(**{"0.mean": None}), "missing: 0.mean"),
        (changed(extra=np.ones(1)), "unexpected: extra"),
        (changed(**{"1.mean": np.ones(2)}), "1.mean is float64 (2,), expected float64 ()"),
        (changed(**{"2.mean": np.ones(4, "float32")}), "2.mean is float32 (4,)"),
        (optim.SGD(parameters()).state_dict(), "not its state"),
    ]:
        with pytest.raises(CheckpointError, match="Adam") as raised:
            optimizer.load_state_dict(bad)
        assert message in str(raised.value)
        now = optimizer.state_dict()
        assert now.keys() == good.keys()
        for key, value in good.items():
            np.testing.assert_array_equal(now[key], value)
