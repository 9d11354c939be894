"""Build the wheel and try it in a clean environment, outside the repository.

What must hold: it carries our packages and nothing else; ``import backends`` and ``import tests`` fail;
a third party's plugin is found; the whole contract holds on it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRY = """
import importlib.util
import tinygradrnn as tgr
for name in ("backends", "tests"):
    assert importlib.util.find_spec(name) is None, f"{name} can be imported"
info = {b.name: b for b in tgr.backends()}
assert info["numpy"].usable and info["strict"].usable, info
assert info["strict"].distribution.startswith("tinygradrnn-strict"), info["strict"]
tgr.testing.check_backend("strict")
print("wheel: check_backend('strict') passed with", tgr.__file__)
"""


def run(*command: str | Path, cwd: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run([str(c) for c in command], check=True, cwd=cwd, env=environment)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for project in (ROOT, ROOT / "tests/plugins/tinygradrnn_strict"):
            run(sys.executable, "-m", "build", "--outdir", work / "dist", project, cwd=work)
        wheels = sorted((work / "dist").glob("*.whl"))
        (ours,) = (w for w in wheels if w.name.startswith("tinygradrnn-"))
        tops = {name.split("/")[0] for name in zipfile.ZipFile(ours).namelist()}
        packages = {"tinygradrnn", "tinygradrnn_numpy", "tinygradrnn_cupy"}
        extra = {t for t in tops if not t.endswith(".dist-info")} ^ packages
        if extra:
            sys.exit(f"the wheel's packages differ from {sorted(packages)} by {sorted(extra)}")
        if "tinygradrnn/py.typed" not in zipfile.ZipFile(ours).namelist():
            sys.exit("the wheel has no py.typed")
        venv.create(work / "env", with_pip=True)
        python = work / "env/bin/python"
        run(python, "-m", "pip", "install", "--quiet", *wheels, cwd=work)
        run(python, "-c", TRY, cwd=work)


if __name__ == "__main__":
    main()
