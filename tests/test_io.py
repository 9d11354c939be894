"""Checkpoints come back exactly, survive a kill at any instant, and say what is wrong with them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygradrnn
from tinygradrnn import nn
from tinygradrnn.errors import CheckpointError
from tinygradrnn.io import load, load_json, make_folder, save, save_json, write_atomic

# A folder shared by the examples of a property does no harm: each example overwrites the file.
shares_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -------------------------------------------------------------------------------------- round trip

arrays = hnp.arrays(
    st.sampled_from([*"?bBhHiIqQefdF", ">f4", ">i8"]),  # every type NumPy and safetensors share
    hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
)
names = st.text(st.characters(codec="utf-8")).filter(lambda name: name != "__metadata__")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
metadatas = st.dictionaries(st.text(), json_values, max_size=4)


@shares_folder
@given(st.dictionaries(names, arrays, max_size=4), metadatas)
def test_what_is_saved_comes_back(
    tmp_path: Path, tensors: dict[str, Any], metadata: dict[str, Any]
) -> None:
    path = tmp_path / "a.safetensors"
    save(path, tensors, metadata)
    loaded, loaded_metadata = load(path)
    assert loaded_metadata == metadata
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        assert loaded[name].dtype == array.dtype.newbyteorder("=")
        assert loaded[name].shape == array.shape and loaded[name].flags.writeable
        np.testing.assert_array_equal(loaded[name], array)
    assert contents(tmp_path) == ["a.safetensors"]


@given(array=arrays.filter(lambda array: array.ndim > 0))
@shares_folder
def test_views_are_saved_as_what_they_show(tmp_path: Path, array: Any) -> None:
    path = tmp_path / "a.safetensors"
    views = {"transposed": array.T, "reversed": array[::-1], "strided": array[::2]}
    save(path, views)
    for name, loaded in load(path)[0].items():
        np.testing.assert_array_equal(loaded, views[name])


def test_a_generator_goes_on_with_the_next_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rng.random(5)
    state = rng.bit_generator.state
    save(tmp_path / "a", {}, {"rng": state})
    expected = rng.random(5)
    other = np.random.default_rng()
    other.bit_generator.state = load(tmp_path / "a")[1]["rng"]
    np.testing.assert_array_equal(other.random(5), expected)


def test_a_file_of_another_program_has_no_metadata(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(safetensors.numpy.save({"w": np.ones(2)}, {"format": "pt"}))
    tensors, metadata = load(tmp_path / "a")
    assert tensors["w"].tolist() == [1, 1] and metadata == {}


def test_nothing_is_pickled(tmp_path: Path) -> None:
    for value in (np.array([object()]), np.array(["text"]), np.zeros(1, "complex128")):
        with pytest.raises(CheckpointError, match="no type for 'w'"):
            save(tmp_path / "a", {"w": value})
    with pytest.raises(CheckpointError, match="__metadata__"):
        save(tmp_path / "a", {"__metadata__": np.ones(1)})
    with pytest.raises(CheckpointError, match="bytes of metadata"):
        save(tmp_path / "a", {}, {"log": "x" * 60_000_000})
    assert contents(tmp_path) == []


def test_without_safetensors_the_message_has_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        save(tmp_path / "a", {})


@shares_folder
@given(json_values)
def test_json_comes_back(tmp_path: Path, value: Any) -> None:
    save_json(tmp_path / "a.json", value)
    assert load_json(tmp_path / "a.json") == value
    assert contents(tmp_path) == ["a.json"]


# ------------------------------------------------------------------------------- all of it or none


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_changes_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, failure: BaseException
) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")

    def fail(*args: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        expected = CheckpointError if isinstance(failure, OSError) else KeyboardInterrupt
        with pytest.raises(expected):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and contents(tmp_path) == ["a"]


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    for path in ("missing/a", "file/a", "folder"):
        with pytest.raises(CheckpointError, match=f"cannot write .*{path}: [A-Z]") as error:
            write_atomic(tmp_path / path, b"new")
        assert "\n" not in str(error.value)
    assert contents(tmp_path) == ["file", "folder"]


def test_a_folder_is_made_or_refused_at_once(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "run" / "1").is_dir()
    assert contents(make_folder(tmp_path / "run" / "1")) == []
    (tmp_path / "file").write_text("a file")
    for path in ("file", "file/run"):
        with pytest.raises(CheckpointError, match="cannot write to folder"):
            make_folder(tmp_path / path)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match="Permission denied"):
        make_folder(tmp_path)
    with pytest.raises(CheckpointError, match="Permission denied"):
        write_atomic(tmp_path / "a", b"new")
    tmp_path.chmod(0o700)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"


def test_old_leftovers_of_killed_processes_go(tmp_path: Path) -> None:
    for name, age in ((".a[1].00000000.tmp", 7200), (".a[1].00000001.tmp", 0), (".b.0.tmp", 7200)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time(), time.time() - age))
    write_atomic(tmp_path / "a[1]", b"new")
    assert contents(tmp_path) == [".a[1].00000001.tmp", ".b.0.tmp", "a[1]"]


SAVER = """
import sys
import numpy as np
from tinygradrnn.io import save, save_json

