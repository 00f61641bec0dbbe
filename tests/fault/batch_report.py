"""Runs batches with bad cards and killed batches, and writes docs/reliability-rack.md from them.

``python -m tests.fault.batch_report [--seeds N] [--kills N]`` as root, called by
``scripts/reliability``. Nothing in the page is typed. A part that is not run (0) keeps what the
last run found, in ``build/batches.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imager.base.programs import tool_version
from tests.fault.batches import CARDS, KINDS, faults_of, killed, row
from tests.support.faultcard import why_not
from tests.support.rackcards import blank_cards, flash_words
from tests.support.workplace import Workplace, workplace

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability-rack.md"
_KEPT = ROOT / "build" / "batches.json"

INTRODUCTION = f"""# How reliable: batches of {CARDS} cards

*Made by `scripts/reliability`; do not edit.*

Each batch is the real command, `rack flash`, on {CARDS} block devices over files in FUSE. A seed
draws which of them are bad (four in ten), in which way and where on the card. In every batch is
looked at: that each healthy card is verified and every byte of its block map is on the medium; that
each bad one has the outcome it must have and its fault did strike; that a failed one is blank, or
called unfit where it takes no zeros; that the ledger says of each node what the result says; and
the exit code.
"""


def seeds(place: Workplace, folder: Path, count: int) -> dict[str, Any]:
    """Batches with the bad cards of so many seeds."""
    drawn: Counter[str] = Counter()
    wrong: list[str] = []
    with row(folder, place) as cards:
        for seed in range(count):
            kinds = cards.lay(seed)
            drawn.update(kind.name for kind in kinds)
            found = [f"seed {seed}: {fault}" for fault in faults_of(cards, kinds, cards.run())]
            wrong += found
            _tell(f"seed {seed}: {'; '.join(found) or 'as it must be'}")
    return {"count": count, "drawn": drawn, "wrong": wrong, "at": _now()}


def kills(place: Workplace, folder: Path, count: int) -> dict[str, Any]:
    """Batches killed at so many moments, drawn over the time of a whole one."""
    chance = random.Random(9)
    with blank_cards(folder, CARDS) as loops:
        began = time.monotonic()
        words = flash_words(f"pi[0-{CARDS - 1}]", [loop.node for loop in loops])
        assert place.run(*words).code == 0
        whole = time.monotonic() - began
        moments = [chance.uniform(0, whole) for _ in range(count)]
        states: Counter[str] = Counter()
        wrong = list(killed(place, loops, moments, states))
    _tell(f"{count} kills: {dict(states)} {'; '.join(wrong) or 'as it must be'}")
    return {"count": count, "states": states, "wrong": wrong, "at": _now()}


def page(parts: dict[str, Any]) -> str:
    """The whole page, as far as there are results."""
    about = f"picloud-image {tool_version()}, Linux {platform.release()}, {os.cpu_count()} cores"
    return "\n".join([INTRODUCTION, f"{about}.\n", *_seeds(parts), *_kills(parts)])


def _seeds(parts: dict[str, Any]) -> Iterator[str]:
    part = parts.get("seeds")
    if part is None:
        return
    yield "## Bad cards among good ones\n"
    yield (
        f"**{part['count']} batches, {part['count'] * CARDS} cards, {len(part['wrong'])} things "
        f"wrong** ({part['at']}).\n"
    )
    yield from (f"- WRONG: {fault}" for fault in part["wrong"])
    yield "| kind of card | must end as | times drawn |"
    yield "|---|---|---|"
    yield f"| healthy | verified | {part['drawn'].get('healthy', 0)} |"
    for kind in KINDS:
        ends = f"{kind.outcome}{', trouble in the receipt' if kind.mended else ''}"
        yield f"| {kind.name} | {ends} | {part['drawn'].get(kind.name, 0)} |"
    yield ""


def _kills(parts: dict[str, Any]) -> Iterator[str]:
    part = parts.get("kills")
    if part is None:
        return
    yield "## Batches killed at a random moment\n"
    states = part["states"]
    yield (
        f"**{part['count']} batches ended by `kill -9`, {len(part['wrong'])} things wrong** "
        f"({part['at']}). Of the {part['count'] * CARDS} cards {states.get('blank', 0)} were blank "
        f"afterwards, {states.get('verified', 0)} verified and whole, {states.get('whole', 0)} "
        "whole and not yet proven; none was in between. The same command again ended with 0 each "
        "time, every card whole, every node verified in the ledger.\n"
    )
    yield from (f"- WRONG: {fault}" for fault in part["wrong"])


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> int:
    words = argparse.ArgumentParser(description="Run batches, write docs/reliability-rack.md.")
    words.add_argument("--seeds", type=int, default=50, help="batches with bad cards (50)")
    words.add_argument("--kills", type=int, default=50, help="batches to kill (50)")
    given = words.parse_args()
    if missing := why_not():
        _tell(f"reliability: {missing}")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all is taken down
    parts = json.loads(_KEPT.read_text()) if _KEPT.exists() else {}
    with tempfile.TemporaryDirectory(prefix="picloud-batch-") as name:
        folder = Path(name)
        (folder / "workplace").mkdir()
        with workplace(folder / "workplace") as place:
            if given.seeds:
                parts["seeds"] = seeds(place, folder / "cards", given.seeds)
            if given.kills:
                assert place.run("compose").code == 0
                parts["kills"] = kills(place, folder / "killed", given.kills)
    _KEPT.parent.mkdir(exist_ok=True)
    _KEPT.write_text(json.dumps(parts))
    PAGE.write_text(page(parts))
    return 1 if any(part["wrong"] for part in parts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
