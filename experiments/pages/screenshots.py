"""Pictures of the pages of three runs, whose records `runs.py` made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from records import load

from diffstruct.report.page import write

RECORDS = Path(__file__).parent / "records"
RUNS = ("transition", "digits", "transformer")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
DESKTOP = {"viewport": {"width": 1100, "height": 1000}}
PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 1.25, "is_mobile": True}
PARTS = ("loss", "network", "lives", "importances", "cost", "events", "settings")
COLORS = 256
PATIENCE = 180_000
"""Milliseconds; the machine may be busy."""


def chromium() -> str | None:
    """Where there is one."""
    return os.environ.get("DIFFSTRUCT_CHROMIUM") or shutil.which("chromium")


def take(executable: str) -> dict[str, bytes]:
    """What the docs show of the pages, by name; PNGs."""
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*OPTIONS])
        pages = {name: write([load(record(name))], Path(folder, f"{name}.html")) for name in RUNS}
        made = {name: png(picture) for name, picture in pictures(browser, pages).items()}
        browser.close()
    return made


def record(name: str) -> Path:
    """The file of a run's record."""
    return RECORDS / f"{name}.json.xz"


def png(picture: Image.Image) -> bytes:
    """A picture in few colours."""
    content = BytesIO()
    picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return content.getvalue()


def pictures(browser: Browser, pages: Mapping[str, Path]) -> dict[str, Image.Image]:
    """What the docs show of the pages, by name."""
    made = {}
    page = opened(browser, pages["transition"], **DESKTOP)
    made["transition"] = whole(page)
    made["lives"] = section(page, "lives")
    page = opened(browser, pages["transformer"], **DESKTOP)
    at(page, 0.5)
    made["network"] = section(page, "network")
    page = opened(browser, pages["digits"], color_scheme="dark", **DESKTOP)
    made["digits-dark"] = whole(page)
    made["importances-dark"] = section(page, "importances")
    page = opened(browser, pages["transformer"], **PHONE)
    at(page, 0.5)
    screens = [whole(page)]
    for part in ("network", "lives"):
        show(page, part)
        screens.append(whole(page))
    made["phone"] = beside(screens)
    return made


def opened(browser: Browser, path: Path, **context: object) -> Page:
    """A page, all of whose parts are drawn."""
    page = browser.new_context(**context).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE)
    page.goto(path.resolve().as_uri())
    for part in PARTS:
        show(page, part)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)
    return page


def show(page: Page, part: str) -> None:
    """Scroll to a part, and wait until it is drawn."""
    page.evaluate(f"document.getElementById('{part}').scrollIntoView()")
    page.wait_for_timeout(700)


def at(page: Page, share: float) -> None:
    """Choose a moment, as a share of the run."""
    last = int(page.get_attribute("#slider", "max") or 0)
    step = int(page.get_attribute("#slider", "step") or 1)
    page.locator("#slider").fill(str(round(share * last / step) * step))
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(300)


def whole(page: Page) -> Image.Image:
    """What the window shows."""
    return Image.open(BytesIO(page.screenshot()))


def section(page: Page, part: str) -> Image.Image:
    """One part of the page."""
    show(page, part)
    return Image.open(BytesIO(page.locator(f"#{part}").screenshot()))


def beside(screens: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size side by side."""
    gap = 24
    wide, tall = screens[0].size
    sheet = Image.new("RGB", (len(screens) * (wide + gap) - gap, tall), "white")
    for number, screen in enumerate(screens):
        sheet.paste(screen, (number * (wide + gap), 0))
    return sheet
