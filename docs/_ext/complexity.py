"""What cells and operations cost, as formulas that are measured and not written down.

A cell's step is run through ``tgr.explain`` at a few sizes, and what is counted there is fitted to
monomials of I = input_size and H = hidden_size. An operation's forward function and its gradient
rules are run on arrays that count what NumPy is asked to do with them.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

import tinygradrnn as tgr
from tinygradrnn.namespace import Namespace
from tinygradrnn.nn import Cell
from tinygradrnn.op import Composite, Op
from tinygradrnn.recipe import Recipe
from tinygradrnn.tape import Output
from tinygradrnn_numpy import NumpyBackend


class Formula:
    """A sum of monomials with whole or fractional coefficients.

    Args:
        terms: Coefficients by the monomial's name.
        monomials: What each name stands for, as a function of the sizes.
    """

    def __init__(
        self, terms: dict[str, Fraction], monomials: dict[str, Callable[..., int]]
    ) -> None:
        self.terms = {name: c for name, c in terms.items() if c}
        self._monomials = monomials

    def __call__(self, *sizes: int) -> Fraction:
        """Its value."""
        return sum(
            (c * self._monomials[name](*sizes) for name, c in self.terms.items()), Fraction(0)
        )

    def __str__(self) -> str:
        parts: list[str] = []
        for name, c in self.terms.items():
            size = "" if abs(c) == 1 and name else _number(abs(c))
            sign = ("-" if c < 0 else "") if not parts else (" - " if c < 0 else " + ")
            parts.append(f"{sign}{size}{' ' if size and name else ''}{name}")
        return "".join(parts) or "0"


def _number(c: Fraction) -> str:
    return str(c.numerator) if c.denominator == 1 else f"{float(c):.1f}"


def fitted(
    count: Callable[..., float],
    monomials: dict[str, Callable[..., int]],
    points: Sequence[tuple[int, ...]],
) -> Formula:
    """The formula that gives `count` at all points; there must be more points than monomials.

    Raises:
        ValueError: There is none.
    """
    rows = np.array([[f(*p) for f in monomials.values()] for p in points], dtype=float)
    counts = np.array([count(*p) for p in points], dtype=float)
    found = np.linalg.lstsq(rows, counts, rcond=None)[0]
    terms = {
        k: Fraction(float(c)).limit_denominator(8) for k, c in zip(monomials, found, strict=True)
    }
    formula = Formula(terms, monomials)
    for p, n in zip(points, counts, strict=True):
        if float(formula(*p)) != n:
            raise ValueError(f"{n} at {p}; the formula {formula} gives {float(formula(*p))}")
    return formula


# ------------------------------------------------------------------------------------------- cells

_OF_A_CELL: dict[str, Callable[..., int]] = {
    "I·H": lambda i, h: i * h,
    "H²": lambda i, h: h * h,
    "I": lambda i, h: i,
    "H": lambda i, h: h,
    "": lambda i, h: 1,
}
_SIZES = [(3, 4), (3, 8), (5, 4), (5, 8), (7, 12), (12, 7)]
_MOVES = {"getitem", "reshape", "matrix_transpose", "expand_dims", "squeeze", "concat", "split"}


class CellCost(NamedTuple):
    """What one step of a cell costs for each sequence of the batch, compiled.

    Attributes:
        parameters: How many there are.
        forward: Multiplications in products of matrices.
        backward: The same on the way back, with the gradients of the weights and of the input.
        other_forward: Numbers that all other operations compute.
        other_backward: The same on the way back.
        saved: Numbers that are kept for the way back.
    """

    parameters: Formula
    forward: Formula
    backward: Formula
    other_forward: Formula
    other_backward: Formula
    saved: Formula


def cells() -> list[type[Cell]]:
    """The cells of ``tgr.nn`` that are made from an input size and a hidden size."""
    found = [getattr(tgr.nn, name) for name in tgr.nn.__all__]
    return [
        x
        for x in found
        if inspect.isclass(x)
        and issubclass(x, Cell)
        and x.forward is not Cell.forward
        and list(inspect.signature(x).parameters)[:2] == ["input_size", "hidden_size"]
    ]


@functools.cache
def cell_cost(kind: Callable[[int, int], Cell]) -> CellCost:
    """What a cell costs.

    Raises:
        ValueError: No sum of the monomials gives what was counted.
    """
    return CellCost(
        *(
            fitted(lambda i, h, k=k: counted_cell(kind, i, h)[k], _OF_A_CELL, _SIZES)
            for k in range(len(CellCost._fields))
        )
    )


@functools.cache
def counted_cell(kind: Callable[[int, int], Cell], inputs: int, hidden: int) -> tuple[int, ...]:
    """The numbers that a :class:`CellCost` has formulas for, at one size."""
    cell = kind(inputs, hidden).eval()
    # What a batch of three costs more than a batch of two is what a sequence costs.
    two, three = (_counted_step(cell, inputs, batch) for batch in (2, 3))
    size = sum(p.size for p in cell.parameters())
    return (size, *(b - a for a, b in zip(two, three, strict=True)))


def _counted_step(cell: Cell, inputs: int, batch: int) -> list[int]:
    xs = tgr.tensor(np.ones((2, batch, inputs), np.float32), requires_grad=True)
    plan = tgr.explain(cell, xs)
    if not plan.compiled:
        raise ValueError(f"{type(cell).__name__}: {plan.reason}")
    counts: list[list[int]] = []
    for rows in (plan.forward, plan.backward):
        each = [row for row in rows if row.place != "once"]
        other = [math.prod(row.shape) for row in each if not row.flops and _computes(row.text)]
        counts.append([sum(row.flops // 2 for row in each), sum(other)])
    (products, others), (back, others_back) = counts
    return [products, back, others, others_back, plan.saved_bytes // 4]


def _computes(text: str) -> bool:
    """Whether a row of a schedule is more than a view or a copy."""
    call = re.fullmatch(r"\w+ = (?P<op>\w+)\(.*", text)
    return " = " in text and (call is None or call["op"] not in _MOVES)


# -------------------------------------------------------------------------------------- operations


class OpCost(NamedTuple):
    """What an operation costs, for n numbers in its largest array.

    Attributes:
        forward, backward: Numbers that NumPy's functions go through, one function after the other;
            of products of matrices the multiplications. None where there is no gradient.
        keeps: The arrays that are kept for the way back.
    """

    forward: Formula
    backward: Formula | None
    keeps: tuple[str, ...]


class Counted(np.ndarray[Any, Any]):
    """An array that counts what is done with it; views are free."""

    work = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Count, and compute."""
        plain = [_bare(x) for x in inputs]
        if options.get("out"):
            options["out"] = tuple(_bare(x) for x in options["out"])
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            Counted.work += int(np.size(result)) * plain[0].shape[-1]
        else:
            Counted.work += _largest([*plain, result])
        return _counted(result)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Count, unless the result is a view, and compute."""
        plain = _bare(args)
        result = func(*plain, **{k: _bare(v) for k, v in kwargs.items()})
        given = [x for x in _flat(plain) if isinstance(x, np.ndarray)]
        made = [x for x in _flat(result) if isinstance(x, np.ndarray | np.generic)]
        if not all(any(np.may_share_memory(a, b) for b in given) for a in made):
            Counted.work += _largest([*given, *made])
        return _counted(result)

    def __getitem__(self, key: Any) -> Any:
        """A view, or a copy that counts."""
        plain = np.asarray(self)
        result = plain[_bare(key)]
        if not np.may_share_memory(result, plain):
            Counted.work += int(np.size(result))
        return _counted(result)


def _flat(x: Any) -> list[Any]:
    return [z for y in x for z in _flat(y)] if isinstance(x, list | tuple) else [x]


def _bare(x: Any) -> Any:
    if isinstance(x, list | tuple):
        return type(x)(_bare(y) for y in x)
    return np.asarray(x) if isinstance(x, Counted) else x


def _counted(x: Any) -> Any:
    if isinstance(x, list | tuple):
        return tuple(_counted(y) for y in x)
    return x.view(Counted) if isinstance(x, np.ndarray) else x


def _largest(arrays: Sequence[Any]) -> int:
    return max(int(np.size(x)) for x in arrays)


class _Plain(NumpyBackend):
    """NumPy, with the operations' own forward functions."""

    name = "plain"
    overrides = {}  # noqa: RUF012

    def index_add(self, x: Any, indices: Any, updates: Any) -> Any:
        out = np.array(x).view(Counted)
        np.add.at(out, np.asarray(indices), updates)
        return out


