"""Where an element is: indices that are affine in the coordinates of a kernel.

A kernel computes one element of some shape in each thread. What it reads for that is elsewhere: in
a part of an array, in one that is broadcast, turned or flipped. All of these only add, multiply and
reorder coordinates, so that a chain of views costs nothing but another index.
"""

from __future__ import annotations

import math
from typing import Any

from tinygradrnn.loop import Call

Shape = tuple[int, ...]
Affine = tuple[int, Shape]
"""A number that is ``constant + sum(factor * coordinate)`` of a kernel's coordinates."""
At = tuple[Affine, ...]
"""An element of a Var: its index along each axis, or one index into the flattened array."""

VIEWS = frozenset(
    (
        *("getitem", "reshape", "expand_dims", "squeeze"),
        *("broadcast_to", "flip", "permute_dims", "matrix_transpose"),
    )
)
"""Operations that only say where in their input an element is."""


def strides(shape: Shape) -> Shape:
    """Of a contiguous array, in elements; 0 for axes of size 1."""
    return tuple(math.prod(shape[k + 1 :]) if n > 1 else 0 for k, n in enumerate(shape))


def identity(shape: Shape) -> At:
    """Each coordinate itself."""
    count = len(shape)
    return tuple(
        [(0, tuple([int(j == k and shape[k] > 1) for j in range(count)])) for k in range(count)]
    )


def flat(at: At, shape: Shape) -> Affine:
    """The index into the flattened array."""
    if len(at) != len(shape):
        return at[0]
    step = strides(shape)
    factors = zip(*[[s * f for f in a[1]] for a, s in zip(at, step, strict=True)], strict=True)
    return sum(a[0] * s for a, s in zip(at, step, strict=True)), tuple(map(sum, factors))


def broadcast(at: At, shape: Shape, zero: Affine) -> At:
    """Where in an operand of `shape` the element is."""
    return tuple(
        [zero if n == 1 else a for n, a in zip(shape, at[len(at) - len(shape) :], strict=True)]
    )


def part(at: At, key: tuple[Any, ...], shape: Shape, zero: Affine) -> At:
    """Where in an array of `shape` the element of the part at `key` is."""
    left = iter(at)
    found: list[Affine] = []
    for k in _resolved(key, shape):
        if isinstance(k, int):
            found.append((k, zero[1]))
            continue
        constant, factors = next(left)
        if k is not None:
            start, step = k
            found.append((start + step * constant, tuple([step * f for f in factors])))
    return tuple(found)


def _resolved(key: tuple[Any, ...], shape: Shape) -> list[Any]:
    """A basic index with one entry for each axis: a number, or a slice's start and step."""
    used = sum(k is not None and k is not ... for k in key)
    if not any(k is ... for k in key):
        key = (*key, ...)
    at = next(i for i, k in enumerate(key) if k is ...)
    key = (*key[:at], *(slice(None),) * (len(shape) - used), *key[at + 1 :])
    sizes = iter(shape)
    found: list[Any] = []
    for k in key:
        if k is None:
            found.append(None)
        elif isinstance(k, slice):
            found.append(k.indices(next(sizes))[::2])
        else:
            found.append(k % next(sizes))
    return found


def _sizes(shape: Shape) -> list[int]:
    return [n for n in shape if n != 1]


def regroups(call: Call) -> bool:
    """Whether a view takes apart or joins axes: then it reads what is contiguous in memory."""
    return call.op == "reshape" and _sizes(call.vars[0].shape) != _sizes(call.output.shape)


def through(call: Call, at: At, zero: Affine) -> At:
    """Where in the input of a view its element is."""
    shape = call.vars[0].shape
    if call.op == "getitem":
        return part(at, call.params["key"], shape, zero)
    if call.op == "broadcast_to":
        return broadcast(at, shape, zero)
    if call.op == "matrix_transpose":
        return (*at[:-2], at[-1], at[-2])
    if call.op == "permute_dims":
        axes = [a % len(at) for a in call.params["axes"]]
        return tuple([at[axes.index(k)] for k in range(len(at))])
    if call.op == "flip":
        axes = call.params["axis"]
        axes = range(len(at)) if axes is None else [axes] if isinstance(axes, int) else axes
        turned = {a % len(at) for a in axes}
        return tuple(
            [
                (n - 1 - a[0], tuple([-f for f in a[1]])) if k in turned else a
                for k, (n, a) in enumerate(zip(shape, at, strict=True))
            ]
        )
    if regroups(call):
        return (flat(at, call.output.shape),)
    left = iter([a for n, a in zip(call.output.shape, at, strict=True) if n != 1])
    return tuple([next(left) if n != 1 else zero for n in shape])
