"""Records of runs that never were: small, but with all that a page shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from diffstruct.history import Event
from diffstruct.report import Record, WidthRecord, WidthSample


def invented(
    seed: int = 0,
    *,
    names: Sequence[str] = ("first", "heads", "second"),
    starts: Sequence[int] = (12, 4, 20),
    steps: int = 1_000,
    events: int = 90,
    samples: int = 20,
    rows: int = 200,
    title: str = "invented",
    status: str = "finished",
) -> Record:
    """A run whose loss falls and whose widths gain and lose units at random."""
    chance = np.random.default_rng(seed)
    worth = {name: np.exp(chance.normal(size=start)) for name, start in zip(names, starts, strict=True)}
    happened: list[Event] = []
    taken: dict[str, list[WidthSample]] = {name: [] for name in names}
    cost: list[tuple[int, float]] = []
    due = [*np.linspace(0, steps, samples).astype(int).tolist()]
    for step in [*np.sort(chance.integers(1, steps, events)).tolist(), steps + 1]:
        while due and due[0] < step:
            at = due.pop(0)
            for name in names:
                values = worth[name].tolist()
                taken[name].append(WidthSample(at, values, 0.3, len(happened)))
            cost.append((at, 100.0 * sum(map(len, worth.values()))))
        name = names[int(chance.integers(len(names)))]
        gone = np.flatnonzero(worth[name] < 0.4)[:3] if len(worth[name]) > 4 else np.array([], int)
        new = int(chance.integers(0, 3))
        if step > steps or not (len(gone) or new):
            continue
        stay = np.delete(worth[name], gone) * np.exp(chance.normal(size=len(worth[name]) - len(gone)) / 5)
        worth[name] = np.concatenate([stay, np.exp(chance.normal(size=new) - 1)])
        removed = tuple(gone.tolist())
        happened.append(Event(step, name, removed, new, len(worth[name]), 0.01 if removed else None))
    widths = [
        WidthRecord(name, "units", start, f"{name}.weight[dim 0]", taken[name])
        for name, start in zip(names, starts, strict=True)
    ]
    at = np.unique(np.linspace(0, steps, rows).astype(int))
    return Record(
        title=title,
        step=steps,
        total_steps=steps,
        loss=[(int(step), float(1 + 3 * np.exp(-5 * step / steps))) for step in at],
        widths=widths,
        events=happened,
        cost={"parameters": cost, "multiply-adds": [(step, 7 * value) for step, value in cost]},
        budget={"parameters": 2_500.0},
        settings={"seed": seed, "price": 0.3, "task": title, "rest": None},
        floor=[(0, 0.9), (steps // 2, None), (3 * steps // 4, 0.8)],
        unit_of_importance="share of what was won over share of the cost",
        unit_of_loss="nats",
        status=status,
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[str, int], list[Event]]:
    """Sizes at the start of one to three widths, and events of them that can have happened."""
    starts = {name: draw(st.integers(0, 5)) for name in "abc"[: draw(st.integers(1, 3))]}
    sizes, events, step = {**starts}, [], 0
    for _ in range(draw(st.integers(0, 12))):
        step += draw(st.integers(0, 3))
        name = draw(st.sampled_from(sorted(sizes)))
        removed = sorted(draw(st.sets(st.integers(0, sizes[name] - 1)))) if sizes[name] else []
        added = draw(st.integers(0, 3))
        sizes[name] += added - len(removed)
        events.append(Event(step, name, tuple(removed), added, sizes[name]))
    return starts, events
