"""`diffstruct grow`, killed and resumed: each revision and the default, in both training loops."""

from __future__ import annotations

import contextlib
import io
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kills import NOTHING_YET

import diffstruct.paper.run as run
from diffstruct.cli import main
from diffstruct.cli.exit_codes import BAD_INPUT
from diffstruct.paper.revisions import get_revision
from diffstruct.paper.training import Trainer

CYCLES = {"compiled": 6000, "ordinary": 800}
CASES = {
    f"grow, {'default' if revision is None else f'revision {revision}'}, {loop} loop": (revision, loop)
    for revision in (None, 1, 2, 3)
    for loop in ("compiled", "ordinary")
}
SAME = ("history.csv", "events.jsonl", "importances.jsonl", "model.safetensors", "units.png")


def begin(folder: Path, case: str, seed: int, save_every: float = 1e9) -> int:
    """Begin a run in a folder, whatever it holds; its exit code."""
    revision, loop = CASES[case]
    options = ["--cycles", CYCLES[loop], "--seed", seed, "--out", folder, "--overwrite"]
    return _command(loop, save_every, "hard" if seed % 2 else "easy", *options, *_revision(revision))


def go_on(folder: Path, case: str, seed: int, save_every: float) -> int:
    """Go on with it."""
    _, loop = CASES[case]
    return _command(loop, save_every, "--resume", folder)


def work(folder: Path, case: str, seed: int, chance: random.Random) -> tuple[Any, Any]:
    """What begins a run, and what goes on with it; how often it is saved is drawn."""
    options = folder, case, seed, chance.choice([0.0, 0.02, 0.1])
    return partial(begin, *options), partial(go_on, *options)


def prepare() -> None:
    """Import and compile in advance, lest most kills hit that."""
    from diffstruct.paper.figures import run as figure

    assert figure
    for revision in (None, 1, 2, 3):
        run.fastest_trainer()(get_revision(revision), 4, 0).prepare()


def differences(one: Path, other: Path) -> list[str]:
    """The files of two finished runs that differ, and should not."""
    names = {path.name for folder in (one, other) for path in folder.iterdir()}
    return [
        name
        for name in sorted(names)
        if not ((one / name).exists() and (other / name).exists())
        or (name in SAME and (one / name).read_bytes() != (other / name).read_bytes())
    ]


def changes(folder: Path) -> int:
    """How often sizes changed in a run."""
    return len((folder / "events.jsonl").read_text().splitlines())


def _revision(number: int | None) -> list[Any]:
    return [] if number is None else ["--revision", number]


def _command(loop: str, save_every: float, *arguments: Any) -> int:
    said = io.StringIO()
    fastest = run.fastest_trainer if loop == "compiled" else lambda: Trainer
    with (
        patch.object(run, "SAVE_EVERY", save_every),
        patch.object(run, "fastest_trainer", fastest),
        patch.object(sys, "argv", ["diffstruct", "grow", "--quiet", *map(str, arguments)]),
        contextlib.redirect_stderr(said),
    ):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
            if code == BAD_INPUT and (
                "no checkpoint" in said.getvalue() or "holds no run" in said.getvalue()
            ):
                return NOTHING_YET
            sys.__stderr__.write(said.getvalue())
            return code
    return 0
