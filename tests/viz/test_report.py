"""The page on a training run."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn.cli import main
from tinygradrnn.errors import DataError
from tinygradrnn.run import Run
from tinygradrnn.train import entries

SMALL = ["--hidden-size", "8", "--embedding-size", "4", "--batch-size", "2", "--chunk", "8"]
pytest.importorskip("matplotlib", reason="no matplotlib: pip install -e '.[plot]'")


def train(folder: Path, *more: str) -> Path:
    text = folder / "text.txt"
    text.write_text("if a < b and c > d & e: print('<b>fat</b>')\n" * 60)
    out = folder / "run"
    assert main(["train", "--text", str(text), "--out", str(out), *SMALL, *more]) == 0
    return out


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return train(tmp_path, "--steps", "60")


def test_the_page_has_everything_and_needs_nothing(run: Path) -> None:
    assert main(["show", str(run)]) == 0
    html = (run / "report.html").read_text(encoding="utf-8")
    for title in ("Loss", "Gradients", "What it wrote", "How its cell runs", "Settings"):
        assert f"<h2>{title}</h2>" in html
    assert "finished, after 60 steps" in html
    assert html.count('<svg role="img" aria-label=') == 2
    assert "before the loop, all steps at once" in html
    assert "<b>fat</b>" not in html
    assert 'http-equiv="refresh"' not in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    # The numbers stand in the page.
    losses = [
        e["bits_per_character"]
        for e in entries(run / "log.jsonl")
        if "step" in e and "bits_per_character" in e
    ]
    assert all(f"<td>{bits:.4f}</td>" in html for bits in losses)


def test_the_page_of_a_cell_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own_elman.py"
    file.write_text(
        "import tinygradrnn as tgr\n\n\nclass Own(tgr.nn.RNNCell):\n"
        "    def forward(self, x, h):\n        h, h = super().forward(x, h)\n        return h, h\n"
    )
    run = train(tmp_path, "--steps", "20", "--cell", f"{file}:Own")
    assert main(["show", str(run)]) == 0
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "<h1>Own of 8, in run</h1>" in html
    assert "Own on numpy:cpu, compiled" in html


def test_what_training_writes_down_is_the_gradient(run: Path) -> None:
    log = entries(run / "log.jsonl")
    norms = next(e["gradient_norms"] for e in reversed(log) if "gradient_norms" in e)
    assert set(norms) == {
        "embedding.weight",
        "cell.weight_ih",
        "cell.weight_hh",
        "cell.bias_ih",
        "cell.bias_hh",
        "readout.weight",
        "readout.bias",
    }
    # The two biases are added, so their gradients are one and the same.
    assert norms["cell.bias_ih"] == pytest.approx(norms["cell.bias_hh"])
    assert norms["readout.weight"] > 0
    assert isinstance(log[-1]["sample"], str)


def test_a_run_under_way_or_of_an_older_version(run: Path) -> None:
    lines = (run / "log.jsonl").read_text().splitlines()
    old = [json.loads(line) for line in lines]
    kept = [
        {k: v for k, v in e.items() if k not in ("gradient_norms", "sample", "validation")}
        for e in old
    ]
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, kept)) + '\n{"step": 61, "bi')
    html = tgr.viz.report(run)
    assert "under way, or stopped" in html
    assert "has written down no norms of gradients" in html
    assert "No sample has been written down yet" in html
    (run / "log.jsonl").unlink()
    assert "No loss has been written down yet" in tgr.viz.report(run)


def test_a_run_that_has_just_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pages: list[str] = []
    update = Run.update

    def look(self: Run, measure: bool = False) -> float:
        if self.step == 0:
            pages.append(tgr.viz.report(tmp_path / "run"))
        return update(self, measure)

    monkeypatch.setattr(Run, "update", look)
    train(tmp_path, "--steps", "2")
    assert "under way, or stopped, after 0 steps" in pages[0]
    assert "No loss has been written down yet" in pages[0]


def test_a_finished_run_that_goes_on_is_not_finished(run: Path) -> None:
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 70, "bits_per_character": 2.0}) + "\n")
    assert "under way, or stopped" in tgr.viz.report(run)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"bits_per_character": "x"}, "bits_per_character of step 61 is 'x'; expected a number"),
        (
            {"gradient_norms": [1]},
            r"gradient_norms of step 61 is '\[1\]'; expected numbers by name",
        ),
        ({"validation": 2.0, "baselines": {"xz": None}}, "baselines of step 61"),
        ({"sample": 3}, "sample of step 61 is '3'; expected text"),
    ],
)
def test_a_damaged_log_is_an_error_that_says_where(run: Path, entry: Any, said: str) -> None:
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 61, **entry}) + "\n")
    with pytest.raises(DataError, match=said):
        tgr.viz.report(run)


@pytest.mark.parametrize("line", [b"\xff\x00 none", b"[]", b'{"step": "1"}', b"{}"])
def test_a_damaged_line_is_named(run: Path, line: bytes) -> None:
    log = run / "log.jsonl"
    before = log.read_bytes()
    log.write_bytes(before + line + b"\n")
    with pytest.raises(DataError, match=rf"line {before.count(10) + 1} is damaged"):
        tgr.viz.report(run)
    assert main(["train", "--resume", "--out", str(run), "--steps", "61"]) == 2
    assert log.read_bytes() == before + line + b"\n"
    log.write_bytes(before + line)  # as a kill leaves it
    assert "finished, after 60 steps" in tgr.viz.report(run)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
def test_a_run_that_diverged(tmp_path: Path, capsys: Any) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("the cat sat on the mat. " * 100)
    wild = ["--learning-rate", "1e30", "--clip", "1e30"]
    assert main(["train", "--text", str(text), "--out", str(out), *SMALL, *wild]) == 2
    assert "training has diverged. Try a smaller --learning-rate" in capsys.readouterr().err
    assert "diverged: at step" in tgr.viz.report(out)
    arrays, meta = tgr.io.load(out / "checkpoint.safetensors")
    arrays["model.readout.bias"] = np.full_like(arrays["model.readout.bias"], np.nan)
    tgr.io.save(out / "checkpoint.safetensors", arrays, meta)
    assert "predictions are NaN: it has diverged" in tgr.viz.report(out)
    capsys.readouterr()
    assert main(["sample", str(out), "--length", "5"]) == 2
    assert "predictions are NaN: it has diverged" in capsys.readouterr().err


def test_odd_numbers_and_names_are_shown(run: Path) -> None:
    norms = {"<b>$\\no{$": math.nan, "blown up": math.inf, "gone": 0.0}
    others = {"validation": 2.0, "baselines": {"$x_{$ <b>": 2.0}, "sample": "\u00e9"}
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 61, "gradient_norms": norms, **others}) + "\n")
    html = tgr.viz.report(run)
    assert "<b>$" not in html
    assert "<td>nan</td><td>inf</td><td>0</td>" in html
    assert "characters that this vocabulary does not have" in html


def test_where_it_is_written(run: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "a" / "page.html"
    out.parent.mkdir()
    assert main(["show", str(run), "--out", str(out)]) == 0
    assert out.exists()
    assert not (run / "report.html").exists()
    assert capsys.readouterr().out.splitlines()[-1].startswith(out.resolve().as_uri())
    assert 'http-equiv="refresh" content="5"' in tgr.viz.report(run, refresh=5)


def test_no_run_and_no_matplotlib(
    tmp_path: Path, run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["show", str(tmp_path)]) == 2
    assert "no checkpoint.safetensors here" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["show", str(run)]) == 2
    assert "python -m pip install 'tinygradrnn[plot]'" in capsys.readouterr().err
    (run / "checkpoint.safetensors").write_bytes(b"nothing")
    assert main(["show", str(run)]) == 2
