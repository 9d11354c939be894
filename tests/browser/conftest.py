"""A headless Chromium, and pages in it that may load nothing and complain of nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "headless",
    "no-sandbox",  # as root in a container
    "disable-gpu",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "disable-dev-shm-usage",
    "window-size=1400,900",
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser, driven by Selenium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        driver.get("about:blank")
        driver.get_log("performance")  # what the browser does by itself when it starts
        yield driver
        driver.quit()


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Show a page; in the end it must not have complained, nor asked for anything but itself."""
    shown: list[str] = []

    def show(html: str) -> Any:
        path = tmp_path / f"page{len(shown)}.html"
        path.write_text(html, encoding="utf-8")
        chromium.get(path.as_uri())
        shown.append(path.as_uri())
        return chromium

    yield show
    assert chromium.get_log("browser") == []
    events = [json.loads(line["message"])["message"] for line in chromium.get_log("performance")]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in asked if not url.startswith("data:")} <= {*shown}
