"""What the runs come to: a summary of plain numbers, and its tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train import Job

Summary = dict[str, dict[str, Any]]
"""By budget: `"learned"` by what is learned, and `"uniform"` by shape; of each its runs by seed."""


def summary_of(runs: Mapping[Job, Mapping[str, Any]]) -> Summary:
    """The runs by budget, ways and seeds."""
    summary: Summary = {}
    for job, run in sorted(runs.items(), key=lambda item: (item[0].budget, item[0].seed)):
        ways = summary.setdefault(str(job.budget), {"learned": {}, "uniform": {}})
        kind, what = ("learned", job.shape) if isinstance(job.shape, str) else ("uniform", str(job.shape))
        kept = {key: run[key] for key in ("bits", "parameters", "device")}
        if kind == "learned":
            kept["sizes"] = run["sizes"]
        ways[kind].setdefault(what, []).append(kept)
    return summary


def report(summary: Summary) -> str:
    """The tables, in Markdown."""
    devices = {run["device"] for ways in summary.values() for way in ways.values() for run in _all(way)}
    names = {"cpu": "a CPU", "cuda": "a GPU"}
    lines = ["# A transformer's shape, learned, beside uniform shapes", ""]
    lines += [f"On {' and '.join(names[device] for device in sorted(devices))}. Medians over seeds.", ""]
    lines += [*_overview(summary), "", "![Bits per byte against parameters](figure.png)", ""]
    for budget, ways in summary.items():
        lines += [f"## At most {int(budget):,} parameters", "", *_learned(ways), "", *_uniform(ways), ""]
    return "\n".join(lines)


def _all(way: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Mapping[str, Any]]:
    for runs in way.values():
        yield from runs


def bits(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    """Of each seed."""
    return [run["bits"] for run in runs]


def best_uniform(ways: Mapping[str, Any]) -> str:
    """The shape with the least median."""
    return min(ways["uniform"], key=lambda shape: median(bits(ways["uniform"][shape])))


def _overview(summary: Summary) -> Iterator[str]:
    yield "| parameters | best uniform shape | its bits | learned | bits | against it | seed by seed |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for budget, ways in summary.items():
        best = best_uniform(ways)
        theirs = bits(ways["uniform"][best])
        # The shape that is best for each seed: no one could have chosen that.
        least = [min(seed) for seed in zip(*map(bits, ways["uniform"].values()), strict=True)]
        for learned, runs in ways["learned"].items():
            ours = bits(runs)
            each = ", ".join(f"{mine / other - 1:+.1%}" for mine, other in zip(ours, least, strict=True))
            yield (
                f"| {int(budget):,} | {best}, of {len(ways['uniform'])} | {_spread(theirs)} | {learned} | "
                f"{_spread(ours)} | {median(ours) / median(theirs) - 1:+.1%} | {each} |"
            )


def _learned(ways: Mapping[str, Any]) -> Iterator[str]:
    yield "| learned | seed | parameters | bits per byte | stream | blocks: heads x width, units |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for learned, runs in ways["learned"].items():
        for seed, run in enumerate(runs):
            sizes = run["sizes"]
            shape = "; ".join(_block(sizes, block) for block in range(_blocks(sizes)))
            measured = f"{run['parameters']:,} | {run['bits']:.3f}"
            yield f"| {learned} | {seed} | {measured} | {sizes['token']} | {shape} |"


def _uniform(ways: Mapping[str, Any]) -> Iterator[str]:
    yield "| uniform: blocks x (feed-forward units, heads) | parameters | bits per byte |"
    yield "| --- | --- | --- |"
    uniform = ways["uniform"]
    for shape in sorted(uniform, key=lambda shape: median(bits(uniform[shape]))):
        yield f"| {shape} | {uniform[shape][0]['parameters']:,} | {_spread(bits(uniform[shape]))} |"


def _blocks(sizes: Mapping[str, int]) -> int:
    return sum(name.endswith(".up") for name in sizes)


def _block(sizes: Mapping[str, int], block: int) -> str:
    part = f"blocks.{block}"
    heads, width = (sizes.get(f"{part}.attention.q.{name}") for name in ("heads", "head_width"))
    return f"{heads} x {width or 'as written'}, {sizes[f'{part}.up']}"


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{median(values):.3f} ({min(values):.3f}–{max(values):.3f})"
