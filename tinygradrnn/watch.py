"""Where on the tape each operation comes from: the line, the layer, the names, and the numbers.

A tape holds only what gradients need. In a :class:`watch` block each operation leaves a
:class:`Record` beside its node: which expression of which function it was, in which layer, what the
author's program calls the result, and the arrays that went in and came out. Pictures of the tape
and messages about it are drawn from these. Outside of such a block nothing is looked at.
"""

from __future__ import annotations

import ast
import linecache
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple, Self, cast
from weakref import WeakKeyDictionary

from tinygradrnn import op as engine
from tinygradrnn.tape import Edge, Leaf, Node, Output, StepMark, Value, origin, recording

_ROOM = Path(__file__).parent
_FILES = "op tensor tree recipe watch anomaly namespace autodiff backprop region"
_ENGINE = {str(_ROOM / f"{name}.py") for name in _FILES.split()}
_ENGINE |= {str(_ROOM / "nn" / "module.py")}
_ROOMS = tuple(str(_ROOM / name) for name in ("ops", "scan"))


class Place(NamedTuple):
    """Where in a program an operation is called.

    Attributes:
        file, line: Where the expression begins.
        function: The function, as ``"LSTMCell.forward"``.
        text: The expression: ``"tanh(g)"``; empty where there is no source.
        statement: The statement it is a part of.
        target: What that statement assigns to, if it is a name.
        targets: The names that the expression's own results get, if it is all that is assigned.
    """

    file: str
    line: int
    function: str
    text: str
    statement: str
    target: str
    targets: tuple[str, ...]

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}, in {self.function}"
        return f"{where}: {self.statement}" if self.statement else where


class Record:
    """What is known of one operation beside its node.

    Attributes:
        place: Where it was called; its attributes are here, too.
        layers: The modules around it, outermost first.
        inputs: The arrays and numbers that went in.
        input_names: What they are called; empty where that is unknown.
        outputs: The arrays that came out.
        names: What these are called.
        gates: The names of the innermost layer's gates, if it has such.
        stacked: Whether these lie side by side along the last axis of what came out.
    """

    __slots__ = ("gates", "input_names", "inputs", "layers", "names", "outputs", "place", "stacked")

    def __init__(
        self,
        place: Place,
        modules: Sequence[Any],
        inputs: tuple[Any, ...],
        input_names: tuple[str, ...],
        outputs: tuple[Any, ...],
    ) -> None:
        self.place, self.layers = place, _paths(modules)
        self.inputs, self.input_names = inputs, input_names
        self.outputs = outputs
        cell = modules[-1] if modules else None
        self.gates: tuple[str, ...] = tuple(getattr(cell, "gates", ()))
        self.stacked = bool(self.gates) and outputs[0].shape[-1:] == (
            len(self.gates) * getattr(cell, "hidden_size", 0),
        )
        known = place.targets if len(place.targets) == len(outputs) else ()
        self.names = known or ("",) * len(outputs)

    file = property(lambda self: self.place.file)
    line = property(lambda self: self.place.line)
    function = property(lambda self: self.place.function)
    text = property(lambda self: self.place.text)
    statement = property(lambda self: self.place.statement)
    target = property(lambda self: self.place.target)


_records: WeakKeyDictionary[Node, Record] = WeakKeyDictionary()


def record_of(node: Node) -> Record | None:
    """What is known of a node; None if it was recorded outside of a :class:`watch` block."""
    return _records.get(node)


class WatchedStep:
    """What happened in one step of a loop.

    Attributes:
        mark: The step's number and loop.
        states: The state after it, by path: ``{"h": ..., "c": ...}``, or ``"0.h"`` in a tuple; a
            state that is a single Tensor has the name that the cell gives it.
        values: All else that got a name in the cell, by that name; the last one of a name counts.
            Of a name that several layers have, all but the outermost stand under ``"layer.name"``.
    """

    def __init__(self, mark: StepMark) -> None:
        self.mark = mark
        self.states: dict[str, Any] = {}
        self.values: dict[str, Any] = {}
        self._layers: dict[str, tuple[str, ...]] = {}  # of what stands under a bare name
        self._shared: set[tuple[str, int]] = set()  # names that layers of one depth have

    def name(self, name: str, x: Any, layers: tuple[str, ...]) -> None:
        """Note what a value is called in a layer."""
        depth, other = len(layers), self._layers.get(name, layers)
        if len(other) > depth or (len(other) == depth and other != layers):
            self.values[f"{other[-1]}.{name}"] = self.values.pop(name)
            del self._layers[name]
            if len(other) == depth:
                self._shared.add((name, depth))
        if len(other) < depth or (name, depth) in self._shared:
            self.values[f"{layers[-1]}.{name}"] = x
        else:
            self.values[name], self._layers[name] = x, layers

    @property
    def t(self) -> int:
        """The step's number in its loop."""
        return self.mark.t

    def __repr__(self) -> str:
        return f"<watched step {self.mark}: {', '.join({**self.values, **self.states})}>"


