"""The main job from the command line: training, stopping, going on, sampling, and bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn.cli import main

TEXT = "the quick brown fox jumps over the lazy dog. " * 60
SMALL = ["--hidden-size", "12", "--embedding-size", "6", "--batch-size", "3", "--chunk", "10"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def train(text: Path, out: Path, *more: str) -> int:
    return main(["train", "--text", str(text), "--out", str(out), *SMALL, *more])


def weights(out: Path) -> dict[str, Any]:
    return tgr.io.load(out / "checkpoint.safetensors")[0]


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.strip()]
    assert len(lines) == 1, error
    assert lines[0].startswith("tinygradrnn: error: ")
    return lines[0]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_it_learns_and_writes(
    cell: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(text, out, "--cell", cell, "--steps", "400", "--learning-rate", "0.02") == 0
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    last = log[-1]
    assert last["validation"] < last["baselines"]["bigram"]
    assert log[0]["bits_per_character"] > log[-2]["bits_per_character"]
    said = capsys.readouterr().out
    assert "bigram" in said
    assert "<- this run" in said
    assert main(["sample", str(out), "--prompt", "the qui", "--length", "40", "--seed", "1"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("the qui")
    assert len(first) == len("the qui") + 40 + 1
    assert set(first) <= set(TEXT) | {"\n"}
    assert main(["sample", str(out), "--prompt", "the qui", "--length", "40", "--seed", "1"]) == 0
    assert capsys.readouterr().out == first


OWN = """
import tinygradrnn as tgr
from helper import HALF

class Fading(tgr.nn.Cell):
    def __init__(self, inputs, hidden, *, rng=None):
        self.w = tgr.nn.Linear(inputs + hidden, hidden, rng=rng)
        self.hidden = hidden

    def initial_state(self, batch_size):
        return {"h": tgr.zeros((batch_size, self.hidden))}

    def forward(self, x, state):
        h = HALF * state["h"] + tgr.tanh(self.w(tgr.concat([state["h"], x], axis=-1)))
        return h, {"h": h}

class Deep(Fading):
    def __init__(self, inputs, hidden, depth):
        self.depth = depth

class Wide(Fading):
    def forward(self, x, state):
        h, state = super().forward(x, state)
        return tgr.concat([h, h], axis=-1), state
