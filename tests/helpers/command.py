"""The command line, in this process or in one of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any
from unittest.mock import patch

import pytest

from diffstruct.cli import main

COMMAND = [sys.executable, "-c", "from diffstruct.cli import main; main()"]


def apart(*arguments: object, **options: Any) -> tuple[int, str, str]:
    """Run the command in a process of its own; return exit code, standard output and standard error."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=200, **options
    )
    return done.returncode, done.stdout, done.stderr


def here(*arguments: object) -> int:
    """Run the command in this process, where it starts at once and can be patched; return its exit code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with patch("sys.argv", ["diffstruct", *map(str, arguments)]), pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
