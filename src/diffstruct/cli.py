"""The command line: parse, call, print."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from diffstruct import __version__
from diffstruct.criteria.l1 import UnitPrice
from diffstruct.errors import ConfigurationError, DiffstructError
from diffstruct.paper.display import LivePanel, PlainLines, duration
from diffstruct.paper.revisions import REVISIONS, get_revision
from diffstruct.paper.run import Run

FAILED = 1
INTERRUPTED = 130  # what shells give a command that Ctrl-C ended
BAD_INPUT = 2

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"diffstruct {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Neural networks whose structure is learned: units come and go by gradient descent, from one."""


@app.command("grow")
def grow_command(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK|FILE",
            help="[bold]easy[/], [bold]hard[/], [bold]transition[/] (easy, hard, easy), "
            "or the path of any UTF-8 text file.",
        ),
    ],
    revision: Annotated[
        int | None,
        typer.Option(
            metavar="1|2|3",
            help="Grow as in a revision of the paper. 1 and 2 price a multiplier on each unit (1 with its "
            "known gradient defect); 3 prices outgoing weights.  "
            "[dim]\\[default: each unit must earn its price in nats][/]",
            show_default=False,
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            help="What a unit must earn, in nats per character; not for the paper's revisions.  "
            f"[dim]\\[default: {UnitPrice().nats}][/]",
            show_default=False,
        ),
    ] = None,
    cycles: Annotated[
        int | None,
        typer.Option(
            help="Updates, of 40 characters each.  [dim]\\[default: 100000; revisions 1 and 2: 300000][/]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same run, bit for bit, on one machine.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The run folder.  [dim]\\[default: runs/TASK-sSEED, with -rREVISION in between][/]",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run that the folder already holds.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Salience up to which a unit is in the reserve.",
            rich_help_panel="The rule (default: what suits the way to grow)",
        ),
    ] = None,
    reserve: Annotated[
        str | None,
        typer.Option(
            help="Units to hold in reserve: a count, such as 1, or a part of the width, such as 0.2.",
            rich_help_panel="The rule (default: what suits the way to grow)",
        ),
    ] = None,
    p_add: Annotated[
        float | None,
        typer.Option(
            help="Chance per update that a reserve that falls short is filled.",
            rich_help_panel="The rule (default: what suits the way to grow)",
        ),
    ] = None,
    p_delete: Annotated[
        float | None,
        typer.Option(
            help="Chance per update that a unit in excess of the reserve is deleted.",
            rich_help_panel="The rule (default: what suits the way to grow)",
        ),
    ] = None,
    max_units: Annotated[
        int | None,
        typer.Option(
            help="Never more units than this.",
            rich_help_panel="The rule (default: what suits the way to grow)",
        ),
    ] = None,
) -> None:
    """Grow a recurrent network from one unit on a task or a text.

    The network predicts the next character. Its loss is shown in nats per 40 characters, beside the best
    that any network can reach (the floor), where that is known. Ctrl-C ends the run early and saves it.

    The run folder holds [bold]run.json[/] (settings and final figures), [bold]history.csv[/]
    (cycle, loss, units), [bold]events.jsonl[/] (each addition and deletion),
    [bold]model.safetensors[/] (the weights) and [bold]units.png[/] (loss and units over time).

    [bold]Examples[/]

      diffstruct grow hard

      diffstruct grow hard --revision 2 --cycles 50000

      diffstruct grow my_text.txt --out runs/mine
    """
    # At these sizes a second thread costs more than it gives, and one thread adds up in one order.
    torch.set_num_threads(1)
    wanted: dict[str, Any] = {
        "threshold": threshold,
        "reserve": None if reserve is None else _count_or_part(reserve),
        "p_add": p_add,
        "p_delete": p_delete,
        "max_units": max_units,
    }
    changed = {name: value for name, value in wanted.items() if value is not None}
    rule = replace(get_revision(revision).rule, **changed)
    if price is not None:
        if revision is not None or threshold is not None:
            raise ConfigurationError(
                "--price goes with neither --revision nor --threshold, in whose place it is"
            )
        rule = replace(rule, threshold=price)
    run = Run(task, revision=revision, cycles=cycles, seed=seed, rule=rule)
    way = "" if revision is None else f"-r{revision}"
    path = out or Path("runs") / f"{run.name}{way}-s{seed}"
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: run.stop())

    console = Console()
    if quiet:
        summary = run.go(path, overwrite=overwrite)
    elif console.is_terminal:
        named = "" if revision is None else f", revision {revision}"
        title = f"diffstruct grow {run.name}{named}, seed {seed}"
        with LivePanel(console, title) as panel:
            summary = run.go(path, overwrite=overwrite, observe=panel)
    else:
        summary = run.go(path, overwrite=overwrite, observe=PlainLines(console))
    stopped = summary["status"] == "stopped"
    if not quiet:
        console.print(
            f"{'Stopped early' if stopped else 'Done'}: {summary['final_units']} units, "
            f"loss {summary['final_loss']:.3f} after {summary['cycles']:,} cycles in "
            f"{duration(summary['seconds'])}. Picture and record: {path}",
            highlight=False,
            soft_wrap=True,
        )
    if stopped:
        raise typer.Exit(INTERRUPTED)


