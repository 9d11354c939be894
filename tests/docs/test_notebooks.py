"""The notebooks run from the first cell to the last, and are kept without what they print."""

from __future__ import annotations

import json
import re
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["custom-cell", "first-steps"]


@pytest.mark.slow
def test_it_runs(path: Path, tmp_path: Path) -> None:
    missing = [name for name in ("nbclient", "ipykernel", "matplotlib") if find_spec(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: pip install -e '.[notebooks]'")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    start = time.monotonic()
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    print(f"{path.name}: {time.monotonic() - start:.1f} s")
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert (
        sum("image/png" in o.get("data", {}) or "text/html" in o.get("data", {}) for o in shown)
        >= 2
    )
    # What goes to stderr, a warning say, would stand in the page.
    assert [o.text for o in shown if o.get("name") == "stderr"] == []


def test_it_is_kept_without_outputs(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_its_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)\)", text)
    assert links
    for link in links:
        assert "://" in link or (path.parent / link).exists(), link