class watch:  # a context manager reads as a verb: ``with tgr.watch() as seen:``
    """Note where each operation in a ``with`` block comes from, and what goes in and out of it.

    :func:`~tinygradrnn.scan` runs eagerly in the block, unless it is told to be compiled. Several
    times slower than usual, and every array is kept for as long as the tape is.

    Attributes:
        loops: For each loop, by its name, its steps in the order in which they ran. The second run
            of a loop of the same name is ``"name (2)"``.

    >>> cell = tgr.nn.LSTMCell(3, 4)
    >>> with tgr.watch() as seen:
    ...     outputs, state = tgr.scan(cell, tgr.ones((5, 2, 3)))
    >>> step = seen.loops["LSTMCell"][-1]
    >>> step.t, sorted(step.states), {"i", "f", "g", "o"} <= set(step.values)
    (4, ['c', 'h'], True)
    >>> (gradient,) = tgr.grad(outputs.sum(), step.values["f"])
    >>> gradient.shape
    (2, 4)
    """

    eagerly = True
    """Whether ``scan`` runs eagerly, so that there is something to see."""

    def __init__(self) -> None:
        self.loops: dict[str, list[WatchedStep]] = {}
        self._before: list[Any] = []
        self._steps: dict[StepMark, WatchedStep] = {}

    def __enter__(self) -> Self:
        around = recording.watch
        self._before.append(around)
        recording.watch = self if around is None else _Both.of(around, self)
        with _lock:
            engine.observers += 1
        return self

    def __exit__(self, *exc: object) -> None:
        recording.watch = self._before.pop()
        with _lock:
            engine.observers -= 1

    # ---------------------------------------------------------------- what the engine tells us of

    def saw(self, operation: Any, args: Sequence[Any], params: dict[str, Any], result: Any) -> None:
        """An operation has run."""
        outputs: tuple[Any, ...] = result if type(result) is tuple else (result,)
        nodes = [x.edge for x in outputs if x.edge is not None]
        mark = recording.step
        if not nodes or not isinstance(origin(nodes[0]), Node):
            if mark is not None:
                frame = _caller()
                targets = _place(frame).targets
                if any(targets):
                    self._named(mark, targets, outputs, _paths(_modules(frame)))
            return
        record = self.note(operation, args, outputs)
        node = origin(nodes[0])
        assert isinstance(node, Node)
        _records[node] = record
        if mark is not None:
            self._named(mark, record.names, outputs, record.layers)

    def note(self, operation: Any, args: Sequence[Any], outputs: Sequence[Any]) -> Record:
        """The record of an operation that the calling thread is in the middle of."""
        operands: Sequence[Any] = args[0] if operation.variadic else args
        frame, mark = _caller(), recording.step
        names = [_name(x, frame) for x in operands]
        for x, (name, own) in zip(operands, names, strict=True):
            if isinstance(x, Value) and own and _learn(x.edge, name) and mark is not None:
                node = origin(cast("Edge", x.edge))
                if isinstance(node, Node) and node.step in (mark, None):  # of no step: an input
                    self._step(mark).name(name, x, _records[node].layers)
        return Record(
            _place(frame),
            _modules(frame),
            tuple([x.raw if isinstance(x, Value) else x for x in operands]),
            tuple([name for name, _ in names]),
            tuple([x.raw for x in outputs]),
        )

    def left(self, mark: StepMark, paths: Sequence[str], states: Sequence[Any]) -> None:
        """A step of ``scan`` is over, and this is the state after it."""
        seen = self._step(mark)
        names = [_DOTTED.sub(".", path.removeprefix("state")).strip(".") for path in paths]
        for name, x in zip(names, states, strict=True):
            known = name_of(x.edge) or name or "h"
            _learn(x.edge, known)
            seen.states[name or known] = x

    def _named(
        self,
        mark: StepMark,
        names: Sequence[str],
        outputs: Sequence[Any],
        layers: tuple[str, ...],
    ) -> None:
        if len(names) == len(outputs):
            for name, x in zip(names, outputs, strict=True):
                if name:
                    self._step(mark).name(name, x, layers)

    def _step(self, mark: StepMark) -> WatchedStep:
        found = self._steps.get(mark)
        if found is None:
            found = self._steps[mark] = WatchedStep(mark)
            self._run(mark).append(found)
        return found

    def _run(self, mark: StepMark) -> list[WatchedStep]:
        """The steps of the loop that this one goes on with, or those of a new run of it."""
        base = mark.loop or "loop"
        n = sum(name == base or name.startswith(f"{base} (") for name in self.loops)
        run = self.loops.get(base if n == 1 else f"{base} ({n})", [])
        if run and _goes_on(run, mark):
            return run
        return self.loops.setdefault(base if n == 0 else f"{base} ({n + 1})", [])

    # --------------------------------------------------- what a check of the numbers looks at, too

    def rules(self, node: Node, rules: Sequence[Any]) -> Sequence[Any]:
        """The gradient rules of a node, as the walk back is to call them."""
        return rules

    def arrived(self, place: Edge, cotangent: Any) -> None:
        """All shares of a place's cotangent have been added up."""

    def compiled(self, loop: Any, job: Any) -> None:
        """A loop has run as a program."""

    def replays(self, region: Node, cotangents: Sequence[Any], shares: Sequence[Any]) -> bool:
        """Whether the way back through a program is to be walked eagerly instead."""
        return False


