"""What the README and the docs show, runs as it stands."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda p: p.name
)
def test_every_python_block_runs(page, capsys):
    torch.manual_seed(0)
    blocks = BLOCK.findall(page.read_text())
    for block in blocks:
        exec(compile(block, str(page), "exec"), {"__name__": "__main__"})
    printed = any("print(structure)" in block for block in blocks)
    assert ("Structure after" in capsys.readouterr().out) == printed


def test_the_readme_example_is_short_and_ends_with_a_small_network_that_has_learned():
    block, *_ = BLOCK.findall((ROOT / "README.md").read_text())
    imports, body = block.split("\n\n", 1)
    assert imports.splitlines() == ["import torch", "import diffstruct as ds"]
    assert len(body.splitlines()) <= 12
    torch.manual_seed(0)
    names = {}
    exec(
        block.replace("    structure.step()", "    losses.append(loss.item()); structure.step()"),
        names | {"losses": (losses := [])},
    )
    last = 40 * sum(losses[-500:]) / 500
    floor = 40 * __import__("diffstruct").tasks.easy().floor
    assert floor - 0.5 < last < floor + 0.5


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_local_link_leads_somewhere(page):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target
