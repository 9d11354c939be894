"""House rules that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinygradrnn as tgr

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = sorted([*ROOT.glob("tinygradrnn/**/*.py"), *ROOT.glob("backends/**/*.py")])


def code_lines(source: str) -> int:
    """Lines that are neither blank nor comment nor docstring: explaining is never discouraged."""
    lines = source.splitlines()
    counted = {i for i, line in enumerate(lines, 1) if line.strip() and line.strip()[0] != "#"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            counted -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(counted)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_idea_that_fits_in_a_head(path: Path) -> None:
    lines = code_lines(path.read_text(encoding="utf-8"))
    assert lines <= 400, "more than one idea?"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_ever_unpickled(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    pattern = (
        r"^\s*(import|from)\s+(c?pickle|dill|cloudpickle|shelve|marshal|joblib)\b|allow_pickle"
    )
    assert not re.search(pattern, source, re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in tgr.__all__ if callable(getattr(tgr, name))])
def test_every_public_name_says_what_it_is(name: str) -> None:
    value = getattr(tgr, name)
    # An object without a text of its own shows its class's, which says nothing about it.
    own = value.__doc__ if isinstance(value, type) or value.__doc__ != type(value).__doc__ else None
    assert own, f"tgr.{name} has no docstring"
    assert own.strip().splitlines()[0].rstrip().endswith((".", ":", "?")) or "\n" in own


@pytest.mark.parametrize("name", ["tests", "train"])
def test_the_readme_has_its_commands(name: str) -> None:
    command = subprocess.check_output(
        [sys.executable, ROOT / ".ci" / "readme_command.py", name], text=True
    )
    assert "python3 -m venv .venv" in command, "it must work on an empty machine"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_what_is_named_exists(page: str) -> None:
    folders = "|".join(re.escape(path.name) for path in ROOT.iterdir() if path.is_dir())
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]*\w", text)
    made = (".venv/", "docs/_build")  # by the commands themselves
    assert not [p for p in named if not (ROOT / p).exists() and not p.startswith(made)]
