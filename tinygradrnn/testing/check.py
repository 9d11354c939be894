"""Does a backend keep the contract? Every operation on it against the same on NumPy."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygradrnn as tgr
from tinygradrnn.backend import Backend
from tinygradrnn.errors import BackendError, DeviceError, IndexRangeError
from tinygradrnn.tensor import Tensor
from tinygradrnn.testing.cases import Case, cases


def check_backend(name: str) -> list[str]:
    """Check a backend against the contract; what a plugin's author runs.

    It checks moving to and from the host, adding at repeated indices, random numbers, refusals
    (indices out of range, tensors of two devices, hidden copies), and every registered operation
    with its gradient, in float64 and float32, against the numpy backend.

    Args:
        name: As for :func:`tinygradrnn.use_backend`.

    Returns:
        What was checked, one entry each.

    Raises:
        BackendError: The backend is not usable, or something failed; the message lists all of it.

    >>> len(tgr.testing.check_backend("numpy")) > 100
    True
    """
    backend = tgr.get_backend(name)
    passed: list[str] = []
    failed: list[str] = []
    checks: list[tuple[str, Callable[[], None]]] = [
        (check.__name__.replace("_", " ").strip(), lambda c=check: c(backend))
        for check in (
            _copies_to_and_from_the_host,
            _adding_at_repeated_indices,
            _the_same_random_numbers,
            _indices_out_of_range,
            _hidden_copies_are_refused,
        )
    ]
    table = cases()
    checks += [
        (f"{case} {dtype}", lambda c=case, d=dtype: _agrees(c, backend, d))
        for case in table
        for dtype in ("float64", "float32")
    ]
    missing = set(tgr.registry) - {case.op for case in table}
    with tgr.use_backend(backend):
        for what, check in checks:
            try:
                check()
                passed.append(what)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
                failed.append(f"{what}: {type(error).__name__} at {place}: {error}")
    if failed or missing:
        known = [f"no case for operation {op!r}" for op in sorted(missing)]
        lines = "\n  ".join([*failed, *known])
        raise BackendError(
            f"backend {name!r}: {len(failed) + len(known)} checks failed, {len(passed)} passed:"
            f"\n  {lines}"
        )
    return passed


def _expect(holds: Any, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _same(found: Any, expected: Any, dtype: str) -> None:
    tolerance = {"float64": 1e-10, "float32": 2e-4}[dtype]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def _run(case: Case, backend: Backend, dtype: str) -> tuple[list[Any], list[Any]]:
    """Outputs and gradients on a backend, as host arrays."""
    with tgr.use_backend(backend):
        inputs = case.tensors(dtype)
        result = case.f(*inputs)
        outs: list[Tensor] = list(result) if isinstance(result, tuple) else [result]
        for out in outs:
            _expect(out.backend is backend, f"a result is on {out.backend}")
            _expect(backend.is_array(out.raw), f"a result is a {type(out.raw).__name__}")
        wanted = [x for x in inputs if x.requires_grad]
        taped = [out for out in outs if out.requires_grad]
        gradients: list[Any] = []
        if taped and wanted:
            ups = [
                tgr.tensor(np.cos(np.arange(out.size)).reshape(out.shape), dtype=dtype)
                for out in taped
            ]
            found = tgr.grad(taped, wanted, ups, allow_unused=True)
            for x, g in zip(wanted, found, strict=True):
                if g is not None:
                    _expect(backend.is_array(g.raw), f"a gradient is a {type(g.raw).__name__}")
                    _expect(g.dtype == x.dtype, f"a gradient of {x.dtype} is {g.dtype}")
                gradients.append(np.zeros(x.shape) if g is None else g.numpy())
        return [out.numpy() for out in outs], gradients


def _agrees(case: Case, backend: Backend, dtype: str) -> None:
    with np.errstate(all="ignore"):
        outs, gradients = _run(case, backend, dtype)
        their_outs, their_gradients = _run(case, tgr.get_backend("numpy"), dtype)
    for found, expected in zip(outs, their_outs, strict=True):
        _expect(found.dtype.kind == expected.dtype.kind, f"{found.dtype}, not {expected.dtype}")
        _same(found, expected, dtype)
    for found, expected in zip(gradients, their_gradients, strict=True):
        _same(found, expected, dtype)


def _copies_to_and_from_the_host(backend: Backend) -> None:
    for dtype in ("float32", "float64", "int64", "int32", "bool"):
        for shape in ((2, 3), (), (0, 2)):
            host = np.ones(shape, dtype)
            array = backend.from_host(host)
            _expect(backend.is_array(array), "from_host made something is_array does not know")
            if host.size:
                host[...] = 0
            back = backend.to_host(array)
            _expect(isinstance(back, np.ndarray), f"to_host made a {type(back).__name__}")
            _expect(back.dtype == dtype, f"{dtype} came back as {back.dtype}")
            _expect(back.all(), "from_host shares memory with what it was given")
            if back.size:
                back[...] = 0
            _expect(backend.to_host(array).all(), "to_host shares memory with the array")
    _expect(not backend.is_array([1.0]), "is_array takes a list for an array")
    backend.synchronize()


def _adding_at_repeated_indices(backend: Backend) -> None:
    x = backend.from_host(np.zeros((3, 2)))
    indices = backend.from_host(np.array([2, 0, 2, 2]))
    updates = backend.from_host(np.arange(8.0).reshape(4, 2))
    found = backend.to_host(backend.index_add(x, indices, updates))
    np.testing.assert_array_equal(found, [[2, 3], [0, 0], [10, 13]])
    _expect(not backend.to_host(x).any(), "index_add changed its argument")


def _the_same_random_numbers(backend: Backend) -> None:
    ours, theirs = backend.rng(7), tgr.get_backend("numpy").rng(7)
    for draw in ("normal", "uniform"):
        found = backend.to_host(getattr(ours, draw)((2, 3)))
        np.testing.assert_array_equal(found, getattr(theirs, draw)((2, 3)))
    ours.state = theirs.state
    np.testing.assert_array_equal(
        backend.to_host(ours.integers((4,), 0, 9)), theirs.integers((4,), 0, 9)
    )


def _raises(kind: type[Exception], word: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except kind as error:
        _expect(word in str(error), f"the message lacks {word!r}: {error}")
    else:
        raise AssertionError(f"no {kind.__name__}")


def _indices_out_of_range(backend: Backend) -> None:
    x = tgr.tensor(np.zeros((3, 2)))
    for bad in (3, -4):
        at = tgr.tensor([0, bad])
        _raises(IndexRangeError, "out of range", lambda at=at: tgr.take(x, at, axis=0))
        _raises(IndexRangeError, "out of range", lambda at=at: x[at])
        _raises(IndexRangeError, "out of range", lambda at=at: tgr.add_at(x[:2], at, 3, axis=0))
        _raises(IndexRangeError, "out of range", lambda bad=bad: x[bad])


def _hidden_copies_are_refused(backend: Backend) -> None:
    if backend.device == "cpu":
        return  # on the host there is nothing to copy
    x = tgr.tensor([1.0, 2.0])
    there = tgr.tensor([1.0, 2.0], backend="numpy")
    _raises(DeviceError, str(backend), lambda: x + there)
    _raises(DeviceError, str(backend), lambda: there * x)
    _raises(DeviceError, "add", lambda: x + np.ones(2, np.float32))
    _raises(DeviceError, str(backend), lambda: np.asarray(x))
