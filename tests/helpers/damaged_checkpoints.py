"""Damages checkpoints in every way that we could think of, and sees what loading does.

`python tests/helpers/damaged_checkpoints.py 2000` tries that many, within a limit on memory, and prints what
came of each kind of damage. What was *damaged* no longer fits its checksums. What was *forged* does: it was
made by somebody who computes them anew.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.exact import same

import diffstruct as ds
from diffstruct.checkpoint.content import read
from diffstruct.checkpoint.objects import state_of

FILES = ("manifest.json", "tree.json", "tensors.safetensors")


def run(seed: int) -> dict[str, Any]:
    """The objects of a small run, one step old."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    numpy_rng = np.random.Generator((np.random.MT19937, np.random.Philox, np.random.PCG64)[seed % 3](seed))
    return {"model": model, "optimizer": optimizer, "rng": torch.Generator(), "numpy_rng": numpy_rng}


VALUES = {
    "step": 3,
    "losses": [0.5, float("inf")],
    "flags": np.array([True, False]),
    "big": 2**200,
    "name": "ü",
}


def states(objects: dict[str, Any]) -> dict[str, Any]:
    """A copy of the states of all objects."""
    return {name: deepcopy(state_of(item)) for name, item in objects.items()}


# What disks, networks and hands do.


def flip_a_bit(path: Path, rng: random.Random) -> None:
    """One bit of one file."""
    file = path / rng.choice(FILES)
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def lose_a_block(path: Path, rng: random.Random) -> None:
    """Zeros in place of some bytes."""
    file = path / rng.choice(FILES)
    content = bytearray(file.read_bytes())
    at = rng.randrange(len(content))
    length = min(rng.choice([1, 16, 512]), len(content) - at)
    content[at : at + length] = b"\0" * length
    if bytes(content) == file.read_bytes():
        content[at] ^= 1
    file.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    """A file that ends early, most of all at once."""
    file = path / rng.choice(FILES)
    os.truncate(file, rng.choice([0, rng.randrange(file.stat().st_size)]))


def append(path: Path, rng: random.Random) -> None:
    """Something after the end of a file."""
    with (path / rng.choice(FILES)).open("ab") as file:
        file.write(rng.choice([b" ", b"\n", b"\0" * 100, rng.randbytes(10)]))


def lose_a_file(path: Path, rng: random.Random) -> None:
    """A file that is gone, or a folder, a pipe or a link."""
    file = path / rng.choice(FILES)
    elsewhere = path.parent / f"{file.name}.elsewhere"
    file.rename(elsewhere)
    match rng.randrange(5):
        case 0:
            file.mkdir()
        case 1:
            os.mkfifo(file)
        case 2:
            file.symlink_to(elsewhere)
        case 3:
            file.symlink_to("/dev/zero")


def swap_files(path: Path, rng: random.Random) -> None:
    """A file of another checkpoint, or two files of this one."""
    one, other = rng.sample(FILES, 2)
    if rng.random() < 0.5:
        shutil.copy(path.parent / "000001" / one, path / one)
    else:
        (path / one).rename(path / "aside")
        (path / other).rename(path / one)
        (path / "aside").rename(path / other)


def swap_checkpoints(path: Path, rng: random.Random) -> None:
    """A checkpoint under the number of another."""
    del rng
    shutil.rmtree(path)
    shutil.copytree(path.parent / "000001", path)


def fill_with_noise(path: Path, rng: random.Random) -> None:
    """A file of other bytes."""
    file = path / rng.choice(FILES)
    file.write_bytes(rng.randbytes(rng.choice([1, 100, file.stat().st_size])))


# What somebody does who computes the checksums anew.


def seal(path: Path, change: Callable[[dict[str, Any]], object] = lambda manifest: None) -> None:
    """Compute the checksums anew, and change the manifest."""
    manifest = json.loads((path / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        content = (path / name).read_bytes()
        entry.update(bytes=len(content), sha256=sha256(content).hexdigest())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":")) + "\n")


