"""Colour, where a terminal has it: the words that say how bad something is, and results.

In: a line as it would be without colour. Out: the same with the codes around those words (ECMA-48,
SGR). Only three colours of the eight that every terminal has, so that a person's own theme holds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TextIO


class ColourChoice(StrEnum):
    """``--color``."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Tint(StrEnum):
    """A colour by what it means."""

    GOOD = "32"
    WARNING = "33"
    BAD = "1;31"


_FIRST_WORD = re.compile(r"(picloud-image|error|warning)(?=:(?: |$))")


def has_colour(choice: ColourChoice, stream: TextIO) -> bool:
    """Whether lines on ``stream`` are coloured. ``auto`` means: on a terminal that is not dumb,
    unless NO_COLOR is set to anything (no-color.org)."""
    if choice is ColourChoice.AUTO:
        unwanted = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("", "dumb")
        return stream.isatty() and not unwanted
    return choice is ColourChoice.ALWAYS


def coloured(lines: Sequence[str], tint: Tint | None = None) -> list[str]:
    """``lines``, each in ``tint``; without one only the word that the first begins with, where
    that says how bad it is."""
    if tint is not None:
        return [_in(tint, line) for line in lines]
    first, *others = lines
    found = _FIRST_WORD.match(first)
    if found is None:
        return list(lines)
    word = found[0]
    marked = _in(Tint.WARNING if word == "warning" else Tint.BAD, word)
    return [marked + first[len(word) :], *others]


def _in(tint: Tint, text: str) -> str:
    return f"\033[{tint}m{text}\033[0m"
