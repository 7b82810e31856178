"""What an installed diffstruct must do without any extra: `python smoke.py`, where nothing else is installed.

It needs neither pytest nor the sources, and stops with an error at the first thing that does not work.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from importlib import import_module
from importlib.metadata import metadata, version
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

import torch

import diffstruct as ds

STEPS = 600
COMMAND = Path(sysconfig.get_path("scripts")) / "diffstruct"


def make() -> tuple[torch.nn.Sequential, torch.optim.Optimizer, ds.Structure]:
    """A model that is larger than it need be, its optimizer, and the structure that learns its size."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    structure = ds.Structure(model, optimizer, example_inputs=(torch.ones(8, 2),), total_steps=STEPS)
    return model, optimizer, structure


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, structure: ds.Structure, to: int) -> None:
    """Go on to a step, each with a batch of its own: inside of a circle or outside."""
    for step in range(structure.steps, to):
        x = torch.rand(64, 2, generator=torch.Generator().manual_seed(step)) * 4 - 2
        loss = torch.nn.functional.cross_entropy(model(x), (x.square().sum(1) < 2).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        structure.step()


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models have the same weights, to the bit."""
    mine, yours = one.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], yours[name]) for name in {**mine, **yours})


def the_package_is_the_installed_one() -> None:
    """The version is that of the metadata, types are there, and no extra is."""
    assert ds.__version__ == version("diffstruct"), ds.__version__
    assert (Path(ds.__file__).parent / "py.typed").exists()
    assert Path(ds.__file__).is_relative_to(sysconfig.get_path("purelib")), ds.__file__


def a_structure_is_learned() -> None:
    """Widths are found, units go, and the plain model is smaller."""
    model, optimizer, structure = make()
    found = ds.find_widths(model, (torch.ones(8, 2),))
    assert [width.size for width in found.widths.values()] == [32], found
    train(model, optimizer, structure, STEPS)
    plain = structure.finish()
    assert structure.history.events, "nothing has changed"
    assert plain(torch.ones(8, 2)).shape == (8, 2)
    assert sum(each.numel() for each in plain.parameters()) < 32 * 5 + 2, str(structure)


def a_run_goes_on() -> None:
    """By state dicts, and by a checkpoint, it comes out the same, bit for bit."""
    whole, half = make(), make()
    train(*whole, STEPS)
    train(*half, STEPS // 2)
    with tempfile.TemporaryDirectory() as folder:
        names = ("model", "optimizer", "structure")
        ds.checkpoint.save(folder, step=STEPS // 2, **dict(zip(names, half, strict=True)))
        again = make()
        ds.checkpoint.load(folder, **dict(zip(names, again, strict=True)))
    train(*again, STEPS)
    assert same(whole[0], again[0]), "checkpoint"
    again = make()
    for each, saved in zip(reversed(again), reversed([each.state_dict() for each in half]), strict=True):
        each.load_state_dict(saved)
    train(*again, STEPS)
    assert same(whole[0], again[0]), "state dicts"


def compiled_layers_give_the_numbers_of_torch() -> None:
    """Numba compiles, and what it compiled is right."""
    layer, x = ds.nn.LSTM(3, 4), torch.rand(5, 2, 3)
    assert torch.allclose(layer(x)[0], layer.to_torch()(x)[0], atol=1e-6)


def the_command_line_works() -> None:
    """Help, version, and a short run, which leaves its folder."""
    with tempfile.TemporaryDirectory() as folder:

        def run(*arguments: str) -> str:
            command = [str(COMMAND), *arguments]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            return done.stdout

        assert "grow" in run("--help")
        assert run("--version").split() == ["diffstruct", version("diffstruct")]
        assert "Done" in run("grow", "easy", "--cycles", "2000", "--out", "run")
        left = {path.name for path in (Path(folder) / "run").iterdir()}
        assert {"run.json", "history.csv", "events.jsonl", "model.safetensors", "units.png"} <= left, left


def what_lacks_its_extra_says_how_to_install_it() -> None:
    """Each integration is imported, or names an extra that there is."""
    extras = metadata("diffstruct").get_all("Provides-Extra") or []
    said: dict[str, str] = {}
    for module in iter_modules(import_module("diffstruct.integrations").__path__, "diffstruct.integrations."):
        try:
            import_module(module.name)
        except ImportError as error:
            said[module.name.rpartition(".")[2]] = str(error)
    missing = [name for name in ("lightning", "transformers") if find_spec(name) is None]
    assert {*missing} <= {*said}, (missing, said)
    commands = [f"pip install 'diffstruct[{extra}]'" for extra in extras]
    for text in said.values():
        assert any(command in text for command in commands), text
    print(f"  without their extras: {', '.join(said) or 'none'}")


CHECKS = (
    the_package_is_the_installed_one,
    a_structure_is_learned,
    a_run_goes_on,
    compiled_layers_give_the_numbers_of_torch,
    the_command_line_works,
    what_lacks_its_extra_says_how_to_install_it,
)


if __name__ == "__main__":
    print(f"diffstruct {ds.__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    for check in CHECKS:
        print(check.__name__.replace("_", " "), flush=True)
        check()
    print("all is well")
