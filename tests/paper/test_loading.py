"""Run folders that are used: the model, text from it, and what a page shows."""

import json
import re
import shutil

import pytest
import torch
import torch.nn.functional as F
from helpers.command import here
from helpers.texts import one_line
from safetensors.torch import load_file, save_file

import diffstruct as ds
from diffstruct.history import History
from diffstruct.paper import Run, load_run, sample
from diffstruct.paper.compiled.trainer import FusedTrainer
from diffstruct.paper.network import CharRNN, multiply_adds, parameters
from diffstruct.paper.record import record_of_folder, record_of_run
from diffstruct.paper.revisions import build, get_revision
from diffstruct.paper.tasks import SEQUENCE, easy
from diffstruct.paper.training import Trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on the easy task that has come close to the floor, and its folder."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    run = Run("easy", cycles=6_000, seed=1)
    run.go(folder)
    return run, folder


def told(folder):
    return json.loads((folder / "run.json").read_text())


def pieces(text):
    """The part of a text that is whole pieces of the easy task: `ab` in parentheses, cut at both ends."""
    grammatical = sum(len(each) for each in re.findall(r"\((?:ab)+\)", text))
    return grammatical / len(text)


@pytest.mark.slow
def test_a_loaded_network_has_the_loss_that_the_run_ended_with(run):
    _, folder = run
    model = load_run(folder)
    assert type(model) is CharRNN
    assert not model.training
    assert model.rnn.hidden_size == told(folder)["final_units"]
    text = easy(length=20_001).text(torch.Generator().manual_seed(123))  # which it has not read
    inputs = model.encode("".join(model.alphabet[index] for index in text[:-1].tolist()))
    with torch.no_grad():
        logits, _ = model(inputs)
    loss = SEQUENCE * F.cross_entropy(logits, text[1:]).item()
    assert loss == pytest.approx(told(folder)["final_loss"], rel=0.06)  # which is smoothed
    assert loss < 1.1 * told(folder)["floor"]


@pytest.mark.slow
def test_text_from_it_is_of_the_task_and_the_same_for_the_same_seed(run, capsys):
    _, folder = run
    model = load_run(folder)
    text = sample(model, 1_000)
    assert len(text) == 1_000
    assert pieces(text) > 0.9
    untrained = CharRNN(4, 8, torch.Generator().manual_seed(0))
    untrained.alphabet = model.alphabet
    assert pieces(sample(untrained, 1_000)) < 0.2
    lengths = {len(each) for each in re.findall(r"\((?:ab)+\)", text)}
    assert len(lengths) > 3
    cold = sample(model, 400, temperature=0.02)  # choices are certain, and so all alike
    assert len({len(each) for each in re.findall(r"\)\((?:ab)+\)", cold)}) <= 1
    assert sample(model, 1_000) == text != sample(model, 1_000, seed=1)
    after = [sample(model, 1, seed=seed, prompt="(ab)(ab)(a") for seed in range(20)]
    assert after.count("b") >= 19
    for arguments in ([], ["--seed", "0"]):
        assert here("sample", folder, "--length", 1_000, *arguments) == 0
        assert capsys.readouterr().out == text + "\n"
    assert here("sample", folder, "--length", 3, "--prompt", "(ab)(a") == 0
    assert capsys.readouterr().out == "(ab)(a" + sample(model, 3, prompt="(ab)(a") + "\n"


@pytest.mark.slow
def test_the_record_of_a_folder_is_that_of_the_run(run):
    whole, folder = run
    record, live = record_of_folder(folder), record_of_run(whole, "finished")
    assert record.events == live.events
    assert record.events
    assert record.loss == [(step, pytest.approx(loss, abs=1e-6)) for step, loss in live.loss]
    assert (record.cost, record.floor) == (live.cost, live.floor)
    assert record.title == live.title
    assert record.unit_of_importance == live.unit_of_importance
    assert (record.step, record.total_steps, record.status) == (6_000, 6_000, "finished")
    (width,), (mine,) = record.widths, live.widths
    assert (width.name, width.start) == (mine.name, mine.start) == ("rnn", 1)
    assert len(width.samples) > 100
    for logged, sampled in zip(width.samples, mine.samples[: len(width.samples)], strict=True):
        assert logged.step == sampled.step
        assert logged.events == sampled.events
        assert logged.importances == pytest.approx(sampled.importances, rel=1e-3)
    trained = sum(each.numel() for each in whole.trainer.model.parameters())
    assert record.cost["parameters"][-1] == (6_000, trained)


