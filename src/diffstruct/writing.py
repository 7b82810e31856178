"""Writing a file as a whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(target: Path, content: bytes) -> None:
    """Write a whole file, in the place of its former version if there is one.

    Raises:
        OSError: the disk refuses; the former version is still whole.
    """
    draft = target.with_name(f"{target.name}.tmp")
    try:
        draft.write_bytes(content)
        os.replace(draft, target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
