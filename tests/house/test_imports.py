"""Which room may import which, and what merely importing the package may load."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tinygradrnn"
FILES = sorted(PACKAGE.rglob("*.py"))

# A room imports only rooms of lines above its own; rooms of one line do not know each other.
ROOMS = """
    errors tree loop
    backend chart
    tape
    random
    convert
    namespace
    recipe
    op
    watch
    region
    backprop
    autodiff
    ops
    tensor
    creation
    scan
    anomaly
    bptt
    nn
    optim
    io data baselines
    onnx
    charmodel
    run
    train
    testing viz
    cli
"""
RANK = {room: rank for rank, line in enumerate(ROOMS.split("\n")) for room in line.split()}
ALONE = {"errors", "tree", "loop"}  # import nothing of ours
LEAVES = {"testing", "viz"}  # nothing imports them but the command line, which is a user

EXCEPTIONS = {
    ("backend", "random"): "rng() returns a Generator, loaded when the first one is asked for",
    ("tape", "recipe"): "a type's name only: a node holds what its operation recorded",
    ("recipe", "op"): "a type's name only: a recipe is an operation's",
    ("namespace", "op"): "types' names only: the registry holds operations",
}

CORE = {room for room, rank in RANK.items() if rank < RANK["io"]}
THIRD_PARTY = {"numpy", "safetensors", "tqdm", "matplotlib", "onnx"}


class Import(NamedTuple):
    path: Path
    line: int
    module: str  # dotted, with the imported name where that may be a module
    lazy: bool  # inside a function, so not loaded with the module

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.module}"


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, also in functions and under TYPE_CHECKING."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(path, child.lineno, alias.name, lazy)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno} imports relatively"
                for alias in child.names:
                    yield Import(path, child.lineno, f"{child.module}.{alias.name}", lazy)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, lazy or function)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def ours(path: Path) -> Iterator[tuple[Import, str]]:
    """A file's imports of other rooms, each with that room's name."""
    for found in imports(path):
        package, *rest = found.module.split(".")
        if package == "tinygradrnn":
            if not rest and room_of(path) in LEAVES:
                continue  # a leaf may use the public face, as a user would
            assert rest, f"{found}, which holds every room: import the one that is meant"
            if rest[0] != room_of(path):
                yield found, rest[0]


def test_every_file_has_a_room() -> None:
    assert {room_of(path) for path in FILES} - {"__init__"} <= RANK.keys(), "see ROOMS above"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_to_the_left(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return  # the face of the package shows everything
    for found, target in ours(path):
        assert target in RANK, f"{found}, which is no room"
        assert target not in LEAVES or room == "cli", f"{found}, which is for users alone"
        assert room not in ALONE, f"{found}, but {room} stands alone"
        assert RANK[target] < RANK[room] or (room, target) in EXCEPTIONS, f"{found}: see ROOMS"


@pytest.mark.parametrize(("room", "target"), EXCEPTIONS)
def test_exceptions_are_needed_and_load_nothing(room: str, target: str) -> None:
    needed = False
    for path in FILES:
        if room_of(path) == room:
            # With the right-hand room made impossible to import, this one still loads.
            needed |= any(found == target for _, found in ours(path))
    assert needed, "an exception nobody needs any more"
    code = f"import sys; sys.modules['tinygradrnn.{target}'] = None; import tinygradrnn.{room}"
    stub = (
        f"import types, sys; p = types.ModuleType('tinygradrnn'); p.__path__ = [{str(PACKAGE)!r}]"
    )
    python(f"{stub}; sys.modules['tinygradrnn'] = p; {code}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_array_libraries_stay_out_of_the_core(path: Path) -> None:
    for found in imports(path):
        library = found.module.split(".")[0]
        if library == "tinygradrnn" or library in sys.stdlib_module_names:
            continue
        assert library in THIRD_PARTY, f"{found}, which we do not depend on"
        core = room_of(path) in CORE | {"__init__"}
        assert found.lazy or (library == "numpy" and not core), f"{found} when it is loaded"


BACKENDS = {
    "tinygradrnn_numpy": {"numpy"},
    "tinygradrnn_llvm": {"numpy", "llvmlite", "tinygradrnn_numpy"},
    "tinygradrnn_cupy": {"numpy", "cupy", "cupyx", "cupy_backends", "array_api_compat"},
}


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "backends").rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_backend_knows_the_contract_and_its_own_library(path: Path) -> None:
    package = path.relative_to(ROOT / "backends").parts[0]
    for found in imports(path):
        library = found.module.split(".")[0]
        if library == "tinygradrnn":
            assert found.module.split(".")[1] in ("backend", "errors", "loop"), str(found)
        else:
            assert library in BACKENDS[package] | {package} | sys.stdlib_module_names, str(found)


# ------------------------------------------------------------------------------ in a fresh process


def python(code: str, cwd: Path | None = None) -> str:
    """Run code in a fresh interpreter, where every warning is an error; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_no_optional_package_and_no_backend(tmp_path: Path) -> None:
    # Start-up files of an environment may have loaded some modules before: those are not ours.
    loaded = python(
        "import sys, numpy; before = set(sys.modules); import tinygradrnn;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})",
        tmp_path,
    )
    assert set(loaded.split()) - sys.stdlib_module_names <= {"tinygradrnn", "numpy"}


def test_only_the_chosen_backend_is_loaded(tmp_path: Path) -> None:
    code = "import sys, tinygradrnn as tgr; tgr.tensor([1.0], backend='numpy'); print(*sys.modules)"
    loaded = {name.split(".")[0] for name in python(code, tmp_path).split()}
    assert {name for name in loaded if name.startswith("tinygradrnn_")} == {"tinygradrnn_numpy"}


def test_help_on_the_command_line_loads_no_numpy_and_no_training(tmp_path: Path) -> None:
    loaded = python("import sys, tinygradrnn.cli; print(*sys.modules)", tmp_path).split()
    assert not {"numpy", "tinygradrnn.train", "tqdm", "safetensors", "matplotlib"} & set(loaded)


@pytest.mark.parametrize("name", ["backends", "tests", "benchmarks", "docs"])
def test_an_installation_maps_only_the_packages(name: str, tmp_path: Path) -> None:
    # Some other distribution may well install a package `tests`: not ours to judge.
    places = python(
        f"from importlib.util import find_spec; found = find_spec({name!r});"
        "print(*(found.submodule_search_locations or [found.origin]) if found else [], sep='\\n')",
        tmp_path,
    ).split("\n")
    assert str(ROOT / name) not in places, "install with: pip install -e ."


def test_importing_is_quick() -> None:
    # Twice what is promised, so that a busy machine does not fail it; the script prints the figure.
    measure = runpy.run_path(str(ROOT / "benchmarks" / "import_time.py"))["measure"]
    assert min(measure(7)) < 0.060
