"""kill -9 and pulled cards: whatever the moment, a card is blank, or whole, or not yet touched.

The moments are random and seeded. Thirty rounds in an ordinary run of the tests; a full run has
``PICLOUD_FAULT_ROUNDS=200``. The card was a whole card of another life before, so that anything
in between would be a boot partition of one and a root filesystem of the other.
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

import pytest

from imager.base.progress import Quiet
from imager.card.make import make_card
from imager.card.refusals import accept
from imager.card.targets import target_at
from imager.image.manifest import build_manifest
from imager.image.mbr import encode
from imager.node.image import Delta, NodeImage
from tests.fault.rig import trusted_by
from tests.support.faultcard import Fault, FaultCard, fault_card, why_not
from tests.support.smallcard import (
    DISK_ID,
    LAYOUT,
    SIZE,
    boot_check,
    first_mib,
    is_whole,
    positions,
    small_card,
)

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(3600),
]

ROUNDS = int(os.environ.get("PICLOUD_FAULT_ROUNDS", "30"))
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
        pytest.fail("a partition table of neither card")


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


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[NodeImage, NodeImage]:
    """Cards of two releases."""
    return tuple(  # type: ignore[return-value]
        small_card(tmp_path_factory.mktemp(name), seed=seed, node=name)
        for seed, name in ((2, "old"), (1, "pi7"))
    )


def sibling(image: NodeImage) -> NodeImage:
    """Another node of the same golden image: a table and a few blocks of its own."""
    kernel = next(place for place in positions(image) if place.name == "file data").extent
    pieces = [(0, encode(LAYOUT, DISK_ID + 9)), (kernel.offset, b"pi8 was here" * 1000)]
    changed = replace(image, node="pi8", delta=Delta(pieces))
    with changed.open() as reader:
        manifest = build_manifest(SIZE, image.manifest.extents, reader.read)
    return replace(changed, manifest=manifest)


def rounds(at: Desk, how: str, count: int, *, pulled: bool) -> Counter[str]:
    """Kill ``count`` writers; the states of their cards. The next run must succeed each time."""
    chance = random.Random(f"{how} {pulled}")
    at.card.set_speed(write_bps=SPEED, read_bps=SPEED)
    whole = _seconds(at, how)
    states: Counter[str] = Counter()
    for number in range(count):
        at.lay_old()
        at.card.forget_unflushed(pulled)
        moment = chance.uniform(0, whole)
        pid = at.start(how)
        time.sleep(moment)
        with suppress(ProcessLookupError):  # it may be done already
            os.kill(pid, signal.SIGKILL)
        assert at.wait() in (-signal.SIGKILL, 0)
        if pulled:
            at.card.pull(number)
        states[at.state()] += 1
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


@pytest.mark.parametrize("pulled", [False, True], ids=["kill_9", "pulled"])
def test_a_killed_write_leaves_a_blank_or_a_whole_card(
    tmp_path: Path, images: tuple[NodeImage, NodeImage], pulled: bool
) -> None:
    """``pulled``: of what was written after the last flush, any part may be lost as well."""
    with desk(tmp_path, *images) as at:
        states = rounds(at, "write", ROUNDS if not pulled else ROUNDS // 2, pulled=pulled)
    assert set(states) <= {"blank", "new", "old"}
    assert states["blank"], "no moment hit the writing: this proves nothing"


@pytest.mark.parametrize("pulled", [False, True], ids=["kill_9", "pulled"])
def test_a_killed_update_leaves_a_blank_or_a_whole_card(
    tmp_path: Path, images: tuple[NodeImage, NodeImage], pulled: bool
) -> None:
    new = images[1]
    old = sibling(new)
    with desk(tmp_path, old, new) as at:
        for image in (new, old):
            make_card(
                image,
                accept(target_at(at.card.node), SIZE),
                at.receipts,
                Quiet(),
                check=boot_check(images[1]),
            )
        states = rounds(at, "update", ROUNDS // 3, pulled=pulled)
    assert set(states) <= {"blank", "new", "old"}


def test_a_card_that_stalls_for_half_a_minute_comes_out_right(
    tmp_path: Path, images: tuple[NodeImage, NodeImage]
) -> None:
    with desk(tmp_path, *images) as at:
        block = next(place for place in positions(at.new) if place.name == "kernel file").extent
        at.lay_old()
        at.card.phase("any")
        at.card.arm([Fault("stall", block, ("any",), times=1, seconds=30.0)])
        began = time.monotonic()
        at.start("write")
        assert at.wait() == 0
        assert time.monotonic() - began >= 30
        assert at.state() == "new"
