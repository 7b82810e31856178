"""A headless Chromium, driven by Playwright, and a watch on what pages do in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

VARIABLE = "DIFFSTRUCT_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip


def executable() -> str:
    """The browser's path; without one, tests of pages are left out, but never where CI is set."""
    found = os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        what = f"no Chromium is installed (apt-get install chromium, or name one in {VARIABLE})"
        if os.environ.get("CI"):
            pytest.fail(f"{what}, and where CI is set no test of the report's page may be left out")
        pytest.skip(f"{what}: the report's page is not tested")
    return found


@contextmanager
def running() -> Iterator[Browser]:
    """A browser, for all tests of a process."""
    path = executable()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*OPTIONS])
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, address: str | Path, **context: Any) -> Iterator[Page]:
    """A page that is open; at the end it must have met no error, and asked for nothing but itself."""
    allowed = address.as_uri() if isinstance(address, Path) else address
    errors: list[str] = []
    asked: list[str] = []
    with browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context}) as opened:
        page = opened.new_page()
        page.on("console", lambda said: errors.append(said.text) if said.type != "log" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(allowed)
        page.wait_for_selector("#chart-loss .main-svg, #chart-loss .empty")
        yield page
        # The browser says so if it has kept the page from loading something.
        assert errors == []
    foreign = [url for url in asked if not url.startswith((allowed, "data:", "blob:"))]
    assert foreign == []
