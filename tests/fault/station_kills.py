"""Head, station, minion and master killed at random moments while cards are made on stations.

In: a rack on a head and its desks (``tests/support/deskrack.py``), a chance. Out: what each round
ended as, and everything about it that is not as it must be: a node with two cards, a card that
the ledger calls good and is not, a node whose card nobody knows and that is not said to be so.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import PicloudError
from imager.card.inspect.stamp import read_stamp
from imager.card.inspect.verify import open_target
from imager.card.medium.reopen import reader_of
from imager.node.stamp.facts import StampError
from imager.rack.history.events import Standing
from imager.rack.history.ledger import read_ledger
from tests.support.deskrack import DeskRack
from tests.support.loop import Loop, call
from tests.support.rackcards import forget, is_whole

_WORDS = {
    "head": b"rack\0flash",
    "station": b"station\0work",
    "minion": b"salt-minion",
    "master": b"salt-master",
}
_STARTED_AGAIN = {"minion": "salt-minion", "master": "salt-master"}
VICTIMS = tuple(_WORDS)
_GOOD, _UNKNOWN = Standing.VERIFIED, Standing.UNKNOWN
_AGAIN = 4
"""Runs afterwards: a minion that was killed, or whose master was, is found again after a while."""
_SECONDS = 900.0
_LOOKING_SECONDS = 0.2
"""Between two looks through all processes, which take some hundredths of a second themselves."""


@dataclass(frozen=True, slots=True)
class Course:
    """How it goes when nothing is killed: how many ``lines`` the command says, and for how many
    ``seconds`` a station's program is at work."""

    lines: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Struck:
    """One round. ``lines`` is how many the command had said before; ``hit`` whether there was
    anything to kill; ``runs`` how often it was run afterwards; ``verified`` and ``unknown`` how
    many nodes ended so; ``wrong`` what must not be."""

    victim: str
    lines: int
    hit: bool
    runs: int
    verified: int
    unknown: int
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        end = "; ".join(self.wrong) or f"{self.verified} verified, {self.unknown} unknown"
        what = "killed" if self.hit else "nothing to kill"
        return f"{self.victim}: {what} after {self.lines} lines: {end}, after {self.runs} more runs"


def undisturbed(desks: DeskRack) -> Course:
    """Make all cards while nothing is killed."""
    blank_all(desks)
    desk = desks.lab.desks["desk1"].box
    seconds = 0.0
    with _flashing(desks) as (head, lines):
        while head.poll() is None:
            began = time.monotonic()
            time.sleep(_LOOKING_SECONDS)
            if desks.lab.has(desk, _WORDS["station"]):
                seconds += time.monotonic() - began
    assert head.returncode == 0, b"".join(lines[-20:])
    assert not [*_faults(desks)]
    assert seconds, "desk1 was seen at work"
    return Course(len(lines), seconds)


def struck(desks: DeskRack, victim: str, chance: random.Random, course: Course) -> Struck:
    """Kill ``victim`` once while the cards are made, and run the command until nothing is left for
    it to do."""
    blank_all(desks)
    # At the very end nothing may be left to kill.
    moment, desk = 0.9 * chance.random(), f"desk{chance.randrange(len(desks.lab.desks)) + 1}"
    lines, hit = _strike(desks, victim, desk, moment, course)
    desks.lab.head.wait_until_answering({*desks.lab.desks}, seconds=_SECONDS, patience=15)
    _wait_until_idle(desks)
    runs, said = 0, ""
    before, now = None, _standings(desks)
    while runs < _AGAIN and not (_settled(now) and (now == before or set(now) == {_GOOD})):
        runs += 1
        said = desks.run(*_flash(desks)).out
        before, now = now, _standings(desks)
    wrong = [*_faults(desks)]
    if not _settled(now):
        wrong.append(f"after {runs} runs some node is neither good nor unknown: {said[-600:]}")
    return Struck(victim, lines, hit, runs, now.count(_GOOD), now.count(_UNKNOWN), tuple(wrong))


