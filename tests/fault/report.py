"""Runs the whole fault level and writes docs/reliability.md from what came of it.

``scripts/reliability [--rounds N] [--crashes N]`` as root. Nothing before ORACLES is typed: a case
that came out otherwise than the table expects is marked WRONG, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from imager.base.programs import tool_version
from tests.fault.cases import POSITIONS, Case, Outcome, Phase, all_cases
from tests.fault.crashing import card_with_a_past, crashes
from tests.fault.foreign import foreign, foreign_faults_of
from tests.fault.killing import desk, make_both, rounds, sibling
from tests.fault.rig import Rig, Seen, faults_of, rig
from tests.support.faultcard import why_not
from tests.support.smallcard import small_card

ORACLES = "## Held against other programs"
"""From here on the page is written by hand: what the tests in tests/oracle told."""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
_CELLS = {
    Outcome.GOOD: "good",
    Outcome.REPEATED: "repeated",
    Outcome.LIED: "lie told",
    Outcome.MENDED: "mended",
    Outcome.FAULTY: "**21**",
    Outcome.IO_ERROR: "**22**",
    Outcome.FAKE: "**24**",
}

INTRODUCTION = """# How reliable: every fault on a real block device

*Made by `scripts/reliability` from one run; do not edit but the last part.*

Each case makes one whole card (96 MiB with a partition table, FAT32 and ext4 with a journal) on a
loop device over a file in FUSE that misbehaves on command, bound to bytes of the card and to a
phase of the work. The card held another card's partition table and noise before, and a healthy
card lay beside it. In every case is looked at: the exit code; the place named (partition, file or
structure) in the error or the receipt; the receipt; every byte of the card when it was called
good; whether it is blank to `blkid`, `sfdisk` and the boot check when it was not, or is called
what it is (*do not use this card*) when it takes no zeros either; and every byte of the card
beside it.
"""

LEGEND = """| in the table | means |
|---|---|
| good | exit code 0: the fault did no harm, and every byte was read back right |
| repeated | 0: a refused transfer was repeated and taken; a warning says so |
| lie told | 0: wrong at the first reading and right at the second; warning and receipt say so |
| mended | 0: the damage was named and rewritten, and the whole card read back right |
| **21** | card faulty: kind of damage, byte, partition and file named; card blank |
| **22** | card I/O error: place named; card blank, or called unfit if it takes no zeros |
| **24** | fake capacity: the real size named; card blank |
| – | this phase does not meet this place |
| WRONG | not what must be |
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one case; ``wrong`` is empty when all is as it must be."""

    case: Case
    wrong: tuple[str, ...]
    blank: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class Kills:
    """States of the cards after ``count`` writers were killed; ``fault`` if any was in between."""

    what: str
    count: int
    states: Counter[str]
    fault: str = ""


def tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def matrix(folder: Path) -> tuple[list[Result], list[Result]]:
    """Every case of the table: with a node's image, and with one that is none of ours."""
    with rig(folder) as bench:
        ours = _all(bench, faults_of)
        with foreign(bench) as stranger:
            return ours, _all(stranger, foreign_faults_of)


def _all(bench: Rig, wrong: Callable[[Seen], Iterable[str]]) -> list[Result]:
    results = []
    for number, case in enumerate(all_cases(), 1):
        seen = bench.run(case)
        found = Result(case, tuple(wrong(seen)), seen.blank, seen.error is not None)
        results.append(found)
        if found.wrong:
            tell(f"WRONG {case.name}: {'; '.join(found.wrong)}")
        if number % 50 == 0:
            tell(f"{number} cases")
    return results