"""


def test_a_cell_of_ones_own(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "fading_cell.py", tmp_path / "run"
    file.write_text(OWN)
    (tmp_path / "helper.py").write_text("HALF = 0.5")
    chosen = ["--cell", f"{file}:Fading"]
    assert train(text, out, *chosen, "--steps", "200") == 0
    assert "Fading of 12" in capsys.readouterr().out
    assert train(text, out, "--resume", "--steps", "250") == 0
    whole = tmp_path / "whole"
    assert train(text, whole, *chosen, "--steps", "250") == 0
    assert same(weights(out), weights(whole))
    assert main(["sample", str(out), "--length", "10"]) == 0
    capsys.readouterr()
    for name, says in (
        (f"{file}:Other", "fading_cell.py has no class 'Other', only ['Fading', 'Deep', 'Wide']"),
        (f"{tmp_path}/none.py:Fading", "there is no file"),
        (f"{file}:Deep", "Deep cannot be made with (embedding_size, hidden_size): missing a"),
        ("Fading", "expected lstm, gru, rnn, or a class of yours, my_file.py:MyCell"),
    ):
        assert train(text, tmp_path / "no", "--cell", name) == 2
        assert says in complaint(capsys)
    assert train(text, tmp_path / "no", "--cell", f"{file}:Wide") == 2
    says = "the output of the cell has shape (10, 3, 24); expected (10, 3, 12)"
    assert says in capsys.readouterr().err


def test_a_resumed_run_is_the_run_never_stopped(text: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    # More steps than an epoch has chunks, so that the text begins again on the way.
    assert train(text, whole, "--steps", "150") == 0
    assert train(text, parts, "--steps", "37") == 0
    for steps in ("38", "90", "150"):
        assert main(["train", "--resume", "--out", str(parts), "--steps", steps]) == 0
    assert same(weights(whole), weights(parts))
    entries = [
        [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (whole, parts)
    ]
    assert entries[1] == sorted(entries[1])


def command(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tinygradrnn.cli", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_step_and_saves(number: int, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    args = ["train", "--text", str(text), "--out", str(out), *SMALL]
    process = command(*args, "--steps", "1000000")
    wait_for(out / "checkpoint.safetensors", process)
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert "--resume" in said
    step = tgr.io.load(out / "checkpoint.safetensors")[1]["step"]
    whole = tmp_path / "whole"
    assert main(["train", "--resume", "--out", str(out), "--steps", str(step + 5)]) == 0
    assert train(text, whole, "--steps", str(step + 5)) == 0
    assert same(weights(whole), weights(out))


def test_a_kill_leaves_a_checkpoint_to_go_on_from(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = command("train", "--text", str(text), "--out", str(out), *SMALL, "--steps", "1000000")
    wait_for(out / "checkpoint.safetensors", process)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    step = tgr.io.load(out / "checkpoint.safetensors")[1]["step"]
    assert main(["train", "--resume", "--out", str(out), "--steps", str(step + 3)]) == 0


# ----------------------------------------------------------------------------------- bad input


def test_bad_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, binary, short = (tmp_path / n for n in ("empty.txt", "binary.bin", "short.txt"))
    empty.write_text("")
    binary.write_bytes(bytes(range(256)) * 10)
    short.write_text("too short")
    for path, word in (
        (tmp_path / "missing", "missing"),
        (empty, "empty"),
        (binary, "binary"),
        (short, "short"),
    ):
        out = tmp_path / "run"
        assert train(path, out) == 2
        assert word in complaint(capsys)
        assert not out.exists()


@pytest.mark.parametrize(
    "more",
    [
        ["--steps", "0"],
        ["--hidden-size", "0"],
        ["--chunk", "-3"],
        ["--learning-rate", "nan"],
        ["--learning-rate", "-1"],
        ["--seed", "-1"],
        ["--backend", "nonesuch"],
    ],
)
def test_bad_numbers(
    more: list[str], text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(text, out, *more) == 2
    assert more[0].strip("-").replace("-", "_") in complaint(capsys).replace("-", "_")
    assert not out.exists()


def test_nothing_is_overwritten(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(text, out, "--steps", "2") == 0
    before = weights(out)
    capsys.readouterr()
    for more, word in (
        (["--text", str(text), *SMALL], "--resume"),
        (["--resume", "--hidden-size", "13"], "hidden_size"),
        (["--resume", "--steps", "1"], "fewer"),
        (["--resume", "--text", __file__], "not the one"),
    ):
        assert main(["train", "--out", str(out), *more]) == 2
        assert word in complaint(capsys)
    assert same(before, weights(out))
    taken = tmp_path / "file"
    taken.write_text("mine")
    assert train(text, taken, "--steps", "2") == 2
    assert "file" in complaint(capsys)
    assert taken.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert train(text, locked / "run", "--steps", "2") == 2
    assert "locked" in complaint(capsys)


def test_damaged_checkpoints(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(text, out, "--steps", "2") == 0
    path = out / "checkpoint.safetensors"
    whole = path.read_bytes()
    arrays, meta = tgr.io.load(path)

    def save(arrays: dict[str, Any], **changed: Any) -> None:
        tgr.io.save(path, arrays, {**meta, **changed})

    name = "model.readout.weight"
    settings = meta["settings"]
    damages = {
        "truncated": lambda: path.write_bytes(whole[: len(whole) // 2]),
        "absurd header": lambda: path.write_bytes(b"\xff" * 8 + whole[8:]),
        "garbage": lambda: path.write_bytes(b"not a checkpoint"),
        "gone": lambda: path.unlink(),
        "wrong shape": lambda: save({**arrays, name: np.zeros((2, 2), np.float32)}),
        "other wrong shape": lambda: save(
            {**arrays, "model.cell.weight_hh": np.zeros((2, 2), np.float32)}
        ),
        "missing key": lambda: save({k: v for k, v in arrays.items() if k != name}),
        "unknown weight": lambda: save({**arrays, "model.extra": arrays[name]}),
        "unknown key": lambda: save({**arrays, "extra": arrays[name]}),
        "absurd size": lambda: save(arrays, settings={**settings, "hidden_size": 10**9}),
        "unknown setting": lambda: save(arrays, settings={**settings, "more": 1}),
        "wrong setting": lambda: save(arrays, settings={**settings, "cell": "perceptron"}),
        "no vocabulary": lambda: save(arrays, vocabulary=None),
        "no settings": lambda: save(arrays, settings=None),
    }
    for what, damage in damages.items():
        path.write_bytes(whole)
        damage()
        left = path.read_bytes() if path.exists() else None
        capsys.readouterr()
        for args in (["sample", str(out)], ["train", "--resume", "--out", str(out)]):
            assert main(args) == 2, what
            complaint(capsys)
        assert (path.read_bytes() if path.exists() else None) == left, what


def test_bad_prompts(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train(text, out, "--steps", "2") == 0
    capsys.readouterr()
    for more, word in (
        (["--prompt", "é"], "é"),
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--length", "-1"], "length"),
        (["--seed", "-1"], "seed"),
        (["--backend", "nonesuch"], "nonesuch"),
    ):
        assert main(["sample", str(out), *more]) == 2
        assert word in complaint(capsys)
    assert main(["sample", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in complaint(capsys)


def test_backends_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backends"]) == 0
    said = capsys.readouterr().out
    assert "numpy" in said
    assert "cupy" in said


def test_temperature_zero_is_the_most_probable(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(text, out, "--steps", "20") == 0
    from tinygradrnn.charmodel import write
    from tinygradrnn.run import load_model

    model, vocabulary = load_model(out)
    draws = {
        "".join(write(model, vocabulary, tgr.current_backend().rng(seed), length=20, temperature=0))
        for seed in range(3)
    }
    assert len(draws) == 1


def test_a_picture_of_the_loss_where_matplotlib_is(text: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "run"
    assert train(text, out, "--steps", "120") == 0
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
