"""What the README and the docs show runs as it stands, and what they name exists."""

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import pytest
import torch

import diffstruct as ds
from diffstruct.couple import call

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ROOMS = (ds.checkpoint, ds.nn, ds.paper)
CALLBACKS = {f"{name}.StructureCallback" for name in ("lightning", "transformers", "skorch")}
ESTIMATORS = {"sklearn.GrowingClassifier", "sklearn.GrowingRegressor"}
LOGGERS = {"loggers.StructureWriter", "loggers.measures"}
INTEGRATIONS = {f"diffstruct.integrations.{name}" for name in CALLBACKS | ESTIMATORS | LOGGERS}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TREE = re.compile(r"^```text\n(src/.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#([\w-]+))?\)")


def run_blocks(page: Path) -> dict[str, object]:
    """Run the Python blocks of a page one after the other; return the names that they leave behind."""
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), names)
    return names


def shape(printed: str) -> list[str]:
    """What is printed, without numbers and the lengths of spaces, which differ between machines."""
    return [re.sub(r"[\d.]+|\s+", " ", line).strip() for line in printed.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")  # Lightning's, as the others
@pytest.mark.parametrize(
    "page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda p: p.name
)
def test_every_python_block_runs_and_prints_what_the_page_shows(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where those that write a file leave it
    run_blocks(page)
    printed = shape(capsys.readouterr().out)
    for shown in re.findall(r"^```text\n((?:width|Structure after) .*?)^```", page.read_text(), re.M | re.S):
        for line in shape(shown):
            assert line in printed


@pytest.mark.slow
def test_the_readme_example_is_short_and_ends_with_a_small_network_that_has_learned():
    block, *_ = BLOCK.findall((ROOT / "README.md").read_text())
    imports, body = block.split("\n\n", 1)
    assert imports.splitlines() == ["import torch", "import diffstruct as ds"]
    assert len(body.splitlines()) <= 16
    left = run_blocks(ROOT / "README.md")
    assert left["loss"] < 0.2
    model = left["model"]
    assert 3 <= model[0].out_features <= 32
    assert sum(len(event.removed) for event in left["structure"].history.events) > 10


@pytest.mark.slow
def test_the_criterion_of_the_docs_is_short_and_adds_and_removes_units():
    page = DOCS / "criterion.md"
    criterion, use, *_ = BLOCK.findall(page.read_text())
    assert len(criterion.splitlines()) <= 40
    names: dict[str, object] = {"__name__": "__main__"}
    torch.manual_seed(0)
    exec(criterion + use, names)
    history = names["structure"].history
    assert history.added() > 5
    assert history.removed() > 0
    assert names["loss"] < 0.5


def test_the_operator_rule_of_the_contributors_page_lets_a_width_be_found(monkeypatch):
    (block,) = re.findall(r"^   ```py\n(.*?)^   ```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)

    class Running(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = torch.nn.Linear(3, 8), torch.nn.Linear(8, 2)

        def forward(self, x):
            return self.last(self.first(x).cummax(0).values)

    model, inputs = Running(), (torch.ones(5, 3),)
    assert not ds.find_widths(model, inputs).widths
    for name in ("cummax", "cummin"):  # both are forgotten after the test
        monkeypatch.setitem(call.OP_RULES, name, call.unknown)
    exec(dedent(block), {"Sequence": Sequence, **vars(call)})
    assert [*ds.find_widths(model, inputs).widths] == ["first"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_local_link_leads_somewhere(page):
    for target, section in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target
        if section:
            titles = re.findall(r"^#+ (.*)$", (page.parent / target).read_text(), re.MULTILINE)
            assert section in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]


def paths_in(tree: str) -> list[Path]:
    """The paths that an indented tree names; a line may name several, separated by commas."""
    found: list[Path] = []
    parents: list[tuple[int, Path]] = []
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        parents = [(at, path) for at, path in parents if at < indent]
        above = parents[-1][1] if parents else Path()
        names = re.match(r"[^\s,]+(, [^\s,]+)*", line.strip())
        assert names is not None, line
        found.extend(above / name for name in names.group().split(", "))
        parents.append((indent, found[-1]))
    return found


def test_all_that_the_map_names_exists_and_no_room_is_missing():
    (tree,) = TREE.findall((DOCS / "map.md").read_text())
    named = paths_in(tree)
    assert len(named) > 60
    assert [str(path) for path in named if not (ROOT / path).exists()] == []
    source = ROOT / "src" / "diffstruct"
    rooms = [room for room in source.iterdir() if (room / "__init__.py").exists()]
    assert {room.relative_to(ROOT) for room in rooms} <= set(named)


@pytest.mark.parametrize("page", [DOCS / "map.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_every_source_file_that_is_named_exists(page):
    sources = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    for name in re.findall(r"`([\w/.*]+\.py)`", page.read_text()):
        pattern = re.compile("(^|.*/)" + re.escape(name).replace(r"\*", ".*") + "$")
        assert any(map(pattern.match, sources)), name


def test_the_api_page_has_every_public_name_and_no_other():
    named = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert len(named) == len(set(named))
    public = {f"diffstruct.{name}" for name in ds.__all__} - {
        f"diffstruct.{room.__name__.split('.')[1]}" for room in ROOMS
    }
    public |= {f"diffstruct.{room.__name__.split('.')[1]}.{n}" for room in ROOMS for n in room.__all__}
    assert set(named) == public | INTEGRATIONS
    assert not any("._" in name for name in named)


def test_every_page_is_in_the_navigation():
    nav = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert {*nav} == {page.name for page in DOCS.glob("*.md")}


def test_the_tests_that_hold_the_promises_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "promises.md").read_text())
    assert len(named) > 20
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / file).read_text(), (file, name)
