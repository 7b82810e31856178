"""Runs as a page shows them: one that goes on in this process, or the folder of one."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffstruct.errors import RunFolderError
from diffstruct.history import Event
from diffstruct.paper.progress import summary, title
from diffstruct.paper.tasks import SEQUENCE
from diffstruct.report import Record, WidthRecord

if TYPE_CHECKING:
    from diffstruct.paper.run import Run

_UNIT_OF_LOSS = f"nats per {SEQUENCE} characters"
_SHOWN = ("task", "revision", "seed", "cycles_planned", "alphabet", "seconds")


def record_of_run(run: Run, status: str = "running") -> Record:
    """All that a page shows of a run as it is."""
    assert run.trainer.structure is not None
    told = summary(run.settings, run.progress, status)
    record = run.trainer.structure.record()
    phases = [(phase.start, phase.task.floor) for phase in run.progress.phases]
    return replace(
        record,
        title=title(told),
        loss=[(each.update, each.loss) for each in run.history.measurements],
        settings={**_settings(told), **vars(run.settings.rule), **record.settings},
        floor=[(start, None if floor is None else SEQUENCE * floor) for start, floor in phases],
        unit_of_loss=_UNIT_OF_LOSS,
        status=status,
    )


def record_of_folder(folder: Path) -> Record:
    """All that a page shows of the run in a folder, which may go on meanwhile.

    Raises:
        RunFolderError: a file is missing or damaged.
    """
    told = _read(folder / "run.json", lambda text: dict(json.loads(text)))
    events = _read(folder / "events.jsonl", lambda text: [_event(line) for line in _lines(text)])
    rows = _read(folder / "history.csv", lambda text: [*csv.DictReader(_lines(text))])
    try:
        loss = [(int(row["cycle"]), float(row["loss"])) for row in rows]
        first = events[0].size - events[0].added + len(events[0].removed) if events else told["final_units"]
        step = max([int(told["cycles"]), *(at for at, _ in loss), *(event.step for event in events)])
        floor = told["floor"]
        return Record(
            title=title(told),
            step=step,
            total_steps=int(told["cycles_planned"]),
            loss=loss,
            widths=[WidthRecord(events[0].width if events else "rnn", "units", int(first))],
            events=events,
            settings={
                **_settings(told),
                **{f"version of {name}": each for name, each in told["versions"].items()},
            },
            floor=[] if floor is None else [(0, float(floor))],
            unit_of_loss=_UNIT_OF_LOSS,
            status=str(told["status"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunFolderError(f"the run in {folder} is damaged: {error!r} in its files") from error


def _settings(told: dict[str, Any]) -> dict[str, str | int | float | None]:
    return {name.replace("_", " "): told[name] for name in _SHOWN}


def _event(line: str) -> Event:
    fields = json.loads(line)
    return Event(fields.pop("update"), **{**fields, "removed": tuple(fields["removed"])})


def _lines(text: str) -> list[str]:
    """The whole lines: the last one may be half written."""
    return text[: text.rfind("\n") + 1].splitlines()


def _read(path: Path, parse: Any) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from error
