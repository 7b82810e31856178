"""Run the examples, and renew what the docs show of them: `python examples [NAME...]`.

What each printed and drew is kept in `examples/results`; `make figures` draws it again without running it.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE, RESULTS = HERE.parent / "docs/examples.md", HERE / "results"
WIDTH = 110  # of a printed line that the page shows


def names(page):
    """Of all examples, in the order of the page."""
    return re.findall(r"`python examples/(\w+)\.py`", page)


def run(name):
    """Run an example; return what it printed, and what it told its picture."""
    picture = Path(f"runs/{name}.png")
    command = [sys.executable, HERE / f"{name}.py", "--picture", picture]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # more threads add up in another order
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=alone).stdout
    return {"printed": printed.splitlines(), "told": json.loads(picture.with_suffix(".json").read_text())}


def renewed(page, name, printed):
    """The page, with the lines that an example printed; the end of long ones is left out."""
    lines = [line if len(line) <= WIDTH else f"{line[:WIDTH].rstrip()} ..." for line in printed]
    text = "\n".join(line.rstrip() for line in lines)
    shown = re.compile(rf"(`python examples/{name}\.py`.*?\n```text\n).*?(```\n)", re.DOTALL)
    page, found = shown.subn(lambda at: f"{at[1]}{text}\n{at[2]}", page, count=1)
    assert found, f"docs/examples.md shows no output of {name}"
    return page


if __name__ == "__main__":
    RESULTS.mkdir(exist_ok=True)
    for name in sys.argv[1:] or names(PAGE.read_text()):
        print(f"{name} ...", flush=True)
        result = run(name)
        (RESULTS / f"{name}.json").write_text(json.dumps(result) + "\n")
        PAGE.write_text(renewed(PAGE.read_text(), name, result["printed"]))
