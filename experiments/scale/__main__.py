"""What an event costs where a model is sharded: `python experiments/scale --help`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from llama import CLUSTER, RANKS, events, llama
from measure import REPEATS, SIZES, Measured, measure
from model import Collective, Machine, Memory, memory_of, of_decision, of_event, of_trial, seconds_of

HERE = Path(__file__).parent
ABOUT = """A transformer of two blocks, `fully_shard` and AdamW in float32, gloo on one machine of two cores:
predicted / measured (the first over the second). *One*: a feed-forward network loses a tenth of its units;
*all*: both do; *stream*: the residual stream does; *decision*: nothing is tried or changes. Bytes are those
beyond what the rank had before. Seconds are the median of several events, of all models in turn; predictions
take latency, bandwidth and the rates of copies from plain gathers and copies made between these events, and
Python's seconds, for an event and for each tensor of it, from the smallest model, whose seconds are so fitted
and not predicted."""
COLUMNS = "stream", "event", "ranks", "collectives", "MB received", "MB at the peak", "seconds"
LARGE = "event", "gathers", "GB received", "GB at the peak", "seconds"
Found = Mapping[tuple[str, str], Measured]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, predict, and write the tables; 1 if collectives are not those predicted."""
    parser = argparse.ArgumentParser(prog="python experiments/scale", description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4], help="default: 2 4")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[*SIZES], help="default: all")
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, help=f"events that are timed (default: {REPEATS})"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the table (default: where this is)")
    options = parser.parse_args(arguments)
    rows, good = [], True
    for ranks in options.ranks:
        found = measure(ranks, options.sizes, options.repeats)
        for row, same in compared(found, ranks):
            rows.append(row)
            good &= same
            print(row, flush=True)
    parts = [
        "# What an event costs where a model is sharded",
        ABOUT.replace("\n", " "),
        "\n".join([*_head(COLUMNS), *rows]),
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "RESULTS.md").write_text("\n\n".join([*parts, *large()]) + "\n")
    return 0 if good else 1


def compared(found: Found, ranks: int) -> list[tuple[str, bool]]:
    """Rows of the table, and whether the collectives are those that were predicted."""
    found = pooled(found)
    event, tensor = python_of(found, ranks)
    rows = []
    for (size, kind), each in found.items():
        expected = each.expected or of_event(each.model, each.event, ranks)
        memory = memory_of(each.model, each.event, ranks) if each.event else None
        cells = [SIZES[size], kind, ranks, _beside(len(expected), len(each.collectives), "d")]
        cells.append(_beside(_received(expected, ranks) / 1e6, _received(each.collectives, ranks) / 1e6))
        if memory is None:
            cells += ["", ""]
        else:
            machine = replace(each.machine, event=event, tensor=tensor)
            seconds = seconds_of(expected, memory, ranks, machine)
            cells.append(_beside(memory.peak / 1e6, each.peak / 1e6))
            cells.append(_beside(seconds, median(each.seconds)))
        rows.append((_line(cells), Counter(expected) == Counter(each.collectives)))
    return rows


def pooled(found: Found) -> Found:
    """The same, with the median of all latencies and bandwidths: plain gathers are the same everywhere, and
    what they take differs by itself from one second to the next."""
    machines = [each.machine for each in found.values() if each.event]
    both = {name: median(getattr(each, name) for each in machines) for name in ("latency", "bandwidth")}
    return {key: replace(each, machine=replace(each.machine, **both)) for key, each in found.items()}


def python_of(found: Found, ranks: int) -> tuple[float, float]:
    """Seconds of Python for an event, and for each tensor of it: what is left in the smallest model's.

    They are those by which the relative errors there are least.
    """
    smallest, rows, left = next(iter(found))[0], [], []
    for each in (each for (size, _), each in found.items() if size == smallest and each.event):
        expected = of_event(each.model, each.event, ranks)
        memory = memory_of(each.model, each.event, ranks)
        took = median(each.seconds)
        rows.append([1 / took, _gathers(expected) / took])
        left.append(1 - seconds_of(expected, memory, ranks, each.machine) / took)
    event, tensor = np.linalg.lstsq(np.array(rows), np.array(left))[0]
    return max(0.0, float(event)), max(0.0, float(tensor))


def large(machine: Machine = CLUSTER, ranks: int = RANKS) -> list[str]:
    """The prediction for a large model on many ranks."""
    model, rows = llama(), []
    count = sum(each.entries for each in model.parameters.values())
    own = sum(each.rows(ranks) * sum(each.kinds()) for each in model.parameters.values())
    for name, event in events().items():
        collectives, memory = of_event(model, event, ranks), memory_of(model, event, ranks)
        cells = [name, _gathers(collectives), f"{_received(collectives, ranks) / 1e9:.2f}"]
        cells.append(f"{memory.peak / 1e9:.2f}")
        cells.append(f"{seconds_of(collectives, memory, ranks, machine):.2f}")
        rows.append(_line(cells))
    sizes = [11008] * 32 + [32] * 32 + [4096]
    sums = of_decision(sizes, 7 * 32 + 1, 4, 32000, ranks)
    trial = seconds_of(of_trial(model), Memory(0, 0, 0), ranks, replace(machine, event=0.0, tensor=0.0))
    about = (
        f"Shaped like Llama 7B (`llama.py`): parameters and gradients in bfloat16, AdamW in float32, so that "
        f"a rank has {own / 1e9:.2f} GB of them. Predicted, not measured: {machine.bandwidth / 1e9:.0f} GB/s "
        f"and {machine.latency * 1e6:.0f} microseconds a collective, {machine.copies / 1e12:.0f} TB/s of "
        f"copies, {machine.tensor * 1e3:.0f} ms of Python a tensor and {machine.event * 1e3:.0f} an event. "
        "Each event takes a tenth of the units. *At the peak*: beyond what a rank has before the event."
    )
    trials = _received(of_trial(model), ranks) / 1e9
    rest = (
        f"A decision that changes nothing receives {_received(sums, ranks) / 1e6:.1f} MB in {len(sums)} "
        f"sums. Each trial runs the model once more, which gathers it: {trials:.1f} GB, {trial:.2f} seconds, "
        "as a forward pass of training does."
    )
    title = f"## {count / 1e9:.2f} billion parameters on {ranks} ranks"
    return [title, about, "\n".join([*_head(LARGE), *rows]), rest]


def _gathers(collectives: Iterable[Collective]) -> int:
    return sum(each.kind == "gather" for each in collectives)


def _received(collectives: Iterable[Collective], ranks: int) -> float:
    return sum(each.received(ranks) for each in collectives)


def _beside(predicted: float, measured: float, form: str = ".3g") -> str:
    return f"{predicted:{form}} / {measured:{form}} ({predicted / measured:.2f})"


def _head(columns: Sequence[str]) -> list[str]:
    return [_line(columns), _line(["---"] * len(columns))]


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
