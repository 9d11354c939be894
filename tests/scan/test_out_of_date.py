"""A compiled cell is never out of date: whatever changes, ``auto`` computes what ``eager`` does."""

from __future__ import annotations

import array
import collections
import contextvars
import itertools
import os
import random
import threading
import types
import weakref
from collections.abc import Callable
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn import nn

X, H = np.full((3, 2, 4), 0.5), np.full((2, 4), 0.25)


def run(cell: Any, mode: str, h: Any = None) -> Any:
    outputs, _ = tgr.scan(cell, X, H if h is None else h, mode=mode)
    return outputs.numpy()


def follows(cell: Any, change: Callable[[], Any], *, compiled: bool | None = True) -> None:
    """Check a cell before and after a change, and that it makes a difference at all."""
    before = run(cell, "auto")
    np.testing.assert_allclose(before, run(cell, "eager"), rtol=1e-12)
    change()
    after = run(cell, "eager")
    np.testing.assert_allclose(run(cell, "auto"), after, rtol=1e-12)
    assert not np.allclose(before, after), "the change changes nothing: a test that cannot fail"
    if compiled is not None:
        assert tgr.explain(cell, X, H).compiled == compiled


def scaled(factor: Callable[[], Any]) -> Callable[[Any, Any], Any]:
    def cell(x: Any, h: Any) -> Any:
        h = x + h * factor()
        return h, h

    return cell


Thing = types.SimpleNamespace


def weight(value: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(tgr.full(shape or (4,), value, dtype="float64"))


# ------------------------------------------------------------------------------ weights and arrays


@pytest.mark.parametrize(
    ("read", "compiled"),
    [
        (lambda t: t.w, True),
        (lambda t: t.w.detach(), True),
        (lambda t: t.w.detach().detach() * 1.0, True),
        (lambda t: t.w[0].item(), False),
        (lambda t: t.w.numpy(), False),
        (lambda t: t.w.tolist()[0], False),
        (lambda t: tgr.tensor(t.w.array), False),
        (lambda t: tgr.tensor(t.w), False),
        (lambda t: float(t.w[0]), False),
        (lambda t: np.linalg.norm(t.w.array), False),
        (lambda t: 2.0 if t.w[0] > 0.7 else 1.0, False),
    ],
)
def test_a_weight(read: Callable[[Any], Any], compiled: bool) -> None:
    thing = Thing(w=weight(1.0))

    def replace() -> None:
        thing.w = weight(0.5)

    follows(scaled(lambda: read(thing)), replace, compiled=compiled)

    thing.w = weight(1.0)

    def learn() -> None:
        (thing.w * thing.w).sum().backward()
        tgr.optim.SGD([thing.w], lr=0.3).step()

    follows(scaled(lambda: read(thing)), learn, compiled=compiled)


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.a,
        lambda t: tgr.tensor(t.a * 2),
        lambda t: float(t.a[0]),
        lambda t: 2.0 if t.a[0] > 0.7 else 1.0,
        lambda t: t.a.sum(),
    ],
)
def test_a_numpy_array(read: Callable[[Any], Any]) -> None:
    thing = Thing(a=np.ones(4))
    follows(scaled(lambda: read(thing)), lambda: thing.a.fill(0.5))
    follows(scaled(lambda: read(thing)), lambda: setattr(thing, "a", np.full(4, 0.75)))


def test_many_numbers_in_numpy_arrays_are_no_part_of_a_program() -> None:
    thing = Thing(a=np.ones(100_000))
    follows(scaled(lambda: thing.a[7]), lambda: thing.a.fill(0.5), compiled=False)
    reason = tgr.explain(scaled(lambda: thing.a[7]), X, H).reason
    assert reason is not None and "make them Tensors" in reason


def test_the_shape_and_kind_of_a_weight() -> None:
    thing = Thing(w=weight(1.0))
    cell = scaled(lambda: thing.w.sum() * thing.w.shape[0])
    follows(cell, lambda: setattr(thing, "w", weight(1.0, 2)))
    thing.w = tgr.full((3,), 0.5, dtype="float64")
    outputs, _ = tgr.scan(cell, X, H)
    assert not outputs.requires_grad
    thing.w = weight(0.5, 3)
    outputs, _ = tgr.scan(cell, X, H)
    assert outputs.requires_grad
    with tgr.no_grad():
        outputs, _ = tgr.scan(cell, X, H)
    assert not outputs.requires_grad


