"""What a cell depends on besides its arguments, so that a program made of it is never out of date.

A cell may read its attributes, what its functions close over, and globals. All of that is walked
at every call of ``scan``: numbers and strings count by value, containers and objects by what is in
them, functions by their code and what they refer to, tensors and arrays by shape, dtype and whether
they need a gradient. What a tensor holds does not count, as a program reads it anew at each call.
"""

from __future__ import annotations

import contextvars
import enum
import functools
import inspect
import opcode
import operator
import re
import threading
import types
import weakref
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from tinygradrnn.backend import Backend
from tinygradrnn.op import Composite, Op
from tinygradrnn.random import Generator
from tinygradrnn.tape import Leaf, Value

_BY_VALUE = frozenset((int, float, bool, str, bytes, complex, type(None), type(...), range))
_RANDOM = frozenset(("Generator", "RandomState", "Random", "SystemRandom"))
_UNCHANGING = (
    types.BuiltinFunctionType,
    types.CodeType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    type(threading.Lock()),
    type(threading.RLock()),
    operator.attrgetter,
    operator.itemgetter,
    operator.methodcaller,
    enum.Enum,
    Backend,
    Generator,  # of ours: refuses to draw while a step is traced
    Op,
    Composite,
)
_LIBRARY = ("tinygradrnn", "numpy", "builtins", "math")


class Unclear(Exception):
    """Whether a cell is the same as before cannot be told, and why."""


