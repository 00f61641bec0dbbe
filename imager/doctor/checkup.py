"""One thing that the doctor looked at, as data.

In: what was found. Out: a line for a person, or the fields for a program. The doctor changes
nothing and mends nothing; it says what would.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from imager.base.errors import MissingTool, PicloudError


class Verdict(StrEnum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    """Something cannot be done, and cards can be made all the same."""
    MISSING = "missing"
    """It is not there, and no card can be made without it."""
    WRONG = "wrong"
    """It is there and cannot be used as it is."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """``name`` is what was looked at, ``found`` what it is like, in one line each; ``to_do`` says
    how to mend it, empty where all is well. ``exit_code`` is that of the error with which a command
    would end on it, 0 where none would."""

    area: str
    name: str
    verdict: Verdict
    found: str
    to_do: str = ""
    details: tuple[str, ...] = ()
    exit_code: int = 0

    def to_json(self) -> dict[str, object]:
        """For a program."""
        return asdict(self)


def counted(count: int, noun: str) -> str:
    """``1 package``, ``2 packages``, ``no packages``"""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def well(area: str, name: str, found: str) -> Checkup:
    """What is as it should be."""
    return Checkup(area, name, Verdict.OK, found)


def warned(area: str, name: str, found: str, to_do: str) -> Checkup:
    """What stops no card and should be known."""
    return Checkup(area, name, Verdict.WARNING, found, to_do)


def missing(area: str, name: str, found: str, to_do: str) -> Checkup:
    """What is not there, and without which no card can be made."""
    code = MissingTool.exit_code
    return Checkup(area, name, Verdict.MISSING, found, to_do, exit_code=code)


def failed(area: str, name: str, error: PicloudError) -> Checkup:
    """What ends other commands with ``error``."""
    return Checkup(
        area, name, Verdict.WRONG, error.what, error.hint, error.details, error.exit_code
    )
