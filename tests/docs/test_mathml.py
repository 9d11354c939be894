"""Equations become MathML whole, or the build says which part did not."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

EXTENSIONS = str(Path(__file__).resolve().parents[2] / "docs" / "_ext")


@pytest.fixture
def mathml(monkeypatch: pytest.MonkeyPatch) -> Any:
    if find_spec("latex2mathml") is None or find_spec("sphinx") is None:
        pytest.skip("no latex2mathml: pip install -e '.[docs]'")
    monkeypatch.setattr(sys, "path", [EXTENSIONS, *sys.path])
    module: Any = importlib.import_module("mathml")
    said: list[Any] = []
    monkeypatch.setattr(module._log, "warning", lambda text, *args, **_: said.append(text % args))
    module.said = said
    return module


def made(mathml: Any, text: str) -> str:
    from docutils import nodes

    return mathml._made(nodes.math(text, text), "inline")


def test_a_recurrence(mathml: Any) -> None:
    found = made(mathml, r"h_t = \tanh(w\,h_{t-1})")
    assert "<msub><mi>h</mi><mi>t</mi></msub>" in found and "<mi>tanh</mi>" in found
    assert mathml.said == []


def test_lines_that_are_aligned(mathml: Any) -> None:
    found = made(mathml, r"\begin{aligned} a &= b \\ c &= d \end{aligned}")
    assert found.count("text-align:right") == found.count("text-align:left") == 2
    assert mathml.said == []


@pytest.mark.parametrize("text", [r"a & b", r"\nosuchthing x"])
def test_what_is_not_known_is_said(mathml: Any, text: str) -> None:
    made(mathml, text)
    assert len(mathml.said) == 1 and text in mathml.said[0].replace("\\\\", "\\")
