"""Nestings of tuples, named tuples, lists, dicts and dataclasses, seen as a flat list of leaves.

The state of a cell may be any such nesting. This module takes it apart, puts it together again, and
says by path (``state.h[0]``) where two of them differ. None is a nesting without leaves; everything
that is none of these, such as a Tensor, is a leaf. It imports nothing of ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast


class StructureError(ValueError):
    """Two nestings that differ; the message names the place."""


Kind = type[Any]
Keys = tuple[Any, ...]
_kind_of = cast("Callable[[Any], Kind]", type)


class _Family(NamedTuple):
    """How one kind of container is taken apart and put together."""

    keys: Callable[[Any], Keys]
    get: Callable[[Any, Any], Any]
    build: Callable[[Kind, Keys, list[Any]], Any]
    suffix: Callable[[Any], str]  # of a path


def _no_keys(tree: None) -> Keys:
    return ()


def _positions(tree: Sequence[Any]) -> Keys:
    return tuple(range(len(tree)))


def _fields(tree: Any) -> Keys:
    return tree._fields


def _dataclass_fields(tree: Any) -> Keys:
    return tuple(field.name for field in dataclasses.fields(tree))


def _item(tree: Any, key: Any) -> Any:
    return tree[key]


def _build_none(kind: Kind, keys: Keys, children: list[Any]) -> None:
    return None


def _build_sequence(kind: Kind, keys: Keys, children: list[Any]) -> Any:
    return kind(children)


def _build_named(kind: Kind, keys: Keys, children: list[Any]) -> Any:
    return kind(*children)


def _build_mapping(kind: Kind, keys: Keys, children: list[Any]) -> Any:
    return kind(zip(keys, children, strict=True))


def _build_dataclass(kind: Kind, keys: Keys, children: list[Any]) -> Any:
    # Without __init__: what is put in may be of another type than the class foresees (a mask, a
    # gradient), and fields that __init__ does not take have to come back, too.
    made: Any = object.__new__(kind)
    for key, child in zip(keys, children, strict=True):
        object.__setattr__(made, key, child)
    return made


def _bracket(key: Any) -> str:
    return f"[{key!r}]"


def _dot(key: str) -> str:
    return f".{key}"


_NONE = _Family(_no_keys, _item, _build_none, _bracket)
_SEQUENCE = _Family(_positions, _item, _build_sequence, _bracket)
_NAMED = _Family(_fields, getattr, _build_named, _dot)
_MAPPING = _Family(tuple, _item, _build_mapping, _bracket)
_DATACLASS = _Family(_dataclass_fields, getattr, _build_dataclass, _dot)


@lru_cache(maxsize=1024)  # asked for every value at every step of a scan
def _family(kind: Kind) -> _Family | None:
    if kind is type(None):
        return _NONE
    named = hasattr(kind, "_fields")
    if issubclass(kind, (tuple, list)):
        return _NAMED if named else _SEQUENCE
    if issubclass(kind, dict):
        return _MAPPING
    return _DATACLASS if dataclasses.is_dataclass(kind) else None


@dataclasses.dataclass(frozen=True, slots=True)
class Structure:
    """The shape of a nesting, without its leaves.

    Attributes:
        kind: The container's class; None for a leaf.
        keys: Positions, field names or dictionary keys.
        children: The structure at each key.
    """

    kind: Kind | None = None
    keys: Keys = ()
    children: tuple[Structure, ...] = ()

    def leaves(self, tree: Any, name: str = "tree") -> list[Any]:
        """The leaves of `tree`, in this structure's order, after checking that it has it.

        The order of dictionary keys does not matter, and a tuple may stand for a named tuple of
        the same length.

        Raises:
            StructureError: It has another structure; the message gives the path, which begins
                with `name`.

        >>> _, structure = flatten({"h": 1, "c": 2})
        >>> structure.leaves({"c": 20, "h": 10})
        [10, 20]
        >>> structure.leaves({"h": 1, "c": (2, 3)}, "state")
        Traceback (most recent call last):
        ...
        tinygradrnn.tree.StructureError: state['c']: expected a leaf; found tuple of 2
        """
        found: list[Any] = []
        self._gather(tree, name, found)
        return found

    def _gather(self, tree: Any, name: str, found: list[Any]) -> None:
        kind = _kind_of(tree)
        family = _family(kind)
        if self.kind is None:
            if family is not None:
                raise StructureError(f"{name}: expected a leaf; found {_describe(tree)}")
            found.append(tree)
            return
        if kind is not self.kind and not _alike(kind, self.kind):
            raise StructureError(f"{name}: expected {self}; found {_describe(tree)}")
        assert family is not None
        keys = self.keys
        theirs = family.keys(tree)
        if theirs != keys:
            if family is _MAPPING and set(theirs) == set(keys):
                theirs = keys
            elif family is _MAPPING or len(theirs) != len(keys):
                raise StructureError(f"{name}: expected {self}; found {_describe(tree)}")
        for key, child in zip(theirs, self.children, strict=True):
            value = family.get(tree, key)
            if child is LEAF and _family(_kind_of(value)) is None:
                found.append(value)  # the most frequent case, without making the path
            else:
                child._gather(value, name + family.suffix(key), found)

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """The nesting of this structure that holds `leaves`.

        Raises:
            StructureError: There are more or fewer leaves than places.

        >>> leaves, structure = flatten(([1, 2], {"a": 3}))
        >>> structure.unflatten(leaf * 10 for leaf in leaves)
        ([10, 20], {'a': 30})
        """
        given = list(leaves)
        if len(given) != self.size:
            raise StructureError(f"{len(given)} leaves for a structure of {self.size}")
        return self._unflatten(iter(given))

    def _unflatten(self, leaves: Iterator[Any]) -> Any:
        if self.kind is None:
            return next(leaves)
        family = _family(self.kind)
        assert family is not None
        return family.build(self.kind, self.keys, [c._unflatten(leaves) for c in self.children])

    def paths(self, name: str = "tree") -> list[str]:
        """The path of every leaf, for messages.

        >>> flatten(({"h": 1}, [2, 3]))[1].paths("state")
        ["state[0]['h']", 'state[1][0]', 'state[1][1]']
        """
        if self.kind is None:
            return [name]
        family = _family(self.kind)
        assert family is not None
        pairs = zip(self.keys, self.children, strict=True)
        return [path for key, child in pairs for path in child.paths(name + family.suffix(key))]

    @property
    def size(self) -> int:
        """The number of leaves."""
        return 1 if self.kind is None else sum(child.size for child in self.children)

    def __str__(self) -> str:
        if self.kind is None:
            return "a leaf"
        return _words(self.kind, self.keys)


LEAF = Structure()
"""The structure of everything that is no container."""


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves of a nesting, depth first, and its structure.

    >>> leaves, structure = flatten({"h": (1, 2), "c": None})
    >>> leaves
    [1, 2]
    >>> structure.unflatten([3, 4])
    {'h': (3, 4), 'c': None}
    """
    leaves: list[Any] = []
    return leaves, _structure(tree, leaves)


