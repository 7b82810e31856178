"""`diffstruct report`, and `diffstruct grow --watch`, as a user meets them."""

import json
import re
import threading
import urllib.request

import pytest
import torch
from helpers.command import here

import diffstruct as ds
from diffstruct.report import live

pytestmark = pytest.mark.slow

RUN = ("grow", "easy", "--cycles", 900, "--seed", 3, "--quiet")
SAME = ("history.csv", "events.jsonl", "importances.jsonl", "model.safetensors", "units.png")


def data_of(path):
    (text,) = re.findall(r'id="data">(.*?)</script>', path.read_text())
    return json.loads(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert here(*RUN, "--out", out) == 0
    return out


@pytest.fixture
def structure():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters())
    return ds.Structure(model, optimizer, example_inputs=(torch.ones(4, 3),), total_steps=9)


def test_a_run_gets_its_page_in_its_folder_and_several_in_the_current_one(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert here("report", run) == 0
    assert capsys.readouterr() == (f"{run / 'report.html'}\n", "")
    (shown,) = data_of(run / "report.html")["runs"]
    assert (shown["step"], shown["status"]) == (900, "finished")
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert here("report", run, run, "--open") == 0
    assert len(data_of(tmp_path / "report.html")["runs"]) == 2
    assert opened == [(tmp_path / "report.html").as_uri()]
    assert here("report", run, "--out", tmp_path / "named.html") == 0
    assert data_of(tmp_path / "named.html")["runs"] == [shown]


def test_what_was_saved_of_a_structure_has_a_page(structure, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ds.checkpoint.save("saved", structure=structure, model=structure.model)
    torch.save({"model": structure.model.state_dict(), "structure": structure.state_dict()}, "all.pt")
    torch.save(structure.state_dict(), "alone.pt")
    for source, page in (
        ("saved", "saved/report.html"),
        ("all.pt", "report.html"),
        ("alone.pt", "report.html"),
    ):
        assert here("report", source) == 0
        (shown,) = data_of(tmp_path / page)["runs"]
        assert (shown["title"], shown["total"]) == (source, 9)
        assert [width["name"] for width in shown["widths"]] == ["0"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none"], "there is no none"),
        (["."], "neither a run of diffstruct grow nor a checkpoint"),
        (["text.txt"], "cannot read text.txt"),
        (["empty.pt"], "cannot read empty.pt"),
        (["other.pt"], "holds no state dict of a structure"),
        (["old.pt"], "format"),
        (["fine.pt", "none"], "there is no none"),
        (["fine.pt", "--out", "none/page.html"], "cannot write the report none/page.html"),
        (["damaged"], "run.json"),
    ],
)
def test_bad_input_gives_one_clear_line_and_exit_code_2(
    structure, tmp_path, monkeypatch, capsys, arguments, says
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("no tensors\n")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("{")
    torch.save({"weight": torch.ones(2)}, "other.pt")
    torch.save({**structure.state_dict(), "format": 0}, "old.pt")
    torch.save(structure.state_dict(), "fine.pt")
    before = {path.name for path in tmp_path.iterdir()}
    assert here("report", *arguments) == 2
    stdout, stderr = capsys.readouterr()
    assert (stdout, len(stderr.splitlines())) == ("", 1)
    assert stderr.startswith("diffstruct: ")
    assert says in stderr
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_run_that_is_watched_comes_out_the_same(run, tmp_path, monkeypatch, capsys):
    seen, over = [], threading.Event()
    begin = live.LivePage.__enter__

    def watch(page):
        def ask():
            while not over.is_set():
                with urllib.request.urlopen(f"{page.address}record.json", timeout=20) as answer:
                    seen.append(json.loads(answer.read())["runs"][0])
                over.wait(0.05)
                if seen[-1]["status"] != "running":
                    return

        begin(page)
        threading.Thread(target=ask, daemon=True).start()
        return page

    monkeypatch.setattr(live, "EVERY", 0.0)
    monkeypatch.setattr(live, "SHARE", 1e9)
    monkeypatch.setattr(live.LivePage, "__enter__", watch)
    monkeypatch.setattr("diffstruct.paper.run.TELL_EVERY", 0.0)
    assert here(*RUN, "--out", tmp_path / "run", "--watch") == 0
    over.set()
    stdout, stderr = capsys.readouterr()
    assert re.fullmatch(r"Watch it at http://127\.0\.0\.1:\d+/\n", stdout)
    assert stderr == ""
    for name in SAME:
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes(), name
    steps = [each["step"] for each in seen]
    assert steps == sorted(steps)
    assert len(set(steps)) > 3
    assert (seen[-1]["status"], seen[-1]["step"]) == ("finished", 900)
    (shown,) = data_of(tmp_path / "run" / "report.html")["runs"]
    assert (shown["step"], shown["status"]) == (900, "finished")
    assert here(*RUN[:2], "--cycles", 5, "--quiet", "--out", tmp_path / "run", "--overwrite") == 0
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_port_goes_with_watching(capsys, tmp_path):
    assert here(*RUN, "--out", tmp_path / "run", "--port", 8000) == 2
    assert "--port goes with --watch" in capsys.readouterr().err
