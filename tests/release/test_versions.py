"""What is said of versions in several places is the same."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import yaml
from helpers.command import here
from packaging.requirements import Requirement

import diffstruct as ds
from diffstruct import version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FORGE = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))


def test_the_command_prints_the_version(capsys):
    assert here("--version") == 0
    assert capsys.readouterr() == (f"diffstruct {ds.__version__}\n", "")


def test_sources_that_were_never_installed_have_no_known_version(monkeypatch):
    def unknown(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(version, "version", unknown)
    assert version.installed_version() == version.UNKNOWN == "0+unknown"


def test_the_oldest_versions_are_those_that_the_project_allows():
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    oldest = dict(line.split("==") for line in lines if "==" in line)
    extras = {**PROJECT["optional-dependencies"], "docs": [], "dev": []}
    for text in (*PROJECT["dependencies"], *(each for extra in extras.values() for each in extra)):
        requirement = Requirement(text)
        if requirement.name != "diffstruct":
            assert requirement.specifier.contains(oldest[requirement.name]), text
            floor = next(each.version for each in requirement.specifier if each.operator == ">=")
            assert oldest[requirement.name] == floor or oldest[requirement.name].startswith(f"{floor}."), text


def test_the_forge_tries_each_python_that_the_project_names():
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert FORGE["jobs"]["versions"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_the_forge_may_only_read_and_runs_what_there_is():
    assert FORGE["permissions"] == {"contents": "read"}
    for job in FORGE["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert "permissions" not in job
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/none@v1"))
    assert (ROOT / ".ci" / "run").exists()
    for each in FORGE["jobs"]["versions"]["strategy"]["matrix"]["include"]:
        for file in re.findall(r"--constraint (\S+)", each["install"]):
            assert (ROOT / file).exists()
