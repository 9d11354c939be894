"""The reference is complete, and what it says of costs is so at sizes it was not fitted to."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tinygradrnn as tgr

DOCS = Path(__file__).resolve().parents[2] / "docs"
MODULES = ("bptt", "data", "errors", "io", "nn", "nn.init", "onnx", "optim", "testing", "viz")


@pytest.fixture(scope="module")
def complexity() -> Any:
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        return importlib.import_module("complexity")
    finally:
        sys.path.remove(str(DOCS / "_ext"))


# ------------------------------------------------------------------------------------ completeness

BUILD = """
import json, sys
from sphinx.application import Sphinx
docs, out = sys.argv[1:]
only = {
    "exclude_patterns": ["[!r]*", "[!r]*/**"],
    "root_doc": "reference/index",
    "extensions": ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"],
}
app = Sphinx(docs, docs, out, out, "dummy", only, status=None, warning=None, freshenv=True)
app.build()
domains = app.env.domains
print(json.dumps({
    "python": sorted(domains["py"].objects),
    "options": sorted({f"{program} {name}" for program, name in domains["std"].progoptions}),
}))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The names that the built reference describes."""
    if find_spec("sphinx") is None:
        pytest.skip("no sphinx: pip install -e '.[docs]'")
    out = str(tmp_path_factory.mktemp("reference"))
    command = [sys.executable, "-c", BUILD, str(DOCS), out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {k: set(v) for k, v in json.loads(done.stdout.splitlines()[-1]).items()}


def public(module: ModuleType) -> list[str]:
    """A module's ``__all__``, or what it defines under a public name."""
    if hasattr(module, "__all__"):
        return [
            name for name in module.__all__ if not isinstance(getattr(module, name), ModuleType)
        ]
    return [
        name
        for name, x in vars(module).items()
        if not name.startswith("_") and getattr(x, "__module__", "") == module.__name__
    ]


@pytest.mark.parametrize("name", ["tinygradrnn", *(f"tinygradrnn.{m}" for m in MODULES)])
def test_every_public_name_is_described(name: str, built: dict[str, set[str]]) -> None:
    if name.endswith(".onnx") and find_spec("onnx") is None:
        pytest.skip("no onnx: pip install -e '.[onnx]'")
    names = public(importlib.import_module(name))
    assert len(names) > 3 or name.endswith(("viz", "io"))
    # The base of all errors is at home among the errors.
    at_home = {"tinygradrnn.TinygradrnnError": "tinygradrnn.errors.TinygradrnnError"}
    full = [at_home.get(f"{name}.{x}", f"{name}.{x}") for x in names]
    assert [x for x in full if x not in built["python"]] == []


def test_every_operation_is_described(built: dict[str, set[str]]) -> None:
    assert {f"tinygradrnn.{name}" for name in tgr.registry} <= built["python"]


def test_every_option_of_every_command_is_described(built: dict[str, set[str]]) -> None:
    from tinygradrnn import cli

    parsers: Any = next(a for a in cli._parser()._actions if isinstance(a.choices, dict)).choices
    assert {"train", "sample", "backends"} <= set(parsers)
    assert {"tinygradrnn-train --resume", "tinygradrnn-sample DIR"} <= built["options"]
    for command, parser in parsers.items():
        named = {flag for action in parser._actions for flag in action.option_strings}
        expected = {f"tinygradrnn-{command} {flag}" for flag in named - {"-h", "--help"}}
        assert expected <= built["options"]


# ------------------------------------------------------------------------------------------- costs


def test_the_formulas_of_cells_hold_at_another_size(complexity: Any) -> None:
    kinds = complexity.cells()
    assert {"RNNCell", "GRUCell", "LSTMCell"} <= {kind.__name__ for kind in kinds}
    for kind in kinds:
        counted = complexity.counted_cell(kind, 11, 6)
        assert tuple(f(11, 6) for f in complexity.cell_cost(kind)) == counted, kind


