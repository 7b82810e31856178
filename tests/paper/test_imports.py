"""What the paper's experiments export, and what loading them costs."""

import subprocess
import sys

PROGRAM = """
import sys
import diffstruct as ds
assert ds.paper.Run and ds.paper.tasks.hard and ds.paper.ClippedRMSprop
print({"joblib", "matplotlib", "numba", "rich", "scipy", "typer"} & {*sys.modules})
"""


def test_loading_them_loads_nothing_that_only_figures_and_commands_need():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
