"""`diffstruct grow`: one run on a task or a text."""

from __future__ import annotations

import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from diffstruct.cli.exit_codes import INTERRUPTED
from diffstruct.criteria import TaylorImportance
from diffstruct.errors import ConfigurationError, DivergenceError, ResumeWarning
from diffstruct.paper.display import LivePanel, PlainLines, duration
from diffstruct.paper.progress import Progress
from diffstruct.paper.record import record_of_run
from diffstruct.paper.revisions import get_revision
from diffstruct.paper.run import Run
from diffstruct.paper.run_folder import PAGE, FinishedError
from diffstruct.report.live import LivePage
from diffstruct.report.page import write
from diffstruct.rule import Rule

_RULE = "The rule (default: what suits the way to grow)"

_Task = Annotated[
    str | None,
    typer.Argument(
        metavar="TASK|FILE",
        help="[bold]easy[/], [bold]hard[/], [bold]transition[/] (easy, hard, easy), "
        "or the path of any UTF-8 text file.",
        show_default=False,
    ),
]
_Revision = Annotated[
    int | None,
    typer.Option(
        metavar="1|2|3",
        help="Grow as in a revision of the paper. 1 and 2 price a multiplier on each unit (1 with its "
        "known gradient defect); 3 prices outgoing weights.  "
        "[dim]\\[default: each unit must be worth its price][/]",
        show_default=False,
    ),
]
_Price = Annotated[
    float | None,
    typer.Option(
        help="The share of what was won that a unit must be worth, for its share of the network; not for the "
        "paper's revisions.  "
        f"[dim]\\[default: {TaylorImportance().price}][/]",
        show_default=False,
    ),
]
_Cycles = Annotated[
    int | None,
    typer.Option(
        help="Steps, of 40 characters each.  [dim]\\[default: 100000; revisions 1 and 2: 300000][/]",
        show_default=False,
    ),
]
_Seed = Annotated[
    int | None,
    typer.Option(
        help="The same seed gives the same run, bit for bit, on one machine.  [dim]\\[default: 0][/]",
        show_default=False,
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option(
        help="The run folder.  [dim]\\[default: runs/TASK-sSEED, with -rREVISION in between][/]",
        show_default=False,
    ),
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run that the folder already holds.")]
_Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN",
        help="Go on with a run that was stopped or killed, in its folder and with its settings: what comes "
        "out is the same as without the interruption, bit for bit.",
        show_default=False,
    ),
]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
_Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Serve a page that follows the run, to this machine alone; it stays as report.html.",
    ),
]
_Port = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Where --watch serves it.  [dim]\\[default: a port that is free][/]",
        show_default=False,
    ),
]
_Threshold = Annotated[
    float | None,
    typer.Option(help="Importance up to which a unit is in the reserve.", rich_help_panel=_RULE),
]
_Reserve = Annotated[
    str | None,
    typer.Option(
        help="Units to hold in reserve: a count, such as 1, or a part of the width, such as 0.2.",
        rich_help_panel=_RULE,
    ),
]
_PAdd = Annotated[
    float | None,
    typer.Option(help="Chance per step that a reserve that falls short is filled.", rich_help_panel=_RULE),
]
_PDelete = Annotated[
    float | None,
    typer.Option(
        help="Chance per step that a unit in excess of the reserve is deleted.", rich_help_panel=_RULE
    ),
]
_MaxUnits = Annotated[int | None, typer.Option(help="Never more units than this.", rich_help_panel=_RULE)]