@pytest.mark.slow
def test_a_folder_of_an_older_version_has_a_record_without_importances(run, tmp_path):
    folder = shutil.copytree(run[1], tmp_path / "old")
    (folder / "importances.jsonl").unlink()
    summary = told(folder)
    del summary["floors"]
    (folder / "run.json").write_text(json.dumps(summary))
    record, newer = record_of_folder(folder), record_of_folder(run[1])
    assert record.widths[0].samples == []
    assert record.floor == newer.floor
    assert (record.events, record.cost) == (newer.events, newer.cost)


def short(folder, **options):
    Run(easy(length=2_000), **{"cycles": 200, "seed": 2, **options}).go(folder)
    return folder


LOOPS = [(Trainer, None), (Trainer, 2), (FusedTrainer, None), (FusedTrainer, 1), (FusedTrainer, 3)]


@pytest.mark.slow
@pytest.mark.parametrize(("loop", "revision"), LOOPS)
def test_revisions_and_both_loops_log_importances_and_are_loaded(tmp_path, monkeypatch, loop, revision):
    monkeypatch.setattr("diffstruct.paper.run.fastest_trainer", lambda: loop)
    folder = short(tmp_path / "run", revision=revision)
    record = record_of_folder(folder)
    assert len(record.widths[0].samples) >= 8
    assert record.unit_of_importance != "importance"
    model = load_run(folder)
    assert type(model.multiplier) is (get_revision(revision).multiplier or type(None))
    assert set(sample(model, 40)) <= {*"()ab"}
    assert record.cost["parameters"][-1][1] == sum(each.numel() for each in model.parameters())


@pytest.mark.slow
def test_the_log_of_importances_stays_small_and_is_the_same_after_a_stop(tmp_path, monkeypatch):
    monkeypatch.setattr("diffstruct.history.history.SAMPLES", 20)
    monkeypatch.setattr("diffstruct.history.history.History.of_decisions", lambda _: History())
    monkeypatch.setattr("diffstruct.paper.run.TELL_EVERY", 0)
    text, whole = tmp_path / "text.txt", tmp_path / "whole"
    text.write_text("(ab)(abab)" * 50)
    options = {"cycles": 250, "seed": 2, "revision": 3}
    Run(text, **options).go(whole)  # which does not know how long it will be: samples are thinned out
    assert 10 <= len((whole / "importances.jsonl").read_text().splitlines()) <= 20
    run = Run(text, **options)
    run.go(tmp_path / "part", observe=lambda progress: run.stop() if progress.update >= 120 else None)
    (tmp_path / "part" / "importances.jsonl").write_text('{"half')
    Run.resume(tmp_path / "part").go()
    for name in ("importances.jsonl", "events.jsonl", "history.csv"):
        assert (tmp_path / "part" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_a_run_that_goes_on_can_be_read_and_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("diffstruct.paper.run.TELL_EVERY", 0)
    seen = []

    def look(progress):
        if progress.update < 200:
            seen.append((record_of_folder(tmp_path), load_run(tmp_path)))

    Run(easy(length=2_000), cycles=300).go(tmp_path, observe=look)
    record, model = seen[-1]
    assert record.status == "running"
    assert 0 < record.step < 300
    assert len(seen[0][0].loss) < len(record.loss)
    assert sample(model, 5, prompt="(")
    with (tmp_path / "events.jsonl").open("a") as log:
        log.write('{"update": 300, "wid')  # is being written
    assert record_of_folder(tmp_path).step == 300


@pytest.mark.slow
def test_stopped_and_diverged_runs_are_loaded(tmp_path, monkeypatch):
    run = Run(easy(length=2_000), cycles=300)
    run.stop()
    run.go(tmp_path / "stopped")
    assert load_run(tmp_path / "stopped").rnn.hidden_size == 1
    original = Trainer.advance
    for kind in (Trainer, FusedTrainer):

        def spoiled(trainer, stretch, original=kind.advance):
            if trainer.updates >= 100:
                with torch.no_grad():
                    trainer.model.readout.bias[0] = float("nan")
            return original(trainer, stretch)

        monkeypatch.setattr(kind, "advance", spoiled)
    assert original
    with pytest.raises(ds.DivergenceError):
        Run(easy(length=2_000), cycles=300).go(tmp_path / "diverged")
    model = load_run(tmp_path / "diverged")
    assert all(each.isfinite().all() for each in model.parameters())
    assert record_of_folder(tmp_path / "diverged").status == "diverged"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return short(tmp_path_factory.mktemp("short") / "run")


DAMAGE = {
    "run.json": [
        (None, "there is no run.json"),
        ("{", "run.json is damaged"),
        ("[]", "run.json is damaged"),
        ('{"alphabet": 3}', "run.json is damaged"),
        ('{"alphabet": "()ab", "revision": 7}', "run.json is damaged: revision"),
        ('{"alphabet": "()ab", "revision": []}', "run.json is damaged"),
        ('{"alphabet": "()abc", "revision": null}', "model.safetensors is damaged, or not of the network"),
        ('{"alphabet": "()ab", "revision": 2}', "model.safetensors is damaged, or not of the network"),
    ],
    "model.safetensors": [
        (None, "there is no model.safetensors"),
        ("", "model.safetensors is damaged"),
        ("no weights", "model.safetensors is damaged"),
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "says"), [(n, c, s) for n, all_ in DAMAGE.items() for c, s in all_]
)
def test_a_damaged_folder_is_no_model(folder, tmp_path, name, content, says, capsys):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_text(content)
    with pytest.raises(ds.RunFolderError, match=re.escape(says)) as caught:
        load_run(copy)
    assert str(copy) in one_line(caught)
    assert here("sample", copy) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_weights_of_another_network_are_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    weights["readout.weight"] = weights["readout.weight"][:, :-1].contiguous()
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(ds.RunFolderError, match=r"size mismatch for readout\.weight"):
        load_run(copy)
    with pytest.raises(ds.RunFolderError, match="holds no run"):
        load_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["events.jsonl", "history.csv", "importances.jsonl"])