class Fingerprint:
    """The walk over what a cell depends on.

    Args:
        cell: A cell, or any function.
        undo: Whether to remember what is in everything that can be changed, so that it can be
            put back.

    Attributes:
        key: Equal for two walks if a program of the one serves the other.
        tensors: The tensors and arrays met, in the order in which they were.
    """

    __slots__ = ("_bytes", "_classes", "_put_back", "_seen", "kept", "key", "tensors")
    LIMIT = 10_000
    """Objects to look at."""
    BYTES = 1 << 18
    """Bytes of NumPy's arrays to look at."""

    def __init__(self, cell: Any, undo: bool = False) -> None:
        self._put_back: list[Callable[[], None]] | None = [] if undo else None
        parts: list[Any] = []
        self.tensors: list[Any] = []
        self.kept: list[Any] = []  # objects that count by identity: alive as long as this is
        self._seen: dict[int, tuple[int, Any]] = {}  # with the object, so that its id stays its own
        self._classes: set[tuple[int, frozenset[str]]] = set()
        self._bytes = 0
        self._add(cell, parts)
        self.key = tuple(parts)

    def restore(self) -> None:
        """Put back what was changed since: a run that only looks must leave nothing behind."""
        for put_back in self._put_back or ():
            put_back()

    def _remember(self, value: Any) -> None:
        """How to put back what is in a container or an object."""
        if self._put_back is None:
            return
        attributes = getattr(value, "__dict__", None)
        if type(attributes) is dict:
            self._put_back.append(functools.partial(_refill, attributes, dict(attributes)))
        if isinstance(value, list):
            before = list(value)
            self._put_back.append(functools.partial(value.__setitem__, slice(None), before))
        elif isinstance(value, (dict, set)):
            self._put_back.append(functools.partial(_refill, value, value.copy()))

    def _add(self, value: Any, parts: list[Any]) -> None:
        kind: Any = type(value)
        if kind in _BY_VALUE:
            # 1, 1.0 and True are equal, and so are 0.0 and -0.0, but they do not compute the same.
            parts.append((kind, repr(value) if kind is float else value))
            return
        seen = self._seen.get(id(value))
        if seen is not None:
            parts.append(("again", seen[0]))
            return
        self._count(len(self._seen))
        self._seen[id(value)] = len(self._seen), value
        self._remember(value)
        if isinstance(value, Value):
            array = value.raw
            parts.append((kind, value.backend, array.shape, array.dtype, _place(value)))
            self.tensors.append(value)
        elif kind is types.FunctionType:
            self._add_function(value, parts)
        elif kind is types.MethodType:
            parts.append(kind)
            self._add(value.__func__, parts)
            self._add(value.__self__, parts)
        elif kind is functools.partial:
            parts.append(kind)
            for part in (value.func, value.args, value.keywords):
                self._add(part, parts)
        elif hasattr(kind, "__next__"):
            raise Unclear(f"it refers to a {kind.__name__}, which recording a step would use up")
        elif kind.__name__ in _RANDOM and kind.__module__.split(".")[0] in ("numpy", "random"):
            raise Unclear("it draws random numbers that are not tinygradrnn's")
        elif hasattr(kind, "shape") and hasattr(kind, "dtype") and hasattr(kind, "ndim"):
            self._add_array(value, parts)
        elif isinstance(value, Mapping):
            self._count(len(parts) + len(value))
            parts.append((kind, len(value)))
            for name, item in value.items():
                self._add(name, parts)
                self._add(item, parts)
            self._add_attributes(value, parts)
        elif isinstance(value, (Sequence, Set)):
            self._count(len(parts) + len(value))
            parts.append((kind, len(value)))
            for item in value:
                self._add(item, parts)
            self._add_attributes(value, parts)
        elif isinstance(value, type):
            self._add_identity(value, parts)
            if not _of_library(value):
                self._add_class(value, parts)
        elif hasattr(kind, "__self__") and _owner(value) is not None:
            # A method that is not Python's: a bound one of an iterator, a random generator, ...
            parts.append((kind, getattr(value, "__name__", "")))
            self._add(_owner(value), parts)
        elif isinstance(value, _UNCHANGING):
            self._add_identity(value, parts)
        elif isinstance(value, weakref.ref):
            parts.append(kind)
            self._add(value(), parts)
        elif isinstance(value, contextvars.ContextVar):
            parts.append(kind)
            self._add(value.get(None), parts)
        else:
            self._add_object(value, parts)

    def _count(self, objects: int) -> None:
        if objects > self.LIMIT:
            raise Unclear("it refers to more objects than are looked through")

    def _add_array(self, value: Any, parts: list[Any]) -> None:
        """An array that is no Tensor: a cell may read its values unseen, so they count."""
        kind: Any = type(value)
        if kind.__module__ != "numpy":
            raise Unclear(f"it refers to a {kind.__name__} of {kind.__module__}: make it a Tensor")
        self._bytes += value.nbytes
        if self._bytes > self.BYTES or value.dtype.hasobject:
            raise Unclear(
                f"it refers to NumPy arrays of more than {self.BYTES >> 10} kB, which may change "
                "unseen: make them Tensors"
            )
        parts.append((kind, value.shape, value.dtype, value.tobytes()))
        self.tensors.append(value)

    def _add_identity(self, value: Any, parts: list[Any]) -> None:
        parts.append(id(value))
        self.kept.append(value)

    def _add_object(self, value: Any, parts: list[Any]) -> None:
        kind: Any = type(value)
        parts.append(kind)
        if not self._add_attributes(value, parts):
            if kind is object or hasattr(kind, "__get__"):  # as classes have them
                self._add_identity(value, parts)
            elif kind.__hash__ in (None, object.__hash__):
                raise Unclear(f"it refers to a {kind.__name__}, which may change unseen")
            else:
                parts.append(value)  # a value of its own kind: a date, a fraction, a path
        if not _of_library(kind):
            self._add_class(kind, parts, _MAKING)

    def _add_class(
        self, kind: type, parts: list[Any], without: frozenset[str] = frozenset()
    ) -> None:
        """What a class and its bases define, as far as these are not the library's own."""
        bases = [*kind.__mro__]
        if type(kind) is not type:  # a metaclass
            bases += inspect.getmro(type(kind))
        for base in bases:
            if base in (object, type) or _of_library(base) or (id(base), without) in self._classes:
                continue
            self._classes.add((id(base), without))
            for name, item in vars(base).items():
                if name in _SKIPPED or name in without or type(item) in _DESCRIPTORS:
                    continue
                parts.append(name)
                if isinstance(item, property):
                    item = item.fget
                elif isinstance(item, (staticmethod, classmethod)):
                    item = item.__func__
                self._add(item, parts)

    def _add_attributes(self, value: Any, parts: list[Any]) -> bool:
        attributes = getattr(value, "__dict__", None)
        if attributes is not None:
            for name, item in attributes.items():
                parts.append(name)
                if type(item) in _BY_VALUE and type(item) is not float:
                    parts.append((type(item), item))
                else:
                    self._add(item, parts)
        slots = _slots(type(value))
        for name in slots:
            parts.append(name)
            self._add(getattr(value, name, None), parts)
        return attributes is not None or bool(slots)

    def _add_function(self, f: types.FunctionType, parts: list[Any]) -> None:
        self._add_identity(f.__code__, parts)
        for cell in f.__closure__ or ():
            try:
                item = cell.cell_contents
                self._add(item, parts)
                if self._put_back is not None:
                    self._put_back.append(functools.partial(setattr, cell, "cell_contents", item))
            except ValueError:  # not filled yet
                parts.append("empty")
        if f.__defaults__:
            self._add(f.__defaults__, parts)
        if f.__kwdefaults__:
            self._add(f.__kwdefaults__, parts)
        if f.__dict__:
            self._add(f.__dict__, parts)
        if not _of_library(f):
            self._add_names(f.__globals__, _globals(f.__code__), parts, _names(f.__code__))

    def _add_names(
        self,
        space: dict[str, Any],
        names: Sequence[str],
        parts: list[Any],
        within: Sequence[str] | None = None,
    ) -> None:
        """What a function may look up in its globals; `within` modules there, by these names."""
        inner = names if within is None else within
        for name in names:
            if name not in space:
                continue
            item = space[name]
            if isinstance(item, types.ModuleType):
                library = item.__name__.partition(".")[0]
                if library in ("numpy", "random") and "random" in (*inner, item.__name__):
                    raise Unclear("it draws random numbers that are not tinygradrnn's")
                if library not in _LIBRARY and id(item) not in self._seen:
                    parts.append(("module", name))
                    self._seen[id(item)] = len(self._seen), item
                    self._add_names(vars(item), inner, parts)
                    del self._seen[id(item)]
                continue
            parts.append(name)
            self._add(item, parts)
            if within is not None and self._put_back is not None:
                self._put_back.append(functools.partial(space.__setitem__, name, item))


