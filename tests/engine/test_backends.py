"""Choosing a backend, and being told why one cannot be chosen."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn import backend as backend_module


def test_use_backend_as_a_call_and_as_a_context(strict: str) -> None:
    before = tgr.current_backend()
    with tgr.use_backend(strict) as chosen:
        assert tgr.current_backend() is chosen
        assert tgr.tensor([1.0]).backend is chosen
        with tgr.use_backend("numpy"):
            assert tgr.tensor([1.0]).backend.name == "numpy"
        assert tgr.current_backend() is chosen
    assert tgr.current_backend() is before
    tgr.use_backend(strict)
    try:
        assert tgr.zeros(2).backend.name == "strict"
    finally:
        tgr.use_backend(before)


def test_one_object_for_one_device(strict: str) -> None:
    assert tgr.get_backend("strict") is tgr.get_backend("strict:device1")
    assert tgr.get_backend("strict:device2") is not tgr.get_backend("strict")
    a, b = (tgr.tensor([1.0], backend=f"strict:device{i}") for i in (1, 2))
    with pytest.raises(tgr.errors.DeviceError, match=r"add: argument 'x2'.*device2.*device1"):
        a + b


def test_it_is_per_thread(strict: str) -> None:
    seen: list[str] = []
    with tgr.use_backend(strict):
        thread = threading.Thread(target=lambda: seen.append(tgr.current_backend().name))
        thread.start()
        thread.join()
    assert seen == ["numpy"]


@pytest.mark.parametrize("name", ["nonesuch", "numpy:cuda:0", ""])
def test_unknown(name: str) -> None:
    before = tgr.current_backend()
    with pytest.raises(tgr.errors.BackendError):
        tgr.use_backend(name)
    assert tgr.current_backend() is before


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_environment_variable(strict: str) -> None:
    code = "import tinygradrnn as tgr; print(tgr.tensor([1.0]).backend)"
    assert run(code, TINYGRADRNN_BACKEND="strict").stdout.strip() == "strict:device1"
    wrong = run(code, TINYGRADRNN_BACKEND="nonesuch")
    assert wrong.returncode
    assert "nonesuch" in wrong.stderr.splitlines()[-1]


def test_a_name_claimed_twice_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        def __init__(self, dist: str) -> None:
            self.name, self.value, self.group = "twice", f"{dist}:Backend", backend_module.GROUP
            self.dist = type("Dist", (), {"name": dist, "version": "1"})()

    points: list[Any] = [Point("one"), Point("other")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: points)
    with pytest.raises(tgr.errors.BackendError, match=r"'twice'.*one 1 and other 1"):
        tgr.use_backend("twice")
    (info,) = tgr.backends()
    assert not info.usable
    assert "one 1" in info.distribution


def test_a_plugin_that_cannot_be_imported_names_its_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Point:
        name, value, group = "broken", "nowhere:Backend", backend_module.GROUP
        dist = type("Dist", (), {"name": "some-plugin", "version": "2"})()

        def load(self) -> Any:
            raise ImportError("No module named 'nowhere'")

    points: list[Any] = [Point()]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: points)
    with pytest.raises(tgr.errors.BackendError, match=r"some-plugin 2.*nowhere.*pip install"):
        tgr.use_backend("broken")


def test_every_backend_is_listed_with_its_distribution() -> None:
    infos = {info.name: info for info in tgr.backends()}
    assert infos["numpy"].usable
    assert infos["numpy"].reason == ""
    assert infos["numpy"].distribution.startswith("tinygradrnn ")


@pytest.mark.skipif(
    any(b.name == "cupy" and b.usable for b in tgr.backends()), reason="there is a GPU here"
)
def test_cupy_without_what_it_needs_gives_one_error_with_cause_and_cure() -> None:
    with pytest.raises(tgr.errors.BackendError) as caught:
        tgr.use_backend("cupy")
    message = str(caught.value)
    if importlib.util.find_spec("cupy") is None:
        assert "pip install 'tinygradrnn[cupy]'" in message
    else:
        assert "GPU" in message
        assert "numpy" in message


def test_tensors_of_two_backends_never_meet(strict: str) -> None:
    here, there = tgr.tensor([1.0, 2.0]), tgr.tensor([1.0, 2.0], backend=strict)
    calls: list[Any] = [
        lambda: here * there,
        lambda: there @ here,
        lambda: tgr.concat([here, there]),
        lambda: tgr.where(here > 0, here, there),
        lambda: tgr.mse(here, there),
        lambda: here[there.astype("int64")],
        lambda: tgr.take(here, there.astype("int64"), axis=0),
        lambda: there * np.ones(2, np.float32),
        lambda: np.ones(2, np.float32) + there,
        lambda: np.asarray(there),
    ]
    for call in calls:
        with pytest.raises(tgr.errors.DeviceError, match="strict:device1"):
            call()


def test_moving_keeps_the_gradient(strict: str) -> None:
    x = tgr.tensor([1.0, 2.0], requires_grad=True)
    y = x.to(strict)
    assert y.backend.name == "strict"
    assert y.to(strict) is y
    (y * y).sum().to("numpy").backward()
    assert x.grad is not None
    assert x.grad.backend.name == "numpy"
    assert x.grad.tolist() == [2, 4]
    (g,) = tgr.grad((x.to(strict) ** 3).sum(), x, create_graph=True)
    (gg,) = tgr.grad(g.sum(), x)
    assert gg.tolist() == [6, 12]


def test_one_seed_is_one_stream(strict: str) -> None:
    streams = []
    for name in ("numpy", strict):
        rng = tgr.get_backend(name).rng(5)
        drawn = [rng.normal((3,)), rng.uniform((2, 2)), rng.integers((4,), 0, 9)]
        streams.append([rng.backend.to_host(a).tolist() for a in drawn])
    assert streams[0] == streams[1]


def test_a_generator_goes_on_from_its_state() -> None:
    import json

    rng = tgr.current_backend().rng(1)
    rng.normal((3,))
    state = json.loads(json.dumps(rng.state))
    expected = rng.normal((3,)).tolist()
    other = tgr.current_backend().rng(2)
    other.state = state
    assert other.normal((3,)).tolist() == expected


def test_the_first_operation_of_a_process_has_a_gradient() -> None:
    # Also where it is one that the backend overrides, and its gradient needs a sum.
    code = (
        "import tinygradrnn as tgr; x = tgr.tensor([1.0], requires_grad=True); "
        "y = tgr.tensor([1.0, 2.0]); (x * y).backward([1.0, 1.0]); print(x.grad.tolist())"
    )
    assert run(code).stdout.strip() == "[3.0]"
