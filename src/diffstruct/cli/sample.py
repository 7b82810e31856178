"""`diffstruct sample`: text from a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from diffstruct.paper.loading import load_run
from diffstruct.paper.sampling import sample

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of the run.", show_default=False)]
_Length = Annotated[int, typer.Option(min=0, help="Characters to write.")]
_Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")]
_Temperature = Annotated[
    float, typer.Option(help="Below 1, likely characters are likelier still; above 1, less so.")
]
_Prompt = Annotated[
    str,
    typer.Option(
        help="What the network reads first; it is written, too.  "
        "[dim]\\[default: it starts in the middle of a text][/]",
        show_default=False,
    ),
]


def sample_command(
    run: _Run,
    length: _Length = 500,
    seed: _Seed = 0,
    temperature: _Temperature = 1.0,
    prompt: _Prompt = "",
) -> None:
    """Let a network that was grown write text.

    The network is the one at the end of the run or, if the run goes on or was killed, the one that was saved
    last. Each character is drawn as likely as the network expects it.

    [bold]Examples[/]

      diffstruct sample runs/hard-s3

      diffstruct sample runs/mine --length 2000 --prompt "It was " --temperature 0.7
    """
    torch.set_num_threads(1)
    model = load_run(run)
    print(prompt + sample(model, length, seed=seed, temperature=temperature, prompt=prompt))