def grow_command(
    task: _Task = None,
    revision: _Revision = None,
    price: _Price = None,
    cycles: _Cycles = None,
    seed: _Seed = None,
    out: _Out = None,
    overwrite: _Overwrite = False,
    resume: _Resume = None,
    quiet: _Quiet = False,
    watch: _Watch = False,
    port: _Port = None,
    threshold: _Threshold = None,
    reserve: _Reserve = None,
    p_add: _PAdd = None,
    p_delete: _PDelete = None,
    max_units: _MaxUnits = None,
) -> None:
    """Grow a recurrent network from one unit on a task (easy, hard, transition) or a text.

    The network predicts the next character. Its loss is shown in nats per 40 characters, beside the best
    that any network can reach (the floor), where that is known. Ctrl-C ends the run early and saves it;
    [bold]--resume[/] goes on with it.

    The run folder holds [bold]run.json[/] (settings and final figures), [bold]history.csv[/]
    (cycle, loss, units), [bold]events.jsonl[/] (each addition and deletion),
    [bold]importances.jsonl[/] (what each unit was worth over time),
    [bold]model.safetensors[/] (the weights) and [bold]units.png[/] (loss and units over time).

    [bold]Examples[/]

      diffstruct grow hard

      diffstruct grow hard --revision 2 --cycles 50000

      diffstruct grow my_text.txt --out runs/mine

      diffstruct grow hard --watch

      diffstruct grow --resume runs/mine
    """
    # At these sizes a second thread costs more than it gives, and one thread adds up in one order.
    torch.set_num_threads(1)
    if port is not None and not watch:
        raise ConfigurationError("--port goes with --watch")
    ruled = {
        "threshold": threshold,
        "reserve": None if reserve is None else _count_or_part(reserve),
        "p_add": p_add,
        "p_delete": p_delete,
        "max_units": max_units,
    }
    if resume is not None:
        if overwrite or (out is not None and out.resolve() != resume.resolve()):
            raise ConfigurationError("--resume goes on in RUN: leave out --out and --overwrite")
        expected = {"revision": revision, "cycles": cycles, "seed": seed, "price": price, **ruled}
        try:
            run = _resumed(resume, task, expected)
        except FinishedError as finished:
            print(finished)
            return
    elif task is not None:
        rule = _rule(revision, price, **ruled)
        run = Run(task, revision=revision, cycles=cycles, seed=seed or 0, rule=rule)
    else:
        raise ConfigurationError("name what to read, as in diffstruct grow hard, or a run with --resume RUN")
    way = "" if revision is None else f"-r{revision}"
    path = resume or out or Path("runs") / f"{run.name}{way}-s{run.seed}"
    summary = _watched(run, path, overwrite, quiet, port or 0) if watch else _go(run, path, overwrite, quiet)
    if summary["status"] == "stopped":
        raise typer.Exit(INTERRUPTED)


def _resumed(path: Path, task: str | None, expected: Mapping[str, Any]) -> Run:
    """The run that goes on in a folder; warnings are a line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResumeWarning)
        run = Run.resume(path, task, **expected)
    for warning in caught:
        print(f"diffstruct: {warning.message}", file=sys.stderr)
    return run


def _rule(revision: int | None, price: float | None, **options: Any) -> Rule:
    """The rule of the revision, with those options changed that are not None."""
    changed = {name: value for name, value in options.items() if value is not None}
    rule = replace(get_revision(revision).rule, **changed)
    if price is None:
        return rule
    if revision is not None or "threshold" in changed:
        raise ConfigurationError("--price goes with neither --revision nor --threshold, in whose place it is")
    return replace(rule, threshold=price)


def _count_or_part(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise ConfigurationError(
                f"reserve must be a count, such as 1, or a part of the width, such as 0.2, got {text!r}"
            ) from None


def _watched(run: Run, path: Path, overwrite: bool, quiet: bool, port: int) -> dict[str, Any]:
    """As `_go`, with a page that follows the run, and stays in its folder."""
    status = "running"
    with LivePage(lambda: record_of_run(run, status), port) as page:
        print(f"Watch it at {page.address}", flush=True)
        try:
            summary = _go(run, path, overwrite, quiet, lambda _: page.show())
            status = summary["status"]
        except DivergenceError:
            write([record_of_run(run, "diverged")], path / PAGE)
            raise
    write([record_of_run(run, status)], path / PAGE)
    return summary


def _go(
    run: Run,
    path: Path,
    overwrite: bool,
    quiet: bool,
    also: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Make the run and print its progress unless `quiet`; Ctrl-C or a SIGTERM ends it early. Its summary."""
    out = None if run.resumed else path
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: run.stop())
    if quiet:
        return run.go(out, overwrite=overwrite, observe=also)
    console = Console()
    if console.is_terminal:
        revision = run.trainer.revision.number
        named = "" if revision is None else f", revision {revision}"
        with LivePanel(console, f"diffstruct grow {run.name}{named}, seed {run.seed}") as panel:
            summary = run.go(out, overwrite=overwrite, observe=_both(panel, also))
    else:
        summary = run.go(out, overwrite=overwrite, observe=_both(PlainLines(console), also))
    console.print(
        f"{'Stopped early' if summary['status'] == 'stopped' else 'Done'}: {summary['final_units']} units, "
        f"loss {summary['final_loss']:.3f} after {summary['cycles']:,} cycles in "
        f"{duration(summary['seconds'])}. Picture and record: {path}",
        highlight=False,
        soft_wrap=True,
    )
    if summary["status"] == "stopped":
        command = f"diffstruct grow --resume {shlex.quote(str(path))}"
        console.print(f"To go on with it: {command}", highlight=False, soft_wrap=True)
    return summary


def _both(one: Callable[[Progress], None], other: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """An observer that tells two."""

    def tell(progress: Progress) -> None:
        one(progress)
        other(progress)

    return tell