class _Both:
    """A block within a block: the engine tells both."""

    def __init__(self, outer: Any, inner: watch) -> None:
        self._outer, self._inner = outer, inner
        self.eagerly = outer.eagerly or inner.eagerly

    @staticmethod
    def of(outer: Any, inner: watch) -> Any:
        return outer if inner in _members(outer) else _Both(outer, inner)

    def rules(self, node: Node, rules: Sequence[Any]) -> Sequence[Any]:
        return self._inner.rules(node, self._outer.rules(node, rules))

    def replays(self, *told: Any) -> bool:
        outer = self._outer.replays(*told)
        return self._inner.replays(*told) or outer

    def __getattr__(self, name: str) -> Any:
        outer, inner = getattr(self._outer, name), getattr(self._inner, name)

        def both(*told: Any) -> None:
            inner(*told)
            outer(*told)

        return both


def _members(seen: Any) -> list[Any]:
    return [*_members(seen._outer), seen._inner] if isinstance(seen, _Both) else [seen]


_DOTTED = re.compile(r"""[]['".]+""")
_lock = threading.Lock()


def _goes_on(run: list[WatchedStep], mark: StepMark) -> bool:
    last = run[-1].mark
    if last.parent is not mark.parent:
        return False
    way = run[-1].t - run[-2].t if len(run) > 1 else mark.t - last.t
    return abs(way) == 1 and mark.t - last.t == way


def name_of(edge: Edge | None) -> str:
    """What the author's program calls a value on the tape; empty if that is not known."""
    if isinstance(edge, Leaf):
        return edge.name
    if not isinstance(edge, Node | Output):  # no place, or that of a trial run
        return ""
    record = _records.get(edge.node if isinstance(edge, Output) else edge)
    return "" if record is None else record.names[edge.slot if isinstance(edge, Output) else 0]


def _learn(edge: Edge | None, name: str) -> bool:
    """Note what a result is called that had no name yet; returns whether it is one."""
    record = _records.get(origin(edge)) if isinstance(edge, Node | Output) else None  # type: ignore[arg-type]
    slot = edge.slot if isinstance(edge, Output) else 0
    if record is None or record.names[slot]:
        return False
    record.names = (*record.names[:slot], name, *record.names[slot + 1 :])
    return True


def _name(x: Any, frame: FrameType) -> tuple[str, bool]:
    """What a value is called, by whoever called it something first; and whether it is its own name.

    Not its own is what only a function that it was handed to calls it: the ``x`` of a layer.
    """
    if not isinstance(x, Value):
        return "", False
    known = name_of(x.edge)
    if known:
        return known, True
    name, own = "", False
    for f, outermost in _around(frame):
        local = next((key for key, value in f.f_locals.items() if value is x), "")
        if local:
            code = f.f_code
            handed = local in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            name, own = local, outermost or not handed
    if name:
        return name, own
    names = frame.f_globals
    name = next((name for name in frame.f_code.co_names if names.get(name) is x), "")
    return name, bool(name)


def _around(frame: FrameType | None) -> Iterator[tuple[FrameType, bool]]:
    """A frame and those around it, out to the step or the script; and whether it is the last."""
    for _ in range(8):
        if frame is None:
            return
        outer = frame.f_back
        while outer is not None and outer.f_code.co_filename in _ENGINE:
            outer = outer.f_back
        if frame.f_code.co_name == "<module>" or (
            outer is not None and outer.f_code.co_filename.startswith(_ROOMS)
        ):
            outer = None
        yield frame, outer is None
        frame = outer


# ------------------------------------------------------------------------------- the caller's place


