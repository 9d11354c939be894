"""The Tensor: an array and its place on a tape, with operators. And the functions that make one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn, cast

from tinygradrnn import autodiff
from tinygradrnn import op as engine
from tinygradrnn.backend import Array, Backend, current_backend, get_backend
from tinygradrnn.convert import as_array, is_number
from tinygradrnn.errors import DeviceError, DtypeError, GradientError, ImmutableError, ShapeError
from tinygradrnn.namespace import Namespace, recorded
from tinygradrnn.op import op
from tinygradrnn.ops import compare, elementwise, indexing, linalg, losses, reduce
from tinygradrnn.ops import shape as shapes
from tinygradrnn.tape import Leaf, Value, recording


class Tensor(Value):
    """An array of some backend and its place on a tape; immutable.

    Made by :func:`tensor` and by operations. Operators and methods are the library's operations;
    NumPy arrays and numbers may stand on either side of an operator.
    """

    __slots__ = ()
    __array_ufunc__ = None  # ``ndarray * Tensor`` is then left to Tensor.__rmul__
    __array_priority__ = 1000  # the same, for array libraries that look here

    # ------------------------------------------------------------------------------ what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis."""
        return self.raw.shape

    @property
    def dtype(self) -> Any:
        """The data type, as the backend's own object."""
        return self.raw.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.raw.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        n = 1
        for k in self.raw.shape:
            n *= k
        return n

    @property
    def device(self) -> Any:
        """The device, as the backend's own object."""
        return self.raw.device

    @property
    def requires_grad(self) -> bool:
        """Whether operations on it are recorded."""
        return self.edge is not None

    @property
    def is_leaf(self) -> bool:
        """Whether a tape begins here: not computed by a recorded operation."""
        return self.edge is None or isinstance(self.edge, Leaf)

    @property
    def grad(self) -> Tensor | None:
        """The gradient that ``backward`` has added up here, or None. Only leaves keep one."""
        return self.edge.grad if isinstance(self.edge, Leaf) else None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if not isinstance(self.edge, Leaf):
            raise GradientError(
                "grad: only a leaf made with requires_grad=True keeps a gradient; "
                "for a computed tensor use tgr.grad(result, [tensor])"
            )
        if value is not None and not isinstance(value, Tensor):  # pyright: ignore
            raise DtypeError(f"grad: a {type(value).__name__} given; expected a Tensor or None")
        if value is not None and tuple(value.shape) != tuple(self.shape):
            raise ShapeError(f"grad: shape {value.shape} given; expected {self.shape}")
        self.edge.grad = value

    # ------------------------------------------------------------------------- gradients

    def backward(
        self,
        gradient: Any = None,
        *,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        """Add the gradient of this result to the ``.grad`` of every leaf behind it.

        See :func:`tinygradrnn.backward`.
        """
        autodiff.backward(self, gradient, retain_graph=retain_graph, create_graph=create_graph)

    def detach(self) -> Tensor:
        """The same array without its history: no gradient flows through it."""
        return Tensor(self.raw, self.backend)

    # ------------------------------------------------------------------------- ways out

    @property
    def array(self) -> Any:
        """The backend's own array."""
        self._may_be_read()
        return self.raw

    def numpy(self) -> Any:
        """A copy on the host as a NumPy array."""
        self._may_be_read()
        return self.backend.to_host(self.raw)

    def _may_be_read(self) -> None:
        # While a step is traced there are no values; and a weight's are not those of later calls.
        if recording.trace is not None:
            raise recording.trace.refuse("it reads a value: while it is traced there are none")

    def item(self) -> Any:
        """The single element as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item: shape {self.shape} has {self.size} elements; expected one")
        return self.numpy().reshape(()).item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self.numpy().tolist()

    def to(self, backend: str | Backend) -> Tensor:
        """The same numbers on another backend or device; the gradient finds its way back."""
        target = get_backend(backend)
        return self if target is self.backend else transfer(self, target, self.backend)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        # NumPy calls this when it is handed a Tensor without being asked to: that may be neither a
        # hidden copy between devices nor a hidden loss of the graph.
        if self.edge is not None:
            raise GradientError(
                "a Tensor that requires a gradient was handed to NumPy, which would drop its "
                "graph; use tgr's functions, or .numpy() or .detach() to leave the tape on purpose"
            )
        if self.backend.device != "cpu":
            raise DeviceError(
                f"a Tensor on {self.backend} was handed to NumPy; an implicit copy between devices "
                "is refused: use .numpy()"
            )
        if copy is False:
            raise ValueError("a Tensor is immutable, so NumPy needs a copy of it")
        host = self.numpy()
        return host if dtype is None else host.astype(dtype)

    def __dlpack__(self, **options: Any) -> Any:
        """The array for another library: a copy, unless ``copy=False`` is asked for."""
        if self.edge is not None:
            raise GradientError(
                "a Tensor that requires a gradient was handed to another library, which would drop "
                "its graph; use .detach() to leave the tape on purpose"
            )
        self._may_be_read()
        # A copy, unless sharing is asked for: what others write there must not reach a tape.
        share = options.get("copy") is False
        array = self.raw if share else self.backend.xp.asarray(self.raw, copy=True)
        return array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.raw.__dlpack_device__()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        if "int" not in str(self.dtype):
            raise DtypeError(f"a Tensor of {self.dtype} as an index; expected integers")
        return int(self.item())

    def __len__(self) -> int:
        if not self.shape:
            raise DtypeError("len: a Tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise DtypeError("iteration over a Tensor without axes")
        return iter(shapes.unstack(self))

    def __repr__(self) -> str:
        import numpy

        text = numpy.array2string(self.numpy(), separator=", ", prefix="tensor(")
        extra = "" if all(self.shape) else f", shape={self.shape}"
        if (kind := str(self.dtype).rpartition(".")[2]) not in ("float32", "int64", "bool"):
            extra += f", dtype={kind}"
        if self.backend.device != "cpu":
            extra += f", backend='{self.backend}'"
        return f"tensor({text}{extra}{', requires_grad=True' if self.requires_grad else ''})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> Any:
        if self.edge is not None and not isinstance(self.edge, Leaf):
            raise GradientError(
                "a computed Tensor with a tape cannot be copied; .detach() it first"
            )
        return tensor, (self.numpy(), None, self.requires_grad, self.backend)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise ImmutableError(
            "a Tensor is immutable; build a new one with tgr.where, tgr.concat or tgr.stack"
        )

    # ------------------------------------------------------------------------- operators

    def __add__(self, other: Any) -> Tensor:
        return elementwise.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return elementwise.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return elementwise.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return elementwise.subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return elementwise.multiply(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return elementwise.multiply(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return elementwise.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return elementwise.divide(other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return elementwise.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return elementwise.floor_divide(other, self)

    def __mod__(self, other: Any) -> Tensor:
        return elementwise.remainder(self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return elementwise.remainder(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return elementwise.pow(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return elementwise.pow(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return linalg.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return linalg.matmul(other, self)

    def __neg__(self) -> Tensor:
        return elementwise.negative(self)

    def __pos__(self) -> Tensor:
        return elementwise.positive(self)

    def __abs__(self) -> Tensor:
        return elementwise.abs(self)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return NotImplemented if other is None else compare.equal(self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return NotImplemented if other is None else compare.not_equal(self, other)

    def __lt__(self, other: Any) -> Tensor:
        return compare.less(self, other)

    def __le__(self, other: Any) -> Tensor:
        return compare.less_equal(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return compare.greater(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return compare.greater_equal(self, other)

    def __and__(self, other: Any) -> Tensor:
        return compare.logical_and(self, other)

    def __rand__(self, other: Any) -> Tensor:
        return compare.logical_and(other, self)

    def __or__(self, other: Any) -> Tensor:
        return compare.logical_or(self, other)

    def __ror__(self, other: Any) -> Tensor:
        return compare.logical_or(other, self)

    def __xor__(self, other: Any) -> Tensor:
        return compare.logical_xor(self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return compare.logical_xor(other, self)

    def __invert__(self) -> Tensor:
        return compare.logical_not(self)

    def __getitem__(self, key: Any) -> Tensor:
        """Read by slices, integers, integer arrays and boolean masks, by NumPy's rules."""
        keys = cast("tuple[Any, ...]", key if isinstance(key, tuple) else (key,))
        parts = tuple(k if _is_basic(k) else _index_array(k, self.backend) for k in keys)
        if all(_is_basic(k) for k in parts):
            return indexing.getitem(self, parts)
        return indexing.index(recorded, self, parts)

    # ------------------------------------------------------------------------- methods

    @property
    def T(self) -> Tensor:
        """The transpose of a matrix."""
        if self.ndim != 2:
            raise ShapeError(f"T: {self.ndim} dimensions; expected 2. Use .mT or permute_dims")
        return shapes.matrix_transpose(self)

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return shapes.matrix_transpose(self)

    def reshape(self, *sizes: Any) -> Tensor:
        """The same elements in another shape, given as a tuple or as several integers."""
        return shapes.reshape(self, _unpacked(sizes))

    def permute_dims(self, *axes: Any) -> Tensor:
        """The axes in another order, given as a tuple or as several integers."""
        return shapes.permute_dims(self, _unpacked(axes))

    # Operations that people also expect as methods: an Op in a class body is a method of it.
    exp = elementwise.exp
    log = elementwise.log
    sqrt = elementwise.sqrt
    square = elementwise.square
    abs = elementwise.abs
    sign = elementwise.sign
    sin = elementwise.sin
    cos = elementwise.cos
    tanh = elementwise.tanh
    sigmoid = elementwise.sigmoid
    relu = elementwise.relu
    clip = elementwise.clip
    pow = elementwise.pow
    astype = elementwise.astype
    matmul = linalg.matmul
    sum = reduce.sum
    mean = reduce.mean
    prod = reduce.prod
    max = reduce.max
    min = reduce.min
    var = reduce.var
    std = reduce.std
    logsumexp = reduce.logsumexp
    cumulative_sum = reduce.cumulative_sum
    expand_dims = shapes.expand_dims
    squeeze = shapes.squeeze
    broadcast_to = shapes.broadcast_to
    flip = shapes.flip
    roll = shapes.roll
    split = shapes.split
    unstack = shapes.unstack
    take = indexing.take
    softmax = losses.softmax
    log_softmax = losses.log_softmax
    argmax = compare.argmax
    argmin = compare.argmin
    any = compare.any
    all = compare.all


engine.tensor_type = Tensor


def _is_basic(k: Any) -> bool:
    return k is None or k is ... or (isinstance(k, (int, slice)) and not isinstance(k, bool))


def _index_array(k: Any, backend: Backend) -> Any:
    """An index that is not basic, as a Tensor of integers or booleans (or an int, if it is one)."""
    if isinstance(k, Value):
        if k.backend is not backend:
            raise DeviceError(f"getitem: an index on {k.backend} for a Tensor on {backend}")
        value = k
    elif hasattr(k, "dtype") and not backend.is_array(k) and getattr(k, "shape", None) != ():
        raise DeviceError(
            f"getitem: an index that is a {type(k).__name__} on another device than {backend}; "
            "make it a Tensor there with tgr.tensor(...)"
        )
    elif isinstance(k, (list, bool)) or hasattr(k, "dtype"):
        integers = isinstance(k, list) and not k  # an empty list would be floats
        value = Tensor(as_array(k, backend, "int64" if integers else None), backend)
    else:
        raise DtypeError(
            f"getitem: an index of type {type(k).__name__}; expected integers, slices, None, ..., "
            "integer arrays or boolean masks"
        )
    kind = str(value.raw.dtype)
    if "bool" in kind and value.raw.shape == ():
        raise DtypeError("getitem: a single boolean as an index; expected a mask, or integers")
    if "int" not in kind and "bool" not in kind:
        raise DtypeError(f"getitem: an index of {kind}; expected integers or booleans")
    return int(cast("Tensor", value)) if value.raw.shape == () and "int" in kind else value


def _unpacked(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    alone = len(sizes) == 1 and isinstance(sizes[0], (tuple, list))
    return tuple(cast("list[int]", sizes[0])) if alone else sizes


# ------------------------------------------------------------------------------- making tensors


def tensor(
    data: Any,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: str | Backend | None = None,
) -> Tensor:
    """Make a Tensor that owns a copy of `data`.

    Args:
        data: A number, nested lists, a NumPy array, an array of the backend, or a Tensor (without
            its history). Python floats become float32, integers int64; arrays keep their dtype.
        dtype: A name such as ``"float64"``, or any library's dtype.
        requires_grad: Begin a tape here: ``backward`` will leave the gradient in ``.grad``.
        backend: Where to put it; the current backend by default.

    Raises:
        ShapeError: Nested lists of unequal length.
        DtypeError: Not numbers, or a gradient is asked for of integers.

    >>> tgr.tensor([[1, 2], [3, 4]], dtype="float64")
    tensor([[1., 2.],
            [3., 4.]], dtype=float64)
    """
    chosen = current_backend() if backend is None else get_backend(backend)
    if isinstance(data, Value):
        if backend is None:
            chosen = data.backend
        if recording.trace is not None:
            raise recording.trace.refuse("it copies a tensor with tgr.tensor; .detach() does not")
        data = data.raw if data.backend is chosen else data.backend.to_host(data.raw)
    array = as_array(data, chosen, dtype)
    return leaf(array, chosen) if requires_grad else Tensor(array, chosen)


def leaf(array: Array, backend: Backend, kind: type[Tensor] = Tensor) -> Any:
    """A Tensor (or a subclass) around `array` at which a tape begins."""
    if "float" not in str(array.dtype):
        raise DtypeError(
            f"tensor: requires_grad=True for {array.dtype}; "
            "only floating-point numbers have gradients"
        )
    return kind(array, backend, Leaf(array.shape, array.dtype, backend))


def from_dlpack(source: Any, backend: str | Backend | None = None) -> Tensor:
    """A Tensor that shares the memory of any array with ``__dlpack__``, such as a PyTorch tensor's.

    Its owner must not write to it afterwards: a tape takes a Tensor's values for fixed.

    Raises:
        DeviceError: The array lives on another device than the backend's.

    >>> import numpy as np
    >>> tgr.from_dlpack(np.asarray([1.0, 2.0]))
    tensor([1., 2.], dtype=float64)
    """
    chosen = current_backend() if backend is None else get_backend(backend)
    if not hasattr(source, "__dlpack__"):
        raise DtypeError(f"from_dlpack: a {type(source).__name__} has no __dlpack__ method")
    try:
        array = chosen.xp.from_dlpack(source)
        if not is_number(array.dtype):
            raise DtypeError(f"from_dlpack: cannot hold {array.dtype}; expected real numbers")
        return Tensor(array, chosen)
    except DtypeError:
        raise
    except (BufferError, RuntimeError, ValueError, TypeError) as error:
        raise DeviceError(f"from_dlpack: cannot share memory with {chosen}: {error}") from error


@op(moves=True)
def transfer(xp: Namespace, x: Any, /, target: Backend, source: Backend) -> Any:
    """A copy on another backend or device: what ``Tensor.to`` records.

    >>> tgr.tensor([1.0]).to("numpy")
    tensor([1.])
    """
    return target.from_host(source.to_host(x))


def _transfer_x(xp: Any, g: Any, target: Backend, source: Backend) -> Any:
    return xp.transfer(g, target=source, source=target)


transfer.vjp(x=_transfer_x)
