"""`diffstruct reproduce`: the paper's figures."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from diffstruct.cli.exit_codes import FAILED, INTERRUPTED
from diffstruct.paper.revisions import REVISIONS

if TYPE_CHECKING:
    from diffstruct.paper.reproduce.study import Study

_Figure = Annotated[
    str,
    typer.Option(
        metavar="easy|hard|fixed|transition|all",
        help="Which figure: the easy task, the hard task, learned size against [bold]fixed[/] sizes on "
        "hard, or the [bold]transition[/] easy, hard, easy.",
    ),
]
_Revision = Annotated[str, typer.Option(metavar="1|2|3|all", help="Which revision of the paper.")]
_Seeds = Annotated[int, typer.Option(help="Runs of each setting; their seeds are 0, 1, 2, ...")]
_Cycles = Annotated[
    int | None,
    typer.Option(
        help="Steps of each run.  [dim]\\[default: the paper's: 300000; revision 3: 100000][/]",
        show_default=False,
    ),
]
_Jobs = Annotated[
    int | None,
    typer.Option(help="Runs side by side.  [dim]\\[default: one a core][/]", show_default=False),
]
_Backend = Annotated[
    str,
    typer.Option(
        metavar="loky|ray|dask",
        help="Where to run: processes of this machine ([bold]loky[/]), or a Ray or Dask cluster, the one "
        "that RAY_ADDRESS or DASK_SCHEDULER_ADDRESS names, else one started here.",
    ),
]
_Out = Annotated[Path, typer.Option(help="The folder to fill, and to go on from.")]


def reproduce_command(
    figure: _Figure = "all",
    revision: _Revision = "all",
    seeds: _Seeds = 20,
    cycles: _Cycles = None,
    jobs: _Jobs = None,
    backend: _Backend = "loky",
    out: _Out = Path("runs/reproduce"),
) -> None:
    """Reproduce the paper's figures: runs of every setting, and their medians.

    Each finished run is kept at once. Stop it at any time: the same command
    goes on where it stopped, and only the runs in flight are made again. More
    seeds, figures or revisions may be asked for later, in the same folder.

    The folder holds [bold]RESULTS.md[/] (tables, beside the paper's numbers),
    [bold]summary.json[/] (the same for programs), [bold]figures/[/] (PNG and
    SVG), [bold]curves.json[/] (what these draw) and [bold]runs/[/] (settings,
    curve and final figures of each run). They cover what the command asked
    for, as far as it is finished.

    Exit code: 0 if every run finished, 1 if one failed, 2 for bad input,
    130 if stopped.

    [bold]Examples[/]

      diffstruct reproduce --figure hard --revision 3 --seeds 8

      diffstruct reproduce --cycles 3000 --seeds 3 --out runs/quick
    """
    # Here and not above: only this command needs joblib and SciPy, which take a while to import.
    from diffstruct.paper.reproduce.settings import FIGURES, choose, panels
    from diffstruct.paper.reproduce.study import Study

    figures = choose(figure, FIGURES, "figure")
    revisions = map(int, choose(revision, [str(number) for number in REVISIONS], "revision"))
    study = Study(panels(figures, revisions), out, seeds, cycles)
    console = Console()
    stopped = _stopped(study, backend, jobs, console)
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


def _stopped(study: Study, backend: str, jobs: int | None, console: Console) -> bool:
    """Make the runs that are missing, with their progress on the console; whether the user stopped it."""
    from diffstruct.paper.reproduce.display import GridBar, GridLines

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        if console.is_terminal:
            with GridBar(console) as bar:
                study.go(backend, jobs, bar)
        else:
            study.go(backend, jobs, GridLines(console))
    except KeyboardInterrupt:
        return True
    return False
