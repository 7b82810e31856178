"""Runs as a page shows them: one that goes on in this process, or the folder of one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffstruct.errors import ConfigurationError, RunFolderError
from diffstruct.history import Event, Measurement
from diffstruct.paper.network import multiply_adds, parameters
from diffstruct.paper.progress import summary, title
from diffstruct.paper.reading import read_lines, read_summary
from diffstruct.paper.revisions import get_revision
from diffstruct.paper.tasks import SEQUENCE, transition
from diffstruct.report import Record, WidthRecord, WidthSample

if TYPE_CHECKING:
    from diffstruct.paper.run import Run

WIDTH = "rnn"
"""What the one width of the paper's networks is called."""

_UNIT_OF_LOSS = f"nats per {SEQUENCE} characters"
_SHOWN = ("task", "revision", "seed", "cycles_planned", "alphabet", "seconds")


def record_of_run(run: Run, status: str = "running") -> Record:
    """All that a page shows of a run as it is."""
    assert run.trainer.structure is not None
    told = summary(run.settings, run.progress, status)
    record = run.trainer.structure.record()
    return replace(
        record,
        title=title(told),
        loss=[(each.update, each.loss) for each in run.history.measurements],
        settings={**_settings(told), **vars(run.settings.rule), **record.settings},
        cost=_costs(told, run.history.measurements),
        floor=_floors(told),
        unit_of_loss=_UNIT_OF_LOSS,
        status=status,
    )


def record_of_folder(folder: str | os.PathLike[str]) -> Record:
    """All that a page shows of the run in a folder, which may go on meanwhile.

    What was logged last may be missing; runs of older versions have no importances.

    Raises:
        RunFolderError: there is no run, or a file is missing or damaged.
    """
    path = Path(folder)
    told = read_summary(path)
    logged = path / "importances.jsonl"
    samples = read_lines(logged, _sample) if logged.exists() else []  # first: later events do no harm
    events = read_lines(path / "events.jsonl", _event)
    measurements = read_lines(path / "history.csv", _measurement, skip=1)
    try:
        start = events[0].size - events[0].added + len(events[0].removed) if events else told["final_units"]
        sizes = _sizes(int(start), events, path / "events.jsonl")
        kept = [each for each in samples if each.events < len(sizes)]
        for number, each in enumerate(kept, start=1):
            if len(each.importances) != sizes[each.events]:
                raise RunFolderError(
                    f"{logged} is damaged in line {number}: after {each.events} events there were "
                    f"{sizes[each.events]} units, and it has {len(each.importances)}"
                )
        return Record(
            title=title(told),
            step=max([int(told["cycles"]), *(each.update for each in measurements[-1:])]),
            total_steps=int(told["cycles_planned"]),
            loss=[(each.update, each.loss) for each in measurements],
            widths=[WidthRecord(WIDTH, "units", sizes[0], samples=kept)],
            events=events,
            cost=_costs(told, measurements),
            settings={
                **_settings(told),
                **{f"version of {name}": each for name, each in told["versions"].items()},
            },
            floor=_floors(told),
            unit_of_importance=get_revision(told["revision"]).criterion.unit_of_importance,
            unit_of_loss=_UNIT_OF_LOSS,
            status=str(told["status"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigurationError) as error:
        raise RunFolderError(f"{path / 'run.json'} is damaged: {type(error).__name__}: {error}") from error


def _sizes(start: int, events: Sequence[Event], path: Path) -> list[int]:
    """Units at the start and after each event.

    Raises:
        RunFolderError: an event does not follow from those before it.
    """
    sizes = [start]
    for number, event in enumerate(events, start=1):
        size, removed = sizes[-1], event.removed
        fits = len({*removed}) == len(removed) and all(0 <= unit < size for unit in removed)
        if not fits or event.size != size - len(removed) + event.added:
            raise RunFolderError(
                f"{path} is damaged in line {number}: it does not follow from the lines before"
            )
        sizes.append(event.size)
    return sizes


def _settings(told: Mapping[str, Any]) -> dict[str, str | int | float | None]:
    return {name.replace("_", " "): told[name] for name in _SHOWN}


def _costs(told: Mapping[str, Any], rows: Sequence[Measurement]) -> dict[str, list[tuple[int, float]]]:
    symbols, multiplied = len(told["alphabet"]), get_revision(told["revision"]).multiplier is not None
    return {
        "parameters": [(row.update, float(parameters(symbols, row.units, multiplied))) for row in rows],
        "multiply-adds": [(row.update, float(multiply_adds(symbols, row.units))) for row in rows],
    }


def _floors(told: Mapping[str, Any]) -> list[tuple[int, float | None]]:
    """The best loss, from each step on at which the task changes."""
    if "floors" in told:
        return [(int(step), None if floor is None else float(floor)) for step, floor in told["floors"]]
    if told["task"] == "transition":  # runs of older versions name the floor of the last task alone
        phases = transition(int(told["cycles_planned"]))
        return [(each.start, each.task.floor and SEQUENCE * each.task.floor) for each in phases]
    return [] if told["floor"] is None else [(0, float(told["floor"]))]


def _event(line: str) -> Event:
    fields = json.loads(line)
    removed = tuple(map(int, fields["removed"]))
    step, added, size, cost = fields["update"], fields["added"], fields["size"], fields.get("cost")
    return Event(
        int(step), str(fields["width"]), removed, int(added), int(size), None if cost is None else float(cost)
    )


def _sample(line: str) -> WidthSample:
    fields = json.loads(line)
    importances = [float(each) for each in fields["importances"][WIDTH]]
    return WidthSample(
        int(fields["update"]), importances, float(fields["thresholds"][WIDTH]), int(fields["events"])
    )


def _measurement(line: str) -> Measurement:
    update, loss, units = line.split(",")
    return Measurement(int(update), float(loss), int(units))
