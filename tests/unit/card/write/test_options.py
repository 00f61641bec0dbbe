"""Size and number of transfers: as asked, as the device says, within the memory there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import UsageError
from imager.base.units import KiB, MiB
from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk, disk_named
from imager.card.host.image_file import ImageFile
from imager.card.host.target import Queue
from imager.card.write.options import MAX_IN_FLIGHT, options_for
from tests.support.sysfs import FakeHost

READER = Disk("/dev/sdb", "8:16", 32 * 2**30, Bus.USB, removable=True)
FILE = ImageFile(Path("/x/pi7.img"), False, 0, True)
MANY = Disk("/dev/nvme1n1", "259:1", 1, Bus.NVME)


def slot(erase_bytes: int) -> Disk:
    """A card in a native slot."""
    queue = Queue(erase_bytes=erase_bytes)
    return Disk("/dev/mmcblk0", "179:0", 32 * 2**30, Bus.MMC, removable=True, queue=queue)


@pytest.mark.parametrize(
    ("target", "block_mib", "depth", "words"),
    [
        (READER, 4, 2, "by default"),
        (FILE, 4, 2, "by default"),
        (slot(4 * MiB), 4, 2, "the card's erase unit"),
        (slot(8 * MiB), 8, 2, "the card's erase unit"),
        (slot(16 * MiB), 16, 2, "the card's erase unit"),
        (slot(512 * KiB), 4, 2, "the card's erase unit"),
        (slot(3 * MiB), 6, 2, "the card's erase unit"),
        (slot(3 * MiB // 2), 4, 2, "by default"),
        (slot(64 * MiB), 4, 2, "by default"),
        (Disk("/dev/sdc", "8:32", 1, Bus.USB, queue=Queue(65535 * 512)), 4, 2, "by default"),
        (Disk("/dev/sdc", "8:32", 1, Bus.SCSI, queue=Queue(3 * MiB)), 6, 2, "optimal transfer"),
        (Disk("/dev/sdc", "8:32", 1, Bus.USB, queue=Queue(commands=29)), 4, 4, "many at a time"),
        (Disk("/dev/sdc", "8:32", 1, Bus.USB, queue=Queue(commands=1)), 4, 2, "by default"),
        (Disk("/dev/nvme1n1", "259:1", 1, Bus.NVME), 4, 4, "many at a time"),
        (
            Disk("/dev/sdc", "8:32", 1, Bus.USB, removable=True, queue=Queue(commands=29)),
            *(4, 2, "by default"),
        ),
    ],
)
def test_what_the_device_says(
    target: Disk | ImageFile, block_mib: int, depth: int, words: str
) -> None:
    options = options_for(target)
    assert (options.block_bytes, options.depth) == (block_mib * MiB, depth)
    assert words in options.why


def test_it_is_read_from_sysfs(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.disk("mmcblk0", "179:0", device__preferred_erase_size=str(8 * MiB), device__type="SD")
    host.disk("sdc", "8:32", queue__optimal_io_size=str(3 * MiB), device__queue_depth="29")
    assert disk_named("mmcblk0", (), host.kernel).queue == Queue(erase_bytes=8 * MiB)
    assert disk_named("sdc", (), host.kernel).queue == Queue(3 * MiB, commands=29)


def test_what_is_asked_for_counts_more() -> None:
    options = options_for(slot(8 * MiB), block_bytes=2 * MiB, depth=5)
    assert (options.block_bytes, options.depth) == (2 * MiB, 5)
    assert options.why == "as asked"


def test_what_both_have_in_common_is_said_once() -> None:
    assert options_for(READER).why == "by default"
    assert options_for(READER, depth=3).why == "size by default, number as asked"


@pytest.mark.parametrize(
    ("block", "depth"),
    [
        *((MiB // 2, None), (MiB + 512, None), (17 * MiB, None), (32 * MiB, None)),
        *((None, 0), (None, 33), (16 * MiB, 3), (MiB, 33)),
    ],
)
def test_useless_wishes_are_refused(block: int | None, depth: int | None) -> None:
    with pytest.raises(UsageError):
        options_for(READER, block_bytes=block, depth=depth)


def test_more_transfers_than_the_smallest_that_may_be_are_refused_whatever_their_size() -> None:
    with pytest.raises(UsageError, match=r"^33 transfers at a time") as caught:
        options_for(READER, depth=33)
    assert caught.value.hint == "choose from 1 to 32"


@pytest.mark.parametrize(("block", "depth"), [(MiB, 32), (16 * MiB, 2), (16 * MiB, 1), (MiB, 1)])
def test_wishes_at_the_edge_of_what_may_be(block: int, depth: int) -> None:
    options = options_for(READER, block_bytes=block, depth=depth)
    assert (options.block_bytes, options.depth) == (block, depth)


@pytest.mark.parametrize(
    ("target", "most_mib", "block_mib", "depth"),
    [
        *((READER, 8, 4, 2), (READER, 7, 2, 2), (READER, 4, 2, 2), (READER, 3, 1, 2)),
        *((READER, 2, 1, 2), (READER, 1, 1, 1), (READER, 0, 1, 1)),
        *((slot(6 * MiB), 11, 3, 2), (slot(6 * MiB), 5, 1, 2)),
        *((MANY, 16, 4, 4), (MANY, 15, 4, 3), (MANY, 11, 4, 2), (MANY, 7, 2, 2), (MANY, 1, 1, 1)),
    ],
)
def test_what_gives_way_when_there_is_little_memory(
    target: Disk, most_mib: int, block_mib: int, depth: int
) -> None:
    """First the third transfer and those after it, then the size, last of all the second one."""
    options = options_for(target, most_bytes=most_mib * MiB)
    assert (options.block_bytes, options.depth) == (block_mib * MiB, depth)


def test_a_wish_is_kept_however_little_memory_there_is() -> None:
    asked = options_for(READER, block_bytes=8 * MiB, most_bytes=MiB)
    assert (asked.block_bytes, asked.depth) == (8 * MiB, 1)
    assert asked.why == "size as asked, number for memory"
    asked = options_for(READER, depth=2, most_bytes=MiB)
    assert (asked.block_bytes, asked.depth) == (MiB, 2)


def test_a_wish_for_many_transfers_makes_them_smaller() -> None:
    options = options_for(READER, depth=9)
    assert (options.block_bytes, options.depth) == (2 * MiB, 9)


@given(
    most=st.integers(1, 64 * MiB),
    erase=st.sampled_from([0, 512 * KiB, 4 * MiB, 16 * MiB]),
    commands=st.integers(0, 64),
    fixed=st.booleans(),
)
def test_it_fits_the_memory_there_is(most: int, erase: int, commands: int, fixed: bool) -> None:
    queue = Queue(erase_bytes=erase, commands=commands)
    disk = Disk("/dev/sdb", "8:16", 2**35, Bus.USB, removable=not fixed, queue=queue)
    options = options_for(disk, most_bytes=most)
    assert options.block_bytes * options.depth <= max(MiB, min(most, MAX_IN_FLIGHT))
    assert options.block_bytes % MiB == 0
    assert options.depth >= 1
    if most >= 2 * MiB:
        assert options.depth >= 2, "the card waits for nobody"
