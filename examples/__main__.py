"""Run the examples, and renew what `docs/examples.md` shows of them: `python examples [NAME...]`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE, PICTURES = HERE.parent / "docs/examples.md", HERE.parent / "docs/img"
WIDTH = 110  # of a printed line that the page shows

for name in sys.argv[1:] or re.findall(r"`python examples/(\w+)\.py`", PAGE.read_text()):
    print(f"{name} ...", flush=True)
    picture = Path(f"runs/{name}.png")
    command = [sys.executable, HERE / f"{name}.py", "--picture", picture]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    shutil.copy(picture, PICTURES / f"example-{name}.png")
    lines = [line if len(line) <= WIDTH else f"{line[:WIDTH].rstrip()} ..." for line in printed.splitlines()]
    shown = re.compile(rf"(`python examples/{name}\.py`.*?\n```text\n).*?(```\n)", re.DOTALL)
    text = "\n".join(line.rstrip() for line in lines)
    page, found = shown.subn(lambda at, text=text: f"{at[1]}{text}\n{at[2]}", PAGE.read_text(), count=1)
    assert found, f"docs/examples.md shows no output of {name}"
    PAGE.write_text(page)
