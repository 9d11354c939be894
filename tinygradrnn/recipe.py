"""Recipes: what an operation saves for its gradient, and how its rules get it back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tinygradrnn.backend import Array
from tinygradrnn.convert import Scalar
from tinygradrnn.errors import GradientError
from tinygradrnn.tape import Edge, Node, Output, Value

if TYPE_CHECKING:
    from tinygradrnn.op import Op

Rule = Callable[..., Any]


class Share(NamedTuple):
    """How a node's cotangent becomes the share of one of its inputs.

    Attributes:
        position: The input; None if the rule gives a share for every input at once.
        rule: Called with ``xp``, the cotangent and what the node saved.
        contracts: Whether the shares of many steps may be computed at once (see :class:`Op`).
        needs: Where in what the node saved the rule looks.
    """

    position: int | None
    rule: Callable[[Any, Any, Sequence[Any]], Any]
    contracts: bool
    needs: tuple[int, ...]


class Recipe:
    """An Op for one choice of inputs that need a gradient: what to save, which rules to run."""

    __slots__ = ("keep", "layout", "op", "rules")

    def __init__(self, op: Op[...], active: int) -> None:
        self.op = op
        names = op.arrays
        wanted: dict[str, None] = {}
        rules: list[tuple[int | None, Rule]] = []
        for position, name in enumerate(names):
            if op.variadic or active >> position & 1:
                rule = op.rules.get(name)
                if rule is None:
                    raise GradientError(f"{op.name}: no gradient with respect to {name!r}")
                joint = op.variadic or rule is op.together
                if not joint or (None, rule) not in rules:
                    rules.append((None if joint else position, rule))
                wanted.update(dict.fromkeys(_needs(rule)))
        # Two small functions made from source: one picks what to save out of a call, one for each
        # rule hands it back. They run at every operation, and a generic loop would cost as much as
        # the arithmetic of a small step.
        self.layout = tuple(wanted)
        available = {"out", *names, *op.statics}
        pick = ", ".join(_source(w, available, op) for w in wanted)
        order = ", ".join(["out", *names, *op.statics])
        self.keep = eval(f"lambda {order}: ({pick}{',' if wanted else ''})", {"_shape": _shape})
        self.rules = tuple(
            Share(
                position,
                _caller(rule, self.layout),
                position is not None and names[position] == op.contracts,
                tuple(self.layout.index(name) for name in _needs(rule)),
            )
            for position, rule in rules
        )

    @property
    def inactive(self) -> Recipe:
        """The recipe of the same operation where no input needs a gradient."""
        return Recipe(self.op, 0)

    def lift(self, node: Node, kind: type[Value]) -> tuple[Any, ...]:
        """What `node` saved, with arrays as Tensors (`kind`) that know their place on the tape."""
        saved = node.saved
        assert saved is not None
        lifted: list[Any] = []
        for name, value in zip(self.layout, saved, strict=True):
            if name == "out":
                if isinstance(value, tuple):
                    many = cast("tuple[Array, ...]", value)
                    value = tuple(_lift(a, node, Output(node, i), kind) for i, a in enumerate(many))
                else:
                    value = _lift(value, node, node, kind)
            elif name in self.op.arrays:
                value = _lift(value, node, node.inputs[self.op.arrays.index(name)], kind)
            lifted.append(value)
        return tuple(lifted)


def _lift(value: Any, node: Node, edge: Edge | None, kind: type[Value]) -> Any:
    return kind(value, node.backend, edge) if node.backend.is_array(value) else value


def _needs(rule: Rule) -> list[str]:
    return list(inspect.signature(rule).parameters)[2:]


def _source(name: str, available: set[str], op: Op[...]) -> str:
    if name in available:
        return name
    base, _, attribute = name.rpartition("_")
    if base in op.arrays and attribute == "shape":
        return f"_shape({base})"
    if base in op.arrays and attribute == "dtype":
        return f"{base}.dtype"
    raise TypeError(f"a gradient rule of {op.name} asks for {name!r}, which is none of its names")


def _shape(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(v.shape for v in cast("Sequence[Array]", value))
    return () if isinstance(value, Scalar) else value.shape


def _caller(rule: Rule, layout: tuple[str, ...]) -> Callable[[Any, Any, Sequence[Any]], Any]:
    picked = "".join(f", saved[{layout.index(name)}]" for name in _needs(rule))
    return eval(f"lambda xp, g, saved: rule(xp, g{picked})", {"rule": rule})