@pytest.mark.parametrize("damage", ["cut", "other", "binary"])
def test_a_damaged_log_is_named_with_its_line(folder, tmp_path, name, damage):
    copy = shutil.copytree(folder, tmp_path / "copy")
    lines = (copy / name).read_bytes().splitlines()
    other = {
        "events.jsonl": lines[1].replace(b'"size": ', b'"size": 9'),
        "history.csv": b"1,2",
        "importances.jsonl": re.sub(rb'"events": \d+', b'"events": 0', lines[-1]),
    }[name]
    at = {"events.jsonl": 1, "history.csv": 1, "importances.jsonl": len(lines) - 1}[name]
    lines[at] = {"cut": lines[at][:3], "other": other, "binary": b"\xff\xfe"}[damage]
    (copy / name).write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(
        ds.RunFolderError, match=rf"{re.escape(name)} is damaged in line {at + 1}\b"
    ) as caught:
        record_of_folder(copy)
    one_line(caught)


def test_what_cannot_be_sampled_is_said(folder, capsys):
    model = load_run(folder)
    for options, error, says in [
        ({"prompt": "(abc"}, ds.DataError, "character 4 of the text is 'c'"),
        ({"temperature": 0.0}, ds.ConfigurationError, "temperature must be"),
        ({"temperature": float("inf")}, ds.ConfigurationError, "temperature must be"),
        ({"length": -1}, ds.ConfigurationError, "length must be"),
        ({"seed": -1}, ds.ConfigurationError, "seed must be"),
        ({"seed": 1 << 64}, ds.ConfigurationError, "seed must be"),
    ]:
        with pytest.raises(error, match=says):
            sample(model, **{"length": 5, **options})
    assert here("sample", folder, "--prompt", "(abc") == 2
    assert "'c', which the network does not know: its alphabet is '()ab'" in capsys.readouterr().err
    with pytest.raises(ds.ConfigurationError, match=r"set model\.alphabet"):
        sample(CharRNN(4, 3, torch.Generator()), 5)
    assert sample(model, 0) == ""


@pytest.mark.parametrize(("units", "revision"), [(1, 3), (7, 1), (5, 2), (6, None)])
def test_what_a_network_costs_is_what_it_has(units, revision):
    model = build(get_revision(revision), 4, 0, start_units=units).model
    multiplied = model.multiplier is not None
    assert parameters(4, units, multiplied) == sum(each.numel() for each in model.parameters())
    products = (model.rnn.weight_ih_l0, model.rnn.weight_hh_l0, model.readout.weight)
    assert multiply_adds(4, units) == sum(each.numel() for each in products)


def test_any_text_file_can_be_sampled(tmp_path):
    text = tmp_path / "poem.txt"
    text.write_text("to be, or not to be: é\n" * 9, encoding="utf-8")
    Run(text, cycles=60).go(tmp_path / "run")
    text.unlink()  # it is not needed any more
    assert set(sample(load_run(tmp_path / "run"), 200)) <= {*"to be, or not to be: é\n"}