step = 0
while True:
    step += 1
    save(sys.argv[1], {name: np.full(50_000, step) for name in "abc"}, {"step": step})
    save_json(sys.argv[2], [step] * 1000)
    if step == 1:
        print("saving", flush=True)
"""


def test_a_kill_at_any_instant_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    checkpoint, numbers = tmp_path / "a.safetensors", tmp_path / "a.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(tinygradrnn.__file__).parents[1])}
    for seed in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", SAVER, checkpoint, numbers],
            stdout=subprocess.PIPE,
            env=environment,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == b"saving"
            time.sleep(random.Random(seed).uniform(0, 0.05))
            process.kill()
        tensors, metadata = load(checkpoint)
        assert {int(x) for array in tensors.values() for x in array} == {metadata["step"]}
        assert len(set(load_json(numbers))) == 1
        leftovers = set(contents(tmp_path)) - {checkpoint.name, numbers.name}
        assert len(leftovers) <= seed + 1  # at most one file was being written at each kill


# ----------------------------------------------------------------------------------- spoilt files


@pytest.fixture
def good(tmp_path: Path) -> bytes:
    save(tmp_path / "good", {"w": np.arange(6.0).reshape(2, 3), "b": np.ones(2, "f4")}, {"n": 1})
    return (tmp_path / "good").read_bytes()


def refuse(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as error:
        load(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


def test_truncation_at_every_byte(tmp_path: Path, good: bytes) -> None:
    for end in range(len(good)):
        assert "truncated" in refuse(tmp_path / "bad", good[:end])
    assert "truncated" in refuse(tmp_path / "bad", good + b"x")
    assert load(tmp_path / "good")[1] == {"n": 1}


@given(edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1))
@shares_folder
def test_damage_is_refused_or_harmless(
    tmp_path: Path, good: bytes, edits: list[tuple[int, int]]
) -> None:
    data = bytearray(good)
    for at, byte in edits:
        data[at % len(data)] = byte
    path = tmp_path / "bad"
    path.write_bytes(data)
    try:
        load(path)
    except CheckpointError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def test_absurd_headers(tmp_path: Path) -> None:
    def file(header: object, body: bytes = b"") -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + body

    def tensor(dtype: object, shape: object, offsets: object) -> dict[str, object]:
        return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}

    path = tmp_path / "bad"
    assert "truncated or not a safetensors file" in refuse(path, b"")
    assert "truncated or not a safetensors file" in refuse(path, b"once upon a time\n" * 9)
    assert "header of 9223372036854775807 bytes" in refuse(path, b"\xff" * 7 + b"\x7f{}")
    assert "truncated or not a safetensors file" in refuse(path, b"\x80\x04\x95" + b"pickle" * 99)
    assert "JSON expected" in refuse(path, file(b""))
    assert "JSON expected" in refuse(path, file(b"[" * 200_000))
    assert "not UTF-8" in refuse(path, file(b"\xff\xfe"))
    assert "a JSON object expected" in refuse(path, file([1, 2]))
    assert "'w' is not described" in refuse(path, file({"w": 1}))
    assert "'w' has type 'BF16', which NumPy lacks" in refuse(
        path, file(tensor("BF16", [1], [0, 2]), b"xx")
    )
    assert "has type ['F32']" in refuse(path, file(tensor(["F32"], [1], [0, 4]), b"xxxx"))
    for shape, offsets in (
        ([2**62, 2**62], [0, 4]),
        ([10**30], [0, 4]),
        ([-1], [0, 4]),
        ([2], [0, 4]),
        ([1], [0, 2**63]),
        ([1], [4, 0]),
        ("1", [0, 4]),
    ):
        assert "damaged" in refuse(path, file(tensor("F32", shape, offsets), b"xxxx"))
    for text in ("", "[]", "1", '{"a":', "[" * 200_000):
        refuse(path, file({"__metadata__": {"tinygradrnn": text}}))
    path.write_bytes(file({"__metadata__": {"other": "not ours"}}))
    assert load(path) == ({}, {})


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for read in (load, load_json):
        with pytest.raises(CheckpointError, match=r"cannot read .*nowhere: No such file"):
            read(tmp_path / "nowhere")
        with pytest.raises(CheckpointError, match=r"cannot read .*: Is a directory"):
            read(tmp_path)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 200_000, b"1" * 5000])
def test_spoilt_json(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a\.json is damaged") as error:
        load_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_weights_that_pytorch_wrote(kind: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    theirs = getattr(torch.nn, kind)(3, 4, num_layers=2, bidirectional=True)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    ours = getattr(nn, kind)(3, 4, num_layers=2, bidirectional=True)
    ours.load_state_dict(load(tmp_path / "theirs.safetensors")[0])
    x = torch.randn(5, 2, 3)
    found, _ = ours(x.numpy())
    np.testing.assert_allclose(found.numpy(), theirs(x)[0].detach().numpy(), rtol=1e-5, atol=1e-6)