def _structure(tree: Any, leaves: list[Any]) -> Structure:
    family = _family(_kind_of(tree))
    if family is None:
        leaves.append(tree)
        return LEAF
    keys = family.keys(tree)
    children = tuple([_structure(family.get(tree, key), leaves) for key in keys])
    return Structure(_kind_of(tree), keys, children)


def map(f: Callable[..., Any], tree: Any, *others: Any) -> Any:  # as in ``tree.map``
    """Apply `f` to the leaves of nestings of one structure, that of the first.

    Raises:
        StructureError: They differ; the message names the place.

    >>> map(lambda a, b: a + b, (1, [2]), (10, [20]))
    (11, [22])
    """
    leaves, structure = flatten(tree)
    columns = [structure.leaves(other) for other in others]
    return structure.unflatten(f(*row) for row in zip(leaves, *columns, strict=True))


def _alike(a: Kind, b: Kind) -> bool:
    """Whether one is a tuple and the other a named tuple: people write ``(h, c)`` for a state."""
    return issubclass(a, tuple) and issubclass(b, tuple) and tuple in (a, b)


def _words(kind: Kind, keys: Keys) -> str:
    if kind is type(None):
        return "None"
    family = _family(kind)
    if family is _SEQUENCE:
        return f"{kind.__name__} of {len(keys)}"
    return f"{kind.__name__} of {', '.join(str(key) for key in keys) or 'nothing'}"


def _describe(tree: Any) -> str:
    family = _family(_kind_of(tree))
    return _kind_of(tree).__name__ if family is None else _words(_kind_of(tree), family.keys(tree))
