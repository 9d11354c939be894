"""What only a GPU can show. Skipped, with the reason, where the cupy backend is not usable."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import tinygradrnn as tgr

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def on_gpu() -> Iterator[None]:
    with tgr.use_backend("cupy"):
        yield


def test_every_operation_agrees_with_numpy() -> None:
    tgr.testing.check_backend("cupy")


def test_a_host_array_beside_a_gpu_tensor_is_refused() -> None:
    x = tgr.tensor([1.0, 2.0])
    with pytest.raises(tgr.errors.DeviceError, match=r"multiply.*cupy:cuda:0"):
        x * np.ones(2, np.float32)
    with pytest.raises(tgr.errors.DeviceError, match="NumPy"):
        np.asarray(x)
    with pytest.raises(tgr.errors.DeviceError, match=r"add.*cupy.*numpy"):
        tgr.tensor([1.0], backend="numpy") + tgr.tensor([1.0])


def test_out_of_range_indices_raise_though_cupy_wraps_them() -> None:
    table = tgr.tensor(np.eye(3), requires_grad=True)
    for bad in (3, -4):
        with pytest.raises(tgr.errors.IndexRangeError, match="out of range"):
            tgr.take(table, tgr.tensor([0, bad]), axis=0)


def test_repeated_indices_add_up() -> None:
    table = tgr.tensor(np.zeros((3, 2)), requires_grad=True)
    tgr.take(table, tgr.tensor([1, 1, 1, 0]), axis=0).sum().backward()
    assert table.grad is not None
    np.testing.assert_array_equal(table.grad.numpy(), [[1, 1], [3, 3], [0, 0]])


def test_the_same_seed_is_the_same_stream() -> None:
    host, device = tgr.get_backend("numpy").rng(3), tgr.get_backend("cupy").rng(3)
    np.testing.assert_array_equal(
        host.normal((4, 5)), tgr.get_backend("cupy").to_host(device.normal((4, 5)))
    )


def test_a_model_trains_to_the_same_weights_as_on_the_host() -> None:
    trained = []
    for name in ("numpy", "cupy"):
        with tgr.use_backend(name) as backend:
            cell = tgr.nn.LSTMCell(5, 7, rng=backend.rng(0))
            optimizer = tgr.optim.Adam(cell.parameters(), lr=0.01)
            xs = tgr.tensor(np.random.default_rng(1).standard_normal((6, 3, 5)))
            cell.load_state_dict(
                {k: v.numpy().astype("float32") for k, v in cell.state_dict().items()}
            )
            for _ in range(5):
                outputs, _ = tgr.scan(cell, xs.astype("float32"), cell.initial_state(3))
                tgr.mean(outputs * outputs).backward()
                optimizer.step()
                optimizer.zero_grad()
            trained.append({k: v.numpy() for k, v in cell.state_dict().items()})
    for name, host in trained[0].items():
        np.testing.assert_allclose(trained[1][name], host, rtol=1e-4, atol=1e-6)


def test_moving_a_model_and_its_gradient_back() -> None:
    w = tgr.tensor([1.0, 2.0], requires_grad=True, backend="numpy")
    (w.to("cupy") ** 2).sum().to("numpy").backward()
    assert w.grad is not None
    np.testing.assert_array_equal(w.grad.numpy(), [2, 4])


def test_dlpack_shares_memory() -> None:
    torch = pytest.importorskip("torch")
    x = tgr.tensor([1.0, 2.0])
    assert torch.from_dlpack(x).device.type == "cuda"
    np.testing.assert_array_equal(tgr.from_dlpack(torch.ones(2, device="cuda")).numpy(), [1, 1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"checkpoint": "sqrt"},
        {"truncation": tgr.bptt.Window(2, 5)},
        {"truncation": tgr.bptt.Random(0.3, rng=0)},
        {"truncation": tgr.bptt.Clip(max_norm=0.1)},
        {"lengths": [9, 0, 4]},
    ],
    ids=str,
)
def test_ways_through_time_agree_with_the_host(options: dict[str, object]) -> None:
    found = []
    for name in ("numpy", "cupy"):
        with tgr.use_backend(name) as backend:
            if isinstance(options.get("truncation"), tgr.bptt.Random):
                options = {"truncation": tgr.bptt.Random(0.3, rng=0)}  # the same draws again
            layer = tgr.nn.LSTM(2, 3, bidirectional=True, rng=backend.rng(0), dtype="float64")
            x = tgr.tensor(np.random.default_rng(0).standard_normal((9, 3, 2)), requires_grad=True)
            outputs, _ = layer(x, **options)
            gradients = tgr.grad(tgr.sum(outputs**2), [x, *layer.parameters()])
            found.append([outputs.numpy(), *(g.numpy() for g in gradients)])
    for host, device in zip(*found, strict=True):
        np.testing.assert_allclose(device, host, rtol=1e-9, atol=1e-12)
