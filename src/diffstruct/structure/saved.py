"""A page's record of a structure of which there is only the state dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffstruct import criteria
from diffstruct.criteria import Criterion
from diffstruct.history import COSTS, Event
from diffstruct.history.state import history_of
from diffstruct.report import Record, WidthRecord
from diffstruct.report.lives import lives_of
from diffstruct.report.widths import WidthNow, followed
from diffstruct.states import Fields
from diffstruct.structure.state import FORMAT

_MARKS = {"format", "criterion_type", "total_steps", "widths", "history"}
_DEPTH = 5
"""Levels of dicts at which a structure's state dict is looked for: trainers put theirs into others."""


def found_in(tree: object, levels: int = _DEPTH) -> Mapping[str, Any] | None:
    """The state dict of a structure, if it or a dict within is one; of several the first."""
    if not isinstance(tree, Mapping) or not levels:
        return None
    if set(tree) >= _MARKS:
        return tree
    return next(filter(None, (found_in(value, levels - 1) for value in tree.values())), None)


def record_of_saved(state: Mapping[str, Any], title: str) -> Record:
    """All that a page shows of a structure, from its state dict.

    Args:
        state: as `Structure.state_dict` returned it.
        title: of the page.

    Raises:
        StructureError: it is damaged, or of another version.
    """
    fields = Fields(state)
    if fields.whole("format") != FORMAT:
        raise fields.wrong("format", f"is {fields['format']}, and this version reads {FORMAT}")
    steps, total, criterion = (
        fields.whole("steps"),
        fields.whole("total_steps"),
        fields.text("criterion_type"),
    )
    history, depths = history_of(fields.fields("history")), fields.fields("depths").value
    now = [
        WidthNow(name, "blocks" if name in depths else "units", _places(width), width.whole("size"))
        for name, width in fields.fields("widths").each().items()
    ]
    widths, events = followed(history, now)
    for width in widths:
        _check(width, events, fields)
    loss = [(each.update, each.loss) for each in history.measurements]
    known = [(each.step, each.loss) for each in history.samples if each.loss is not None]
    kind = getattr(criteria, criterion, Criterion)
    return Record(
        title=title,
        step=steps,
        total_steps=total,
        loss=loss or known,
        widths=widths,
        events=events,
        cost={
            name: column
            for name in COSTS
            if (column := [(each.step, each.cost[name]) for each in history.samples if name in each.cost])
        },
        settings={
            "criterion": criterion,
            "total steps": total,
            "steps between decisions": fields.whole("interval"),
        },
        unit_of_importance=kind.unit_of_importance,
        unit_of_loss="" if loss else "nats per prediction",
        status="finished" if fields.flag("finished") else "running",
    )


def _check(width: WidthRecord, events: Sequence[Event], fields: Fields) -> None:
    """Refuse events that cannot have happened, and samples of other units than there were."""
    try:
        lives = lives_of(width.name, width.start, events)
    except ValueError as error:
        raise fields.wrong("history", f"is impossible ({error})") from error
    for sample in width.samples:
        if len(sample.importances) != len(lives.alive(sample.events)):
            raise fields.wrong("history", f"has a sample of other units than {width.name!r} had")


def _places(width: Fields) -> str:
    slots = width["slots"] or ()
    return ", ".join(f"{module}.{name}[dim {dim}]".removeprefix(".") for module, name, dim, *_ in slots)