def test_the_cost_of_an_lstm_by_hand(complexity: Any) -> None:
    """Gers et al. 2000: four gates, each a product with x and one with h."""
    cost = complexity.cell_cost(tgr.nn.LSTMCell)
    i, h = 9, 5
    assert cost.forward(i, h) == 4 * h * (i + h)
    # Back: the transposed products for x and h, and the outer products for both weights.
    assert cost.backward(i, h) == 2 * 4 * h * (i + h)
    assert cost.parameters(i, h) == 4 * h * (i + h) + 2 * 4 * h
    assert str(cost.forward) == "4 I·H + 4 H²"
    # i, f, g, o after their functions, tanh(c), and the h and c that enter.
    assert cost.saved(i, h) == 7 * h


def test_a_cell_of_ones_own_is_counted(complexity: Any) -> None:
    class Square(tgr.nn.HiddenCell):
        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__(input_size, hidden_size)
            self.w = tgr.nn.Parameter(tgr.ones((hidden_size, hidden_size)))

        def forward(self, x: Any, state: Any) -> Any:
            h = state @ self.w @ self.w
            return h, h

    assert str(complexity.cell_cost(Square).forward) == "2 H²"


def test_what_no_formula_fits_is_an_error(complexity: Any) -> None:
    monomials = {"n": lambda n: n}
    with pytest.raises(ValueError, match="the formula"):
        complexity.fitted(lambda n: n * n, monomials, [(1,), (2,), (3,)])


@pytest.mark.parametrize("name", sorted(tgr.registry))
def test_the_work_of_operations_at_another_size(name: str, complexity: Any) -> None:
    cost = complexity.op_cost(name)
    if cost is None:
        parts = complexity.parts(name) if name != "transfer" else ["transfer"]
        assert parts and set(parts) <= set(tgr.registry)
        return
    matrices = name in ("matmul", "linear")
    sizes = (5, 4, 9) if matrices else (4096,)
    call = complexity._matrices if matrices else complexity._sample
    counted = complexity.counted_op(tgr.registry[name], *call(name, *sizes))
    for formula, found in zip((cost.forward, cost.backward), counted, strict=True):
        if formula is not None:  # reductions have a few numbers more, one for each row
            assert abs(formula(*sizes) - found) <= Fraction(found, 8) + 8


@pytest.mark.parametrize(
    ("name", "forward", "backward", "keeps"),
    [
        ("add", "n", "0", ()),
        ("tanh", "n", "3 n", ("out",)),  # out * out, 1 - that, g * that
        ("multiply", "n", "2 n", ("x2", "x1")),
        ("exp", "n", "n", ("out",)),
        ("reshape", "0", "0", ()),
        ("matmul", "m k n", "2 m k n", ("x2", "x1")),
    ],
)
def test_the_work_of_operations_by_hand(
    name: str, forward: str, backward: str, keeps: Any, complexity: Any
) -> None:
    cost = complexity.op_cost(name)
    assert (str(cost.forward), str(cost.backward), cost.keeps) == (forward, backward, keeps)


def test_the_rules_are_shown_whole() -> None:
    if find_spec("sphinx") is None:
        pytest.skip("no sphinx: pip install -e '.[docs]'")
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        reference = importlib.import_module("reference")
    finally:
        sys.path.remove(str(DOCS / "_ext"))
    shown = {
        name: list(reference.rules(op))
        for name, op in tgr.registry.items()
        if name != "mse" and hasattr(op, "rules")
    }
    assert shown["tanh"] == ["tanh.vjp(x=lambda xp, g, out: g * (1 - out * out))"]
    assert shown["where"][0].startswith("where.vjp(\n") and shown["where"][0].endswith("\n)")
    assert shown["gelu"][0].startswith("def _gelu_x(xp: Any, g: Any, x: Any) -> Any:\n    t = ")
    for sources in shown.values():
        for source in sources:
            compile(source, "rule", "exec")
