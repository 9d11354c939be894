"""Every example a reader can see is run: docstrings, README, docs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import tinygradrnn as tgr

ROOT = Path(__file__).resolve().parents[2]
MODULES = ["tinygradrnn"] + [
    m.name for m in pkgutil.walk_packages(tgr.__path__, "tinygradrnn.") if m.name[-3:] != "cli"
]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run(example: doctest.DocTest) -> None:
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    report: list[str] = []
    runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder().find(module, name):
        test.globs["tgr"] = tgr
        run(test)


@pytest.mark.parametrize("name", sorted(tgr.registry))
def test_operations(name: str) -> None:
    # An operation is an object, whose docstring doctest does not find by itself.
    text = tgr.registry[name].__doc__
    assert text
    assert ">>>" in text, f"{name} has no example"
    globs: dict[str, Any] = {"tgr": tgr}
    run(doctest.DocTestParser().get_doctest(text, globs, name, None, 0))


def test_every_public_name_says_what_it_is() -> None:
    for name in tgr.__all__:
        thing = getattr(tgr, name)
        if callable(thing):
            assert inspect.getdoc(thing), name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one page share their names. ``<!-- not executed: reason -->`` exempts the next."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    globs: dict[str, Any] = {"__name__": "__main__", "tgr": tgr}
    for match in re.finditer(r"(<!-- not executed: [^>]+-->\s*)?```(?:python|pycon)\n(.*?)```", text, re.S):
        exempt, block = match.groups()
        line = text[: match.start(2)].count("\n")
        if exempt:
            continue
        if block.lstrip().startswith(">>>"):
            run(doctest.DocTestParser().get_doctest(block, globs, page.name, str(page), line))
        else:
            exec(compile("\n" * line + block, str(page), "exec"), globs)
