"""Builds wheel and sdist and tries them: `python tests/release`, or `make release`.

The wheel is installed into a fresh environment without extras, where `smoke.py` runs and mypy finds types.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"
RELATIVE_LINK = re.compile(r"\]\((?!https?:|#)[^)]*\)")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(*command: object, cwd: Path = ROOT) -> str:
    """Run a command to its end, which must be a good one; return what it printed on standard output."""
    print("$", *command, flush=True)
    return subprocess.run([*map(str, command)], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def build() -> tuple[Path, Path]:
    """Wheel and sdist; the wheel is built from the sdist, which shows that this has all that it takes."""
    rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST)
    run(sys.executable, "-m", "twine", "check", "--strict", *DIST.iterdir())
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    return wheel, sdist


def the_sdist_is_what_git_has(sdist: Path) -> None:
    """No file is missing, and none is stray."""
    with tarfile.open(sdist) as files:
        packed = {name.split("/", 1)[1] for name in files.getnames()} - {"PKG-INFO"}
    tracked = {*run("git", "ls-files").splitlines()}
    assert packed == tracked, (
        f"missing: {tracked - packed}, stray (add them to .gitignore): {packed - tracked}"
    )


def the_wheel_is_the_library_alone(wheel: Path) -> None:
    """With its types, and a description whose links work without the files beside the README."""
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        description = message_from_bytes(files.read(about)).get_payload()
    sources = {*run("git", "ls-files", cwd=ROOT / "src").splitlines()}
    assert {name for name in names if ".dist-info/" not in name} == sources
    assert isinstance(description, str)
    assert description.startswith("# diffstruct\n")
    assert not RELATIVE_LINK.findall(description), RELATIVE_LINK.findall(description)


def fresh_environment(folder: Path, wheel: Path) -> Path:
    """Its Python, with the wheel and what that needs, but no extra."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    return python


def the_readme_has_types(folder: Path, python: Path) -> None:
    """Its example passes a strict mypy, but for `Tensor.backward`, which PyTorch itself leaves untyped."""
    match = BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert match is not None
    example = folder / "example.py"
    example.write_text(match.group(1), encoding="utf-8")
    strict = "--strict", "--allow-untyped-calls", "--cache-dir", folder / "types"
    print(run(sys.executable, "-m", "mypy", *strict, "--python-executable", python, example, cwd=folder))


def main() -> None:
    """Build, look at what was built, install it, try it."""
    wheel, sdist = build()
    the_sdist_is_what_git_has(sdist)
    the_wheel_is_the_library_alone(wheel)
    with TemporaryDirectory() as folder:
        python = fresh_environment(Path(folder, "bare"), wheel)
        print(run(python, "-I", ROOT / "tests" / "release" / "smoke.py", cwd=Path(folder)))
        the_readme_has_types(Path(folder), python)
    print(f"{wheel.name} and {sdist.name} are good to go, in {DIST}")


if __name__ == "__main__":
    main()
