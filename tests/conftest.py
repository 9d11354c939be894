"""Which tests run where, and how Hypothesis draws its examples."""

from __future__ import annotations

import importlib.util
import os

import pytest
from hypothesis import HealthCheck, settings

import tinygradrnn as tgr

# No deadline: a first call may load a library. Not derandomised, on CI either (Hypothesis would do
# that by itself): every run draws new examples, and a failure prints how to repeat it.
common = {
    "deadline": None,
    "derandomize": False,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("quick", max_examples=40, **common)
settings.register_profile("thorough", max_examples=1000, **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def _why_no_gpu() -> str:
    return next((b.reason for b in tgr.backends() if b.name == "cupy"), "cupy is not installed")


def _why_no_oracle() -> str:
    missing = [m for m in ("torch", "autograd") if importlib.util.find_spec(m) is None]
    return f"{' and '.join(missing)} not installed (extra 'oracle')" if missing else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs something this machine lacks, with the reason; unless it is required."""
    required = os.environ.get("TINYGRADRNN_REQUIRE", "").split(",")
    for marker, why in (("gpu", _why_no_gpu), ("oracle", _why_no_oracle)):
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = why() if marked else ""
        if reason and marker in required:
            raise pytest.UsageError(f"tests marked {marker!r} are required, but: {reason}")
        for item in marked if reason else []:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _names_for_doctests(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["tgr"] = tgr
