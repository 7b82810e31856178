"""RESULTS.md: the summary as Markdown tables. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffstruct.paper.reproduce.settings import OFF_PLATEAU, Setting
from diffstruct.paper.tasks import SEQUENCE

_TITLES = {
    "easy": "Easy",
    "hard": "Hard",
    "fixed": "Learned size against fixed sizes, on hard",
    "transition": "Easy, then hard, then easy",
}
_COMMON = ("seeds", "loss", "units")
_COLUMNS = {
    "easy": ("revision", *_COMMON, "paper: loss", "paper: units", "floor"),
    "hard": ("revision", *_COMMON, "off the plateau", "paper: loss", "paper: units", "floor", "plateau"),
    "fixed": ("revision", "size", *_COMMON, "off the plateau", "U", "p", "paper: loss"),
    "transition": ("revision", "after", *_COMMON, "paper: units", "floor", "plateau"),
}


def write_results(summary: Mapping[str, Any]) -> str:
    """The page for `summary`, in Markdown."""
    runs = summary["runs"]
    lines = [
        "# The paper's figures, made anew",
        "",
        f"Losses are smoothed, in nats per {SEQUENCE} characters; losses and units are medians with "
        "quartiles in parentheses, at the end of a run or of a phase; units include the reserve. The paper's "
        "numbers are approximate, read off its text and figures (Miconi 2016, arXiv:1606.06216).",
        "",
        f"{runs['finished']} of {runs['asked']} runs finished, {runs['failed']} failed; "
        f"they took {_span(summary['seconds_of_all_runs'])} of one core's time in all, "
        f"on {'; '.join(summary['machines']) or 'no machine yet'}.",
    ]
    if summary["versions"]:
        listed = ", ".join(f"{name} {' and '.join(each)}" for name, each in summary["versions"].items())
        lines += ["", f"Versions: {listed}."]
    for figure, revisions in summary["figures"].items():
        lines += ["", f"## {_TITLES[figure]}", ""]
        if figure == "fixed":
            lines += [
                "U and p: Mann-Whitney's test of whether the learned size ends with a lower loss than this "
                "fixed size (one-sided). The paper's loss of fixed sizes is that of the best one.",
                "",
            ]
        if figure in ("hard", "fixed"):
            lines += [f"Off the plateau: the share of runs that end below {OFF_PLATEAU} nats.", ""]
        lines += _table(figure, revisions)
        for revision, panel in revisions.items():
            name = f"figures/{figure}-r{revision}.png"
            if any(row["seeds"] for row in panel["settings"]):
                lines += ["", f"![{_TITLES[figure]}, revision {revision}]({name})"]
    lines += ["", "## How long it took", "", *_times(summary)]
    if summary["failures"]:
        lines += ["", "## Runs that failed", ""]
        lines += [
            f"- {_setting(failure).name}, seed {failure['seed']}: {failure['error']}"
            for failure in summary["failures"]
        ]
    return "\n".join(lines) + "\n"


def _table(figure: str, revisions: Mapping[str, Any]) -> list[str]:
    columns = _COLUMNS[figure]
    rows = [row for revision, panel in revisions.items() for row in _rows(figure, revision, panel)]
    return _markdown(columns, [[row.get(column, "") for column in columns] for row in rows])


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def _rows(figure: str, revision: str, panel: Mapping[str, Any]) -> list[dict[str, str]]:
    paper = panel["paper"]
    rows = []
    for setting in panel["settings"]:
        row = {"revision": revision, "seeds": str(setting["seeds"]), "size": _setting(setting).label}
        if not setting["seeds"]:
            rows.append(row)
            continue
        if figure == "transition":
            rows += _phases(row, setting["phases"], paper)
            continue
        fixed = setting["fixed_units"] is not None
        row |= _measured(setting)
        row["paper: loss"] = _about(paper["fixed_loss"] if fixed else paper["loss"])
        row["paper: units"] = ", ".join(f"{units}" for units in paper["units"])
        if "off_plateau" in setting:
            row["off the plateau"] = f"{setting['off_plateau']:.0%}"
        if fixed:
            test = setting["learned_size_is_better"]
            row["U"] = "-" if test["u"] is None else f"{test['u']:g}"
            row["p"] = "-" if test["p"] is None else f"{test['p']:.2g}"
        rows.append(row)
    return rows


def _phases(
    common: Mapping[str, str], phases: Sequence[Mapping[str, Any]], paper: Mapping[str, Any]
) -> list[dict[str, str]]:
    rows = []
    for index, phase in enumerate(phases):
        units = f"{paper['units'][index]}" if paper["units"] else ""
        if index == len(phases) - 1 and paper["remark"]:
            units = f"{units} ({paper['remark']})" if units else paper["remark"]
        after = f"{phase['task']}, {phase['until']:,} updates"
        rows.append({**common, "after": after, **_measured(phase), "paper: units": units})
    return rows


def _measured(part: Mapping[str, Any]) -> dict[str, str]:
    return {
        "loss": _stat(part["loss"], "{:.2f}".format),
        "units": _stat(part["units"], "{:g}".format),
        "floor": f"{part['floor']:.2f}",
        "plateau": "" if part["plateau"] is None else f"{part['plateau']:.2f}",
    }


def _times(summary: Mapping[str, Any]) -> list[str]:
    unique = {
        _setting(row).name: row
        for revisions in summary["figures"].values()
        for panel in revisions.values()
        for row in panel["settings"]
        if row["seeds"]
    }
    rows = [
        [name, f"{row['cycles']:,}", f"{row['seconds']['median']:.1f}", f"{row['seconds']['total']:.0f}"]
        for name, row in unique.items()
    ]
    return _markdown(("setting", "updates", "seconds a run (median)", "seconds in all"), rows)


def _setting(row: Mapping[str, Any]) -> Setting:
    return Setting(row["revision"], row["task"], row["fixed_units"])


def _stat(stat: Mapping[str, float], form: Callable[[float], str]) -> str:
    median, low, high = (form(stat[key]) for key in ("median", "q25", "q75"))
    return f"{median} ({low}-{high})"


def _about(value: float | None) -> str:
    return "" if value is None else f"about {value:.1f}"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"
