"""The judge is judged: gradcheck on functions with a known fault."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tinygradrnn as tgr
from tinygradrnn.errors import DtypeError, GradcheckError
from tinygradrnn.op import Op


@pytest.fixture
def make() -> Iterator[Any]:
    """Makes an operation with a rule of one's own, and takes it out of the registry afterwards."""
    made: list[str] = []

    def operation(forward: Any, rule: Any) -> Any:
        forward.__name__ = f"made_for_a_test_{len(made)}"
        op = Op(forward)
        op.vjp(x=rule)
        made.append(op.name)
        return op

    yield operation
    for name in made:
        del tgr.registry[name]


def leaf(*values: float) -> Any:
    return tgr.tensor(np.array(values, np.float64), requires_grad=True)


def test_the_worst_element_is_reported(make: Any) -> None:
    def rule(xp: Any, g: Any, x: Any) -> Any:
        return g * xp.where(x > 2.5, 2.2 * x, 2 * x)

    f = make(lambda xp, x, /: x * x, rule)
    with pytest.raises(
        GradcheckError, match=r"inputs\[0\]\[2\]: analytic 6.6.*numeric 6"
    ) as caught:
        tgr.testing.gradcheck(f, leaf(1, 2, 3))
    assert "output element 2" in str(caught.value)


def test_all_inputs_and_outputs_are_checked() -> None:
    x, y = leaf(0.3, 0.4), leaf(0.5)
    assert tgr.testing.gradcheck(lambda x, y: (x * y, tgr.exp(y)), [x, y])
    assert tgr.testing.gradgradcheck(lambda x, y: (x * y, tgr.exp(y)), [x, y])


def test_a_wrong_second_derivative_is_seen_by_gradgradcheck_alone(make: Any) -> None:
    # The first gradient is right in value, but part of it is hidden from the tape.
    def rule(xp: Any, g: Any, x: Any) -> Any:
        hidden = x.detach() if isinstance(x, tgr.Tensor) else x
        return g * 3 * hidden * x

    f = make(lambda xp, x, /: x * x * x, rule)
    assert tgr.testing.gradcheck(f, leaf(0.7))
    with pytest.raises(GradcheckError, match="wrong gradient"):
        tgr.testing.gradgradcheck(f, leaf(0.7))


def test_a_function_that_is_random_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(GradcheckError, match="random"):
        tgr.testing.gradcheck(lambda x: x * rng.standard_normal(), leaf(1.0))


def test_a_function_that_changes_its_input_is_refused() -> None:
    def f(x: Any) -> Any:
        x.array[...] = x.array  # harmless once,
        y = x * 2
        x.array[...] += 1e-3  # and then not
        return y

    with pytest.raises(GradcheckError, match=r"changed|two runs"):
        tgr.testing.gradcheck(f, leaf(1.0))


def test_not_finite_is_refused() -> None:
    with np.errstate(all="ignore"), pytest.raises(GradcheckError, match="not finite"):
        tgr.testing.gradcheck(tgr.sqrt, leaf(0.0))


def test_single_precision_and_constants_are_refused() -> None:
    with pytest.raises(DtypeError, match="float64"):
        tgr.testing.gradcheck(tgr.exp, tgr.tensor([1.0], requires_grad=True))
    with pytest.raises(DtypeError, match="no input requires"):
        tgr.testing.gradcheck(tgr.exp, tgr.tensor([1.0]))
    with pytest.raises(DtypeError, match="expected Tensors"):
        tgr.testing.gradcheck(lambda x: 3.0, leaf(1.0))


def test_check_backend_lists_all_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = tgr.get_backend("numpy")
    broken = type(numpy)()
    broken.name = "broken"
    monkeypatch.setattr(type(broken), "from_host", lambda self, array: array)
    monkeypatch.setitem(tgr.backend._instances, "broken", broken)
    with pytest.raises(tgr.errors.BackendError, match="from_host shares memory"):
        tgr.testing.check_backend("broken")
