"""Every picture in the repository is drawn from data beside it, of which the tables are written too."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from helpers.chromium import executable, running
from helpers.experiments import experiment
from PIL import Image

from diffstruct.paper.reproduce.results import write_results

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def figures():
    with experiment("figures") as program:
        yield program


def pixels(picture):
    return np.asarray(Image.open(BytesIO(picture)).convert("RGB"), int)


def test_each_picture_is_drawn_and_is_the_one_in_the_repository(figures):
    sets = [make for name, make in figures.SETS.items() if name != "pages"]
    drawn = {path: content for make in sets for path, content in make()}
    there = {path for folder in ("docs/img", "experiments") for path in (ROOT / folder).rglob("*.*g")}
    there = {path.relative_to(ROOT).as_posix() for path in there if path.suffix in (".png", ".svg")}
    assert {*drawn} == {path for path in there if "/runs/" not in path and "/report-" not in path}
    version = re.search(
        r"Matplotlib v([\d.]+\d)", (ROOT / "experiments/paper/figures/hard-r1.svg").read_text()
    )
    for path, content in drawn.items():
        if path.endswith(".png"):
            shown, kept = pixels(content), pixels((ROOT / path).read_bytes())
            assert min(shown.shape[:2]) > 100
            assert shown.std() > 10  # something is drawn
            assert shown.shape == kept.shape, path
            if (
                version is not None and version.group(1) == matplotlib.__version__
            ):  # others draw text and lines a little otherwise
                np.testing.assert_array_equal(shown, kept, err_msg=path)


WRITTEN = {
    "paper": lambda _, text: write_results(json.loads(text)),
    "robust": lambda program, text: "\n".join(program.report(program.runs_of(text))),
    "widths": lambda program, text: program.report(
        program.STUDIES, json.loads(text)["studies"], "python experiments/widths"
    ),
    "shapes": lambda program, text: program.report(json.loads(text)),
    "residual": lambda program, text: program.report(json.loads(text)),
}
"""The tables of those experiments that keep what they are written of, from that."""


@pytest.mark.parametrize("name", WRITTEN)
def test_the_tables_are_what_the_data_say(name):
    folder = ROOT / "experiments" / name
    text = (folder / "summary.json").read_text()
    with nullcontext() if name == "paper" else experiment(name) as program:
        assert WRITTEN[name](program, text) == (folder / "RESULTS.md").read_text()


def test_the_table_of_cells_that_fell_behind_is_what_the_data_say():
    folder = ROOT / "experiments/robust"
    with experiment("robust", "afresh") as program:
        both = (program.runs_of((folder / name).read_text()) for name in ("summary.json", "afresh.json"))
        assert "\n".join(program.page(*both)) == (folder / "AFRESH.md").read_text()


def test_pages_are_made_of_the_records_and_pictures_are_taken_of_them(figures, tmp_path):
    folder = ROOT / "experiments/pages"
    screenshots, records = (figures.module(folder, name) for name in ("screenshots", "records"))
    record = records.load(folder / "records/digits.json.xz")
    assert [width.start for width in record.widths] == [32, 48, 64]
    records.save(record, tmp_path / "again.json.xz")
    assert records.load(tmp_path / "again.json.xz") == record
    path = screenshots.write([record], tmp_path / "page.html")
    executable()  # without a browser the test ends here
    with running() as browser:
        page = browser.new_page(**screenshots.DESKTOP)
        page.set_default_timeout(screenshots.PATIENCE)
        page.goto(path.as_uri())
        assert pixels(screenshots.png(screenshots.section(page, "lives"))).std() > 10


def test_without_chromium_the_rest_is_drawn(figures, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DIFFSTRUCT_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert figures.main(["shapes", "pages", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.out == "wrote experiments/shapes/figure.png\nwrote docs/img/shapes.png\n"
    assert shown.err.startswith("left out: pages: install Chromium")
