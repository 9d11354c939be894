"""Compiled scans on a GPU: the numbers of eager ones, of every cell and every gradient."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn import nn, tree

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def on_gpu() -> Iterator[None]:
    with tgr.use_backend("cupy"):
        yield


def rng() -> Any:
    return tgr.current_backend().rng(1)


CELLS: dict[str, Callable[..., Any]] = {
    **{
        kind.__name__: lambda n, m, dtype, kind=kind: kind(n, m, dtype=dtype, rng=rng())
        for kind in (
            *(nn.RNNCell, nn.GRUCell, nn.LSTMCell, nn.ConcatRNNCell, nn.IndRNNCell),
            *(nn.ChoGRUCell, nn.MinimalGatedCell, nn.LayerNormGRUCell, nn.MinGRUCell),
            *(nn.MinLSTMCell, nn.PeepholeLSTMCell, nn.CoupledLSTMCell, nn.LayerNormLSTMCell),
        )
    },
    "DropoutLSTMCell": lambda n, m, dtype: nn.DropoutLSTMCell(n, m, dtype=dtype, rng=rng()).eval(),
    "VariationalDropout": lambda n, m, dtype: nn.VariationalDropout(
        nn.GRUCell(n, m, dtype=dtype, rng=rng()), state=0.3, input=0.2, rng=rng()
    ),
    "Zoneout": lambda n, m, dtype: nn.Zoneout(
        nn.LSTMCell(n, m, dtype=dtype, rng=rng()), 0.3, rng=rng()
    ).eval(),
    "Stacked": lambda n, m, dtype: nn.Stacked(
        nn.LSTMCell(n, m, dtype=dtype, rng=rng()),
        nn.Residual(nn.GRUCell(m, m, dtype=dtype, rng=rng())),
    ),
    "AttentionCell": lambda n, m, dtype: nn.AttentionCell(
        nn.GRUCell(n + 2, m, dtype=dtype, rng=rng()), 2, 3, dtype=dtype, rng=rng()
    ).over(tgr.tensor(np.random.default_rng(5).standard_normal((5, 4, 2)), dtype=dtype)),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"reverse": True},
    {"lengths": [9, 4, 1, 0]},
    {"lengths": [9, 4, 1, 0], "reverse": True},
    {"checkpoint": "sqrt"},
    {"truncation": tgr.bptt.Window(2, 5)},
]


def results(
    make: Callable[..., Any], dtype: str, mode: str, time: int = 9, hidden: int = 5, **options: Any
) -> dict[str, Any]:
    """Outputs, last state, states on the way, and the gradients of everything."""
    cell = make(3, hidden, dtype)
    draw = np.random.default_rng(0)
    xs = tgr.tensor(draw.standard_normal((time, 4, 3)), dtype=dtype, requires_grad=True)
    leaves, structure = tree.flatten(cell.initial_state(4))
    begin = [
        tgr.tensor(draw.standard_normal(leaf.shape), dtype=dtype, requires_grad=True)
        if "float" in str(leaf.dtype)
        else leaf
        for leaf in leaves
    ]
    outputs, last, states = tgr.scan(
        cell, xs, structure.unflatten(begin), return_states=True, mode=mode, **options
    )
    leaves = tree.flatten((outputs, last, states))[0]
    loss: Any = sum(tgr.sum(tgr.sin(leaf)) for leaf in leaves if "float" in str(leaf.dtype))
    wanted = [xs, *[s for s in begin if s.requires_grad], *cell.parameters()]
    found = tgr.grad(loss, wanted, allow_unused=True)
    named = {f"result {i}": leaf.numpy() for i, leaf in enumerate(leaves)}
    zeros = [
        np.zeros(x.shape) if g is None else g.numpy() for x, g in zip(wanted, found, strict=True)
    ]
    return named | {f"gradient {i}": g for i, g in enumerate(zeros)}


def agree(found: dict[str, Any], expected: dict[str, Any], dtype: str) -> None:
    tolerance = {"float64": 1e-10, "float32": 2e-4}[dtype]
    assert found.keys() == expected.keys()
    for name, a in expected.items():
        scale = max(1.0, float(np.abs(a).max(initial=0)))
        np.testing.assert_allclose(
            found[name], a, rtol=tolerance, atol=tolerance * scale, err_msg=name
        )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_as_eagerly(name: str, options: dict[str, Any]) -> None:
    for dtype in ("float64", "float32"):
        eager = results(CELLS[name], dtype, "eager", **options)
        agree(results(CELLS[name], dtype, "compiled", **options), eager, dtype)


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_as_on_the_host(name: str) -> None:
    device = results(CELLS[name], "float64", "compiled", lengths=[9, 4, 1, 0])
    with tgr.use_backend("numpy"):
        host = results(CELLS[name], "float64", "eager", lengths=[9, 4, 1, 0])
    agree(device, host, "float64")


@pytest.mark.parametrize(("time", "hidden"), [(1, 5), (100, 64), (20, 300)])
@pytest.mark.parametrize("name", ["RNNCell", "GRUCell", "LSTMCell"])
def test_sizes_of_many_blocks(name: str, time: int, hidden: int) -> None:
    eager = results(CELLS[name], "float64", "eager", time, hidden)
    agree(results(CELLS[name], "float64", "compiled", time, hidden), eager, "float64")


def test_the_same_numbers_every_time() -> None:
    one, two = (results(CELLS["LSTMCell"], "float32", "compiled", 50, 64) for _ in range(2))
    for name, a in one.items():
        np.testing.assert_array_equal(two[name], a, err_msg=name)


def test_functions_of_each_element_are_numpys() -> None:
    """What CUDA's functions of the same names could do otherwise: NaNs, signs, infinities."""
    odd = np.array([0.0, -0.0, 1.5, -2.5, 5.3, -5.3, np.inf, -np.inf, np.nan])
    a, b = np.meshgrid(odd, odd)

    def cell(x: Any, h: Any) -> Any:
        y = h * 1.0  # what depends on the state happens in the loop
        made = [tgr.maximum(x[0], y), tgr.minimum(x[0], y), tgr.sign(y), tgr.relu(y)]
        made += [x[0] % y, x[0] // y, tgr.floor(y), tgr.round(y), tgr.clip(y, -1.0, 2.0)]
        made += [tgr.isfinite(y).astype("float64"), tgr.isnan(y).astype("float64"), abs(y)]
        made += [(x[0] < y).astype("float64"), tgr.where(x[0] >= y, 1.0, y), tgr.sigmoid(y)]
        joined = tgr.stack(made)
        # The sum, which is never asked for by a number, keeps all of it inside the loop.
        return joined, tgr.where(tgr.sum(joined) > 0, h, h)

    xs = np.stack([np.stack([a, a])] * 3)
    with np.errstate(all="ignore"):
        outputs, _ = tgr.scan(cell, tgr.tensor(xs), tgr.tensor(b), mode="compiled")
    with np.errstate(all="ignore"), tgr.use_backend("numpy"):
        expected, _ = tgr.scan(cell, tgr.tensor(xs), tgr.tensor(b), mode="eager")
    np.testing.assert_allclose(outputs.numpy(), expected.numpy(), rtol=1e-14)


def test_two_threads_at_once() -> None:
    expected = results(CELLS["GRUCell"], "float64", "compiled")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with tgr.use_backend("cupy"):
                for _ in range(5):
                    agree(results(CELLS["GRUCell"], "float64", "compiled"), expected, "float64")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