def _caller() -> FrameType:
    """The innermost frame that is not the engine's own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file not in _ENGINE and not file.startswith(_ROOMS):
            return frame
        frame = frame.f_back
    return sys._getframe(1)


_places: WeakKeyDictionary[CodeType, dict[tuple[str, int], Place]] = WeakKeyDictionary()


def _place(frame: FrameType) -> Place:
    code = frame.f_code
    known = _places.setdefault(code, {})
    at = code.co_filename, frame.f_lasti  # equal code of another file is equal to Python
    if at not in known:
        known[at] = _look_up(code, frame.f_lasti, frame.f_globals)
    return known[at]


def names_of_results() -> tuple[str, ...]:
    """What the results of the operation that is running will be called, as far as is known."""
    return _place(_caller()).targets


def _look_up(code: CodeType, at: int, names: dict[str, Any]) -> Place:
    file, function = code.co_filename, code.co_qualname.replace(".<locals>", "")
    span = next(islice(code.co_positions(), at // 2, None), (None, None, None, None))
    line, end_line, column, end_column = span
    bare = Place(file, line or code.co_firstlineno, function, "", "", "", ())
    lines = linecache.getlines(file, names)
    if line is None or end_line is None or column is None or end_column is None or not lines:
        return bare
    text = _text(lines, line, end_line, column, end_column)
    statement = _statement(file, lines, (line, column), (end_line, end_column))
    if statement is None:
        return bare._replace(text=text, statement=lines[line - 1].strip() if text else "")
    target, targets = "", ()
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        goal = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        target, value = ast.unparse(goal), statement.value
        whole = value is not None and (value.lineno, value.end_lineno, value.end_col_offset) == (
            line,
            end_line,
            end_column,
        )
        if whole and value is not None and value.col_offset == column:
            parts = goal.elts if isinstance(goal, ast.Tuple | ast.List) else [goal]
            targets = tuple([p.id if isinstance(p, ast.Name) else "" for p in parts])
    last, end = statement.end_lineno or statement.lineno, statement.end_col_offset
    body = getattr(statement, "body", None)
    if body:  # of an ``if`` or a ``with`` its head
        last, end = max(statement.lineno, body[0].lineno - 1), None
    whole_text = _text(lines, statement.lineno, last, statement.col_offset, end)
    return Place(file, line, function, text, whole_text, target, targets)


def _text(lines: list[str], line: int, end_line: int, column: int, end_column: int | None) -> str:
    """A stretch of source as one line; columns count UTF-8 bytes, as Python's own do."""
    if end_line > len(lines):
        return ""
    rows = [row.encode() for row in lines[line - 1 : end_line]]
    if end_column is not None:
        rows[-1] = rows[-1][:end_column]
    rows[0] = rows[0][column:]
    return " ".join(row.decode(errors="replace").strip() for row in rows).strip()


_trees: dict[str, tuple[str, list[ast.stmt]]] = {}


def _statement(
    file: str, lines: list[str], begin: tuple[int, int], end: tuple[int, int]
) -> ast.stmt | None:
    """The smallest statement around a stretch of source; None where the file is no Python."""
    source = "".join(lines)
    if _trees.get(file, ("", []))[0] != source:
        try:
            found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
        except (SyntaxError, ValueError):
            found = []
        _trees[file] = source, found
    around = [
        s
        for s in _trees[file][1]
        if (s.lineno, s.col_offset) <= begin
        and end <= (s.end_lineno or s.lineno, s.end_col_offset or 0)
    ]
    # The last to begin is the innermost.
    return max(around, key=lambda s: (s.lineno, s.col_offset), default=None)


def _modules(frame: FrameType | None) -> list[Any]:
    """The modules whose methods are running, outermost first."""
    modules: list[Any] = []
    while frame is not None:
        owner = frame.f_locals.get("self")
        known = owner is not None and hasattr(type(owner), "named_parameters")
        if known and not any(owner is m for m in modules):
            modules.append(owner)
        frame = frame.f_back
    return modules[::-1]


def _paths(modules: Sequence[Any]) -> tuple[str, ...]:
    """What modules are called, each in the one around it."""
    outer: Any = None
    names: list[str] = []
    for module in modules:
        path = next((p for p, x in _attributes(outer) if x is module), None)
        names.append(path or getattr(module, "__name__", None) or type(module).__name__)
        outer = module
    return tuple(names)


def _attributes(module: Any) -> Iterator[tuple[str, Any]]:
    """What a module holds, also in lists and dicts, with its path."""
    for name, value in vars(module).items() if module is not None else ():
        yield name, value
        if isinstance(value, list | tuple):
            yield from ((f"{name}.{i}", x) for i, x in enumerate(value))
        elif isinstance(value, dict):
            yield from ((f"{name}.{key}", x) for key, x in value.items())