@app.command("reproduce")
def reproduce_command(
    figure: Annotated[
        str,
        typer.Option(
            metavar="easy|hard|fixed|transition|all",
            help="Which figure: the easy task, the hard task, learned size against [bold]fixed[/] sizes on "
            "hard, or the [bold]transition[/] easy, hard, easy.",
        ),
    ] = "all",
    revision: Annotated[str, typer.Option(metavar="1|2|3|all", help="Which revision of the paper.")] = "all",
    seeds: Annotated[int, typer.Option(help="Runs of each setting; their seeds are 0, 1, 2, ...")] = 20,
    cycles: Annotated[
        int | None,
        typer.Option(
            help="Updates of each run.  [dim]\\[default: the paper's: 300000; revision 3: 100000][/]",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs side by side.  [dim]\\[default: one a core][/]", show_default=False),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="loky|ray|dask",
            help="Where to run: processes of this machine ([bold]loky[/]), or a Ray or Dask cluster, the one "
            "that RAY_ADDRESS or DASK_SCHEDULER_ADDRESS names, else one started here.",
        ),
    ] = "loky",
    out: Annotated[Path, typer.Option(help="The folder to fill, and to go on from.")] = Path(
        "runs/reproduce"
    ),
) -> None:
    """Reproduce the paper's figures: runs of every setting, and their medians.

    Each finished run is kept at once. Stop it at any time: the same command
    goes on where it stopped, and only the runs in flight are made again. More
    seeds, figures or revisions may be asked for later, in the same folder.

    The folder holds [bold]RESULTS.md[/] (tables, beside the paper's numbers),
    [bold]summary.json[/] (the same for programs), [bold]figures/[/] (PNG and
    SVG) and [bold]runs/[/] (settings, curve and final figures of each run).
    They cover what the command asked for, as far as it is finished.

    Exit code: 0 if every run finished, 1 if one failed, 2 for bad input,
    130 if stopped.

    [bold]Examples[/]

      diffstruct reproduce --figure hard --revision 3 --seeds 8

      diffstruct reproduce --cycles 3000 --seeds 3 --out runs/quick
    """
    # Here and not above: only this command needs joblib and SciPy, which take a while to import.
    from diffstruct.paper.reproduce.display import GridBar, GridLines
    from diffstruct.paper.reproduce.settings import FIGURES, choose, panels
    from diffstruct.paper.reproduce.study import Study

    figures = choose(figure, FIGURES, "figure")
    revisions = map(int, choose(revision, [str(number) for number in REVISIONS], "revision"))
    study = Study(panels(figures, revisions), out, seeds, cycles)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    console = Console()
    stopped = False
    try:
        if console.is_terminal:
            with GridBar(console) as bar:
                study.go(backend, jobs, bar)
        else:
            study.go(backend, jobs, GridLines(console))
    except KeyboardInterrupt:
        stopped = True
    runs = study.write()["runs"]
    console.print(
        f"{'Stopped early' if stopped else 'Done'}: {runs['finished']} of {runs['asked']} runs finished, "
        f"{runs['failed']} failed. Tables and figures: {out / 'RESULTS.md'}"
        + (". The same command goes on from here." if stopped or runs["failed"] else ""),
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if stopped or runs["failed"]:
        raise typer.Exit(INTERRUPTED if stopped else FAILED)


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


def main() -> None:
    """Run the command line; errors of ours are one line on standard error and exit code 2."""
    try:
        app()
    except DiffstructError as error:
        print(f"diffstruct: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
