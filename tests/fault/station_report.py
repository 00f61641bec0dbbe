"""Kills head, stations, minions and master, and writes docs/reliability-stations.md.

``python -m tests.fault.station_report [--rounds N]`` as root, called by ``scripts/reliability``.
Nothing in the page is typed. Rounds are added to those that the last runs of the same version left
in ``build/stations.json``; ``--anew`` forgets them.
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
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imager.base.programs import tool_version
from tests.fault.station_kills import VICTIMS, Struck, struck, undisturbed
from tests.support.deskrack import desk_rack
from tests.support.salt import made_salt
from tests.support.sampling import SEED
from tests.support.slowcard import all_throttled, no_throttle

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability-stations.md"
_KEPT = ROOT / "build" / "stations.json"
DESKS, CARDS = 4, 14
WRITE_BPS, READ_BPS = 4_000_000, 8_000_000
"""A card of the tests' small release, 33 MB, then takes a quarter of a minute, so that all stations
are at work at once."""

INTRODUCTION = f"""# How reliable: cards made on stations

*Made by `scripts/reliability`; do not edit.*

{DESKS} stations with {CARDS} cards each, a head, a real salt-master and real salt-minions, each in
a network namespace and with processes of its own; the cards are loop devices that write
{WRITE_BPS / 1e6:g} MB/s and read {READ_BPS / 1e6:g}. In each round `rack flash --stations` makes
the cards of {DESKS * CARDS} nodes, and one part is ended by `kill -9` at a random moment: the
command on the head, a minion or the master after so many lines that the command had said, a
station's program after it has worked for so long. Minion and master are started again at once, as
systemd does. Then the same command is run until it can make no more cards. In every round is looked
at: that each node has one good card, every byte of whose block map is on the medium, or is
"unknown" in the ledger, with the place where to look; that no node is on two cards; that no card is
called good and is not.
"""


def rounds(folder: Path, seed: str, count: int) -> Iterator[Struck]:
    """So many rounds, in one set-up."""
    with (
        desk_rack(folder, made_salt(), desks=DESKS, cards=CARDS) as desks,
        all_throttled(desks.cards, write_bps=WRITE_BPS, read_bps=READ_BPS),
    ):
        said = desks.run("rack", "stations", "install", f"desk[1-{DESKS}]")
        assert said.code == 0, said.err + said.out
        course = undisturbed(desks)
        _tell(f"nothing killed: {course}, as it must be")
        for number in range(count):
            chance = random.Random(f"{seed} {number}")
            done = struck(desks, VICTIMS[number % len(VICTIMS)], chance, course)
            _tell(f"round {number}: {done}")
            yield done


def page(kept: Sequence[dict[str, Any]], seeds: Sequence[str]) -> str:
    """The whole page."""
    wrong = [fault for one in kept for fault in one["wrong"]]
    return "\n".join(
        [
            INTRODUCTION,
            f"Last run {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, picloud-image {tool_version()}, "
            f"Linux {platform.release()}, {os.cpu_count()} cores, {SEED}={', '.join(seeds)}. "
            f"**{len(kept)} rounds, {len(wrong)} things wrong.**\n",
            *(f"- WRONG: {fault}" for fault in wrong),
            "| killed | rounds | nodes with one good card | nodes said to be unknown | "
            "runs afterwards | wrong |",
            "|---|---|---|---|---|---|",
            *(_row(victim, [one for one in kept if one["victim"] == victim]) for victim in VICTIMS),
            "",
        ]
    )


def _row(victim: str, kept: Sequence[dict[str, Any]]) -> str:
    good, unknown, runs = (
        sum(one[name] for one in kept) for name in ("verified", "unknown", "runs")
    )
    wrong = sum(len(one["wrong"]) for one in kept)
    return f"| {victim} | {len(kept)} | {good} | {unknown} | {runs} | {wrong} |"


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> int:
    words = argparse.ArgumentParser(description="Kill, write docs/reliability-stations.md.")
    words.add_argument("--rounds", type=int, default=50, help="so many in all (50)")
    words.add_argument("--anew", action="store_true", help="forget the rounds of earlier runs")
    given = words.parse_args()
    if missing := no_throttle():
        _tell(f"reliability: {missing}")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all is taken down
    seed = os.environ.get(SEED) or str(random.SystemRandom().randrange(1_000_000))
    found: dict[str, Any] = {"version": tool_version(), "rounds": [], "seeds": []}
    if _KEPT.exists() and not given.anew:
        kept = json.loads(_KEPT.read_text())
        found = kept if kept["version"] == tool_version() else found
    found["seeds"].append(seed)
    with tempfile.TemporaryDirectory(prefix="picloud-stations-") as name:
        for done in rounds(Path(name), seed, given.rounds):
            if not done.hit:
                continue  # the command had ended before
            found["rounds"].append(asdict(done))
            _KEPT.parent.mkdir(exist_ok=True)
            _KEPT.write_text(json.dumps(found))
            PAGE.write_text(page(found["rounds"], found["seeds"]))
    return 1 if any(one["wrong"] for one in found["rounds"]) else 0


if __name__ == "__main__":
    sys.exit(main())
