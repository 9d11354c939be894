"""Parameters: replaced, never written to."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn.errors import DeviceError, DtypeError, ShapeError, TinygradrnnError


def test_a_tape_keeps_the_values_it_was_recorded_with() -> None:
    w = tgr.nn.Parameter([2.0, 3.0])
    loss = (w * w).sum()
    w.assign(np.asarray([10.0, 20.0], "float32"))
    loss.backward()
    assert w.grad is not None
    assert w.grad.tolist() == [4, 6]
    assert w.tolist() == [10, 20]


def test_an_array_is_copied_and_a_gradient_stays() -> None:
    w = tgr.nn.Parameter([1.0])
    (3 * w).sum().backward()
    array = np.ones(1, "float32")
    w.assign(array)
    array[0] = 7
    assert w.tolist() == [1]
    assert w.grad is not None
    assert w.grad.tolist() == [3]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.ones(3, "float32"), ShapeError),
        (np.ones((1, 2), "float32"), ShapeError),
        (np.ones(2, "float64"), DtypeError),
        (["a", "b"], DtypeError),
    ],
)
def test_what_does_not_fit_is_refused(value: object, error: type[TinygradrnnError]) -> None:
    w = tgr.nn.Parameter([1.0, 2.0])
    with pytest.raises(error):
        w.assign(value)
    assert w.tolist() == [1, 2]


def test_integers_have_no_gradient() -> None:
    with pytest.raises(DtypeError, match="int64"):
        tgr.nn.Parameter([1, 2])


def test_it_copies_what_it_is_made_of() -> None:
    array = np.ones(2)
    w = tgr.nn.Parameter(array)
    array[0] = 5
    assert w.tolist() == [1, 1]
    assert str(w.dtype) == "float64"


@pytest.mark.parametrize("how", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
def test_copies_are_parameters_of_their_own(how: object) -> None:
    w = tgr.nn.Parameter([1.0])
    w.name = "cell.weight"
    other = how(w)  # type: ignore[operator]
    assert type(other) is tgr.nn.Parameter
    assert (other.name, other.tolist()) == ("cell.weight", [1])
    assert other.leaf is not w.leaf


def test_moving_keeps_identity_name_and_gradient(strict: str) -> None:
    w = tgr.nn.Parameter([1.0, 2.0])
    w.name = "w"
    (w * w).sum().backward()
    before = w * w
    w.move(strict)
    assert w.backend is tgr.get_backend(strict)
    assert (w.name, w.tolist()) == ("w", [1, 2])
    assert w.grad is not None
    assert w.grad.backend is w.backend
    assert w.grad.tolist() == [2, 4]
    with pytest.raises(DeviceError):
        w.assign(before)
    (w * w).sum().backward()
    assert w.grad.tolist() == [4, 8]
