"""What is damaged or forged is refused: nothing is executed, no object is changed, no memory is eaten."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.damaged_checkpoints import DAMAGES, FORGERIES, seal, trial
from helpers.exact import same
from helpers.trees import TREES
from hypothesis import given
from hypothesis import strategies as st

import diffstruct as ds
from diffstruct.checkpoint import content, files
from diffstruct.checkpoint.tree import MAX_DEPTH

FILES = ("manifest.json", "tree.json", "tensors.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3 * len(DAMAGES + FORGERIES)))
def test_damaged_and_forged_checkpoints_are_refused(number, tmp_path):
    kind, outcome, error = trial(number, tmp_path)
    assert outcome == "refused" or kind.startswith("forge")
    assert outcome != "refused" or len(error) > 40


def small(folder):
    """A checkpoint of some 500 bytes."""
    return ds.checkpoint.save(folder, x=torch.tensor([True, False]), step=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@given(
    tree=TREES, name=st.sampled_from(FILES), at=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255)
)
def test_of_any_tree_every_byte_counts(tree, name, at, mask):
    with tempfile.TemporaryDirectory() as folder:
        file = ds.checkpoint.save(folder, tree=tree) / name
        raw = bytearray(file.read_bytes())
        raw[int(at * len(raw))] ^= mask
        file.write_bytes(raw)
        with pytest.raises(ds.CheckpointError, match="is damaged"):
            ds.checkpoint.load(folder)


@pytest.mark.slow
def test_no_single_byte_can_change_unseen(tmp_path):
    path = small(tmp_path)
    for name in FILES:
        whole = (path / name).read_bytes()
        for at in range(len(whole)):
            for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
                (path / name).write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
                with pytest.raises(ds.CheckpointError):
                    ds.checkpoint.load(tmp_path)
        (path / name).write_bytes(whole)
    assert ds.checkpoint.load(tmp_path)["step"] == 1


def test_a_damaged_checkpoint_is_named_with_the_last_whole_one_before_it(tmp_path):
    paths = [ds.checkpoint.save(tmp_path, step=step) for step in range(3)]
    for path in paths[1:]:
        (path / "tree.json").write_text("{}")
    with pytest.raises(ds.CheckpointError) as raised:
        ds.checkpoint.load(tmp_path)
    assert str(raised.value) == (
        f"the checkpoint {paths[2]} is damaged: tree.json has 2 bytes in place of 21. "
        f"The last whole one before it is loaded by load('{paths[0]}', ...)"
    )
    assert ds.checkpoint.load(paths[0]) == {"step": 0}
    shutil.rmtree(paths[0])
    with pytest.raises(ds.CheckpointError, match="There is no whole one before it"):
        ds.checkpoint.load(tmp_path)


def test_a_checkpoint_without_a_manifest_is_damaged(tmp_path):
    path = small(tmp_path)
    (path / "manifest.json").unlink()
    for folder in (tmp_path, path):
        with pytest.raises(ds.CheckpointError, match=r"000001 is damaged: manifest\.json is missing"):
            ds.checkpoint.load(folder)


def test_after_damage_saving_goes_on(tmp_path):
    small(tmp_path)
    path = ds.checkpoint.save(tmp_path, step=2)
    (path / "tree.json").unlink()
    assert ds.checkpoint.save(tmp_path, step=3).name == "000003"
    assert ds.checkpoint.load(tmp_path) == {"step": 3}


def test_a_disk_that_cannot_be_read_is_told_from_damage(tmp_path, monkeypatch):
    path = small(tmp_path)

    def refuse(*args):
        raise PermissionError(13, "Permission denied", str(path))

    for name in ("content.open_regular", "checkpoint.numbered"):
        with monkeypatch.context() as context:
            context.setattr(f"diffstruct.checkpoint.{name}", refuse)
            with pytest.raises(
                ds.CheckpointError, match=rf"cannot load from {tmp_path}: .* denied: '{path}'"
            ):
                ds.checkpoint.load(tmp_path)


def test_what_is_larger_than_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    ds.checkpoint.save(tmp_path, x=np.zeros(1000))
    monkeypatch.setattr(content, "memory", lambda: 1000)
    with pytest.raises(ds.CheckpointError, match=r"has 80[0-9]{2} bytes, for which there is no memory"):
        ds.checkpoint.load(tmp_path)


def test_memory_is_what_the_machine_has(monkeypatch):
    assert 2**28 < files.memory() < 2**50
    monkeypatch.delattr("os.sysconf")
    assert files.memory() == float("inf")


def forged(folder, text):
    """A checkpoint with a value of which the JSON is given, and the right checksums."""
    path = small(folder)
    (path / "tree.json").write_text('{"x":["value",' + text + "]}\n")
    (path / "tensors.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b"{}\n     ")
    seal(path)


def deep(levels):
    """Lists in lists."""
    return "[" * levels + "1" + "]" * levels


@pytest.mark.parametrize(
    "node",
    [
        {"object": "os.system"},
        {"int": "1" * 5000 + "g"},
        {"int": 1},
        {"float": "00"},
        {"tuple": "ab"},
        {"tuple": [1], "list": [2]},
        {},
        {"dict": [["a", 1], ["a", 2]]},
        {"dict": [[True, 1]]},
        {"dict": [[None, 1]]},
        {"dict": [[["a"], 1]]},
        {"dict": {"a": 1}},
        {"torch.device": 0},
        {"torch.device": "evil"},
        {"torch.dtype": "torch.onnx"},
        {"torch.Size": ["a"]},
        {"scalar": ["|b1", "02"]},
        {"scalar": ["|O8", "00" * 8]},
        {"scalar": ["<f4", "00" * 8]},
        {"tensor": ["x", "float32", [1]]},
        {"tensor": ["x", "float32", [2**62, 4, 0]]},
        {"tensor": ["x", "float32", [-1, 0]]},
        {"tensor": ["x", "float32", [0] * 65]},
        {"tensor": ["x", "load", [0]]},
        {"tensor": [[], "float32", [0]]},
        {"tensor": 3},
        {"array": ["x", "|O", [0]]},
    ],
    ids=lambda node: str(node)[:40],
)
def test_json_that_means_nothing_is_refused(node, tmp_path):
    forged(tmp_path, json.dumps(node, separators=(",", ":")))
    with pytest.raises(ds.CheckpointError, match=r"is damaged: (tree|tensors)"):
        ds.checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [deep(MAX_DEPTH), deep(90_000), "9" * 21, "9" * 10**6, "1" + "0" * 5000 + ".0"],
    ids=["too many levels", "90,000 levels", "21 digits", "1,000,000 digits", "a long float"],
)
def test_json_that_is_deep_or_long_is_refused(text, tmp_path):
    forged(tmp_path, text)
    with pytest.raises(ds.CheckpointError, match=r"is damaged: tree"):
        ds.checkpoint.load(tmp_path)


def test_json_that_is_just_not_too_deep_is_loaded(tmp_path):
    forged(tmp_path, deep(MAX_DEPTH - 1))
    assert same(ds.checkpoint.load(tmp_path), {"x": json.loads(deep(MAX_DEPTH - 1))})


@pytest.mark.parametrize(
    "text", ["[1, 2]\n", "[1,2]", '{"a":1,"a":1}\n', "[NaN]\n", "[1e999]\n", "[é]\n", "[\n"]
)
def test_json_has_one_form(text):
    with pytest.raises(files.Damaged):
        files.from_json(text.encode(), "it")


def test_truth_values_are_zero_or_one(tmp_path):
    path = small(tmp_path)
    file = path / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x02")
    seal(path)
    with pytest.raises(ds.CheckpointError, match="'x' has truth values that are neither 0 nor 1"):
        ds.checkpoint.load(tmp_path)


def test_a_version_of_the_future_is_named(tmp_path):
    path = small(tmp_path)
    seal(path, lambda manifest: manifest.update(version=2))
    with pytest.raises(ds.CheckpointError, match="its format is version 2, and 1 is known here"):
        ds.checkpoint.load(tmp_path)


def test_links_lead_nowhere(tmp_path):
    path = small(tmp_path)
    (tmp_path / "aside").mkdir()
    for name in FILES:
        elsewhere = Path(shutil.move(path / name, tmp_path / "aside" / name))
        (path / name).symlink_to(elsewhere)
        with pytest.raises(ds.CheckpointError, match=f"{name} is not a regular file"):
            ds.checkpoint.load(tmp_path)
        shutil.move(elsewhere, path / name)
