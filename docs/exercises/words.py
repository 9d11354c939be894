"""What the tests of the exercises say: not only that something is wrong, but what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest


def wrong(text: str) -> None:
    """Fail, in words and without a traceback."""
    pytest.fail(text, pytrace=False)


def numbers(found: Any, what: str) -> Any:
    """What was returned as a NumPy array."""
    if found is None:
        wrong(f"{what}: your function returned None. Is there a `return`?")
    if hasattr(found, "numpy"):
        found = found.detach().numpy() if hasattr(found, "detach") else found.numpy()
    try:
        return np.asarray(found, dtype=float)
    except (TypeError, ValueError):
        wrong(f"{what}: expected numbers, your function returned {found!r}")


def same(
    found: Any,
    expected: Any,
    what: str,
    hints: Sequence[tuple[Any, str]] = (),
    tolerance: float = 1e-6,
) -> None:
    """Compare numbers; where a well-known mistake leads to what was found, say which.

    Args:
        found: What the student's function returned.
        expected: What it should have.
        what: What this is, for the message.
        hints: Results of well-known mistakes, each with what to think about.
        tolerance: How far apart they may be, relative to 1 or to the expected.
    """
    got, want = numbers(found, what), np.asarray(expected, dtype=float)
    if got.shape != want.shape:
        wrong(f"{what}: expected {_shape(want)}, your function returned {_shape(got)}")
    if np.allclose(got, want, rtol=tolerance, atol=tolerance):
        return
    lines = [f"{what}: expected {_short(want)}, your function returned {_short(got)}"]
    for value, text in hints:
        value = np.asarray(value, dtype=float)
        if value.shape == got.shape and np.allclose(got, value, rtol=tolerance, atol=tolerance):
            lines.append(text)
    if want.size and np.allclose(got, -want, rtol=tolerance, atol=tolerance):
        lines.append("The sign is the wrong way round.")
    wrong("\n".join(lines))


def chosen(found: Any, expected: Mapping[str, str], why: Mapping[str, str]) -> None:
    """Compare one choice for each question, and say of the first wrong one what to think about."""
    if not isinstance(found, Mapping):
        wrong(f"expected a dict, your function returned {found!r}")
    for question, answer in expected.items():
        if question not in found:
            wrong(f"{question!r} is missing from your dict")
        if found[question] != answer:
            wrong(f"{question!r} is not {found[question]!r}. {why[question]}")


def _shape(x: Any) -> str:
    return f"numbers of shape {x.shape}" if x.shape else "one number"


def _short(x: Any) -> str:
    return np.array2string(x, precision=6, threshold=40)
