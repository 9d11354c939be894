"""What all tests share: how hard Hypothesis tries, and which groups this machine can run."""

from __future__ import annotations

import functools
import os
import shutil
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

import tinygradrnn as tgr

# On CI, Hypothesis loads a profile by itself that draws the same examples at every run. Ours are
# random everywhere; what failed is printed as a line to paste (@reproduce_failure). To search
# longer: pytest --hypothesis-profile=thorough
for name, examples in (("quick", 40), ("thorough", 1000)):
    settings.register_profile(
        name,
        max_examples=examples,
        derandomize=False,
        print_blob=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("quick")


def _gpu() -> str:
    found = [info for info in tgr.backends() if info.name == "cupy"]
    return found[0].reason if found else "no distribution provides the backend 'cupy'"


def _oracle() -> str:
    missing = [name for name in ("torch", "autograd") if find_spec(name) is None]
    return f"no {' and no '.join(missing)}: pip install -e '.[oracle]'" if missing else ""


def _browser() -> str:
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)}: apt-get install chromium chromium-driver"
    return "" if find_spec("selenium") else "no selenium: pip install -e '.[browser]'"


_GROUPS = {
    "gpu": functools.cache(_gpu),
    "oracle": functools.cache(_oracle),
    "browser": functools.cache(_browser),
}
"""Marker -> why tests that carry it cannot run here; an empty string if they can."""

# Where a group is expected to run, being unable to is a failure: TINYGRADRNN_REQUIRE=oracle,gpu
_REQUIRED = set(filter(None, os.environ.get("TINYGRADRNN_REQUIRE", "").split(",")))


def pytest_configure() -> None:
    unknown = _REQUIRED - _GROUPS.keys()
    if unknown:
        raise pytest.UsageError(
            f"TINYGRADRNN_REQUIRE names {sorted(unknown)}; expected some of {sorted(_GROUPS)}"
        )


@pytest.hookimpl(tryfirst=True)  # before fixtures, which may already need what is missing
def pytest_runtest_setup(item: pytest.Item) -> None:
    for group, why_not in _GROUPS.items():
        if item.get_closest_marker(group) and (reason := why_not()):
            if group in _REQUIRED:
                pytest.fail(f"the group {group!r} is required, but: {reason}", pytrace=False)
            pytest.skip(reason)


@pytest.fixture
def strict() -> str:
    """The name of the backend that refuses hidden host copies, where its plugin is installed."""
    if not any(info.name == "strict" and info.usable for info in tgr.backends()):
        pytest.skip("the plugin tinygradrnn_strict is not installed")
    return "strict"
