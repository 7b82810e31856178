"""The charting library, Plotly, from its Python package."""

from __future__ import annotations

from functools import cache

from diffstruct.errors import ConfigurationError


@cache
def plotly_js() -> str:
    """The source of Plotly's script, to be embedded.

    Raises:
        ConfigurationError: the package is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ConfigurationError(
            "a report needs Plotly for its charts: pip install 'diffstruct[report]'"
        ) from error
    return str(get_plotlyjs()).replace("\r\n", "\n")  # as parsers of HTML read it
