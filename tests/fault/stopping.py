"""Kills what reads and copies cards at random moments, pulls cards, and runs it twice at once.

In: a source card, and a card to be written. Out: in which state each round left what was made;
anything but nothing, blank or whole is an AssertionError, and so is a next run that does not make
it whole.
"""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from imager.base.units import MiB
from imager.disk.extents import Extent
from tests.fault.dying import (
    ROOT,
    SIZE,
    Dying,
    dying_card,
    first_differing,
    run_for,
    run_to_the_end,
    words_of,
)
from tests.support.faultcard import Fault, FaultCard, fault_card

READ, CLONE, IMAGE = HOWS = ("read", "clone", "write --image")
_JUNK = b"\xa5" * MiB
_SPEED = 24e6
_MINUTE = 60.0
_YES = ("--yes", "--allow-fixed-disk", "--no-probe")


@dataclass(frozen=True, slots=True)
class Pair:
    """A card with an ext4, ``target`` a card as large, and a folder for files."""

    source: Dying
    target: FaultCard
    folder: Path

    @property
    def image(self) -> Path:
        """What ``read`` makes."""
        return self.folder / "saved.img"

    @property
    def packed(self) -> Path:
        """What ``write --image`` is given."""
        return self.folder / "given.img.zst"

    def words(self, how: str) -> tuple[object, ...]:
        """What is typed."""
        match how:
            case "read":
                return "read", self.source.card.node, self.image
            case "clone":
                return "clone", self.source.card.node, self.target.node, *_YES
            case _:
                return "write", self.target.node, "--image", self.packed, *_YES

    def begin_anew(self) -> None:
        """Both cards are well and slow, the target is full of something else, no file is there."""
        for card in (self.source.card, self.target):
            card.arm()
            card.set_speed(read_bps=_SPEED, write_bps=_SPEED)
        self.target.store.write_bytes(_JUNK * (SIZE // MiB))
        for path in self.folder.glob("*saved.img*"):
            path.unlink()

    def state(self, how: str) -> str:
        """``whole``, or as it was before, ``untouched``, or else ``blank``: for a file, nothing of
        that name. Fails for anything in between."""
        made = self.image if how == READ else self.target.store
        if how == READ and not made.exists():
            return "blank" if [*self.folder.glob(".saved.img.partial*")] else "untouched"
        with made.open("rb") as file:
            first = file.read(MiB)
        if first == _JUNK:
            return "untouched"
        if not any(first):
            return "blank"
        differs = first_differing(self.source.card.store, made, self.source.in_use)
        assert differs is None, f"neither blank nor whole: byte {differs.offset}"
        return "whole"

    def require_next_run(self, how: str) -> None:
        """The same command again, on cards that are well, makes it whole."""
        for card in (self.source.card, self.target):
            card.arm()
            card.set_speed()
        if how == READ and self.image.exists():
            return
        code, events = run_to_the_end(*self.words(how))
        assert code == 0, events[-1]
        assert self.state(how) == "whole"


@contextmanager
def pair(folder: Path) -> Iterator[Pair]:
    """Two such cards, one of them not written yet; receipts are kept in ``folder``."""
    files = folder / "files"
    files.mkdir(parents=True)
    with (
        dying_card(folder / "source", "ext4") as source,
        fault_card(folder / "other", SIZE) as card,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("HOME", str(folder))
        made = Pair(source, card, files)
        code, events = run_to_the_end("read", source.card.node, made.packed)
        assert code == 0, events[-1]
        yield made


def killed(at: Pair, how: str, count: int, seed: str) -> Counter[str]:
    """Kill ``count`` runs at random moments; the states in which they left what they made."""
    chance = random.Random(f"{seed} {how}")
    at.begin_anew()
    whole = run_for(_MINUTE, *at.words(how))
    assert at.state(how) == "whole"
    states: Counter[str] = Counter()
    for _ in range(count):
        at.begin_anew()
        run_for(chance.uniform(0, whole), *at.words(how))
        states[at.state(how)] += 1
        at.require_next_run(how)
    return states


def pulled(at: Pair, how: str, count: int, seed: str) -> Counter[str]:
    """Pull the card that is read, or with ``clone`` and ``write --image`` in every other round the
    one that is written, in the middle of ``count`` runs."""
    chance = random.Random(f"{seed} {how} pulled")
    states: Counter[str] = Counter()
    for number in range(count):
        at.begin_anew()
        writes = how == IMAGE or (how == CLONE and number % 2)
        card, on = (at.target, "write") if writes else (at.source.card, "read")
        place = chance.choice([*at.source.in_use.split(512)])
        card.arm([Fault("vanish", Extent(place.offset, 512), ("",), on=on)])
        card.phase("")
        code, _ = run_to_the_end(*at.words(how))
        card.arm()
        states[at.state(how)] += 1
        assert code in (22, 41) or (code == 0 and at.state(how) == "whole"), code
        at.require_next_run(how)
    return states


def both_at_once(at: Pair, how: str) -> tuple[int, int]:
    """Two runs of the same command, the second begun while the first is at work: how each ended.
    What is made is whole after both."""
    at.begin_anew()
    for card in (at.source.card, at.target):
        card.set_speed(read_bps=_SPEED / 6, write_bps=_SPEED / 6)
    with subprocess.Popen(words_of(*at.words(how)), cwd=ROOT, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        second, _ = run_to_the_end(*at.words(how))
        first.communicate()
    assert at.state(how) == "whole"
    return first.returncode, second
