"""The table of the study of depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from scipy.stats import spearmanr

Runs = Mapping[tuple[int, str, int], Mapping[str, Any]]
"""By number of maps, how the network was trained, and the seed."""


def report(runs: Runs) -> Iterator[str]:
    """The lines of `RESULTS.md`."""
    yield "# Depth follows need\n"
    yield "Made by `python experiments/depth`; what the task is says `task.py`.\n"
    yield "| maps | blocks, by seed | median | hidden units | error, learned | error, 8 blocks | parameters |"
    yield "|---|---|---|---|---|---|---|"
    needs = sorted({maps for maps, how, _ in runs if how == "learned"})
    for maps in needs:
        own = [record for (m, how, _), record in sorted(runs.items()) if (m, how) == (maps, "learned")]
        fixed = [record for (m, how, _), record in sorted(runs.items()) if (m, how) == (maps, "fixed")]
        blocks = [record["blocks"] for record in own]
        hidden = median(unit for record in own for unit in record["hidden"])
        error = f"{median(record['error'] for record in own):.3f}"
        other = f"{median(record['error'] for record in fixed):.3f}" if fixed else ""
        share = ""
        if fixed:
            parts = median(r["parameters"] for r in own) / median(r["parameters"] for r in fixed)
            share = f"{parts:.0%} of those of 8 blocks"
        shown = ", ".join(map(str, blocks))
        yield f"| {maps} | {shown} | {median(blocks):g} | {hidden:g} | {error} | {other} | {share} |"
    pairs = [(maps, record["blocks"]) for (maps, how, _), record in runs.items() if how == "learned"]
    if len(needs) > 2 and len({blocks for _, blocks in pairs}) > 1:
        medians = [median(b for m, b in pairs if m == maps) for maps in needs]
        every = spearmanr(*zip(*pairs, strict=True)).statistic
        of_medians = spearmanr(needs, medians).statistic if len({*medians}) > 1 else 0.0
        told = f"{of_medians:.2f} of the medians, {every:.2f} of all runs"
        yield f"\nSpearman's correlation of maps and blocks: {told}."
