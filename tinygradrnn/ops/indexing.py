"""Reading by index, and the adding up that is its gradient.

Four primitives: a basic index (:func:`getitem`) with its adjoint :func:`place`, and picking along
one axis (:func:`take`) with its adjoint :func:`add_at`. Integer arrays, masks and
``take_along_axis`` are made of them, by way of positions in the flattened array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinygradrnn.errors import DtypeError, IndexRangeError, ShapeError
from tinygradrnn.namespace import Namespace
from tinygradrnn.op import composite, op
from tinygradrnn.ops.reduce import axes_of

Key = tuple[Any, ...]


@op
def getitem(xp: Any, x: Any, /, key: Key) -> Any:
    """What ``x[key]`` does for a key of integers, slices, None and ``...``.

    >>> tgr.tensor([1.0, 2.0, 3.0])[1:]
    tensor([2., 3.])
    """
    return x[resolve_key(key, x.shape)]


getitem.vjp(x=lambda xp, g, key, x_shape: xp.place(g, key=key, shape=x_shape))


@op
def place(xp: Namespace, x: Any, /, key: Key, shape: tuple[int, ...]) -> Any:
    """Zeros of `shape` with `x` put at a basic index `key`: the adjoint of :func:`getitem`.

    >>> tgr.place(tgr.tensor(5.0), (1,), (3,))
    tensor([0., 5., 0.])
    """
    y = xp.backend.xp.zeros(shape, dtype=x.dtype, device=x.device)
    resolved = resolve_key(key, shape)
    if None in resolved:  # the array standard reads with new axes, but does not write with them
        axes = [k for k in resolved if not isinstance(k, int)]  # what the axes of x come from
        kept = tuple(n for n, k in zip(x.shape, axes, strict=True) if k is not None)
        x = xp.reshape(x, kept)
        resolved = tuple(k for k in resolved if k is not None)
    y[resolved] = x
    return y


place.vjp(x=lambda xp, g, key: xp.getitem(g, key=key))


def resolve_key(key: Key, shape: Sequence[int]) -> Key:
    """A basic index with every slice given its ends and every integer checked.

    The array standard leaves open what a slice past the end means, and asks for one entry an axis.
    """
    used = sum(k is not None and k is not ... for k in key)
    if used > len(shape):
        raise IndexRangeError(f"{used} indices for {len(shape)} dimensions")
    if sum(k is ... for k in key) > 1:
        raise IndexRangeError("more than one ellipsis (...)")
    if not any(k is ... for k in key):
        key = (*key, ...)
    resolved: list[Any] = []
    axis = 0
    for k in key:
        if k is None:
            resolved.append(None)
        elif k is ...:
            skipped = len(shape) - used
            resolved.extend([slice(None)] * skipped)
            axis += skipped
        else:
            size = shape[axis]
            if isinstance(k, slice):
                start, stop, step = k.indices(size)
                resolved.append(slice(start, None if stop < 0 else stop, step))
            elif -size <= k < size:
                resolved.append(int(k))
            else:
                raise IndexRangeError(f"index {k} is out of range for axis {axis} of size {size}")
            axis += 1
    return tuple(resolved)


@op
def take(xp: Namespace, x: Any, indices: Any, /, axis: int | None = None) -> Any:
    """The slices of `x` at integer `indices` along `axis`; repeated indices are welcome.

    The result has the shape of `x` with that axis replaced by the shape of `indices`.

    >>> tgr.take(tgr.tensor([[1.0], [2.0], [3.0]]), tgr.tensor([2, 0, 2]), axis=0)
    tensor([[3.],
            [1.],
            [3.]])
    """
    (axis,) = axes_of(_the_axis(axis, x.shape), len(x.shape))
    flat = _in_range(xp, indices, x.shape[axis], axis)
    y = xp.backend.xp.take(x, flat, axis=axis)
    return xp.reshape(y, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


take.vjp(
    x=lambda xp, g, indices, axis, x_shape: xp.add_at(
        g, indices, axis=axis, size=x_shape[0 if axis is None else axis]
    ),
)


@op
def add_at(xp: Namespace, x: Any, indices: Any, /, size: int, axis: int | None = None) -> Any:
    """Zeros to which the slices of `x` are added at `indices` along an axis of `size`: what is
    added at one place twice counts twice. The adjoint of :func:`take`.

    >>> tgr.add_at(tgr.tensor([1.0, 2.0, 3.0]), tgr.tensor([0, 2, 0]), 4)
    tensor([4., 0., 2., 0.])
    """
    shape = tuple(x.shape)
    ndim = len(shape) - len(indices.shape) + 1
    (axis,) = axes_of(0 if axis is None else axis, ndim)
    flat = _in_range(xp, indices, size, axis)
    before, after = shape[:axis], shape[axis + len(indices.shape) :]
    rows = xp.reshape(x, (math.prod(before), flat.shape[0], math.prod(after)))
    rows = xp.permute_dims(rows, (1, 0, 2))
    zeros = xp.backend.xp.zeros((size, *rows.shape[1:]), dtype=x.dtype, device=x.device)
    y = xp.permute_dims(xp.backend.index_add(zeros, flat, rows), (1, 0, 2))
    return xp.reshape(y, (*before, size, *after))


add_at.vjp(x=lambda xp, g, indices, axis: xp.take(g, indices, axis=0 if axis is None else axis))


def _the_axis(axis: int | None, shape: Sequence[int]) -> int:
    if axis is None and len(shape) != 1:
        raise ShapeError(f"axis is needed for {len(shape)} dimensions")
    return 0 if axis is None else axis


def _in_range(xp: Namespace, indices: Any, size: int, axis: int) -> Any:
    """Indices as one flat dimension of non-negative numbers, none of them out of range."""
    if isinstance(indices, (int, float)) or "int" not in str(indices.dtype):
        found = type(indices).__name__ if isinstance(indices, (int, float)) else indices.dtype
        raise DtypeError(f"'indices' is {found}; expected an array of integers")
    standard = xp.backend.xp
    flat = standard.reshape(indices, (-1,))
    if flat.shape[0] == 0:
        return flat
    flat = standard.astype(flat, standard.int64, copy=False)  # -1 + size may not fit an int8
    low, high = int(standard.min(flat)), int(standard.max(flat))
    if low < -size or high >= size:
        worst = low if low < -size else high
        raise IndexRangeError(f"index {worst} is out of range for axis {axis} of size {size}")
    return flat if low >= 0 else standard.where(flat < 0, flat + size, flat)


@op(differentiable=False)
def flat_positions(xp: Namespace, indices: Any, /, shape: tuple[int, ...], axis: int) -> Any:
    """Positions in a flattened array of `shape` for indices along one axis (``take_along_axis``).

    >>> tgr.flat_positions(tgr.tensor([[1], [0]]), (2, 2), 1)
    tensor([[1],
            [2]])
    """
    standard = xp.backend.xp
    _in_range(xp, indices, shape[axis], axis)
    indices = standard.astype(indices, standard.int64, copy=False)
    total = standard.zeros(indices.shape, dtype=standard.int64, device=indices.device)
    for i, n in enumerate(shape):
        if i == axis:
            at = standard.where(indices < 0, indices + n, indices)
        else:
            at = standard.arange(n, dtype=standard.int64, device=indices.device)
            at = standard.reshape(at, tuple(n if k == i else 1 for k in range(len(shape))))
        total = total * n + at
    return total


@composite
def take_along_axis(xp: Any, x: Any, indices: Any, /, axis: int = -1) -> Any:
    """One element of `x` along `axis` for each index; `indices` has as many dimensions as `x`.

    >>> tgr.take_along_axis(tgr.tensor([[1.0, 2.0], [3.0, 4.0]]), tgr.tensor([[1], [0]]), axis=1)
    tensor([[2.],
            [3.]])
    """
    ndim = len(x.shape)
    if len(indices.shape) != ndim:
        raise ShapeError(
            f"take_along_axis: 'indices' has shape {indices.shape}, x {x.shape}; "
            "expected as many dimensions"
        )
    try:
        (axis,) = axes_of(axis, ndim)
    except ShapeError as error:
        raise ShapeError(f"take_along_axis: {error}") from None
    common = [
        n if i == axis else _common(n, m, i)
        for i, (n, m) in enumerate(zip(x.shape, indices.shape, strict=True))
    ]
    x = xp.broadcast_to(x, tuple(common))
    common[axis] = indices.shape[axis]
    indices = xp.broadcast_to(indices, tuple(common))
    positions = xp.flat_positions(indices, shape=x.shape, axis=axis)
    return xp.take(xp.reshape(x, (-1,)), positions, axis=0)


def _common(n: int, m: int, axis: int) -> int:
    if n != m and 1 not in (n, m):
        raise ShapeError(
            f"take_along_axis: sizes {n} and {m} of x and 'indices' along axis {axis}; "
            "expected equal, or 1"
        )
    return m if n == 1 else n


@op(differentiable=False, many=True)
def nonzero(xp: Any, x: Any, /) -> Any:
    """The indices of the elements that are not zero, one integer tensor for each axis.

    >>> tgr.nonzero(tgr.tensor([0.0, 2.0, 3.0]))
    (tensor([1, 2]),)
    """
    return xp.nonzero(x)


def index(xp: Any, x: Any, key: Key) -> Any:
    """``x[key]`` for a key that also holds integer arrays or masks, by NumPy's rules.

    Integers beside arrays take part in the broadcasting. The new axes stand where the arrays stood,
    or in front if a slice stands between them. `xp` is the namespace of operations on Tensors.
    """
    parts: list[Any] = []
    for k in key:
        if hasattr(k, "dtype") and "bool" in str(k.dtype):
            _check_mask(k.shape, x.shape, parts)
            parts.extend(xp.nonzero(k))
        else:
            parts.append(k)
    if not any(k is ... for k in parts):
        parts.append(...)
    used = sum(k is not None and k is not ... for k in parts)
    if used > len(x.shape):
        raise IndexRangeError(f"getitem: {used} indices for {len(x.shape)} dimensions")
    at = next(i for i, k in enumerate(parts) if k is ...)
    parts[at : at + 1] = [slice(None)] * (len(x.shape) - used)
    # First the slices and new axes; every array's axis is kept whole.
    arrays = [hasattr(k, "dtype") or isinstance(k, int) for k in parts]
    x = xp.getitem(
        x, key=tuple(slice(None) if a else k for a, k in zip(arrays, parts, strict=True))
    )
    # Then the arrays: their axes to the front, flattened into one, and picked from that.
    axes = [i for i, a in enumerate(arrays) if a]
    sizes = [x.shape[i] for i in axes]
    rest = [i for i in range(len(x.shape)) if i not in axes]
    picks = [parts[i] for i in axes]
    positions = xp.ravel_index(picks, sizes=tuple(sizes))
    x = xp.permute_dims(x, (*axes, *rest))
    x = xp.reshape(x, (math.prod(sizes), *x.shape[len(axes) :]))
    y = xp.take(x, positions, axis=0)
    together = axes == list(range(axes[0], axes[-1] + 1))
    if together and axes[0] > 0:
        new = len(positions.shape)
        order = (*range(new, new + axes[0]), *range(new), *range(new + axes[0], len(y.shape)))
        y = xp.permute_dims(y, order)
    return y


def _check_mask(mask: Sequence[int], shape: Sequence[int], before: list[Any]) -> None:
    if any(k is ... for k in before):
        return  # which axes it covers is known only later; the range check will see to it
    start = sum(k is not None for k in before)
    if tuple(shape[start : start + len(mask)]) != tuple(mask):
        raise IndexRangeError(
            f"getitem: a mask of shape {tuple(mask)} for axes of shape "
            f"{tuple(shape[start : start + len(mask)])}; expected equal"
        )


@op(differentiable=False, variadic=True)
def ravel_index(xp: Namespace, arrays: Sequence[Any], /, sizes: tuple[int, ...]) -> Any:
    """Positions in a flattened array of shape `sizes`, for one index array an axis.

    >>> tgr.ravel_index([tgr.tensor([0, 1]), tgr.tensor([2, 0])], (2, 3))
    tensor([2, 3])
    """
    standard = xp.backend.xp
    total: Any = 0
    for axis, (k, n) in enumerate(zip(arrays, sizes, strict=True)):
        if isinstance(k, int):
            device = next(a for a in arrays if not isinstance(a, int)).device
            k = standard.asarray(k, dtype=standard.int64, device=device)
        flat = _in_range(xp, k, n, axis)
        total = total * n + standard.astype(standard.reshape(flat, k.shape), standard.int64)
    return total
