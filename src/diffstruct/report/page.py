"""One HTML file that shows runs: everything is in it, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from diffstruct.errors import ConfigurationError
from diffstruct.report.plotly import plotly_js
from diffstruct.report.record import Record
from diffstruct.report.view import view
from diffstruct.writing import replace_file

SCRIPTS = (
    "data", "dom", "theme", "colors", "charts", "overview", "network", "lives", "importances",
    "cost", "events", "settings", "time", "live", "main",
)  # fmt: skip
"""The page's own scripts, in the order in which they need each other."""


def page(records: Sequence[Record], live: bool = False) -> str:
    """The page of some runs, as HTML.

    Args:
        records: one a run; of several, medians and quartiles are shown beside each of them.
        live: whether it is served by `LivePage`, and is to look there for what is new.

    Raises:
        ConfigurationError: Plotly is not installed, or there is no run.
    """
    if not records:
        raise ConfigurationError("a report needs a run at least")
    title = records[0].title if len(records) == 1 else f"{len(records)} runs"
    return html(title, as_json(records), live)


def html(title: str, data: str, live: bool) -> str:
    """The page that shows what `as_json` has made."""
    library, own = plotly_js(), script()
    allowed = " ".join(f"'sha256-{_digest(source)}'" for source in (library, own))
    return _filled(
        _asset("page.html"),
        {
            "policy": policy(allowed, live),
            "title": escape(title),
            "style": _asset("style.css"),
            "live": "yes" if live else "no",
            "data": data,
            "library": library,
            "script": own,
        },
    )


def policy(scripts: str, live: bool) -> str:
    """What the page may do: run the two `scripts` that it came with, and ask nobody but its own server."""
    server = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {server}; base-uri 'none'; form-action 'none'"
    )


def as_json(records: Sequence[Record]) -> str:
    """The data of a page; may stand in a script element, whatever the names in it are."""
    text = json.dumps(view(records), allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def write(records: Sequence[Record], path: str | os.PathLike[str]) -> Path:
    """Write the page of some runs to a file, in the place of its former version if there is one.

    Raises:
        ConfigurationError: as `page`; or the file cannot be written.
    """
    target, content = Path(path), page(records).encode()
    if not target.name:
        raise ConfigurationError(f"{str(path)!r} is no file to write the report to: name one")
    try:
        replace_file(target, content)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the report {target}: {error.strerror or error}; choose another file"
        ) from error
    return target


@cache
def script() -> str:
    """The page's own script: all files of it in one scope."""
    whole = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{whole}\n}})();\n'


def _filled(template: str, values: Mapping[str, Any]) -> str:
    """The template with its `{{name}}`s replaced, once: what they are replaced by is not looked at."""
    parts = re.split(r"\{\{(\w+)\}\}", template)
    return "".join(values[part] if index % 2 else part for index, part in enumerate(parts))


def _digest(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode("ascii")


@cache
def _asset(name: str) -> str:
    return (files("diffstruct.report") / "assets" / name).read_text(encoding="utf-8").replace("\r\n", "\n")
