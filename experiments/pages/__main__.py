"""Trains the runs whose pages the docs show, and takes pictures of these: `python experiments/pages`.

The pages go to `runs/pages`, the pictures to `docs/img`. It takes about three minutes, and needs Chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER), str(FOLDER.parent / "widths")]

from runs import digits, transformer, transition  # noqa: E402

from diffstruct.report.page import write  # noqa: E402

OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
DESKTOP = {"viewport": {"width": 1100, "height": 1000}}
PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 1.25, "is_mobile": True}
PARTS = ("loss", "network", "lives", "importances", "cost", "events", "settings")
COLORS = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Make pages and pictures; 2 if there is no Chromium."""
    parser = argparse.ArgumentParser(prog="python experiments/pages", description=__doc__)
    parser.add_argument("--pages", type=Path, default=Path("runs/pages"), help="folder of the pages")
    parser.add_argument("--pictures", type=Path, default=Path("docs/img"), help="folder of the pictures")
    parser.add_argument("--quick", action="store_true", help="train little, to see that it works")
    options = parser.parse_args(arguments)
    chromium = os.environ.get("DIFFSTRUCT_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("install Chromium, or name one in DIFFSTRUCT_CHROMIUM", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    for folder in (options.pages, options.pictures):
        folder.mkdir(parents=True, exist_ok=True)
    pages = {}
    for make, steps in ((transition, 100_000), (digits, 2_000), (transformer, 1_000)):
        record = make(max(60, steps // 50) if options.quick else steps)
        pages[make.__name__] = write([record], options.pages / f"{make.__name__}.html")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*OPTIONS])
        for name, picture in pictures(browser, pages).items():
            small = picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
            small.save(options.pictures / f"report-{name}.png", optimize=True)
            print(f"wrote {options.pictures / f'report-{name}.png'}")
        browser.close()
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
