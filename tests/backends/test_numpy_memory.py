"""Memory that is used again: never while anything can still see it."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn_numpy import memory

LARGE = (300, 400)


@pytest.fixture(autouse=True)
def own_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_buffers", [])


def address(x: Any) -> int:
    return x.__array_interface__["data"][0]


def test_a_buffer_is_used_again_when_nothing_refers_to_it() -> None:
    first = memory.empty(LARGE, "float32")
    place = address(first)
    del first
    assert address(memory.empty(LARGE, "float32")) == place
    assert address(memory.empty((299, 399), "float32")) == place  # also for a little less
    assert place % 64 == 0


@pytest.mark.parametrize(
    "hold",
    [
        lambda x: x[3:5],
        lambda x: x.T,
        lambda x: x.reshape(-1)[::2],
        lambda x: memoryview(x),
        lambda x: np.asarray(memoryview(x)),
        lambda x: np.from_dlpack(x),
        lambda x: x.view(np.int32),
        lambda x: np.broadcast_to(x, (2, *LARGE)),
        lambda x: iter(x),
    ],
)
def test_whatever_can_see_an_array_keeps_its_buffer(hold: Any) -> None:
    x = memory.empty(LARGE, "float32")
    place, held = address(x), hold(x)
    del x
    assert address(memory.empty(LARGE, "float32")) != place
    del held
    gc.collect()
    assert address(memory.empty(LARGE, "float32")) == place


def test_small_arrays_are_numpy_s_own() -> None:
    memory.empty((10, 10), "float32")
    assert memory._buffers == []


def test_free_buffers_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIMIT", 4 * memory.SMALL)
    arrays = [memory.empty((memory.SMALL * (2 + i),), "uint8") for i in range(5)]
    del arrays
    memory.empty((100 * memory.SMALL,), "uint8")
    assert sum(b.nbytes for b in memory._buffers[:-1]) <= memory.LIMIT


def test_outputs_of_many_scans_in_threads_stay_as_they_are() -> None:
    cell = tgr.nn.RNNCell(64, 128)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((16, 32, 64)).astype("float32") for _ in range(4)]
    expected = [tgr.scan(cell, x, mode="eager")[0].numpy() for x in inputs]
    wrong: list[float] = []

    def work(i: int) -> None:
        kept = [tgr.scan(cell, inputs[i], mode="compiled")[0] for _ in range(10)]
        wrong.extend(float(np.abs(y.numpy() - expected[i]).max()) for y in kept)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(wrong) == 40 and max(wrong) < 1e-5
