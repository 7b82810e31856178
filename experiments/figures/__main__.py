"""Draws every picture in the repository, from the data beside it: `python experiments/figures [SET...]`.

Nothing is trained for it. Who makes the data of each set is in its function.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from diffstruct.history import Measurement
from diffstruct.paper.figures.run import draw_run
from diffstruct.paper.progress import title
from diffstruct.paper.reproduce.curves import draw_panel
from diffstruct.paper.reproduce.settings import FIGURES, panels
from diffstruct.paper.revisions import REVISIONS
from diffstruct.paper.tasks import Phase, hard

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
Pictures = Iterator[tuple[str, bytes]]
"""The path of each picture, from `ROOT`, and what is in the file."""


class LeftOut(Exception):
    """What a set needs is not there, which the message names."""


def module(folder: Path, name: str) -> ModuleType:
    """A module of a folder that is a program; others may have modules of the same names."""
    path, before = [*sys.path], {*sys.modules}
    sys.path.insert(0, str(folder))
    try:
        return import_module(name)
    finally:
        sys.path[:] = path
        for new in {*sys.modules} - before:
            if str(folder) in str(getattr(sys.modules[new], "__file__", None)):
                del sys.modules[new]


def read(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def run() -> Pictures:
    """`diffstruct grow hard --seed 3`: `run.json` and `history.csv` of its folder."""
    folder = EXPERIMENTS / "figures/hard"
    rows = (line.split(",") for line in (folder / "history.csv").read_text().splitlines()[1:])
    measurements = [Measurement(int(step), float(loss), int(units)) for step, loss, units in rows]
    heading = title(read(folder / "run.json"))
    yield "docs/img/hard.png", draw_run(heading, measurements, [Phase(0, hard())])


def paper() -> Pictures:
    """`diffstruct reproduce --out experiments/paper`: `curves.json`."""
    curves = read(EXPERIMENTS / "paper/curves.json")
    for panel in panels(FIGURES, REVISIONS):
        for form, content in draw_panel(panel, curves).items():
            yield f"experiments/paper/figures/{panel.name}.{form}", content
            if form == "png" and panel.name in ("fixed-r2", "transition-r3"):
                yield f"docs/img/{panel.name}.png", content


def robust() -> Pictures:
    """`python experiments/robust`: `summary.json`."""
    folder = EXPERIMENTS / "robust"
    runs = module(folder, "summary").runs_of((folder / "summary.json").read_text())
    yield from both("robust", module(folder, "figure").draw(runs))


def widths() -> Pictures:
    """`python experiments/widths`: `summary.json`."""
    folder = EXPERIMENTS / "widths"
    yield from both("widths", module(folder, "figure").draw(read(folder / "summary.json")["studies"]))


def shapes() -> Pictures:
    """`python experiments/shapes`: `summary.json`."""
    folder = EXPERIMENTS / "shapes"
    yield from both("shapes", module(folder, "figure").draw(read(folder / "summary.json")))


def both(name: str, picture: bytes) -> Pictures:
    """A picture that results and docs show."""
    yield f"experiments/{name}/figure.png", picture
    yield f"docs/img/{name}.png", picture


def rule() -> Pictures:
    """`python experiments/rule`: `figures.json`."""
    folder = EXPERIMENTS / "rule"
    for name, picture in module(folder, "figures").draw(read(folder / "figures.json")).items():
        yield f"experiments/rule/{name}", picture


def examples() -> Pictures:
    """`make examples`: `examples/results`."""
    pictures = module(ROOT / "examples", "pictures")
    for path in sorted((ROOT / "examples/results").glob("*.json")):
        yield f"docs/img/example-{path.stem}.png", pictures.draw(path.stem, read(path)["told"])


def pages() -> Pictures:
    """`python experiments/pages/runs.py`: `experiments/pages/records`."""
    screenshots = module(EXPERIMENTS / "pages", "screenshots")
    chromium = screenshots.chromium()
    if chromium is None:
        raise LeftOut("install Chromium, or name one in DIFFSTRUCT_CHROMIUM")
    for name, picture in screenshots.take(chromium).items():
        yield f"docs/img/report-{name}.png", picture


SETS: dict[str, Callable[[], Pictures]] = {
    each.__name__: each for each in (run, paper, robust, widths, shapes, rule, examples, pages)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the sets that are named, all unless any is."""
    parser = argparse.ArgumentParser(prog="python experiments/figures", description=__doc__)
    parser.add_argument("set", nargs="*", help=f"of {', '.join(SETS)}; all unless named")
    parser.add_argument("--out", type=Path, default=ROOT, help="in the place of the repository")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.set if name not in SETS]
    if unknown:
        parser.error(f"there is no set {unknown[0]!r}: the sets are {', '.join(SETS)}")
    for name in options.set or SETS:
        try:
            for path, content in SETS[name]():
                (options.out / path).parent.mkdir(parents=True, exist_ok=True)
                (options.out / path).write_bytes(content)
                print(f"wrote {path}")
        except LeftOut as reason:
            print(f"left out: {name}: {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
