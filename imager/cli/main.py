"""The ``picloud-image`` command: where errors become two lines and an exit code."""

from __future__ import annotations


def main() -> None:
    """Entry point; the commands arrive with the stages they drive."""
    raise SystemExit(2)