def _owner(method: Any) -> Any:
    """What a method is bound to."""
    owner = getattr(method, "__self__", None)
    return None if isinstance(owner, (types.ModuleType, type)) else owner


def _refill(container: Any, items: Any) -> None:
    if len(container) == len(items) and all(map(operator.is_, _flat(container), _flat(items))):
        return
    container.clear()
    container.update(items)


def _flat(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container


def _place(value: Value) -> Any:
    edge = value.edge
    return None if edge is None else type(edge) is Leaf


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """The names a function may look up among the globals, those of functions within it included."""
    found = dict.fromkeys(code.co_names)
    indirect = not _INDIRECT.isdisjoint(found)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found.update(dict.fromkeys(_names(constant)))
        elif isinstance(constant, str) and indirect:
            found.update(dict.fromkeys(_WORD.findall(constant)))
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def _globals(code: types.CodeType) -> tuple[str, ...]:
    """Those of them that are no mere attributes: an attribute may well be called as a global is."""
    names, raw = code.co_names, code.co_code
    found: dict[str, None] = {}
    high = 0
    for at in range(0, len(raw), 2):
        op, arg = raw[at], raw[at + 1] | high
        high = arg << 8 if op == _EXTENDED else 0
        if op in _LOADS:
            place = arg >> _LOADS[op]
            if place >= len(names):  # another Python's instructions
                return _names(code)
            found[names[place]] = None
    if not _INDIRECT.isdisjoint(names):
        return _names(code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found.update(dict.fromkeys(_globals(constant)))
    return tuple(found)


# Instructions that look up a global, and the bits of their argument that are not its place.
_BITS = {
    "LOAD_GLOBAL": 1,
    "STORE_GLOBAL": 0,
    "DELETE_GLOBAL": 0,
    "LOAD_NAME": 0,
    "LOAD_FROM_DICT_OR_GLOBALS": 0,
}
_LOADS = {opcode.opmap[name]: bits for name, bits in _BITS.items() if name in opcode.opmap}
_EXTENDED = opcode.opmap["EXTENDED_ARG"]

_INDIRECT = frozenset(("getattr", "vars", "globals", "eval", "exec", "__dict__", "attrgetter"))
_WORD = re.compile(r"[^\W\d]\w*")


def _of_library(value: Any) -> bool:
    """Whether something is part of a library that does not change while it is used."""
    name = getattr(value, "__module__", None) or getattr(value, "__name__", None)
    return isinstance(name, str) and name.partition(".")[0] in _LIBRARY


@functools.lru_cache(maxsize=1024)
def _slots(kind: type) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        found.update(dict.fromkeys((slots,) if isinstance(slots, str) else slots))
    return tuple(n for n in found if n not in ("__dict__", "__weakref__"))


# Of an object that is there already they have run: what they do, such as draw weights at random,
# says nothing about a step. A step that makes objects itself refers to their class.
_MAKING = frozenset(["__init__", "__new__", "__post_init__"])

_SKIPPED = frozenset(
    [
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__qualname__",
        "__annotations__",
        "__static_attributes__",
        "__firstlineno__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__abstractmethods__",
        "_abc_impl",
        "__parameters__",
        "__orig_bases__",
        "__match_args__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__hash__",
        "__slots__",
        "__classdictcell__",
    ]
)


_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)