def kills(folder: Path, count: int) -> list[Kills]:
    """Killed and pulled, writing anew and updating."""
    found = []
    for what, how, pulled, times in (
        ("`kill -9` while a card is written", "write", False, count),
        ("pulled while it is written, unflushed writes lost", "write", True, count // 2),
        ("`kill -9` while a card is updated", "update", False, count // 4),
        ("pulled while it is updated, unflushed writes lost", "update", True, count // 4),
    ):
        place = folder / f"{how}-{pulled}"
        (place / "images/new").mkdir(parents=True)
        (place / "images/old").mkdir()
        new = small_card(place / "images/new", seed=1)
        old = sibling(new) if how == "update" else small_card(place / "images/old", seed=2)
        states: Counter[str] = Counter()
        fault = ""
        with desk(place, old, new) as at:
            if how == "update":
                make_both(at)
            try:
                states = rounds(at, how, times, pulled=pulled)
            except AssertionError as error:
                fault = str(error)
        found.append(Kills(what, times, states, fault))
        tell(f"{what}: {dict(states)} {fault}")
    return found


def crashed(folder: Path, count: int) -> Kills:
    """A card with a past, and crashes of the node that uses it."""
    (folder / "image").mkdir(parents=True)
    image = small_card(folder / "image")
    past = card_with_a_past(folder, image)
    try:
        dirty = crashes(past, image, folder, count)
    except AssertionError as error:
        return Kills("crashes", count, Counter(), str(error))
    return Kills("crashes", count, Counter(dirty=dirty))


def page(
    results: Sequence[Result],
    strangers: Sequence[Result],
    killed: Sequence[Kills],
    crash: Kills,
    seconds: float,
) -> str:
    """The whole of docs/reliability.md."""
    wrong = [result for result in results if result.wrong]
    counts = Counter(result.case.outcome for result in results if not result.wrong)
    blank = sum(result.blank for result in results if result.failed)
    failed = sum(result.failed for result in results)
    lines = [
        INTRODUCTION,
        f"Run of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC in {seconds / 60:.0f} minutes, "
        f"picloud-image {tool_version()}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores.\n",
        f"**{len(results)} cases, {len(wrong)} wrong.** "
        + ", ".join(f"{counts[outcome]} × “{outcome}”" for outcome in Outcome if counts[outcome])
        + f". Of {failed} cards that failed {blank} were blank to the last byte of the first MiB; "
        "the others took no zeros, or lied when they were looked at, and were called unfit.\n",
        LEGEND,
        "## Fault × phase × place\n",
        *_table(results),
        "## Fake capacity\n",
        *_fakes(results),
        "## An image that is none of ours\n",
        f"The same {len(strangers)} cases with `write --image`, whose image is read only once: "
        f"{sum(bool(result.wrong) for result in strangers)} wrong.\n",
        "## Killed and pulled at random moments\n",
        *_killed(killed),
        "## A card with a past, and crashes afterwards\n",
        _crashed(crash),
    ]
    return "\n".join(lines)


def _table(results: Sequence[Result]) -> Iterator[str]:
    cells = {(r.case.fault, r.case.phase, r.case.position): r for r in results}
    yield "| fault | phase | " + " | ".join(POSITIONS) + " |"
    yield "|---|---" + "|---" * len(POSITIONS) + "|"
    for fault in dict.fromkeys(r.case.fault for r in results if r.case.position in POSITIONS):
        for phase in Phase:
            row = [cells.get((fault, str(phase), position)) for position in POSITIONS]
            if any(row):
                yield f"| {fault} | {phase} | " + " | ".join(map(_cell, row)) + " |"
    yield ""


def _cell(result: Result | None) -> str:
    if result is None:
        return "–"
    return "WRONG" if result.wrong else _CELLS[result.case.outcome]


def _fakes(results: Sequence[Result]) -> Iterator[str]:
    yield "| the card | written at once | with the short probe before |"
    yield "|---|---|---|"
    found = {(r.case.fault, r.case.probe): r for r in results if r.case.position not in POSITIONS}
    for fault in dict.fromkeys(fault for fault, _ in found):
        yield f"| {fault} | {_cell(found[fault, False])} | {_cell(found[fault, True])} |"
    yield ""


def _killed(killed: Sequence[Kills]) -> Iterator[str]:
    yield (
        "Moments are random and seeded, over the whole time of one card. Afterwards a card is "
        "blank, or the whole new card, or the whole old one that was not touched yet; the next "
        "run succeeded each time.\n"
    )
    yield "| what | rounds | blank | whole new | untouched | in between |"
    yield "|---|---|---|---|---|---|"
    for kill in killed:
        states = [str(kill.states[name]) for name in ("blank", "new", "old")]
        between = kill.fault or "0"
        yield f"| {kill.what} | {kill.count} | {' | '.join(states)} | {between} |"
    yield ""


def _crashed(crash: Kills) -> str:
    if crash.fault:
        return f"WRONG: {crash.fault}\n"
    return (
        "A card with GPT, mdraid 0.90/1.0/1.1/1.2, LVM2, swap, btrfs and ZFS signatures and an old "
        "ext4 of the same UUID with a dirty journal was written over; `wipefs` then saw only ours. "
        f"A node used its root filesystem and lost power at {crash.count} random moments, "
        f"{crash.states['dirty']} of them with a journal to replay: `e2fsck -fy` ended with 0 or 1 "
        "each time, files that were not touched were the same, and nothing of the stranger's "
        "came back.\n"
    )


def main() -> int:
    words = argparse.ArgumentParser(description="Run the fault level, write docs/reliability.md.")
    words.add_argument("--rounds", type=int, default=200, help="writers to kill (200)")
    words.add_argument("--crashes", type=int, default=50, help="crashes after mount (50)")
    given = words.parse_args()
    if missing := why_not():
        tell(f"reliability: {missing}")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all is taken down
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="picloud-fault-") as name,
        ThreadPoolExecutor(2) as pool,
    ):
        folder = Path(name)
        others = pool.submit(kills, folder / "killed", given.rounds)
        results, strangers = matrix(folder / "matrix")
        killed = others.result()
        crash = crashed(folder / "crashed", given.crashes)
    by_hand = PAGE.read_text().partition(ORACLES)[1:]
    made = page(results, strangers, killed, crash, time.monotonic() - began)
    PAGE.write_text("\n".join((made, "".join(by_hand))))
    wrong = any(result.wrong for result in (*results, *strangers))
    bad = wrong or any(kill.fault for kill in (*killed, crash))
    tell(f"{PAGE} written, {len(results)} cases" + (", some WRONG" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
