"""Nestings taken apart and put together, and where two of them differ."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygradrnn import tree
from tinygradrnn.tree import StructureError, flatten


class Pair(NamedTuple):
    h: Any
    c: Any


class Riap(NamedTuple):
    c: Any
    h: Any


@dataclass(frozen=True)
class Point:
    x: Any
    y: Any = None
    total: Any = field(init=False, default=0)


@dataclass(slots=True)
class Slotted:
    x: int

    def __post_init__(self) -> None:
        if type(self.x) is not int:
            raise TypeError("putting something else in must not come by here")


def nestings(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def inside(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(
            st.lists(children, max_size=3),
            st.lists(children, max_size=3).map(tuple),
            st.dictionaries(st.text(max_size=3) | st.integers(), children, max_size=3),
            st.builds(Pair, children, children),
            st.builds(Point, children, children),
        )

    return st.recursive(leaves | st.none(), inside, max_leaves=8)


@given(nestings(st.integers()))
def test_flatten_and_unflatten_are_inverse(nesting: Any) -> None:
    leaves, structure = flatten(nesting)
    assert structure.unflatten(leaves) == nesting
    assert structure.leaves(nesting) == leaves
    assert structure.size == len(leaves) == len(structure.paths())
    assert hash(structure) == hash(flatten(nesting)[1])


@given(nestings(st.integers()))
def test_every_path_is_an_expression_for_its_leaf(nesting: Any) -> None:
    leaves, structure = flatten(nesting)
    assert [eval(path, {"tree": nesting}) for path in structure.paths("tree")] == leaves


@given(nestings(st.integers()), nestings(st.integers()))
def test_two_nestings_fit_or_the_place_is_named(one: Any, other: Any) -> None:
    structure, message = flatten(one)[1], None
    try:
        leaves = structure.leaves(other, "there")
    except StructureError as error:
        leaves, message = [], str(error)
    if message is None:
        assert sorted(leaves) == sorted(flatten(other)[0])
        assert len(leaves) == structure.size
    else:
        assert message.startswith("there")
        assert flatten(other)[1] != structure


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (
            (1, Pair(2, [3])),
            (1, Pair(2, [3, 4])),
            "state[1].c: expected list of 1; found list of 2",
        ),
        ({"a": 1}, {"b": 1}, "state: expected dict of a; found dict of b"),
        ({"a": 1}, {"a": None}, "state['a']: expected a leaf; found None"),
        ({"a": None}, {"a": 1}, "state['a']: expected None; found int"),
        (Point(1, (2,)), Point(1, [2]), "state.y: expected tuple of 1; found list of 1"),
        (Pair(1, 2), Riap(1, 2), "state: expected Pair of h, c; found Riap of c, h"),
        (Pair(1, 2), (1, 2, 3), "state: expected Pair of h, c; found tuple of 3"),
        ([], {}, "state: expected list of 0; found dict of nothing"),
    ],
)
def test_where_they_differ(one: Any, other: Any, message: str) -> None:
    with pytest.raises(StructureError) as raised:
        flatten(one)[1].leaves(other, "state")
    assert str(raised.value) == message


def test_a_tuple_stands_for_a_named_tuple_and_keys_have_no_order() -> None:
    assert flatten(Pair(1, 2))[1].leaves((3, 4)) == [3, 4]
    assert flatten((1, 2))[1].leaves(Pair(3, 4)) == [3, 4]
    assert flatten({"a": 1, "b": (2,)})[1].leaves({"b": (4,), "a": 3}) == [3, 4]


def test_dataclasses_are_rebuilt_without_their_constructor() -> None:
    leaves, structure = flatten([Slotted(1), Point(2, 3)])
    assert leaves == [1, 2, 3, 0]
    slotted, point = structure.unflatten(["mask", "a", "b", "c"])
    assert (slotted.x, point.x, point.y, point.total) == ("mask", "a", "b", "c")


def test_subclasses_stay_what_they_are() -> None:
    nesting = OrderedDict(b=1, a=2)
    leaves, structure = flatten(nesting)
    rebuilt = structure.unflatten(leaves)
    assert type(rebuilt) is OrderedDict
    assert rebuilt == nesting


def test_a_class_and_a_string_are_leaves() -> None:
    assert flatten((Point, "ab", 3))[0] == [Point, "ab", 3]


def test_the_number_of_leaves_is_checked() -> None:
    structure = flatten((1, 2))[1]
    for leaves in ([1], [1, 2, 3]):
        with pytest.raises(StructureError, match=f"{len(leaves)} leaves for a structure of 2"):
            structure.unflatten(leaves)


def test_map_over_several() -> None:
    assert tree.map(lambda a, b: a * b, {"x": 2, "y": Pair(3, None)}, {"y": (5, None), "x": 7}) == {
        "x": 14,
        "y": Pair(15, None),
    }
    with pytest.raises(StructureError, match=r"tree\[0\]: expected a leaf"):
        tree.map(max, [1], [[1]])
