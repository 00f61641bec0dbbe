"""Which version of this program runs, for receipts, stamps and reports."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def tool_version() -> str:
    """The version of this program as installed; ``source`` when it runs from its source tree."""
    try:
        return version("picloud-image")
    except PackageNotFoundError:
        return "source"
