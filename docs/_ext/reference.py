"""Pages of the reference that are made of the library itself, so that they cannot lag behind.

``.. operations:: MODULE``
    Every operation of the registry that a module defines: its signature and docstring, what kind of
    operation it is, what it costs, and its gradient rules as they stand in the source.
``.. cells::``
    Every cell of ``tgr.nn``: its docstring, and what a step of it costs.
``.. cell-costs::``
    A table of what all cells cost.
``.. commands::``
    The commands and options of the command line, from its parser.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from complexity import CellCost, cell_cost, cells, op_cost, parts
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.docutils import SphinxDirective

import tinygradrnn as tgr
from tinygradrnn import cli
from tinygradrnn.op import Composite


class _Generated(SphinxDirective):
    """A directive that stands for lines of reStructuredText."""

    has_content = False
    required_arguments = 0
    sources: ClassVar[tuple[str, ...]] = ()

    def lines(self) -> Iterator[str]:
        """What it stands for."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        for name in ("reference.py", "complexity.py"):
            self.env.note_dependency(str(Path(__file__).with_name(name)))
        return self.parsed(self.lines())

    def parsed(self, lines: Iterator[str]) -> list[nodes.Node]:
        """The nodes that lines stand for."""
        node = nodes.Element()
        self.state.nested_parse(StringList(list(lines), source="generated"), 0, node)
        return node.children


def indented(lines: Iterator[str] | list[str], by: str = "   ") -> Iterator[str]:
    """The lines, moved to the right."""
    return (by + line if line else "" for line in lines)


# -------------------------------------------------------------------------------------- operations


class Operations(_Generated):
    """``.. operations:: tinygradrnn.ops.elementwise``."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Every operation of the module, in the order of its source."""
        found = [n for n, op in tgr.registry.items() if op.__module__ == self.arguments[0]]
        if not found:
            raise self.error(f"no operations in {self.arguments[0]!r}")
        yield ".. py:currentmodule:: tinygradrnn"
        yield ""
        for name in found:
            yield from self._operation(name)

    def _operation(self, name: str) -> Iterator[str]:
        operation = tgr.registry[name]
        yield f".. py:function:: {name}{operation.__signature__}"
        yield ""
        text = inspect.cleandoc(operation.__doc__ or "")
        yield from indented(GoogleDocstring(text, self.config, self.env.app).lines())
        yield ""
        said = [f"*{'; '.join(kind(operation)).capitalize()}.*"]
        cost = op_cost(name)
        if cost is not None:
            back = f", {cost.backward} backward" if cost.backward is not None else ""
            said.append(f"**Work**: {cost.forward} forward{back}{measure(name)}.")
        if isinstance(operation, Composite):
            made = ", ".join(f":py:func:`{part}`" for part in parts(name))
            said.append(f"Made of {made}; their gradients are its gradient.")
        elif operation.rules:
            kept = " and ".join(f"``{k}``" for k in cost.keeps) if cost is not None else ""
            said.append(f"**Keeps** {kept or 'nothing'}. **Gradient**:")
        else:
            said.append("No gradient.")
        yield f"   {' '.join(said)}"
        yield ""
        if not isinstance(operation, Composite) and operation.rules:
            yield "   .. code-block:: python"
            yield ""
            for source in rules(operation):
                yield from indented(source.splitlines(), " " * 6)
            yield ""


def kind(operation: Any) -> list[str]:
    """The flags of an operation in words."""
    if isinstance(operation, Composite):
        return ["recorded by its parts"]
    said = [
        (operation.elementwise, "element by element"),
        (operation.promotes, "for numbers of one kind"),
        (not operation.differentiable, "its result needs no gradient"),
        (operation.variadic, "takes a sequence of arrays"),
        (operation.many, "has several results"),
        (operation.casts, "its result may be of a kind without a gradient"),
        (operation.moves, "its result may be on another backend"),
        (bool(operation.contracts), f"sums over all rows for ``{operation.contracts}``"),
        (operation.standard, "computed by the array standard's function of this name"),
        (hasattr(tgr.Tensor, operation.name), "also a method of Tensor"),
    ]
    return [words for true, words in said if true] or ["differentiable"]


def measure(name: str) -> str:
    """What the sizes in an operation's cost are, unless n is the number of elements."""
    matrices = name in ("matmul", "linear")
    return ", in multiplications of (m, k) and (k, n)" if matrices else ""


