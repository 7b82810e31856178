"""A structure as a page shows it."""

from __future__ import annotations

from dataclasses import replace

from diffstruct.history import COSTS
from diffstruct.report import Record
from diffstruct.report.widths import WidthNow, followed
from diffstruct.structure.changing import ChangingStructure
from diffstruct.structure.sampling import costs_of, sample_of
from diffstruct.width import Depth
from diffstruct.width.table import places


def record_of(structure: ChangingStructure) -> Record:
    """All that a page shows of a structure: its history, and how it is now."""
    history, model, steps = structure.history, structure.model, structure.steps
    samples = [*history.samples]
    if not structure._finished:
        now = sample_of(structure, steps)
        samples = [each for each in samples if (each.step, each.events) != (now.step, now.events)] + [now]
    widths, events = followed(
        replace(history, samples=samples),
        [
            WidthNow(
                name, "blocks" if isinstance(width, Depth) else "units", places(width, model), width.size
            )
            for name, width in structure.widths.items()
        ],
    )
    costs = [(each.step, each.cost) for each in samples]
    if structure._finished:  # what went at the end has changed it once more
        costs.append((steps, costs_of(structure)))
    loss = [(each.update, each.loss) for each in history.measurements]
    known = [(each.step, each.loss) for each in samples if each.loss is not None]
    budget = structure.training.budget
    limits = {} if budget is None else dict(zip(COSTS, (budget.parameters, budget.flops), strict=True))
    return Record(
        title=f"{type(model).__name__} after {steps:,} of {structure.training.total_steps:,} steps",
        step=steps,
        total_steps=structure.training.total_steps,
        loss=loss or known,
        widths=widths,
        events=events,
        cost={
            name: column
            for name in COSTS
            if (column := [(step, cost[name]) for step, cost in costs if name in cost])
        },
        budget={name: float(limit) for name, limit in limits.items() if limit is not None},
        settings=_settings(structure),
        unit_of_importance=structure.criterion.unit_of_importance,
        unit_of_loss="" if loss else "nats per prediction",
        status="finished" if structure._finished else "running",
    )


def _settings(structure: ChangingStructure) -> dict[str, str | int | float | None]:
    training = structure.training
    return {
        "model": type(structure.model).__name__,
        "criterion": structure.criterion.describe(),
        "optimizer": ", ".join(type(each).__name__ for each in training.optimizers),
        "total steps": training.total_steps,
        "steps between decisions": training.interval,
        "steps left out": structure.guard.skipped,
        "processes": training.processes.size,
    }
