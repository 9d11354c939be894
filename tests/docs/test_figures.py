"""The figures of the docs: drawn by the build, each used, and the same at every build."""

from __future__ import annotations

import importlib.util
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = re.compile(r"\{figure\} \S*_figures/(?P<name>\w+)\.svg\n:alt: (?P<alt>.+)\n")


@pytest.fixture(scope="module")
def figures() -> Iterator[ModuleType]:
    if find_spec("matplotlib") is None:
        pytest.skip("no matplotlib: pip install -e '.[plot]'")
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["figures"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["figures"]


def texts() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in PAGES)


def test_every_figure_is_drawn_and_shown_with_words_for_who_cannot_see_it(
    figures: ModuleType,
) -> None:
    shown = {match["name"]: match["alt"] for match in SHOWN.finditer(texts())}
    assert set(re.findall(r"_figures/(\w+)\.svg", texts())) == shown.keys() == set(figures.FIGURES)
    assert all(len(alt) > 60 for alt in shown.values())


def test_they_are_the_same_at_every_build(figures: ModuleType, tmp_path: Path) -> None:
    figures.draw_all(tmp_path)
    written = {path.stem: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert written.keys() == figures.FIGURES.keys()
    for path in tmp_path.iterdir():
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    figures.draw_all(tmp_path)
    assert {path.stem: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_their_numbers_are_those_of_the_text(figures: ModuleType) -> None:
    without, with_one = figures.hello_losses()
    assert round(with_one[-1], 3) == 0.006  # chapter 4
    assert 0.346 < without[-1] < 0.37
    found = figures.by_gain()
    assert [round(found[gain].rate, 3) for gain in (0.8, 1.2, 2.0)] == [0.715, 0.963, 1.136]
