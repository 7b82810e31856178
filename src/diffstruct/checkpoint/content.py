"""The files of one checkpoint, written and read.

| file | content |
|---|---|
| `manifest.json` | format, version, number, and the sizes and SHA-256 checksums of the other two |
| `tree.json` | a table of objects, each with its kind and its state |
| `tensors.safetensors` | tensors and arrays in it |
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from diffstruct.checkpoint.arrays import chunks, fill
from diffstruct.checkpoint.files import (
    MAX_JSON,
    Damaged,
    from_json,
    memory,
    open_regular,
    read_into,
    size_of,
    sync,
    to_json,
    write,
)
from diffstruct.checkpoint.folder import MANIFEST, number_of
from diffstruct.checkpoint.objects import Saved
from diffstruct.checkpoint.tree import Reader, Writer
from diffstruct.errors import CheckpointError

FORMAT = "diffstruct checkpoint"
VERSION = 1
TREE, TENSORS = "tree.json", "tensors.safetensors"

_MAX_MANIFEST = 2**12


class Content:
    """What is to be saved, in the form in which it is written.

    Raises:
        CheckpointError: something in it cannot be saved.
    """

    def __init__(self, objects: Mapping[str, Saved]) -> None:
        writer = Writer()
        tree = {name: [item.kind, writer.node(item.state, (name,))] for name, item in objects.items()}
        self._tree = to_json(tree)
        self._entries = writer.entries
        if len(self._tree) > MAX_JSON:
            raise CheckpointError(
                f"what is to be saved has {len(self._tree)} bytes beside tensors and arrays, and {MAX_JSON} "
                "are allowed: make arrays of long lists of numbers"
            )

    def write(self, folder: Path, number: int) -> None:
        """Make the folder, with the files in it, and wait until the disk has them."""
        folder.mkdir()
        files = {
            TREE: write(folder / TREE, [self._tree]),
            TENSORS: write(folder / TENSORS, chunks(self._entries.values())),
        }
        manifest = {"format": FORMAT, "version": VERSION, "number": number, "files": files}
        write(folder / MANIFEST, [to_json(manifest)])
        sync(folder)


def read(path: Path) -> dict[str, Saved]:
    """Read a checkpoint, all of it, and check all of it.

    Raises:
        Damaged: it is not as it was written.
        CheckpointError: it is larger than the memory of this machine.
    """
    with (
        open_regular(path / MANIFEST) as manifest,
        open_regular(path / TREE) as tree,
        open_regular(path / TENSORS) as tensors,
    ):
        files = _files_of(from_json(_whole(manifest, _MAX_MANIFEST, sha256()), MANIFEST), number_of(path))
        for name, file in ((TREE, tree), (TENSORS, tensors)):
            if size_of(file) != files[name]["bytes"]:
                raise Damaged(f"{name} has {size_of(file)} bytes in place of {files[name]['bytes']}")
        if files[TENSORS]["bytes"] > memory():
            raise CheckpointError(f"{path} has {files[TENSORS]['bytes']} bytes, for which there is no memory")
        digest = sha256()
        text = _whole(tree, MAX_JSON, digest)
        _compare(TREE, digest.hexdigest(), files)
        reader = Reader(budget=files[TENSORS]["bytes"])
        saved = _saved(from_json(text, TREE), reader)
        digest = sha256()
        fill(reader.entries.values(), tensors, files[TENSORS]["bytes"], digest)
        _compare(TENSORS, digest.hexdigest(), files)
    return saved


def _whole(file: BinaryIO, limit: int, digest: Any) -> bytes:
    """All that is in a file, if that is not too much."""
    size = size_of(file)
    if size > limit:
        raise Damaged(f"{Path(file.name).name} has {size} bytes, and {limit} are allowed")
    content = bytearray(size)
    read_into(file, content, digest)
    return bytes(content)


def _compare(name: str, digest: str, files: Mapping[str, Any]) -> None:
    if digest != files[name]["sha256"]:
        raise Damaged(f"{name} does not have the checksum that it had when it was saved")


def _files_of(manifest: Any, number: int | None) -> dict[str, Any]:
    """Sizes and checksums of the files, which have fixed names: a manifest leads nowhere else."""
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise Damaged(f"{MANIFEST} is not that of a checkpoint of diffstruct")
    if manifest.get("version") != VERSION:
        raise Damaged(f"its format is version {manifest.get('version')!r:.40}, and {VERSION} is known here")
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != {TREE, TENSORS}:
        raise Damaged(f"{MANIFEST} does not name the files of a checkpoint")
    for each in files.values():
        types = {key: type(value) for key, value in each.items()} if isinstance(each, dict) else {}
        if types != {"bytes": int, "sha256": str}:
            raise Damaged(f"{MANIFEST} lacks a size or a checksum")
    if number is not None and manifest.get("number") != number:
        raise Damaged(f"it was saved under the number {manifest.get('number')!r:.40}")
    return files


def _saved(tree: Any, reader: Reader) -> dict[str, Saved]:
    """The objects of a checkpoint."""
    if not isinstance(tree, dict):
        raise Damaged(f"{TREE} is no table of objects")
    saved = {}
    for name, item in tree.items():
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
            raise Damaged(f"{TREE} has an object without a kind")
        saved[name] = Saved(item[0], reader.value(item[1]))
    return saved
