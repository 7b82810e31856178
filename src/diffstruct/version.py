"""Which version of diffstruct this is: `pyproject.toml` says it, and the installed package repeats it."""

from importlib.metadata import PackageNotFoundError, version

UNKNOWN = "0+unknown"
"""A valid version that is before all others: the sources are on the path, but were never installed."""


def installed_version() -> str:
    """The version that was installed, or `UNKNOWN`."""
    try:
        return version("diffstruct")
    except PackageNotFoundError:
        return UNKNOWN
