"""Kills writers at random moments, and pulls cards, and tells in which state the cards are.

In: a card's old and new image. Out: how many cards were blank, new or old; anything in between is
an AssertionError. The old image is a whole card of another life, so that in between would be the
boot partition of one and the root filesystem of the other.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from imager.base.progress import Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.disk.manifest import build_manifest
from imager.disk.mbr import encode
from imager.node.image import Delta, NodeImage
from tests.fault.rig import trusted_by
from tests.support.faultcard import FaultCard, fault_card
from tests.support.smallcard import (
    DISK_ID,
    LAYOUT,
    SIZE,
    boot_check,
    first_mib,
    is_whole,
    positions,
)

ROOT = Path(__file__).resolve().parents[2]
SPEED = 60e6


@dataclass(frozen=True, slots=True)
class Desk:
    """A card, the image it had, the one it gets, and who writes it."""

    card: FaultCard
    old: NodeImage
    new: NodeImage
    receipts: Path
    writer: subprocess.Popen[str]

    def lay_old(self) -> None:
        """Make the card the whole card of another life."""
        with self.old.open() as reader, self.card.store.open("r+b") as file:
            file.write(b"\xa5" * SIZE)
            for extent in self.old.manifest.extents:
                file.seek(extent.offset)
                file.write(reader.read(extent.offset, extent.length))

    def start(self, how: str) -> int:
        """Begin to write; the writer's pid."""
        assert self.writer.stdin is not None
        self.writer.stdin.write(how + "\n")
        self.writer.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """The status with which the one begun last ended; negative for a signal."""
        return int(self._line().removeprefix("done "))

    def _line(self) -> str:
        assert self.writer.stdout is not None
        return self.writer.stdout.readline()

    def state(self) -> str:
        """blank, new or old; fails for anything in between."""
        store = self.card.store
        table = first_mib(store)[:512]
        if not any(table):
            assert list(trusted_by(self.card.node, store)) == []
            return "blank"
        for name, image in (("new", self.new), ("old", self.old)):
            with image.open() as reader:
                if reader.read(0, 512) == table:
                    assert is_whole(store, image), f"neither blank nor the whole {name} card"
                    return name
        raise AssertionError("a partition table of neither card")


@contextmanager
def desk(folder: Path, old: NodeImage, new: NodeImage) -> Iterator[Desk]:
    (folder / "image").write_bytes(pickle.dumps(new))
    receipts = folder / "receipts"
    with fault_card(folder / "card", SIZE) as card:
        words = [str(folder / "image"), str(card.node), str(receipts)]
        writer = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.writer", *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield Desk(card, old, new, receipts, writer)
        finally:
            writer.communicate(timeout=60)


def sibling(image: NodeImage) -> NodeImage:
    """Another node of the same golden image: a table and a few blocks of its own."""
    kernel = next(place for place in positions(image) if place.name == "file data").extent
    pieces = [(0, encode(LAYOUT, DISK_ID + 9)), (kernel.offset, b"pi8 was here" * 1000)]
    changed = replace(image, node="pi8", delta=Delta(pieces))
    with changed.open() as reader:
        manifest = build_manifest(SIZE, image.manifest.extents, reader.read)
    return replace(changed, manifest=manifest)


def rounds(at: Desk, how: str, count: int, *, pulled: bool, until: str = "") -> Counter[str]:
    """Kill ``count`` writers, or up to three times as many ``until`` one left a card of that state;
    the states of their cards. The next run must succeed each time."""
    chance = random.Random(f"{how} {pulled}")
    at.card.set_speed(write_bps=SPEED, read_bps=SPEED)
    whole = _seconds(at, how)
    states: Counter[str] = Counter()
    for number in range(3 * count):
        if number >= count and (not until or states[until]):
            break
        at.lay_old()
        at.card.forget_unflushed(pulled)
        moment = chance.uniform(0, whole)
        pid = at.start(how)
        time.sleep(moment)
        with suppress(ProcessLookupError):  # it may be done already
            os.kill(pid, signal.SIGKILL)
        ended = at.wait()
        assert ended in (-signal.SIGKILL, 0)
        if pulled:
            at.card.pull(number)
        state = at.state()
        states[state] += 1
        # Other work may hold up the run by which the moments are chosen, or those that follow it.
        if ended == 0:
            whole = min(whole, moment)
        elif state == "old" and moment > whole / 2:
            whole = 2 * moment
        at.card.forget_unflushed(False)
        at.card.set_speed()
        at.start(how)
        assert at.wait() == 0, f"round {number}: the next run failed"
        assert is_whole(at.card.store, at.new)
        at.card.set_speed(write_bps=SPEED, read_bps=SPEED)
    return states


def _seconds(at: Desk, how: str) -> float:
    at.lay_old()
    began = time.monotonic()
    at.start(how)
    assert at.wait() == 0
    return time.monotonic() - began


def make_both(at: Desk) -> None:
    """Make the new card and then the old one, so that an update has receipts to go by."""
    for image in (at.new, at.old):
        make_card(
            CardOrder(
                image,
                accept(target_at(at.card.node), SIZE),
                TrustedFolder(at.receipts),
                check=boot_check(at.new),
            ),
            Quiet(),
        )
