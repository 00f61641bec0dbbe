"""Reads cards that wear out, stops what reads and copies, and writes docs/reliability-saving.md.

``python -m tests.fault.saving_report [--rounds N]`` as root, called by ``scripts/reliability``.
Nothing in the page is typed. The seed of the environment, else a drawn one, is in it.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from imager.base.programs import tool_version
from tests.fault.dying import KINDS, WAYS, WORN, Death, all_deaths, dying_card, faults_of
from tests.fault.stopping import HOWS, killed, pair, pulled
from tests.support.faultcard import why_not
from tests.support.sampling import SEED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability-saving.md"

INTRODUCTION = """# How reliable: cards that are saved and copied

*Made by `scripts/reliability`; do not edit.*

Cards of 24 MiB on block devices over a file in FUSE, read by the real command.

## Cards that wear out

So many sectors of 512 bytes, drawn by chance over the whole card, refuse to be read. In every case
is looked at: that each sound byte which a filesystem uses is in the image; that each worn one is in
the map, and no sound one; that every lost range (the first 200) is named; that the exit code is 22
when something was lost, else 0. "Killed" is `kill -9` at three random moments, the same command
each time; "begun by ddrescue" is `ddrescue -n` first, then `read` with its map.
"""

STOPPED = """## Stopped at random moments

Afterwards nothing of the name is there, or what was there before, or the card is blank, or the
whole copy; and the same command again succeeds. With a card pulled, `clone` loses the source and
the target in turn.
"""


@dataclass(frozen=True, slots=True)
class Stopped:
    """In which states ``rounds`` of ``how`` ended; ``fault`` if one was in between."""

    how: str
    states: Counter[str]
    fault: str = ""


def deaths(folder: Path, seed: str) -> dict[Death, list[str]]:
    """What is wrong with each case of the table."""
    found: dict[Death, list[str]] = {}
    for number, death in enumerate(all_deaths()):
        place = folder / str(number)
        (place / "out").mkdir(parents=True)
        with dying_card(place, death.kind) as dying:
            found[death] = [*faults_of(dying, death, place / "out", seed)]
        _tell(f"{death}: {'; '.join(found[death]) or 'as it must be'}")
    return found


def stopped(folder: Path, seed: str, count: int) -> Iterator[Stopped]:
    """``count`` kills and half as many pulled cards for each command."""
    with pair(folder) as at:
        for how in HOWS:
            for what, stop, times in (("killed", killed, count), ("pulled", pulled, count // 2)):
                states: Counter[str] = Counter()
                fault = ""
                try:
                    states = stop(at, how, times, seed)
                except AssertionError as error:
                    fault = str(error)
                _tell(f"{how}, {what}: {dict(states)} {fault}")
                yield Stopped(f"`{how}`, {what}", states, fault)


def page(found: dict[Death, list[str]], rounds: list[Stopped], seed: str) -> str:
    """The whole page."""
    wrong = sum(map(bool, found.values()))
    return "\n".join(
        [
            INTRODUCTION,
            f"Run of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, picloud-image {tool_version()}, Linux "
            f"{platform.release()}, {os.cpu_count()} cores, {SEED}={seed}. "
            f"**{len(found)} cases, {wrong} wrong.**\n",
            *_table(found),
            STOPPED,
            "| what | rounds | nothing, or as before | blank, or unfinished | whole | in between |",
            "|---|---|---|---|---|---|",
            *map(_row, rounds),
            "",
        ]
    )


def _table(found: dict[Death, list[str]]) -> Iterator[str]:
    yield f"| worn sectors, and how it is read | {' | '.join(KINDS)} |"
    yield "|---|" + "---|" * len(KINDS)
    for worn in WORN:
        for way in WAYS:
            cells = ["WRONG" if found[Death(kind, worn, way)] else "saved" for kind in KINDS]
            yield f"| {worn}, {way} | {' | '.join(cells)} |"
    yield ""


def _row(one: Stopped) -> str:
    counts = [one.states[name] for name in ("untouched", "blank", "whole")]
    return f"| {one.how} | {sum(counts)} | {' | '.join(map(str, counts))} | {one.fault or 0} |"


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> int:
    words = argparse.ArgumentParser(description="Save cards, write docs/reliability-saving.md.")
    words.add_argument("--rounds", type=int, default=30, help="runs of each to kill (30)")
    given = words.parse_args()
    if missing := why_not():
        _tell(f"reliability: {missing}")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all is taken down
    seed = os.environ.get(SEED) or str(random.SystemRandom().randrange(1_000_000))
    with tempfile.TemporaryDirectory(prefix="picloud-saving-") as name:
        found = deaths(Path(name) / "dying", seed)
        rounds = [*stopped(Path(name) / "stopped", seed, given.rounds)]
    PAGE.write_text(page(found, rounds, seed))
    return 1 if any(found.values()) or any(one.fault for one in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
