"""Which version of this project made a result."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def servescope_version() -> str:
    """Version of the installed distribution; "unknown" in a tree never installed."""
    try:
        return version("servescope")
    except PackageNotFoundError:
        return "unknown"
