"""Which room may import which, and what importing the library loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "tinygradrnn"

# A room imports only rooms to its left; several in one entry may import each other.
ROOMS = [
    {"errors"},
    {"tree"},
    {"backend", "random"},
    {"tape"},
    {"convert", "namespace"},
    {"op"},
    {"ops"},
    {"backprop"},
    {"autodiff"},
    {"tensor"},
    {"creation"},
    {"scan"},
    {"nn"},
    {"optim"},
    {"io"},
    {"data"},
    {"baselines"},
    {"charmodel"},
    {"train"},
    {"cli"},
]
LEAVES = {"testing"}  # import what they like; nothing imports them
CORE = {"errors", "tree", "backend", "tape", "convert", "namespace", "op", "ops", "backprop"}
CORE |= {"autodiff", "tensor", "creation", "random"}
ARRAYS = {"numpy", "cupy", "torch", "array_api_compat", "array_api_strict"}


def room(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imports(path: Path, *, only_top: bool = False) -> Iterator[str]:
    """The modules a file imports; those for type checkers alone do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if only_top and isinstance(node, ast.FunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))


def ours(path: Path) -> set[str]:
    rooms = {p.stem if p.suffix else p.name for p in LIBRARY.iterdir()}
    found = {name.split(".")[1] for name in imports(path) if name.startswith("tinygradrnn.")}
    return found & rooms


FILES = sorted(p for p in LIBRARY.rglob("*.py") if p != LIBRARY / "__init__.py")


def test_every_room_has_its_place() -> None:
    listed = set().union(*ROOMS, LEAVES)
    assert {room(p) for p in FILES} == listed


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_a_room_imports_only_rooms_to_its_left(path: Path) -> None:
    here = room(path)
    if here in LEAVES:
        return
    place = next(i for i, rooms in enumerate(ROOMS) if here in rooms)
    allowed = set().union(*ROOMS[: place + 1])
    # The generator's class is named by the backend, which it is made for, inside a function.
    assert ours(path) <= allowed, f"{here} may not import {ours(path) - allowed}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_the_core_imports_no_array_library(path: Path) -> None:
    if room(path) in CORE:
        found = {name.split(".")[0] for name in imports(path, only_top=True)} & ARRAYS
        assert not found


def test_tree_stands_alone() -> None:
    assert not ours(LIBRARY / "tree.py")


BACKENDS = sorted((ROOT / "backends").glob("tinygradrnn_*/*.py"))


@pytest.mark.parametrize("path", BACKENDS, ids=lambda p: p.parent.name)
def test_a_backend_imports_only_the_contract_and_its_own_library(path: Path) -> None:
    assert ours(path) <= {"backend", "errors"}
    own = {"tinygradrnn_numpy": {"numpy"}, "tinygradrnn_cupy": {"cupy", "array_api_compat"}}
    assert {n.split(".")[0] for n in imports(path)} & ARRAYS <= own[path.parent.name]


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_loads_no_backend_and_no_optional_package() -> None:
    optional = {
        *("cupy", "torch", "autograd", "matplotlib", "tqdm", "safetensors", "array_api_strict"),
        *("array_api_compat", "scipy", "hypothesis", "tinygradrnn_numpy", "tinygradrnn_cupy"),
    }
    assert not loaded_by("import tinygradrnn") & optional


def test_only_the_chosen_backend_is_loaded() -> None:
    loaded = loaded_by("import tinygradrnn as tgr; tgr.tensor([1.0]) + 1")
    assert "tinygradrnn_numpy" in loaded
    assert not loaded & {"tinygradrnn_cupy", "cupy", "array_api_strict"}
