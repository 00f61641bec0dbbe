"""A card that was many things before holds only our image afterwards, and boots from nothing else.

The old ext4 has the very UUID of ours and a journal that waits to be replayed: blocks that are
skipped as holes must never be ones that a kernel or a tool would read. Eight crashes in an
ordinary run; ``PICLOUD_FAULT_ROUNDS`` sets another number (50 in the full run).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.disk.ext4.filesystem import Ext4
from imager.node.image import NodeImage
from tests.fault.crashing import (
    OURS,
    card_with_a_past,
    crashes,
    everything,
    needs_recovery,
    old_root,
    write,
)
from tests.support.bootdisk import reading
from tests.support.faultcard import why_not
from tests.support.loop import Loop, loop_over, sized_file
from tests.support.smallcard import LAYOUT, SIZE, small_card

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(1800),
]

CRASHES = min(50, int(os.environ.get("PICLOUD_FAULT_ROUNDS", "8")))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> NodeImage:
    return small_card(tmp_path_factory.mktemp("image"))


@pytest.fixture
def card(tmp_path: Path, image: NodeImage) -> Iterator[Loop]:
    """A card with a past."""
    with loop_over(card_with_a_past(tmp_path, image)) as loop:
        yield loop


def test_the_past_is_as_hostile_as_it_says(card: Loop) -> None:
    """wipefs takes each of them for real before we write."""
    found = everything(card)
    seen = {kind for kinds in found.values() for kind, _ in kinds}
    assert {
        "gpt",
        "ext4",
        "linux_raid_member",
        "LVM2_member",
        "swap",
        "btrfs",
        "zfs_member",
    } <= seen
    assert len(found["disk"]) >= 4


def test_only_our_signatures_are_left(card: Loop, image: NodeImage, tmp_path: Path) -> None:
    write(card, image, tmp_path / "receipts")
    assert everything(card) == OURS
    assert not needs_recovery(card.backing, LAYOUT.root.offset)


def test_a_card_with_a_past_survives_crashes(card: Loop, image: NodeImage, tmp_path: Path) -> None:
    """The node uses its filesystem and loses power at random moments; e2fsck mends each state
    with our own journal, and what the node did not touch is as we wrote it."""
    dirty = crashes(card.backing, image, tmp_path, CRASHES)
    assert dirty, "no copy was taken in mid-flight: this proves nothing"


def test_a_stale_journal_block_is_what_this_test_would_see(tmp_path: Path) -> None:
    """The proof of the proof: the stranger's filesystem, replayed, shows his files."""
    store = sized_file(tmp_path / "card.raw", SIZE)
    old_root(store, "12345678-1234-4234-8234-123456789abc", tmp_path)
    replayed = tmp_path / "replayed.ext4"
    with store.open("rb") as file, replayed.open("wb") as out:
        file.seek(LAYOUT.root.offset)
        shutil.copyfileobj(file, out)
    subprocess.run(["e2fsck", "-fy", str(replayed)], capture_output=True, check=False)
    with reading(replayed) as read:
        assert any("late" in path for path, _ in Ext4.open(read, 0).walk())
