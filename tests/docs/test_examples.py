"""Every example runs: in docstrings, in the README and in the docs.

In Markdown, ``python`` blocks run in order; those of one page share their names and an empty
temporary folder. A block of ``>>>`` lines must print what it shows. One that cannot run says so::

    <!-- not executed: needs a GPU -->
"""

from __future__ import annotations

import doctest
import importlib
import linecache
import pkgutil
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import tinygradrnn as tgr

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    if "_build" not in path.relative_to(ROOT).parts
)
MODULES = ["tinygradrnn"]
MODULES += [info.name for info in pkgutil.walk_packages(tgr.__path__, "tinygradrnn.")]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder to work in; the current backend and the list of operations are put back."""
    monkeypatch.chdir(tmp_path)
    operations = dict(tgr.registry)
    with tgr.use_backend(tgr.current_backend()):
        yield
    tgr.registry.clear()
    tgr.registry.update(operations)


def run(test: doctest.DocTest) -> dict[str, Any]:
    """Run a doctest, fail with all that differed, return the names it left."""
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=report.append, clear_globs=False)
    if report:
        pytest.fail("".join(report), pytrace=False)
    return test.globs


# -------------------------------------------------------------------------------------- docstrings


def docstrings(module: ModuleType) -> Iterator[doctest.DocTest]:
    globs = vars(module) | {"tgr": tgr}
    found = doctest.DocTestFinder(exclude_empty=True).find(module, globs=globs)
    yield from found
    # The finder looks at functions and classes. Objects, such as operations, have examples as well.
    seen = {test.name for test in found}
    for key, value in vars(module).items():
        name, text = f"{module.__name__}.{key}", getattr(value, "__doc__", None)
        ours = getattr(value, "__module__", None) == module.__name__
        if ours and name not in seen and isinstance(text, str) and text != type(value).__doc__:
            yield doctest.DocTestParser().get_doctest(text, globs, name, module.__file__, None)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    if name == "tinygradrnn.onnx" and find_spec("onnx") is None:
        pytest.skip("no onnx: pip install -e '.[onnx]'")
    for test in docstrings(importlib.import_module(name)):
        run(test)


@pytest.mark.parametrize("name", sorted(tgr.registry))
def test_every_operation_has_an_example(name: str) -> None:
    assert ">>>" in (tgr.registry[name].__doc__ or "")


# ---------------------------------------------------------------------------------------- Markdown


class Block(NamedTuple):
    line: int  # of its first line of code, counted from 0
    source: str


FENCE = re.compile(r"\s*(?P<ticks>`{3,}|~{3,})\s*(?P<info>.*)")
LANGUAGE = re.compile(r"(\{(code-block|code|code-cell)\}\s*)?(python|pycon|ipython3)\b")
NOT_EXECUTED = re.compile(r"\s*<!-- not executed: \S.* -->")


def blocks(text: str) -> Iterator[Block]:
    lines = text.splitlines()
    i = 0
    while i < len(lines):
        opening = FENCE.fullmatch(lines[i])
        i += 1
        if opening is None:
            continue
        start = i
        before = next((line for line in reversed(lines[: start - 1]) if line.strip()), "")
        while i < len(lines) and not lines[i].strip().startswith(opening["ticks"]):
            i += 1
        if LANGUAGE.match(opening["info"]) and not NOT_EXECUTED.fullmatch(before):
            indent = len(lines[start - 1]) - len(lines[start - 1].lstrip())
            yield Block(start, "".join(line[indent:] + "\n" for line in lines[start:i]))
        i += 1


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages(path: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    text = path.read_text(encoding="utf-8")
    # Who looks for a line of the page, as tgr.watch does, finds the code alone.
    code = ["\n"] * (text.count("\n") + 1)
    for line, source in blocks(text):
        if not source.lstrip().startswith(">>>"):
            code[line : line + source.count("\n")] = source.splitlines(keepends=True)
    linecache.cache[str(path)] = (len("".join(code)), None, code, str(path))
    for line, source in blocks(text):
        if source.lstrip().startswith(">>>"):
            # A name of its own: doctest finds a block's source by it when someone asks for a line.
            page = f"{path.relative_to(ROOT)}:{line + 1}"
            names = run(doctest.DocTestParser().get_doctest(source, names, page, str(path), line))
        else:
            # Blank lines in front, so that a traceback names the page's own line.
            exec(compile("\n" * line + source, str(path), "exec"), names)


def test_blocks_are_found_and_left_out_as_promised() -> None:
    text = """
```python
a = 1
```
<!-- not executed: slow -->

```python
a = 2
```
- indented

  ```{code-block} python
  a = 3
  ```
````markdown
```python
a = 4
```
````
```bash
a=5
```
"""
    assert list(blocks(text)) == [Block(2, "a = 1\n"), Block(12, "a = 3\n")]
