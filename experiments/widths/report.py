"""The tables, as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from summary import Summary, overall
from task import Study

HEAD = """# Learned structure beside uniform sizes, at equal size

Written by `{command}`. Every run of a task has as many steps, on the same batches; less is better everywhere.
Learned widths start from the model's own size, with a budget (a share of its parameters or multiply-adds)
or at the default price. *Uniform* is the line of the uniform sizes, at as many of these as the learned model
has, interpolated in their logarithm, never beyond its ends. A ratio is one error over another, seed by seed:
below 1 is better. Torch-Pruning cuts the same model to the same budget half way. Medians over seeds,
quartiles in parentheses; means are geometric, of medians.
"""
NOTHING = "–"


def report(studies: Mapping[str, Study], summaries: Mapping[str, Summary], command: str) -> str:
    """All tables."""
    means = overall(summaries)
    parts = [HEAD.format(command=command), *_means(summaries, means)]
    parts += ["![Error against parameters](figure.png)\n"]
    for name, summary in summaries.items():
        parts += _section(studies[name], summary)
    return "\n".join(parts)


def _means(
    summaries: Mapping[str, Summary], means: Mapping[str, Mapping[str, float | None]]
) -> Iterator[str]:
    head = [
        "error over uniform, mean",
        "with budgets",
        "at the price",
        "both",
        "Torch-Pruning",
        "learned over Torch-Pruning",
        "budget used, least",
    ]
    whats = ("budgets", "price", "both", "pruned", "learned over pruned")
    body = [
        [
            f"`{name}`" if name in summaries else f"**{name}**",
            *(NOTHING if row[what] is None else f"{row[what]:.3f}" for what in whats),
            NOTHING if row["used"] is None else f"{row['used']:.1%}",
        ]
        for name, row in means.items()
    ]
    yield table(head, body)
    worst = max(summaries, key=lambda name: means[name]["both"] or 0)
    rows = [
        (row["ratio"][0], name, row)
        for name, summary in summaries.items()
        for row in summary["learned"].values()
        if row["ratio"] is not None
    ]
    if rows:
        value, name, row = max(rows, key=lambda each: each[0])
        yield (
            f"The worst task is `{worst}` ({means[worst]['both']:.3f}); the worst single row `{name}`, "
            f"{called(row['share'])} ({value:.3f}).\n"
        )


def _section(study: Study, summary: Summary) -> Iterator[str]:
    seeds = summary["seeds"]
    yield f"## {study.name}: {study.title}\n"
    yield (
        f"{seeds} seed{'s' * (seeds > 1)}. The model's own size is {'-'.join(map(str, study.own))}, "
        f"{summary['own'][0]:,.0f} {study.measure}. What is measured is {study.metric}.\n"
    )
    head = ["learned", study.measure, "of own", "budget used", "error", "uniform", "ratio"]
    head += ["difference"] * study.language
    head += [] if study.flops else ["Torch-Pruning: parameters", "error", "learned over it"]
    yield table(head, [_learned(study, row, seeds) for row in summary["learned"].values()])
    yield table(
        ["uniform", study.measure, "error"],
        [
            [
                name.removeprefix("uniform-"),
                spread(row["parameters"], ",.0f"),
                spread(row["score"], study.style),
            ]
            for name, row in summary["uniform"].items()
        ],
    )
    yield _seconds(study, summary)
    warned = {called(row["share"]): row["warned"] for row in summary["learned"].values() if row["warned"]}
    if warned:
        yield "`finish` warned: " + "; ".join(f"{k}, {v} of {seeds}" for k, v in warned.items()) + ".\n"


def _learned(study: Study, row: Mapping[str, Any], seeds: int) -> list[str]:
    """A row of the table of a study."""
    compared, pruned = row["ratio"], row["pruned"]
    outside = f"outside the sizes in {row['outside']} of {seeds}" if row["outside"] else ""
    without = "not supported" if study.regulariser is None else NOTHING
    cells = [
        called(row["share"]),
        spread(row["parameters"], ",.0f"),
        f"{row['of own'][0]:.1%}",
        f"{row['used'][0]:.1%}" if row["used"] else NOTHING,
        spread(row["score"], study.style),
        "; ".join(filter(None, (spread(row["line"], study.style) if row["line"] else "", outside))),
        spread(compared, ".3f") if compared else NOTHING,
    ]
    if study.language:
        cells.append(f"{compared[0] - 1:+.1%}" if compared else NOTHING)
    if study.flops:
        return cells
    if pruned is None:
        return [*cells, without, without, NOTHING]
    return [
        *cells,
        spread(pruned["parameters"], ",.0f"),
        spread(pruned["score"], study.style),
        spread(pruned["learned over pruned"], ".3f"),
    ]


def _seconds(study: Study, summary: Summary) -> str:
    own = summary["uniform"]["-".join(("uniform", *map(str, study.own)))]["seconds"][0]
    rows = summary["learned"].values()
    learned = sum(row["seconds"][0] for row in rows) / len(rows)
    pruned = [row["pruned"]["seconds"][0] for row in rows if row["pruned"]]
    told = f"Seconds of one core: own size {own:.1f}, learned {learned:.1f} on average"
    return told + (f", Torch-Pruning {sum(pruned) / len(pruned):.1f}" if pruned else "") + ".\n"


def called(share: float | None) -> str:
    """A learned run, in words."""
    return "default price" if share is None else f"budget {Fraction(share).limit_denominator(100)}"


def spread(values: Sequence[float], style: str) -> str:
    """Median and quartiles; the median alone where they are all the same."""
    median, low, high = (format(value, style) for value in values)
    return median if low == median == high else f"{median} ({low}–{high})"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *body))
