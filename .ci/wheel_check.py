"""Build the wheel and the source distribution, and use the wheel as a stranger would.

    .venv/bin/python .ci/wheel_check.py

The wheel must hold the packages and nothing else. In a clean environment outside the repository it
is installed with the plugin project of tests/plugins, whose backend must then pass
``check_backend``.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "tests" / "plugins" / "tinygradrnn_strict"

USE = """
import importlib, pathlib, sys
import tinygradrnn as tgr

assert pathlib.Path(sys.prefix) in pathlib.Path(tgr.__file__).parents, tgr.__file__
assert (pathlib.Path(tgr.__file__).parent / "py.typed").is_file()
for name in ("backends", "tests"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"import {name} succeeds outside the repository")

tgr.testing.check_backend("strict")
"""


def run(*command: str | Path, cwd: Path | None = None) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, check=True, cwd=cwd)


def expected_files() -> set[str]:
    """What the wheel shall hold, beside its metadata: the packages' own files."""
    packages = [ROOT / "tinygradrnn", *(ROOT / "backends").glob("tinygradrnn_*")]
    return {
        str(path.relative_to(package.parent))
        for package in packages
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def check_contents(wheel: Path, sdist: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if names != expected_files():
        sys.exit(f"{wheel.name} and the packages differ in {sorted(names ^ expected_files())}")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "tests/conftest.py"}
    if not wanted <= inside:
        sys.exit(f"{sdist.name} lacks {sorted(wanted - inside)}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outside = Path(folder).resolve()
        # The wheel is built from the source distribution, so both are seen to be complete.
        run(sys.executable, "-m", "build", "--outdir", outside / "dist", ROOT)
        (wheel,), (sdist,) = (outside / "dist").glob("*.whl"), (outside / "dist").glob("*.tar.gz")
        check_contents(wheel, sdist)

        venv.create(outside / "env", with_pip=True)
        binaries = outside / "env" / ("Scripts" if sys.platform == "win32" else "bin")
        # -I: neither this folder nor PYTHONPATH may help.
        run(binaries / "python", "-I", "-m", "pip", "install", "--quiet", wheel, PLUGIN)
        (outside / "use.py").write_text(USE, encoding="utf-8")
        run(binaries / "python", "-I", "-W", "error", "use.py", cwd=outside)
        run(binaries / "tinygradrnn", "backends", cwd=outside)
    print("the wheel holds what it should, and works with a plugin it has never seen")


if __name__ == "__main__":
    main()
