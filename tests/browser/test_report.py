"""The page on a training run, and the characters that a prediction leans on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinygradrnn as tgr
from tinygradrnn.charmodel import CharModel
from tinygradrnn.cli import main

pytestmark = pytest.mark.browser


def shade(span: Any) -> float:
    return float(
        span.parent.execute_script("return arguments[0].style.getPropertyValue('--a')", span)
    )


def test_another_character_is_picked(show: Callable[[str], Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    text = "a <b> & c"
    known = tgr.data.Vocabulary.of(text)
    model = CharModel(len(known), "gru", 4, 8, tgr.current_backend().rng(0))
    found = tgr.viz.saliency(model, text, known)
    page = show(found.html())
    spans = page.find_elements("css selector", "[data-k]")
    assert "".join(s.get_attribute("textContent") for s in spans) == text
    for t in (8, 3, 0):
        spans[t].click()
        row = found.scores[t] / found.scores[t].max()
        assert [shade(s) for s in spans] == pytest.approx(list(row), abs=0.006)
        said = page.find_element("class name", "said").text
        name = {" ": "␣"}.get(found.chosen[t], found.chosen[t])
        assert said.startswith(f"After {t + 1} characters: {name} has")
    spans[0].send_keys(Keys.ARROW_RIGHT)
    assert "here" in spans[1].get_attribute("class")


def test_a_report(show: Callable[[str], Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib: pip install -e '.[plot]'")
    (tmp_path / "text.txt").write_text("the quick brown fox <jumps> over & over. " * 60)
    where, out = str(tmp_path / "text.txt"), str(tmp_path / "run")
    sizes = ["--hidden-size", "8", "--embedding-size", "4", "--batch-size", "2", "--chunk", "8"]
    assert main(["train", "--text", where, "--out", out, "--steps", "20", *sizes]) == 0
    page = show(tgr.viz.report(out))
    assert "finished, after 20 steps" in page.find_element("tag name", "body").text
    tables = page.find_elements("tag name", "table")
    assert not tables[0].is_displayed()
    page.find_element("css selector", "details summary").click()
    assert tables[0].is_displayed()
    for chart in page.find_elements("css selector", ".chart svg"):
        assert chart.size["width"] > 400