def blank_all(desks: DeskRack) -> None:
    """Make the rack one that never wrote a card, and its cards blank."""
    _wait_until_idle(desks)
    forget(desks.place)
    for card in desks.cards:
        card.require_ours()
        call("blkdiscard", str(card.node))


def _strike(
    desks: DeskRack, victim: str, desk: str, moment: float, course: Course
) -> tuple[int, bool]:
    """Kill ``victim`` once, when so much of the ``course`` is over (from 0 to 1): of the lines that
    the command says, or of the time for which a station's program works. Start again what computers
    start by themselves. Returns how many lines it said before, and whether anything was killed
    before it ended."""
    lab = desks.lab
    box = lab.desks[desk].box if victim in ("station", "minion") else lab.head
    count, hit = 0, False
    with _flashing(desks) as (head, lines):
        while not hit and head.poll() is None:
            time.sleep(_LOOKING_SECONDS)
            if victim == "station":
                # It works for a small part of a run, and what it says comes late.
                if not lab.has(box, _WORDS[victim]):
                    continue
                time.sleep(moment * course.seconds)
            elif len(lines) < moment * course.lines:
                continue
            count, hit = len(lines), bool(lab.kill(box, _WORDS[victim]))
        if hit and victim in _STARTED_AGAIN:
            lab.start(box, _STARTED_AGAIN[victim])
    return count, hit


@contextmanager
def _flashing(desks: DeskRack) -> Iterator[tuple[subprocess.Popen[bytes], Sequence[bytes]]]:
    """The command at work, and the lines that it has said so far; with the block it has ended."""
    lines: list[bytes] = []
    words, pipe, nothing = desks.command(*_flash(desks)), subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(words, stdin=nothing, stdout=pipe, stderr=nothing) as head:
        assert head.stdout is not None
        said = head.stdout

        def read() -> None:
            for line in said:
                lines.append(line)

        reading = threading.Thread(target=read)
        reading.start()
        try:
            yield head, lines
            reading.join()
        finally:
            desks.lab.kill(desks.lab.head, _WORDS["head"])
            reading.join()


def _flash(desks: DeskRack) -> list[str]:
    stations = f"desk[1-{len(desks.lab.desks)}]"
    return ["rack", "flash", f"pi[0-{len(desks.cards) - 1}]", "--stations", stations, "--yes"]


def _nodes(desks: DeskRack) -> list[str]:
    return [f"pi{number}" for number in range(len(desks.cards))]


def _wait_until_idle(desks: DeskRack) -> None:
    """Stations finish what they began, whoever was killed."""
    until = time.monotonic() + _SECONDS
    while any(desks.lab.has(desk.box, b"station\0work") for desk in desks.lab.desks.values()):
        assert time.monotonic() < until
        time.sleep(1)


def _standings(desks: DeskRack) -> list[Standing]:
    ledger = read_ledger(desks.place.rack)
    return [ledger.state_of(node).standing() for node in _nodes(desks)]


def _settled(standings: list[Standing]) -> bool:
    return {*standings} <= {_GOOD, _UNKNOWN}


def _faults(desks: DeskRack) -> Iterator[str]:
    ledger = read_ledger(desks.place.rack)
    on = {card: _node_on(card) for card in desks.cards}
    for node in _nodes(desks):
        state = ledger.state_of(node)
        held = [card for card, name in on.items() if name == node]
        if len(held) > 1:
            yield f"{node} is on {len(held)} cards"
        if state.standing() is _GOOD:
            assert state.last is not None
            path = Path(state.last.target.partition(":")[2])
            if [card.node for card in held] != [path]:
                yield f"{node} is not on {path}, which the ledger calls good"
            elif not is_whole(held[0].backing, desks.place, state.last.receipt):
                yield f"{node}'s card is called good and is not"
        elif state.begun is not None and not state.begun.where:
            yield f"{node} is unknown, and nobody knows where"


def _node_on(card: Loop) -> str:
    """The node that the card's stamp names; empty for a card that is blank."""
    with open_target(card.backing) as fresh:
        try:
            return read_stamp(reader_of(fresh.raw), fresh.raw.size_bytes).facts.node
        except (PicloudError, StampError):
            return ""
