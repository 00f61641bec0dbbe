"""README's tour: what is typed, what is shown, and whether what came is the same.

In: the text of README.md. Out: steps. Words are compared, not where lines are folded. What differs
from one computer and day to the next may differ, as ``_MAY_DIFFER`` says, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.screen import screen
from tests.support.typing import QUESTION

README = Path(__file__).resolve().parents[2] / "README.md"
CARDS = ("/dev/loop1", "/dev/loop2", "/dev/loop3", "/dev/loop4")
"""README's names of the disks; this computer's may have other numbers."""

_ANYTHING = "…"
_NOT_COMPILED = (
    "there is no Python 3.11 here to compile Salt with: each node does it when Salt first starts, "
    "which then takes longer"
)
_NUMBER = r"\d+(?:\.\d+)?"
_MAY_DIFFER = (
    # how long something took, and how fast it was; a rate is not told of what took no time
    rf"in (?:less than 0\.1 s|{_NUMBER} s, {_NUMBER} [kMG]?B/s)",
    rf": (?:less than 0\.1|{_NUMBER}) s\b",
    rf"{_NUMBER} [kMG]?B/s",
    r"\b\d+:\d\d\b",
    # how much the stand-in holds, which is as large as Debian's packages are now
    rf"{_NUMBER} [kM]B",
    r"\d{7,} to \d{7,}",
    # digests, fingerprints, the stand-in's key, which is made with it
    r"[0-9a-f]{12,}…",
    r"SHA256:[\w+/]{43}",
    r"the public key [0-9A-F]{40}",
    # when it was done
    r"20\d{6}T\d{6}\.\d{3}Z",
    r"20\d\d-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d(?:Z| UTC))?",
    # where the test's web server is
    r"http://127\.0\.0\.1:\d+/",
    # which versions this Debian and PyPI have
    rf"{_NUMBER}(?:\.\d+)*(?=, for )",
    rf"looseversion: pin moved from nothing to {_NUMBER}(?:\.\d+)*",
    # a Debian in a folder has no udev, about which the doctor warns
    r"\d+ warnings?",
)
_DIFFERS = re.compile("|".join(f"({pattern})" for pattern in _MAY_DIFFER))


@dataclass(frozen=True, slots=True)
class Step:
    """A line that is typed, and the lines that are shown then."""

    typed: str
    shown: tuple[str, ...]

    @property
    def answers(self) -> list[str]:
        """What a person types when the command asks."""
        return [line.removeprefix(QUESTION) for line in self.shown if line.startswith(QUESTION)]

    @property
    def fails(self) -> bool:
        """Whether the command ends with an error."""
        return any(line.startswith("picloud-image: ") for line in self.shown)


def steps_of(readme: str, *, compiles: bool = True) -> list[Step]:
    """The steps of the tour, in their order. Every block of it begins with a command. Where the
    computer has not the card's Python, it is said instead that Salt is not compiled."""
    steps: list[Step] = []
    is_block = False
    for line in _section(readme, "Five minutes"):
        if not line.startswith("    "):
            is_block = False
            continue
        text = line[4:]
        if text.startswith("$ "):
            steps.append(Step(text[2:], ()))
        else:
            assert is_block, f"README.md: nobody typed anything before {text!r}"
            if not compiles and text.startswith("compile Salt: "):
                text = _NOT_COMPILED
            steps[-1] = Step(steps[-1].typed, (*steps[-1].shown, text))
        is_block = True
    return steps


def install_line(page: str, heading: str, word: str) -> str:
    """The line below ``heading`` that is to be typed and has this word."""
    lines = (line for line in _section(page, heading) if line.startswith("    "))
    (found,) = (line.strip() for line in lines if word in line)
    return found


def _section(text: str, heading: str) -> Iterator[str]:
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, f"no heading {heading!r}"
    return iter(rest.partition("\n## ")[0].splitlines())


def difference(step: Step, said: str, names: Mapping[str, str]) -> str:
    """Where what came to the terminal is not what ``step`` shows; empty when it is the same.
    ``names`` are this computer's names of the disks, and README's."""
    came = [renamed(line, names) for line in screen(said)]
    shown: Sequence[str] = step.shown
    if step.typed == "picloud-image devices":
        came, shown = _cards_alone(came), _cards_alone(shown)
    text = " ".join(" ".join(came).split())
    if re.fullmatch(_pattern(shown), text):
        return ""
    same = max(n for n in range(len(shown) + 1) if re.match(_pattern(shown[:n]), text))
    expected = repr(shown[same]) if same < len(shown) else "nothing more"
    return f"$ {step.typed}\nREADME shows {expected} where this came:\n" + "\n".join(came)


def _pattern(shown: Sequence[str]) -> str:
    """Matches the words of ``shown``, wherever its lines are folded."""
    pieces: list[list[str]] = [[]]
    for line in shown:
        if line.strip() == _ANYTHING:
            pieces.append([])
        else:
            pieces[-1] += line.split()
    return r"\s*.*?\s*".join(_tolerant(" ".join(words)) for words in pieces)


def _tolerant(words: str) -> str:
    pattern, at = "", 0
    for found in _DIFFERS.finditer(words):
        assert found.lastindex is not None
        pattern += re.escape(words[at : found.start()]) + _MAY_DIFFER[found.lastindex - 1]
        at = found.end()
    return pattern + re.escape(words[at:])


def renamed(line: str, names: Mapping[str, str]) -> str:
    """``line`` with the names of the disks that ``names`` gives for those in it, all at once: one
    computer's may be another disk's of the other."""
    return re.sub(r"/dev/loop\d+", lambda found: names.get(found[0], "another"), line)


def _cards_alone(lines: Sequence[str]) -> list[str]:
    """Lines of ``devices`` about our cards: which other disks there are, nobody knows."""
    kept, is_ours = [], False
    for line in lines:
        if not line.startswith(" "):
            is_ours = line.startswith(CARDS)
        if is_ours:
            kept.append(line)
    return kept