def test_two_names_for_one_weight() -> None:
    thing = Thing(a=weight(1.0))
    thing.b = thing.a

    def cell(x: Any, h: Any) -> Any:
        h = x + h * thing.a + thing.b
        return h, h

    def gradients(mode: str) -> list[Any]:
        outputs, _ = tgr.scan(cell, X, H, mode=mode)
        wanted = [thing.a, thing.b]
        return [g.numpy() for g in tgr.grad(outputs.sum(), wanted)]

    for _ in range(2):
        for a, b in zip(gradients("compiled"), gradients("eager"), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
        thing.b = weight(0.5)


# ------------------------------------------------------------------------- what a cell refers to


class _Slots:
    __slots__ = ("k",)

    def __init__(self) -> None:
        self.k = 2.0


class _Computed:
    def __init__(self) -> None:
        self.inner = {"k": 2.0}

    def __getattr__(self, name: str) -> Any:
        return self.__dict__["inner"][name]


_variable = contextvars.ContextVar("_variable", default=2.0)
_local = threading.local()


@pytest.mark.parametrize(
    ("holder", "read", "change"),
    [
        (Thing(k=2.0), lambda t: t.k, lambda t: setattr(t, "k", 0.5)),
        (Thing(k=2), lambda t: t.k, lambda t: setattr(t, "k", 2.5)),
        (_Slots(), lambda t: t.k, lambda t: setattr(t, "k", 0.5)),
        (_Computed(), lambda t: t.k, lambda t: t.inner.__setitem__("k", 0.5)),
        ([2.0], lambda t: t[0], lambda t: t.__setitem__(0, 0.5)),
        ([[2.0]], lambda t: t[0][0], lambda t: t[0].__setitem__(0, 0.5)),
        ({"k": 2.0}, lambda t: t["k"], lambda t: t.__setitem__("k", 0.5)),
        ({2.0}, lambda t: sum(t), lambda t: t.add(1.0)),
        (collections.deque([2.0]), lambda t: t[0], lambda t: t.__setitem__(0, 0.5)),
        (collections.ChainMap({"k": 2.0}), lambda t: t["k"], lambda t: t.__setitem__("k", 0.5)),
        (collections.Counter(k=2), lambda t: t["k"], lambda t: t.update("k")),
        (array.array("d", [2.0]), lambda t: t[0], lambda t: t.__setitem__(0, 0.5)),
        (bytearray([2]), lambda t: float(t[0]), lambda t: t.__setitem__(0, 3)),
        (Thing(k=Fraction(2)), lambda t: float(t.k), lambda t: setattr(t, "k", Fraction(1, 3))),
        (Thing(k=np.float64(2.0)), lambda t: t.k, lambda t: setattr(t, "k", np.float64(0.5))),
        (Thing(k=np.array(2.0)), lambda t: float(t.k), lambda t: t.k.__setitem__((), 0.5)),
        (Thing(k=lambda: 2.0), lambda t: t.k(), lambda t: setattr(t, "k", lambda: 0.5)),
        (_variable, lambda t: t.get(), lambda t: t.set(0.5)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_something_that_holds_a_number(holder: Any, read: Any, change: Any) -> None:
    follows(scaled(lambda: read(holder)), lambda: change(holder))


def test_a_thread_s_own() -> None:
    _local.k = 2.0
    follows(scaled(lambda: _local.k), lambda: setattr(_local, "k", 0.5))


def test_behind_a_weak_reference() -> None:
    class Referred:
        k = 2.0

    thing = Referred()
    reference = weakref.ref(thing)
    follows(scaled(lambda: reference().k), lambda: setattr(thing, "k", 0.5))  # type: ignore[union-attr]


def test_a_mapping_that_only_shows_another() -> None:
    inner = {"k": 2.0}
    shown = types.MappingProxyType(inner)
    follows(scaled(lambda: shown["k"]), lambda: inner.update(k=0.5))


def test_the_environment() -> None:
    os.environ["TINYGRADRNN_TEST_FACTOR"] = "2"
    cell = scaled(lambda: float(os.environ["TINYGRADRNN_TEST_FACTOR"]))
    try:
        follows(cell, lambda: os.environ.update(TINYGRADRNN_TEST_FACTOR="3"))
    finally:
        del os.environ["TINYGRADRNN_TEST_FACTOR"]


FACTOR = 2.0
module: Any = types.ModuleType("module")
module.inner = types.ModuleType("module.inner")


def helper() -> float:
    return FACTOR


@pytest.mark.parametrize(
    "read",
    [
        lambda: FACTOR,
        lambda: helper(),
        lambda: globals()["FACTOR"],
        lambda: eval("FACTOR + 0"),
        lambda: sum(FACTOR for _ in range(1)),
    ],
)
def test_a_global(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    follows(scaled(read), lambda: monkeypatch.setitem(globals(), "FACTOR", 0.5))


def test_a_function_that_a_function_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    change = lambda: monkeypatch.setitem(globals(), "helper", lambda: 0.5)  # noqa: E731
    follows(scaled(lambda: helper()), change)


@pytest.mark.parametrize(
    "read",
    [
        lambda: module.k,
        lambda: module.inner.k,
        lambda: getattr(module, "k"),  # noqa: B009
        lambda: vars(module)["k"],
        lambda: module.__dict__["k"],
    ],
)
def test_what_is_in_a_module(read: Any) -> None:
    module.k = module.inner.k = 2.0

    def change() -> None:
        module.k = module.inner.k = 0.5

    follows(scaled(read), change)


def test_defaults_and_partials() -> None:
    import functools

    def cell(x: Any, h: Any, k: Any = [2.0], *, more: Any = {"k": 1.0}) -> Any:  # noqa: B006
        h = x + h * k[0] * more["k"]
        return h, h

    follows(cell, lambda: cell.__defaults__[0].__setitem__(0, 0.5))  # type: ignore[index]
    follows(cell, lambda: cell.__kwdefaults__["more"].update(k=3.0))  # type: ignore[index]
    part = functools.partial(cell, k=[3.0])
    follows(part, lambda: part.keywords["k"].__setitem__(0, 0.5))


# ------------------------------------------------------------------------------------- classes


class _Meta(type):
    of_meta = 2.0


class _Descriptor:
    def __init__(self) -> None:
        self.k = 2.0

    def __get__(self, instance: Any, owner: Any) -> float:
        return self.k


class _Base(metaclass=_Meta):
    of_base = 2.0
    described = _Descriptor()
    table: ClassVar[dict[str, float]] = {"k": 2.0}

    @property
    def computed(self) -> float:
        return self.of_base

    def method(self) -> float:
        return 2.0


class _Derived(_Base):
    def __init__(self, read: Callable[[Any], Any]) -> None:
        self.read = read

    def __call__(self, x: Any, h: Any) -> Any:
        h = x + h * self.read(self)
        return h, h


@pytest.mark.parametrize(
    ("read", "change"),
    [
        (lambda c: c.of_base, lambda patch: patch.setattr(_Base, "of_base", 0.5)),
        (lambda c: c.computed, lambda patch: patch.setattr(_Base, "of_base", 0.5)),
        (lambda c: type(c).of_meta, lambda patch: patch.setattr(_Meta, "of_meta", 0.5)),
        (lambda c: c.table["k"], lambda patch: patch.setitem(_Base.table, "k", 0.5)),
        (lambda c: c.method(), lambda patch: patch.setattr(_Base, "method", lambda s: 0.5)),
        (
            lambda c: c.described,
            lambda patch: patch.setattr(vars(_Base)["described"], "k", 0.5),
        ),
    ],
)
def test_a_class(read: Any, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    follows(_Derived(read), lambda: change(monkeypatch))


def test_another_class() -> None:
    class Doubling:
        def __call__(self, x: Any, h: Any) -> Any:
            return x + 2 * h, x + 2 * h

    class Halving:
        def __call__(self, x: Any, h: Any) -> Any:
            return x + h / 2, x + h / 2

    cell = Doubling()
    follows(cell, lambda: setattr(cell, "__class__", Halving))


def test_train_and_eval_and_parts_of_a_module() -> None:
    class Cell(nn.Cell):
        def __init__(self) -> None:
            self.w = weight(0.5)
            self.parts = [weight(0.25)]

        def forward(self, x: Any, state: Any) -> Any:
            h = x + state * (2.0 if self.training else 1.0) * self.w
            return h + sum(p.sum() for p in self.parameters()), h

    cell = Cell()
    follows(cell, lambda: cell.eval())
    follows(cell, lambda: setattr(cell, "v", weight(0.125)))
    follows(cell, lambda: cell.load_state_dict({k: v * 2 for k, v in cell.state_dict().items()}))


# --------------------------------------------------------------- what recording must not use up


class _Counting:
    def __init__(self) -> None:
        self.calls, self.seen = 0, []

    def __call__(self, x: Any, h: Any) -> Any:
        self.calls += 1
        self.seen.append(self.calls)
        h = x + h * self.calls
        return h, h


def test_a_cell_that_counts_its_steps() -> None:
    ours, theirs = _Counting(), _Counting()
    np.testing.assert_array_equal(run(ours, "auto"), run(theirs, "eager"))
    assert (ours.calls, ours.seen) == (theirs.calls, theirs.seen) == (3, [1, 2, 3])


@pytest.mark.parametrize(
    "draws",
    [
        lambda: iter(np.linspace(0, 1, 99)).__next__,
        lambda: itertools.count().__next__,
        lambda: (x for x in itertools.count()).__next__,
        lambda: np.random.default_rng(0).standard_normal,
        lambda: np.random.RandomState(0).standard_normal,
        lambda: random.Random(0).random,
    ],
)
def test_what_gives_something_else_each_time(draws: Any) -> None:
    def first(mode: str) -> Any:
        draw = draws()
        return run(scaled(lambda: draw()), mode)

    np.testing.assert_array_equal(first("auto"), first("eager"))


@pytest.mark.parametrize("draw", [np.random.rand, random.random])
def test_random_numbers_of_other_libraries(draw: Any) -> None:
    for read in (lambda: draw(), lambda: np.random.rand(), lambda: random.random()):  # noqa: NPY002
        found: list[Any] = []
        for mode in ("auto", "eager"):
            np.random.seed(0)  # noqa: NPY002
            random.seed(0)
            found.append(run(scaled(read), mode))
        np.testing.assert_array_equal(*found)


def test_random_numbers_of_ours() -> None:
    found: list[Any] = []
    for mode in ("auto", "eager"):
        cell = nn.DropoutLSTMCell(4, 4, rng=tgr.current_backend().rng(0), dtype="float64")
        found.append(tgr.scan(cell, X, mode=mode)[0].numpy())
    assert found[0].shape == found[1].shape


def test_a_cell_that_refers_to_very_much() -> None:
    for many in ([0.5] * 20_000, dict.fromkeys(range(20000), 0.5), [[0.5] for _ in range(20_000)]):
        thing = Thing(many=many)
        assert "more objects" in str(tgr.explain(scaled(lambda t=thing: len(t.many)), X, H).reason)


def test_the_reason_is_told() -> None:
    def prefers(x: Any, h: Any) -> Any:
        return h, h + x if h.sum() > 0 else h

    with pytest.raises(tgr.errors.UntraceableError, match="prefers cannot be compiled: it reads"):
        tgr.scan(prefers, X, H, mode="compiled")
    assert tgr.explain(prefers, X, H).reason is not None


def test_how_the_weights_were_drawn_is_no_part_of_a_step() -> None:
    class Drawn(nn.Cell):
        def __init__(self) -> None:
            self.w = nn.Parameter(np.random.default_rng().normal(size=(4, 4)))
            self.b = nn.Parameter([random.random() for _ in range(4)])

        def forward(self, x: Any, state: Any) -> Any:
            h = tgr.tanh(x + state @ self.w + self.b.astype("float64"))
            return h, h

    assert tgr.explain(Drawn(), X, H).compiled


LARGE = np.zeros(1 << 20)  # more than a program looks through


def test_a_global_that_is_called_as_an_attribute_is_another_thing() -> None:
    held = types.SimpleNamespace(LARGE=2.0)

    def cell(x: Any, h: Any) -> Any:
        h = x + h * held.LARGE
        return h, h

    assert tgr.explain(cell, X, H).compiled
    follows(cell, lambda: setattr(held, "LARGE", 3.0))

    def refers(x: Any, h: Any) -> Any:
        h = x + h * float(len(LARGE))
        return h, h

    assert "NumPy arrays of more than" in str(tgr.explain(refers, X, H).reason)


def test_many_globals_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """More names than one byte counts, for which Python has instructions of two parts."""
    names = [f"many_{i}" for i in range(400)]
    space: dict[str, Any] = dict.fromkeys(names, 0.001)
    body = "".join(f"    h = h + {name}\n" for name in names)
    exec(f"def cell(x, h):\n{body}    h = h + x\n    return h, h\n", space)
    for name in (names[0], names[130], names[399]):
        follows(space["cell"], lambda name=name: space.update({name: 0.5}))
