"""Tables and figures of what has been run. Pure, but for `write`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import as_text, data_of, draw
from grid import Setting
from scipy.stats import mannwhitneyu, spearmanr

from diffstruct.paper.tasks import SEQUENCE, easy, hard

Runs = Sequence[Mapping[str, Any]]
Results = Mapping[Setting, Runs]

HEAD = """# The rule, in numbers

Written by `python experiments/rule`. Medians over seeds, quartiles in parentheses. Losses are in nats per 40
characters, smoothed over 1,000 updates; units are all that are there, the reserve included.
"""


def write(out: Path, results: Results) -> None:
    """Write RESULTS.md, summary.json, figures.json and the figures of all studies that have been run."""
    sections = [
        section
        for make in (_paper, _revisions, _sizes, _points, _starts, _difficulty, _ablation)
        for section in make(results)
    ]
    (out / "RESULTS.md").write_text("\n".join([HEAD, *sections]))
    summary = {
        f"{setting.study}: {setting.name}": {
            key: [round(float(q), 5) for q in quartiles([run[key] for run in runs])]
            for key, value in runs[0].items()
            if isinstance(value, (int, float))
        }
        | {"seeds": len(runs)}
        for setting, runs in results.items()
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    data = data_of(results)
    (out / "figures.json").write_text(as_text(data))
    for name, picture in draw(data).items():
        (out / name).write_bytes(picture)
    print(f"wrote {out / 'RESULTS.md'}, summary.json, figures.json and figures")


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    low, median, high = np.quantile(np.array(values, float), (0.25, 0.5, 0.75))
    return median, low, high


def spread(values: Sequence[float], style: str) -> str:
    """Median and quartiles, as text."""
    median, low, high = quartiles(values)
    return f"{median:{style}} ({low:{style}}–{high:{style}})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _of(results: Results, study: str) -> dict[str, Runs]:
    return {setting.name: runs for setting, runs in results.items() if setting.study == study}


def _values(runs: Runs, key: str) -> list[float]:
    return [run[key] for run in runs]


def _paper(results: Results) -> Iterator[str]:
    runs = _of(results, "paper")
    if len(runs) < 3:
        return
    ends = [[run["phases"][i] for run in runs["transition"]] for i in range(3)]
    final, alone = (np.median(_values(runs[task], "units")) for task in ("transition", "easy"))
    last_alone = _values(runs["easy"], "units")
    rows = [
        *([f"hard: {what}", value, ""] for what, value in _hard(runs["hard"]).items()),
        ["easy: loss", spread(_values(runs["easy"], "loss"), ".3f"), f"floor {SEQUENCE * easy().floor:.3f}"],
        ["easy: units", spread(last_alone, ".0f"), ""],
        [
            "easy-hard-easy: units after each phase",
            " → ".join(spread([u for _, u in end], ".0f") for end in ends),
            "",
        ],
        [
            "easy-hard-easy: loss after each phase",
            " → ".join(spread([x for x, _ in end], ".2f") for end in ends),
            "",
        ],
        [
            "easy-hard-easy: units at the end over those of easy alone",
            f"{final / alone:.2f}",
            f"{final:g} over {alone:g}",
        ],
    ]
    yield f"## The paper's tasks, 100,000 updates, {len(runs['hard'])} seeds\n"
    yield table(["", "median (quartiles)", ""], rows)
    yield "![Loss and units over time](paper.png)\n"


def _hard(runs: Runs) -> dict[str, str]:
    """What is asked of runs on the hard task, and the answers."""
    medians = np.median([run["curve"][0] for run in runs], axis=0)  # at every thousandth update
    below = np.flatnonzero((medians < 10.2) & (np.arange(len(medians)) > 0))
    return {
        f"loss (floor {SEQUENCE * hard().floor:.2f})": spread(_values(runs, "loss"), ".2f"),
        "units": spread(_values(runs, "units"), ".0f"),
        "updates until the median loss is below 10.2": f"{1000 * (below[0] + 1):,}"
        if len(below)
        else "never",
        "seeds with a loss below 11": f"{np.mean(np.array(_values(runs, 'loss')) < 11):.0%}",
        "worst smoothed loss in the last fifth": spread(_values(runs, "worst"), ".2f"),
    }


def _revisions(results: Results) -> Iterator[str]:
    runs = _of(results, "revisions")
    own = _of(results, "paper").get("hard")
    if not runs or own is None:
        return
    columns = {"default": _hard(own)} | {name: _hard(some) for name, some in runs.items()}
    lengths = [f"{1000 * len(some[0]['curve'][0]):,}" for some in (own, *runs.values())]
    seeds = [str(len(some)) for some in (own, *runs.values())]
    rows = [[what, *(column[what] for column in columns.values())] for what in columns["default"]]
    yield "## The paper's revisions on hard\n"
    yield table(["", *columns], [["updates", *lengths], ["seeds", *seeds], *rows])


def _sizes(results: Results) -> Iterator[str]:
    fixed = {s: runs for s, runs in results.items() if s.study == "sizes"}
    learned = _of(results, "paper").get("hard")
    if not fixed or learned is None:
        return
    own = _values(learned, "loss")
    rows = [["learned", str(len(own)), spread(own, ".2f"), spread(_values(learned, "units"), ".0f"), "", ""]]
    for setting, runs in fixed.items():
        losses = _values(runs, "loss")
        p = mannwhitneyu(own, losses, alternative="less").pvalue
        rows.append(
            [
                setting.name,
                str(len(losses)),
                spread(losses, ".2f"),
                f"{setting.order:g}",
                f"{np.median(losses) - np.median(own):+.2f}",
                f"{p:.1g}",
            ]
        )
    yield "## Learned against fixed sizes, hard, the same Adam and as many updates\n"
    yield table(["", "seeds", "loss", "units", "learned is better by", "p (Mann-Whitney, one-sided)"], rows)


def _points(results: Results) -> Iterator[str]:
    runs = _of(results, "points")
    for task in ("digits", "spirals"):
        rows = [
            [name, spread(_values(some, "accuracy"), ".2f"), spread(_values(some, "units"), ".0f"),
             spread(_values(some, "parameters"), ",.0f"), spread(_values(some, "seconds"), ".1f")]
            for name, some in runs.items() if name.split(",")[0] == task
        ]  # fmt: skip
        if rows:
            yield f"## {task.capitalize()}, one hidden layer from one unit\n"
            yield table(["", "accuracy on test data, %", "units", "parameters", "seconds"], rows)


def _starts(results: Results) -> Iterator[str]:
    runs = _of(results, "starts")
    if runs:
        yield "## From 1, 8 and 128 units\n"
        score = {name: "accuracy" if name.startswith("digits") else "loss" for name in runs}
        rows = [
            [name, spread(_values(some, "units"), ".0f"), spread(_values(some, score[name]), ".2f")]
            for name, some in runs.items()
        ]
        yield table(["", "units at the end", "loss, or accuracy in %"], rows)
        for task in ("hard", "digits"):
            sizes = [
                np.median(_values(some, "units")) for name, some in runs.items() if name.startswith(task)
            ]
            if sizes:
                yield f"{task}: the largest median is {max(sizes) / min(sizes) - 1:.0%} above the smallest.\n"


def _difficulty(results: Results) -> Iterator[str]:
    families = {
        "letters": "letters per group",
        "turns": "turns of the spirals",
        "classes": "classes of digits",
    }
    rows, order, sizes = [], [], []
    for study, what in families.items():
        some = {s: runs for s, runs in results.items() if s.study == study}
        if len(some) < 2:
            continue
        units = [float(np.median(_values(runs, "units"))) for runs in some.values()]
        order += [*np.argsort(np.argsort([s.order for s in some])) / (len(some) - 1)]
        sizes += [*np.argsort(np.argsort(units)) / (len(some) - 1)]
        by = ", ".join(f"{s.order:g}: {size:g}" for s, size in zip(some, units, strict=True))
        rho = spearmanr([s.order for s in some], units).statistic
        rows.append([what, by, f"{rho:.2f}"])
    if rows:
        yield "## The harder the task, the larger the network\n"
        yield table(["difficulty", "median units at each", "Spearman correlation"], rows)
        rho = spearmanr(order, sizes).statistic
        yield f"All {len(order)} tasks, by their rank within each kind: Spearman correlation {rho:.2f}.\n"


def _ablation(results: Results) -> Iterator[str]:
    studies = [s for s in dict.fromkeys(setting.study for setting in results) if s.startswith("ablation")]
    if not studies:
        return
    yield "## Each ingredient taken out\n"
    yield (
        "Medians. hard, hardest (8 letters a group), easy, transition (easy-hard-easy): loss, units; of\n"
        "hard the updates until the loss was first below 10.2; of hardest seeds with a loss below 11; of\n"
        "easy the highest loss of all; of transition the highest smoothed loss of all in the last fifth.\n"
        "digits and spirals: accuracy in %, units.\n"
    )
    cells: dict[str, list[str]] = {}
    for study in studies:
        for name, runs in _of(results, study).items():
            cells.setdefault(name, [str(len(runs))]).append(_cell(study, runs))
    yield table(
        ["", "seeds", *(study.split(": ")[1] for study in studies)],
        [[name, *row] for name, row in cells.items()],
    )
    if any(setting.study.startswith("knobs") for setting in results):
        yield "## Each knob turned\n"
        fewest = min(len(runs) for setting, runs in results.items() if setting.study.startswith("knobs"))
        yield f"Median and quartiles over the first seeds, {fewest} at least, the same for each value.\n"
        yield "![Loss, accuracy and units as each knob is turned](knobs.png)\n"


def _cell(study: str, runs: Runs) -> str:
    units = f"{np.median(_values(runs, 'units')):g}"
    if "accuracy" in runs[0]:
        return f"{np.median(_values(runs, 'accuracy')):.2f} / {units}"
    begin = f"{np.median(_values(runs, 'loss')):.2f} / {units} / "
    if study.endswith("hard"):
        solved = np.median([run["solved"] or np.inf for run in runs])
        return begin + (f"{solved:,.0f}" if np.isfinite(solved) else "never")
    if study.endswith("hardest"):
        return begin + f"{np.mean(np.array(_values(runs, 'loss')) < 11):.0%}"
    return begin + f"{max(_values(runs, 'loss' if study.endswith('easy') else 'worst')):.2f}"