def rules(operation: Any) -> Iterator[str]:
    """The source of an operation's gradient rules, each once."""
    seen: set[str] = set()
    for rule in operation.rules.values():
        source = statement(rule)
        if source not in seen:
            seen.add(source)
            yield source


def statement(rule: Any) -> str:
    """The statement in which a rule is defined: a ``def``, or the call it is an argument of."""
    file, line = inspect.getsourcefile(rule), rule.__code__.co_firstlineno
    assert file is not None
    text = Path(file).read_text(encoding="utf-8")
    around = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    found = min(around, key=lambda node: (node.end_lineno or 0) - node.lineno)
    lines = text.splitlines()[found.lineno - 1 : found.end_lineno]
    return textwrap.dedent("\n".join(lines))


# ------------------------------------------------------------------------------------------- cells


class Cells(_Generated):
    """``.. cells::``."""

    def lines(self) -> Iterator[str]:
        """Every cell, in the order of the alphabet."""
        for cell in cells():
            yield f".. autoclass:: tinygradrnn.nn.{cell.__name__}"
            yield "   :members: initial_state, forward"
            yield ""
            yield f"   {words(cell_cost(cell))}"
            yield ""


class CellCosts(_Generated):
    """``.. cell-costs::``."""

    def lines(self) -> Iterator[str]:
        """A row for each cell."""
        yield ".. list-table::"
        yield "   :header-rows: 1"
        yield ""
        heads = ["cell", "parameters", "multiplications forward", "backward", "others", "backward"]
        rows = [[*heads, "saved"]]
        for cell in cells():
            name = f":py:class:`~tinygradrnn.nn.{cell.__name__}`"
            c = cell_cost(cell)
            counts = (c.parameters, c.forward, c.backward, c.other_forward, c.other_backward)
            rows.append([name, *map(str, counts), str(c.saved)])
        for row in rows:
            for i, text in enumerate(row):
                whole = re.sub(r"(\d) (?=[IH])", "\\1\N{NO-BREAK SPACE}", text)
                yield f"   {'*' if i == 0 else ' '} - {whole}"


def words(cost: CellCost) -> str:
    """What a cell costs, in a sentence or two."""
    return (
        f"**Costs** for each step and sequence: {cost.forward} multiplications in products, "
        f"{cost.backward} on the way back; other operations compute {cost.other_forward} numbers, "
        f"{cost.other_backward} on the way back; {cost.saved} numbers are kept. "
        f"{cost.parameters} parameters."
    )


# ---------------------------------------------------------------------------------------- commands


class Commands(_Generated):
    """``.. commands::``."""

    def run(self) -> list[nodes.Node]:
        """A section for each command."""
        self.env.note_dependency(inspect.getfile(cli))
        return [self._section(name, parser, text) for name, parser, text in commands()]

    def _section(self, name: str, parser: argparse.ArgumentParser, text: str) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(f"command-{name}")], names=[f"command {name}"])
        section += nodes.title(text=f"tinygradrnn {name}")
        section.extend(self.parsed(self._command(name, parser, text)))
        return section

    def _command(self, name: str, parser: argparse.ArgumentParser, text: str) -> Iterator[str]:
        yield f"{text[:1].upper()}{text[1:]}."
        yield ""
        yield f".. program:: tinygradrnn {name}"
        yield ""
        for action in parser._actions:
            if action.help is argparse.SUPPRESS or action.dest == "help":
                continue
            value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
            if not action.option_strings:
                yield f".. option:: {action.metavar or action.dest}"
            else:
                if action.choices is not None:
                    value = f" {{{','.join(map(str, action.choices))}}}"
                yield f".. option:: {', '.join(f'{flag}{value}' for flag in action.option_strings)}"
            yield ""
            yield "   " + re.sub(r"(--[\w-]+)", r"``\1``", action.help or "")
            yield ""


def commands() -> list[tuple[str, argparse.ArgumentParser, str]]:
    """The name, the parser and the help of each command."""
    parser = cli._parser()
    found = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    helps = {a.dest: a.help or "" for a in found[0]._choices_actions}
    return [(name, p, helps.get(name, "")) for name, p in found[0].choices.items()]


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directives known."""
    app.add_directive("operations", Operations)
    app.add_directive("cells", Cells)
    app.add_directive("cell-costs", CellCosts)
    app.add_directive("commands", Commands)
    return {"version": "1", "parallel_read_safe": True}