def forge_the_manifest(path: Path, rng: random.Random) -> None:
    """Paths that lead elsewhere, wrong types, a version of the future."""
    files = {"bytes": 1, "sha256": "0" * 64}
    outside = str(path.parent / "000001" / "tree.json")

    def change(manifest: dict[str, Any]) -> None:
        entry = manifest["files"]["tree.json"]
        changes: list[Callable[[], object]] = [
            lambda: manifest.update(version=rng.choice([0, 2, "1", None, 1.5, [1]])),
            lambda: manifest.update(format=rng.choice(["", None, {}])),
            lambda: manifest.update(number=rng.choice([1, "2", None, -2])),
            lambda: manifest.update(files=rng.choice([[], {}, None, "tree.json"])),
            lambda: manifest["files"].update({"../000001/tree.json": files}),
            lambda: manifest["files"].update({"../000001/tree.json": manifest["files"].pop("tree.json")}),
            lambda: manifest["files"].update({outside: manifest["files"].pop("tensors.safetensors")}),
            lambda: entry.update(bytes=rng.choice([-1, 2**62, "9", True, None, 10**30])),
            lambda: entry.update(sha256=rng.choice(["", None, [], "0" * 64])),
            lambda: entry.clear(),
            lambda: manifest["files"].update({"tensors.safetensors": None}),
        ]
        rng.choice(changes)()

    seal(path, change)


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Each place in a JSON value, as a container and a key."""
    children = (
        enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    )
    return [place for key, each in [*children] for place in [(value, key), *nodes(each)]]


def forge_a_node(path: Path, rng: random.Random) -> None:
    """Something else in place of any node of the tree."""
    tree = json.loads((path / "tree.json").read_text())
    container, key = rng.choice(nodes(tree))
    container[key] = rng.choice(
        [
            *(None, True, -1, 0, 2**63, 1.5, "", "x", "../../etc/passwd", [], {}, [[]], {"a": 1, "b": 2}),
            *(
                {"object": "os.system"},
                {"torch.device": "evil"},
                {"torch.dtype": "os"},
                {"torch.Size": ["a"]},
            ),
            *({"int": "zz"}, {"int": "0x" + "f" * 9999}, {"float": "00"}, {"bytes": "0"}, {"tuple": {}}),
            *({"dict": [[1]]}, {"dict": [[[], 1]]}, {"dict": [["a", 1], ["a", 2]]}, {"dict": [[True, 1]]}),
            *({"scalar": ["<f4", "00"]}, {"scalar": ["|O", "00" * 8]}, {"scalar": ["|b1", "02"]}),
            *({"state_dict": [[], 1]}, {"Counter": [["a", "b"]]}, {"tensor": ["x", "float32", [2]]}),
        ]
    )
    (path / "tree.json").write_text(json.dumps(tree, separators=(",", ":")) + "\n")
    seal(path)


def forge_a_tensor(path: Path, rng: random.Random) -> None:
    """A tensor of another type or shape, or of a size that nobody has."""
    tree = json.loads((path / "tree.json").read_text())
    tensors = [
        container[key]
        for container, key in nodes(tree)
        if key in ("tensor", "array") and isinstance(container, dict)
    ]
    name = rng.choice(tensors)
    where = rng.randrange(1, 3)
    name[where] = rng.choice(
        [
            *([2**62], [2**40], [2**31, 2**31], [0, 2**62], [-1], [1] * 100, [2**64], [0], [1.0], "ab", None),
            *([1] * 70, [0] * 64, {}, [[]], 3, [True]),
        ]
        if where == 2
        else ["float64", "int8", "object", "|O", "<U1", "os.system", "", None, [], "__class__", "quint8"]
    )
    (path / "tree.json").write_text(json.dumps(tree, separators=(",", ":")) + "\n")
    seal(path)


def forge_the_header(path: Path, rng: random.Random) -> None:
    """Another head of the safetensors file: huge, overlapping, or no JSON."""
    file = path / "tensors.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    size = length
    match rng.randrange(5):
        case 0:
            size = rng.choice([0, 2**63, 2**64 - 1, length - 1, length + 1, 10**9])
        case 1:
            header[rng.choice([*header])]["data_offsets"] = [0, rng.choice([2**62, 0, -1])]
        case 2:
            header[rng.choice([*header])]["shape"] = rng.choice([[2**62], [-1], "x", None])
        case 3:
            header.pop(rng.choice([*header]))
        case 4:
            header = rng.choice([[], "x", {"__metadata__": {"a": "b"}}])
    text = json.dumps(header, separators=(",", ":")).encode()
    file.write_bytes(
        size.to_bytes(8, "little") + text.ljust(length)[: max(length, len(text))] + content[8 + length :]
    )
    seal(path)


def plant_a_bomb(path: Path, rng: random.Random) -> None:
    """JSON that is deep, long, or has numbers that take for ever, and files that have no end on paper."""
    file = path / rng.choice(["tree.json", "manifest.json"])
    million = 10**6
    match rng.randrange(8):
        case 0:
            text = "[" * million + "]" * million + "\n"
        case 1:
            text = '{"a":' * million + "1" + "}" * million + "\n"
        case 2:
            text = '{"step":["value",' + "9" * 5 * million + "]}\n"
        case 3:
            text = (
                '{"step":["value",' + rng.choice(["1e999", "NaN", "Infinity", "0." + "3" * million]) + "]}\n"
            )
        case 4:
            text = '{"step":["value",{"int":"0x' + "f" * million + '"}]}\n'
        case 5:
            text = '{"step":["value",' + "[" * 100 + "]" * 100 + "]}\n"
        case 6:
            text = '{"step":["value",[' + "[]," * (2 * million) + "[]]]}\n"
        case 7:
            os.truncate(file, rng.choice([2**31, 2**40]))
            with (path / "tensors.safetensors").open("rb+") as tensors:
                tensors.truncate(2**40)
            if file.name == "tree.json":
                huge = {"bytes": 2**40, "sha256": "0" * 64}
                manifest = json.loads((path / "manifest.json").read_text())
                manifest["files"] = {"tree.json": huge, "tensors.safetensors": huge}
                (path / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":")) + "\n")
            return
    file.write_text(text)
    if file.name == "tree.json":
        seal(path)


def forge_the_generators(path: Path, rng: random.Random) -> None:
    """A place outside of a generator's memory, or a state of another length."""
    tree = json.loads((path / "tree.json").read_text())
    generator = tree["numpy_rng"]
    pairs = [container for container, key in nodes(generator) if key == 0 and isinstance(container[0], str)]
    pair = rng.choice([pair for pair in pairs if len(pair) == 2])
    pair[1] = rng.choice([625, -1, 2**31, 2**40, "0", None, [], {"dict": []}])
    (path / "tree.json").write_text(json.dumps(tree, separators=(",", ":")) + "\n")
    seal(path)