_N: dict[str, Callable[..., int]] = {"n": lambda n, *_: n, "": lambda *_: 1}
_MKN: dict[str, Callable[..., int]] = {
    "m k n": lambda m, k, n: m * k * n,
    "m k": lambda m, k, n: m * k,
    "k n": lambda m, k, n: k * n,
    "m n": lambda m, k, n: m * n,
}


def _sample(name: str, n: int) -> tuple[list[Any], dict[str, Any]]:
    """A call of an operation whose largest array has n numbers: n is a square, and even."""
    side = math.isqrt(n)
    x, flags = np.linspace(0.1, 0.9, n), np.arange(n) % 2 == 0
    square, half, where = x.reshape(side, side), x[: n // 2], np.arange(n)
    calls: dict[str, tuple[list[Any], dict[str, Any]]] = {
        "where": ([flags, x, x[::-1]], {}),
        "hold": ([square, square, flags[:side, None]], {}),
        "logical_not": ([flags], {}),
        "any": ([flags], {}),
        "all": ([flags], {}),
        "clip": ([x], {"min": 0.2, "max": 0.8}),
        "clip_cotangent": ([square], {"max_norm": 1.0}),
        "gate": ([x], {"factor": 0.5}),
        "astype": ([x], {"dtype": np.float32}),
        "softmax": ([square], {}),
        "log_softmax": ([square], {}),
        "getitem": ([x], {"key": (slice(0, None),)}),
        "place": ([x], {"key": (slice(0, n),), "shape": (n,)}),
        "take": ([x, where], {"axis": 0}),
        "add_at": ([x, where], {"size": n, "axis": 0}),
        "flat_positions": ([where.reshape(side, side) % side], {"shape": (side, side), "axis": 1}),
        "nonzero": ([flags], {}),
        "ravel_index": ([where % 2, where % 2], {"sizes": (2, 2)}),
        "linear_recurrence": ([square, square[::-1], square[0]], {}),
        "reshape": ([x], {"shape": (side, side)}),
        "permute_dims": ([square], {"axes": (1, 0)}),
        "matrix_transpose": ([square], {}),
        "expand_dims": ([x], {"axis": 0}),
        "squeeze": ([x[None]], {"axis": 0}),
        "broadcast_to": ([square[0]], {"shape": (side, side)}),
        "concat": ([half, half], {}),
        "stack": ([half, half], {}),
        "trajectory": ([half, half], {}),
        "unstack": ([square], {}),
        "split": ([x], {"sections": 2}),
        "roll": ([x], {"shift": 1}),
    }
    for given in ("logical_and", "logical_or", "logical_xor"):
        calls[given] = [flags, flags], {}
    if name in calls:
        return calls[name]
    operation = tgr.registry[name]
    return [x] + [x[::-1]] * (len(operation.arrays) - 1), {}


def _matrices(name: str, m: int, k: int, n: int) -> tuple[list[Any], dict[str, Any]]:
    x, w = np.ones((m, k)), np.ones((k, n))
    return ([x, w] if name == "matmul" else [x, w.T.copy(), np.ones(n)]), {}


@functools.cache
def op_cost(name: str) -> OpCost | None:
    """What an operation costs; None if it is made of others, or moves between devices.

    Raises:
        ValueError: The counts are not in proportion to the size.
    """
    operation = tgr.registry[name]
    if isinstance(operation, Composite) or operation.moves:
        return None
    if name in ("matmul", "linear"):
        monomials, points = _MKN, [(2, 3, 5), (4, 3, 5), (2, 7, 5), (2, 3, 11), (6, 7, 8)]
        make: Callable[..., Any] = functools.partial(_matrices, name)
    else:
        monomials, points, make = _N, [(64,), (256,), (1024,)], functools.partial(_sample, name)
    found: list[Formula | None] = []
    for k in range(2):
        if k and not operation.rules:
            found.append(None)
            continue
        counts = {p: counted_op(operation, *make(*p))[k] for p in points}
        try:
            found.append(fitted(lambda *p, c=counts: c[p], monomials, points))
        except ValueError:
            if monomials is not _N:
                raise
            # In proportion but for terms that grow slower: a tree of pairs, a few numbers a row.
            largest = points[-1]
            slope = Fraction(counts[largest], largest[0]).limit_denominator(10)
            found.append(Formula({"n": slope}, _N))
    forward, backward = found
    assert forward is not None
    keeps = Recipe(operation, _all(operation)).layout if operation.rules else ()
    arrays = tuple(k for k in keeps if k == "out" or k in operation.arrays)
    return OpCost(forward, backward, arrays)


def _all(operation: Op[...]) -> int:
    return sum(1 << i for i, name in enumerate(operation.arrays) if name in operation.rules)


def counted_op(operation: Op[...], arrays: list[Any], params: dict[str, Any]) -> tuple[int, int]:
    """The work of one call, forward and backward."""
    xp = Namespace(_Plain())
    given: list[Any] = [a.view(Counted) for a in arrays]
    inputs = [given] if operation.variadic else given
    statics = operation.statics | params
    Counted.work = 0
    out = operation.forward(xp, *inputs, **statics)
    forward, Counted.work = Counted.work, 0
    if not operation.rules:
        return forward, 0
    recipe = Recipe(operation, 1 if operation.variadic else _all(operation))
    saved = recipe.keep(out, *inputs, **statics)
    g = tuple(np.ones_like(np.asarray(o)).view(Counted) for o in (out if operation.many else [out]))
    Counted.work = 0
    for way in recipe.rules:
        way.rule(xp, g if operation.many else g[0], saved)
    return forward, Counted.work


def parts(name: str) -> list[str]:
    """The operations that one is made of which has no rule of its own, in order."""
    x, where = np.linspace(0.1, 0.9, 6).reshape(2, 3), np.array([[0, 1, 1], [1, 0, 0]])
    calls: dict[str, tuple[list[Any], dict[str, Any]]] = {
        "cross_entropy": ([x, where[:, 0]], {}),
        "take_along_axis": ([x, where], {}),
        "moveaxis": ([x], {"source": 0, "destination": 1}),
        "tensordot": ([x, x.T], {"axes": 1}),
    }
    arrays, params = calls.get(name, ([x, x], {}))
    tensors = [tgr.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    result = tgr.registry[name](*tensors, **params)
    assert not isinstance(result.edge, Output)
    return [node.name for node in tgr.Tape(result)]
