"""The tables, as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from summary import Summary
from task import Study
from train import OUTGROWN

HEAD = """# Learned widths beside fixed ones

Written by `{command}`. Medians, quartiles in parentheses; less is better. The last column counts the
seeds in which the learned model does better than this size, and in which equally well, on the same split.
Seconds are those of training, with everything that `Structure` does; the sweep is one run of each fixed
size. The best fixed size, in bold, is picked by what is in the table, the test data: an advantage that the
learned widths do not have.
"""


def report(studies: Mapping[str, Study], summaries: Mapping[str, Summary], command: str) -> str:
    """All tables."""
    return "\n".join(
        [HEAD.format(command=command), *(_section(studies[name], summaries[name]) for name in summaries)]
    )


def _section(study: Study, summary: Summary) -> str:
    rows = summary["rows"]
    learned = rows["learned"]
    lines = [f"## {study.name}: {study.title}", "", *_table(study, summary), ""]
    ratio = learned["seconds"][0] / summary["sweep seconds"]
    lines.append(
        f"Seconds: {learned['seconds'][0]:.1f} to learn the widths, {summary['sweep seconds']:.1f} for the "
        f"sweep over {len(rows) - 1} sizes ({ratio:.0%})."
    )
    lines.append(
        "Units learned: " + "; ".join(f"`{k}` {spread(v, '.4g')}" for k, v in learned["units"].items()) + "."
    )
    if learned["stopped"]:
        lines.append(
            f"\n**{len(learned['stopped'])} of {learned['runs']} learned runs were stopped**, after "
            f"{min(learned['stopped'])} to {max(learned['stopped'])} updates, because they had more than "
            f"{OUTGROWN} times the parameters of the largest fixed size. The table has them as they were; "
            "whole runs would take longer than these seconds."
        )
    return "\n".join(lines) + "\n"


def _table(study: Study, summary: Summary) -> list[str]:
    head = ["size", *study.metrics, "parameters", "seconds", "learned is better in"]
    body = []
    for name, row in summary["rows"].items():
        against = summary["against"].get(name)
        body.append(
            [
                f"**{name}**" if name == summary["best fixed"] else name,
                *(spread(row[metric], style) for metric, style in study.metrics.items()),
                spread(row["parameters"], ",.0f"),
                spread(row["seconds"], ".1f"),
                "" if against is None else _counted(against, row["runs"]),
            ]
        )
    return markdown(head, body)


def _counted(against: Mapping[str, float], runs: int) -> str:
    same = f", same in {against['same']}" if against["same"] else ""
    return f"{against['better']} of {runs}{same}"


def spread(values: Sequence[float], style: str) -> str:
    """Median and quartiles; the median alone where they are all the same."""
    median, low, high = (format(value, style) for value in values)
    return median if low == median == high else f"{median} ({low} to {high})"


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
