"""Changing shape, joining, splitting and reordering. Names as in the array standard."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from operator import index
from typing import Any

from tinygradrnn.convert import Scalar
from tinygradrnn.errors import DtypeError, ShapeError
from tinygradrnn.op import composite, op
from tinygradrnn.ops.reduce import Axis, axes_of


@op
def reshape(xp: Any, x: Any, /, shape: tuple[int, ...]) -> Any:
    """The same elements in another shape; one size may be -1.

    >>> tgr.reshape(tgr.tensor([1.0, 2.0, 3.0, 4.0]), (2, -1))
    tensor([[1., 2.],
            [3., 4.]])
    """
    return xp.reshape(x, (shape,) if isinstance(shape, int) else tuple(shape))


reshape.vjp(x=lambda xp, g, x_shape: xp.reshape(g, x_shape))


@op
def permute_dims(xp: Any, x: Any, /, axes: tuple[int, ...]) -> Any:
    """The axes in another order.

    >>> tgr.permute_dims(tgr.zeros((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    return xp.permute_dims(x, tuple(axes_of(tuple(axes), len(x.shape))))


def _permute_dims_x(xp: Any, g: Any, axes: tuple[int, ...]) -> Any:
    order = axes_of(tuple(axes), len(axes))
    return xp.permute_dims(g, tuple(order.index(i) for i in range(len(order))))


permute_dims.vjp(x=_permute_dims_x)


@op
def matrix_transpose(xp: Any, x: Any, /) -> Any:
    """The last two axes exchanged.

    >>> tgr.matrix_transpose(tgr.zeros((5, 2, 3))).shape
    (5, 3, 2)
    """
    return xp.matrix_transpose(x)


matrix_transpose.vjp(x=lambda xp, g: xp.matrix_transpose(g))


@composite
def moveaxis(xp: Any, x: Any, /, source: int, destination: int) -> Any:
    """One axis moved to another place, the others kept in order.

    >>> tgr.moveaxis(tgr.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    ndim = len(x.shape)
    (source,), (destination,) = axes_of(source, ndim), axes_of(destination, ndim)
    order = [i for i in range(ndim) if i != source]
    order.insert(destination, source)
    return xp.permute_dims(x, tuple(order))


@op
def expand_dims(xp: Any, x: Any, /, axis: int = 0) -> Any:
    """A new axis of size 1.

    >>> tgr.expand_dims(tgr.zeros((2, 3)), axis=1).shape
    (2, 1, 3)
    """
    return xp.expand_dims(x, axis=axis)


expand_dims.vjp(x=lambda xp, g, x_shape: xp.reshape(g, x_shape))


@op
def squeeze(xp: Any, x: Any, /, axis: Axis = None) -> Any:
    """Without the axes of size 1 that `axis` names; all of them by default.

    >>> tgr.squeeze(tgr.zeros((1, 3, 1)), axis=0).shape
    (3, 1)
    """
    if axis is None:
        axis = tuple(i for i, n in enumerate(x.shape) if n == 1)
    return xp.squeeze(x, axis=axis)


squeeze.vjp(x=lambda xp, g, x_shape: xp.reshape(g, x_shape))


@op
def broadcast_to(xp: Any, x: Any, /, shape: tuple[int, ...]) -> Any:
    """Repeated along axes of size 1, and new leading ones, to `shape`.

    >>> tgr.broadcast_to(tgr.tensor([1.0, 2.0]), (2, 2))
    tensor([[1., 2.],
            [1., 2.]])
    """
    return xp.broadcast_to(x, tuple(shape))


broadcast_to.vjp(x=lambda xp, g: g)  # the engine sums a cotangent to its input's shape


def _check(arrays: Sequence[Any]) -> None:
    if not arrays:
        raise ShapeError("expected at least one array")
    if any(isinstance(a, Scalar) for a in arrays):
        raise DtypeError("a number found; expected Tensors or arrays")


@op(variadic=True, promotes=True)
def concat(xp: Any, arrays: Sequence[Any], /, axis: int = 0) -> Any:
    """The arrays joined along an existing axis.

    >>> tgr.concat([tgr.tensor([1.0]), tgr.tensor([2.0, 3.0])])
    tensor([1., 2., 3.])
    """
    _check(arrays)
    if axis is None:
        raise ShapeError("axis=None; expected an integer")
    return xp.concat(arrays, axis=axis)


concat.vjp(
    arrays=lambda xp, g, arrays_shape, axis: xp.split(g, [s[axis] for s in arrays_shape], axis=axis)
)


@op(variadic=True, promotes=True)
def stack(xp: Any, arrays: Sequence[Any], /, axis: int = 0) -> Any:
    """Arrays of one shape joined along a new axis.

    >>> tgr.stack([tgr.tensor([1.0, 2.0]), tgr.tensor([3.0, 4.0])])
    tensor([[1., 2.],
            [3., 4.]])
    """
    _check(arrays)
    return xp.stack(arrays, axis=axis)


stack.vjp(arrays=lambda xp, g, axis: xp.unstack(g, axis=axis))


@op(many=True)
def unstack(xp: Any, x: Any, /, axis: int = 0) -> Any:
    """A tuple of the slices along an axis, which disappears.

    >>> tgr.unstack(tgr.tensor([[1.0, 2.0], [3.0, 4.0]]))
    (tensor([1., 2.]), tensor([3., 4.]))
    """
    return xp.unstack(x, axis=axis)


unstack.vjp(x=lambda xp, g, axis: xp.stack(list(g), axis=axis))


@op(many=True)
def split(xp: Any, x: Any, /, sections: int | Sequence[int], axis: int = 0) -> Any:
    """A tuple of contiguous parts along an axis: a number of equal parts, or the size of each.

    A number of parts is NumPy's convention, a list of sizes PyTorch's.

    >>> tgr.split(tgr.tensor([1.0, 2.0, 3.0, 4.0]), 2)
    (tensor([1., 2.]), tensor([3., 4.]))
    >>> [part.shape for part in tgr.split(tgr.zeros((2, 5)), [1, 4], axis=-1)]
    [(2, 1), (2, 4)]
    """
    single = hasattr(sections, "__index__")
    parts = index(sections) if single else tuple(map(index, sections))  # type: ignore[arg-type]
    return [x[key] for key in _parts(parts, axis, tuple(x.shape))]


@lru_cache
def _parts(sections: int | tuple[int, ...], axis: int, shape: tuple[int, ...]) -> list[Any]:
    """The indices of the parts of an axis: the same at every step, so worked out once."""
    (a,) = axes_of(axis, len(shape))
    size = shape[a]
    if isinstance(sections, int):
        if sections < 1 or size % sections:
            raise ShapeError(
                f"axis {axis} of size {size} cannot be split in {sections} equal parts"
            )
        sections = (size // sections,) * sections
    if sum(sections) != size or min(sections, default=0) < 0:
        raise ShapeError(f"axis {axis} of size {size} cannot be split into sizes {sections}")
    before = (slice(None),) * a
    ends = accumulate(sections)
    return [(*before, slice(end - n, end), ...) for n, end in zip(sections, ends, strict=True)]


split.vjp(x=lambda xp, g, axis: xp.concat(list(g), axis=axis))


@op
def flip(xp: Any, x: Any, /, axis: Axis = None) -> Any:
    """The order of the elements reversed along `axis`, all axes by default.

    >>> tgr.flip(tgr.tensor([1.0, 2.0, 3.0]))
    tensor([3., 2., 1.])
    """
    return xp.flip(x, axis=axis)


flip.vjp(x=lambda xp, g, axis: xp.flip(g, axis=axis))


def _negated(shift: int | tuple[int, ...]) -> int | tuple[int, ...]:
    return tuple(-s for s in shift) if isinstance(shift, (tuple, list)) else -shift


@op
def roll(xp: Any, x: Any, /, shift: Any, axis: Axis = None) -> Any:
    """The elements moved along `axis` by `shift` places, those pushed out coming in at the start.

    >>> tgr.roll(tgr.tensor([1.0, 2.0, 3.0]), 1)
    tensor([3., 1., 2.])
    """
    shift = tuple(map(index, shift)) if isinstance(shift, (tuple, list)) else index(shift)
    return xp.roll(x, shift, axis=axis)


roll.vjp(x=lambda xp, g, shift, axis: xp.roll(g, _negated(shift), axis=axis))
