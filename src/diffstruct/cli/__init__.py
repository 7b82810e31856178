"""The command line: a module for each command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from diffstruct import __version__
from diffstruct.cli.exit_codes import BAD_INPUT
from diffstruct.cli.grow import grow_command
from diffstruct.cli.report import report_command
from diffstruct.cli.reproduce import reproduce_command
from diffstruct.cli.sample import sample_command
from diffstruct.errors import DiffstructError

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


app.command("grow")(grow_command)
app.command("reproduce")(reproduce_command)
app.command("report")(report_command)
app.command("sample")(sample_command)


def main() -> None:
    """Run the command line; an error of diffstruct's own is one line on standard error and exit code 2."""
    try:
        app()
    except DiffstructError as error:
        print(f"diffstruct: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
