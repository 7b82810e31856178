"""What the README, the docs and the experiments tell users to type works.

In an empty folder, a page's commands one after the other: ours run, with fewer steps; the programs of
experiments read their arguments (`tests/experiments` runs them); make and pip are asked whether they know
what is meant. What is not tried at all is named here, with its reason.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import typer
from helpers.command import here

from diffstruct.cli import app
from diffstruct.paper.reproduce.study import Study

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS, *sorted(ROOT.glob("experiments/*/*.md"))]
BLOCK = re.compile(r"^ *```(\S*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`((?:diffstruct|make|python|pip install) [^`\n]+)`")
ASSIGNED = re.compile(r"[A-Z_]+=\S*")

UNTRIED = {
    "git clone URL diffstruct": "there is no server; `make release` builds the packages and installs one",
    "git commit --all --message Release VERSION": "changes the repository",
    "git tag --annotate vVERSION --message diffstruct VERSION": "changes the repository",
    "git push --follow-tags": "needs a server",
    ".venv/bin/python -m twine upload dist/*": "publishes; `make release` has twine check the packages",
    "python3 -m venv .venv": "makes an environment, as `make test` and `make release` do",
    "source .venv/bin/activate": "of that environment",
}
"""Commands that nothing here tries, and why not."""

BEFORE = {
    "index.md": ["diffstruct grow hard --seed 3", "diffstruct grow my_text.txt --out runs/mine"],
    "report.md": ["diffstruct grow hard"],
}
"""What the reader of a page has typed before, as the page says."""

FEWER = {
    "grow": ["--cycles", "120"],
    "reproduce": ["--cycles", "60", "--seeds", "1", "--figure", "hard", "--revision", "3", "--jobs", "1"],
}
"""What makes a command short; of an option that is given twice the last counts."""


def commands_in(block: str) -> Iterator[list[str]]:
    """The words of each command; what follows a # is left out."""
    for line in dedent(block).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while "&&" in words:
            at = words.index("&&")
            yield words[:at]
            words = words[at + 1 :]
        if words:
            yield words


def commands_of(page: Path) -> list[list[str]]:
    """All that a page tells the reader to type, in order."""
    blocks = [text for language, text in BLOCK.findall(page.read_text()) if language == "sh"]
    return [words for block in blocks for words in commands_in(block)]


def mentioned_in(page: Path) -> list[list[str]]:
    """What a page names within a sentence, and what it shows of a session."""
    shown = [text for language, text in BLOCK.findall(page.read_text()) if language == "text"]
    typed = [line[2:] for text in shown for line in dedent(text).splitlines() if line.startswith("$ ")]
    spans = SPAN.findall(BLOCK.sub("", page.read_text()))
    return [shlex.split(each, comments=True) for each in (*typed, *spans)]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)], ids=name_of)
def test_every_command_of_a_page_works(page, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("my_text.txt").write_text("It was the best of times. " * 40)
    for words in [*map(shlex.split, BEFORE.get(page.name, [])), *commands_of(page)]:
        if " ".join(words) not in UNTRIED:
            with monkeypatch.context() as patched:
                while ASSIGNED.fullmatch(words[0]):
                    patched.setenv(*words.pop(0).split("=", 1))
                TRY[words[0]](words[1:], patched)


def ours(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of ours, in this process."""
    found = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in arguments]
    if {"RAY_ADDRESS", "DASK_SCHEDULER_ADDRESS"} & {
        *os.environ
    }:  # nobody's; tests/cli has clusters of its own
        monkeypatch.setattr(Study, "go", lambda *_: None)
    fewer = [] if "--help" in arguments else FEWER.get(arguments[0], [])
    assert here(*(word for words in found for word in words), *fewer) == 0, arguments


class Understood(BaseException):
    """A program has read its arguments, and would begin now."""


def program(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of the repository reads its arguments, as it would first."""
    path = ROOT / arguments[0]
    source = (path / "__main__.py" if path.is_dir() else path).read_text()
    if "argparse" not in source and "Options(" not in source:
        assert arguments[1:] == []  # it would begin at once
        return
    modules, folders = {*sys.modules}, [*sys.path]
    read = argparse.ArgumentParser.parse_args

    def understand(parser: argparse.ArgumentParser, given: list[str] | None = None) -> None:
        options = read(parser, given)
        unknown = {*getattr(options, "study", [])} - {*getattr(parser, "studies", [])}
        assert not unknown
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", understand)
    monkeypatch.setattr(sys, "argv", [str(path), *arguments[1:]])
    try:
        if path.is_file():  # a folder is put there by runpy
            sys.path.insert(0, str(path.parent))
        with pytest.raises(Understood):
            runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.path[:] = folders
        for name in {*sys.modules} - modules:  # programs have modules of the same names
            if str(ROOT / "experiments") in str(getattr(sys.modules[name], "__file__", None)):
                del sys.modules[name]


def make(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make knows the target."""
    dry = ["make", "--dry-run", "--always-make", "--directory", str(ROOT), *arguments]
    assert subprocess.run(dry, stdout=subprocess.DEVNULL).returncode == 0, arguments


def pip(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be installed is this project, with extras that it has, or what one of these consists of."""
    action, *rest = arguments
    assert action == "install"
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = told["optional-dependencies"]
    others = {re.match(r"[\w-]+", each).group() for some in extras.values() for each in some}
    for what in (word for word in rest if word != "-e"):
        name, _, chosen = what.rstrip("]").partition("[")
        assert name == "." or Path(name).name in {told["name"], *others}, arguments
        assert {*filter(None, chosen.split(","))} <= {*extras}, arguments


TRY = {"diffstruct": ours, "python": program, "make": make, "pip": pip}


@pytest.mark.parametrize("page", [page for page in PAGES if mentioned_in(page)], ids=name_of)
def test_commands_that_are_mentioned_exist(page, monkeypatch):
    commands = typer.main.get_command(app).commands
    for words in mentioned_in(page):
        kind, *arguments = words
        if kind == "diffstruct":
            command, *rest = arguments
            if command.startswith("-"):
                continue
            options = {name for each in commands[command].params for name in each.opts}
            assert {word for word in rest if word.startswith("-")} <= options | {"--help"}, words
        elif kind == "python" and not arguments[0].startswith("-"):
            assert (ROOT / arguments[0]).exists(), words
        elif kind != "python":
            TRY[kind](arguments, monkeypatch)


def test_no_block_is_overlooked_and_no_reason_is_left_over():
    languages = {language for page in PAGES for language, _ in BLOCK.findall(page.read_text())}
    assert languages <= {"sh", "python", "py", "text"}
    typed = {" ".join(words) for page in PAGES for words in commands_of(page)}
    assert {*UNTRIED} <= typed


def test_parts_of_programs_are_python():
    parts = [text for page in PAGES for language, text in BLOCK.findall(page.read_text()) if language == "py"]
    assert len(parts) > 5
    for part in parts:
        ast.parse(dedent(part))
