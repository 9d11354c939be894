"""Which characters a prediction leans on, against finite differences."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn.charmodel import CharModel
from tinygradrnn.cli import main

TEXT = "the cat <sat> & sat\n"
KNOWN = tgr.data.Vocabulary.of(TEXT)


def model(kind: str = "lstm") -> CharModel:
    return CharModel(len(KNOWN), kind, 5, 7, tgr.current_backend().rng(1))


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("times_input", [False, True])
def test_scores_are_gradients(kind: str, times_input: bool) -> None:
    net = model(kind)
    found = tgr.viz.saliency(net, TEXT, KNOWN, times_input=times_input)
    ids = KNOWN.encode(TEXT)
    vectors = net.embedding(tgr.tensor(ids.reshape(-1, 1))).numpy()

    def log_probability(e: Any, t: int) -> float:
        with tgr.no_grad():
            logits = net.logits(tgr.tensor(e.astype(np.float32)))[0][t, 0]
        target = list(KNOWN.characters).index(found.chosen[t])
        return float(tgr.log_softmax(logits, axis=-1)[target].item())

    for t, k in ((0, 0), (5, 5), (5, 4), (12, 9), (19, 18)):
        slope = np.zeros(5)
        for i in range(5):
            e = vectors.astype(np.float64).repeat(2, axis=1)
            e[k, 0, i] += 0.02
            e[k, 1, i] -= 0.02
            slope[i] = (log_probability(e[:, :1], t) - log_probability(e[:, 1:], t)) / 0.04
        expected = abs(slope @ vectors[k, 0]) if times_input else np.linalg.norm(slope)
        assert found.scores[t, k] == pytest.approx(expected, rel=0.02, abs=2e-4)
    assert not np.triu(found.scores, 1).any()
    assert found.scores.diagonal().all()


def test_predictions_are_the_models() -> None:
    net = model()
    found = tgr.viz.saliency(net, TEXT, KNOWN)
    assert found.chosen[:-1] == list(TEXT[1:])
    assert found.chosen[-1] == found.expected[-1][0][0]
    logits, _ = net(tgr.tensor(KNOWN.encode(TEXT).reshape(-1, 1)))
    p = tgr.softmax(logits[:, 0], axis=-1).numpy()
    for t, rows in enumerate(found.expected):
        assert [q for _, q in rows] == pytest.approx(np.sort(p[t])[::-1][:3], rel=1e-4)


def test_long_texts_are_cut_into_parts_that_fit() -> None:
    text = (TEXT * 8)[:150]
    whole = tgr.viz.saliency(model(), text, KNOWN)
    part = tgr.viz.saliency(model(), text[:70], KNOWN)
    np.testing.assert_allclose(whole.scores[:69, :69], part.scores[:69, :69], rtol=1e-3, atol=1e-6)


def test_a_model_of_ones_own_and_a_run(tmp_path: Path) -> None:
    class Own(tgr.nn.Module):
        def __init__(self) -> None:
            self.embedding = tgr.nn.Embedding(len(KNOWN), 4)
            self.rnn = tgr.nn.GRU(4, 6, num_layers=2)
            self.out = tgr.nn.Linear(6, len(KNOWN))

        def logits(self, embedded: Any) -> Any:
            return self.out(self.rnn(embedded)[0])

    assert tgr.viz.saliency(Own(), TEXT, KNOWN).scores.shape == (20, 20)
    (tmp_path / "text.txt").write_text("a cat sat on the mat. " * 100)
    where, out = str(tmp_path / "text.txt"), str(tmp_path / "run")
    sizes = ["--hidden-size", "8", "--embedding-size", "4", "--batch-size", "2", "--chunk", "8"]
    assert main(["train", "--text", where, "--out", out, "--steps", "2", *sizes]) == 0
    assert tgr.viz.saliency(out, "a cat").scores.shape == (5, 5)


def test_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tgr.viz.saliency(model(), TEXT, KNOWN)
    plain = found.terminal(colour=False, width=10)
    lines = plain.splitlines()
    assert lines[0] == TEXT[:10]
    assert lines[2] == TEXT[10:19] + "⏎"
    assert "█" in plain
    assert "\033" not in plain
    coloured = found.terminal(colour=True, width=10)
    assert "\033[38;5;16;48;5;208m" in coloured  # black on it, whatever the terminal's own colours
    assert re.sub(r"\033\[[\d;]*m", "", coloured) == plain
    assert "\033" not in found.terminal()  # pytest's output is no terminal
    row = lines[1]
    assert len(row) <= 10
    assert "for 'h'" in found.terminal(0)


def test_a_page_keeps_text_as_text() -> None:
    html = tgr.viz.saliency(model(), TEXT, KNOWN).html()
    assert "<sat>" not in html
    assert ">&lt;</span>" in html


def test_bad_arguments(tmp_path: Path) -> None:
    error = tgr.TinygradrnnError
    with pytest.raises(error, match="RNNCell has no embedding and no logits to call"):
        tgr.viz.saliency(tgr.nn.RNNCell(2, 3), "a")
    with pytest.raises(error, match="vocabulary is None"):
        tgr.viz.saliency(model(), "a")
    with pytest.raises(error, match="text is 0 characters"):
        tgr.viz.saliency(model(), "", KNOWN)
    with pytest.raises(error, match="text is 2001 characters"):
        tgr.viz.saliency(model(), "a" * 2001, KNOWN)
    with pytest.raises(error, match="no checkpoint"):
        tgr.viz.saliency(tmp_path, "a")
    with pytest.raises(error, match=r"tells \d+ characters apart, the vocabulary has 3"):
        tgr.viz.saliency(model(), "cat", tgr.data.Vocabulary("act"))
    lost = model()
    lost.load_state_dict({k: v * float("nan") for k, v in lost.state_dict().items()})
    with pytest.raises(error, match="predictions are NaN"):
        tgr.viz.saliency(lost, "cat", KNOWN)
    with pytest.raises(error, match="not in ascending order"):
        tgr.data.Vocabulary("ba")
    found = tgr.viz.saliency(model(), "cat", KNOWN)
    with pytest.raises(error, match="width=0; expected a number of columns"):
        found.terminal(width=0)
    with pytest.raises(error, match="position=3; the text has 3"):
        found.terminal(3)
    with pytest.raises(error, match=r"'a.svg'"):
        found.save("a.svg")