def save_other_shapes(path: Path, rng: random.Random) -> None:
    """A checkpoint that is whole, of a model that has other shapes."""
    shutil.rmtree(path)
    shape = rng.choice([(3, 4), (5, 2)])
    model = torch.nn.Sequential(torch.nn.Linear(*shape), torch.nn.BatchNorm1d(shape[1]))
    rest = {"rng": torch.Generator(), "numpy_rng": np.random.default_rng()}
    ds.checkpoint.save(path.parent, model=model, optimizer=torch.optim.Adam(model.parameters()), **rest)


DAMAGES = (
    flip_a_bit,
    lose_a_block,
    truncate,
    append,
    lose_a_file,
    swap_files,
    swap_checkpoints,
    fill_with_noise,
)
FORGERIES = (
    *(forge_the_manifest, forge_a_node, forge_a_node, forge_a_tensor, forge_the_header, plant_a_bomb),
    *(forge_the_generators, save_other_shapes),
)


def trial(number: int, place: Path) -> tuple[str, str, str]:
    """Damage a checkpoint and load it; return the kind of damage, what came of it, and the error.

    Raises:
        AssertionError: it was loaded though it was damaged, or something else was loaded than what it says,
            or an error left objects changed.
    """
    rng = random.Random(number)
    kind = (*DAMAGES, *FORGERIES)[number % (len(DAMAGES) + len(FORGERIES))]
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        ds.checkpoint.save(folder, **run(number + 1), **VALUES)
        path = ds.checkpoint.save(folder, **run(number), **VALUES)
        kind(path, rng)
        objects = run(number + 3) | (
            {"numpy_rng": np.random.default_rng()} if kind is save_other_shapes else {}
        )
        before = states(objects)
        try:
            values = ds.checkpoint.load(folder, **objects)
        except ds.CheckpointError as error:
            assert same(states(objects), before), f"{number}: changed by {kind.__name__}"
            return kind.__name__, "refused", str(error)
        assert kind in FORGERIES, f"{number}: {kind.__name__} was loaded"
        saved = read(ds.checkpoint.latest(folder))
        now = {**states(objects), **values}
        written = {name: item.state for name, item in saved.items()}
        # An optimizer casts what it loads, so that it is not compared.
        for name in (*values, "rng", "numpy_rng"):
            assert same(now[name], written[name]), f"{number}: {name} is not what {kind.__name__} wrote"
        for key, tensor in now["model"].items():
            cast = written["model"][key].to(tensor.dtype)
            assert same(tensor, cast), f"{number}: {key} is not what {kind.__name__} wrote"
        return kind.__name__, "loaded as written", ""
    finally:
        shutil.rmtree(folder)


def main(count: int) -> None:
    """Try many, within two gigabytes beyond what Python has at the start."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * 2**30, resource.RLIM_INFINITY))
    outcomes: Counter[tuple[str, str]] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as place:
        for number in range(count):
            start = time.perf_counter()
            kind, outcome, _ = trial(number, Path(place))
            outcomes[kind, outcome] += 1
            slowest = max(slowest, time.perf_counter() - start)
    for (kind, outcome), times in sorted(outcomes.items()):
        print(f"{kind:22} {outcome:18} {times}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{count} checkpoints, the slowest took {slowest:.1f} s, {peak:.0f} MiB of memory at most")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]))
