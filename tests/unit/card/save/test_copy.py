"""Reading a card that refuses sectors: all that it gives is saved, first what it gives gladly."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from imager.base.errors import CardIOError, HostStorage
from imager.base.progress import Quiet
from imager.base.units import SECTOR_BYTES, MiB
from imager.card.medium.raw import Descriptor
from imager.card.save.copy import PIECE_BYTES, CardCopy, differing
from imager.disk.extents import Extent, ExtentMap
from imager.disk.rescue_map import BlockState, RescueMap
from tests.support.cards import FaultyCard

SIZE = 20 * MiB
CONTENT = random.Random(7).randbytes(SIZE)
WHOLE = ExtentMap([Extent(0, SIZE)])


@dataclass
class DyingCard:
    """A card with ``bad`` sectors that goes altogether after ``answers`` reads."""

    bad: set[int] = field(default_factory=set)
    answers: int = 1 << 60
    tried: list[Extent] = field(default_factory=list)
    name: str = "the card"
    size_bytes: int = SIZE
    block_bytes: int = SECTOR_BYTES

    def __post_init__(self) -> None:
        self._bad = bytearray(SIZE // SECTOR_BYTES)
        for sector in self.bad:
            self._bad[sector] = 1

    def pread(self, offset: int, buffer: memoryview) -> int:
        self.answers -= 1
        if self.answers < 0:
            raise OSError(errno.ENODEV, "gone")
        self.tried.append(Extent(offset, len(buffer)))
        if 1 in self._bad[offset // SECTOR_BYTES : (offset + len(buffer)) // SECTOR_BYTES]:
            raise OSError(errno.EIO, "bad")
        buffer[:] = CONTENT[offset : offset + len(buffer)]
        return len(buffer)

    def pwrite(self, offset: int, data: memoryview) -> int:
        raise AssertionError("nobody writes to a card that is saved")

    def flush(self) -> None:
        raise AssertionError("nobody writes to a card that is saved")


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.memfd_create("saved")
    os.ftruncate(made, SIZE)
    yield made
    os.close(made)


def copy_of(card: DyingCard, fd: int, state: RescueMap | None = None) -> CardCopy:
    file = Descriptor(fd, "the file", SIZE, 1)
    return CardCopy(card, file, state or RescueMap(SIZE), lambda _: None)


def sectors(bad: set[int]) -> ExtentMap:
    return ExtentMap(Extent(one * SECTOR_BYTES, SECTOR_BYTES) for one in bad)


@pytest.mark.parametrize("count", [0, 1, 100, 10_000])
def test_every_byte_that_can_be_read_is_saved_and_the_rest_is_known(fd: int, count: int) -> None:
    bad = set(random.Random(count).sample(range(SIZE // SECTOR_BYTES), count))
    copy = copy_of(DyingCard(bad), fd)
    lost = copy.read(WHOLE, Quiet())
    assert lost == sectors(bad) == copy.state.having(BlockState.BAD)
    wanted = bytearray(CONTENT)
    for extent in lost:
        wanted[extent.offset : extent.end] = bytes(extent.length)
    assert os.pread(fd, SIZE, 0) == wanted


def test_what_is_sound_is_read_before_anything_is_tried_again(fd: int) -> None:
    card = DyingCard({3, 20_000})
    copy_of(card, fd).read(WHOLE, Quiet())
    sizes = [extent.length for extent in card.tried]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes.count(PIECE_BYTES) == SIZE // PIECE_BYTES
    assert sizes.count(SECTOR_BYTES) == 2 * 8


def test_only_what_counts_is_read(fd: int) -> None:
    card = DyingCard({40})
    counts = ExtentMap([Extent(MiB, 8192), Extent(5 * MiB, 6 * MiB)])
    assert not copy_of(card, fd).read(counts, Quiet())
    assert ExtentMap(card.tried) == counts


def test_a_run_that_was_cut_short_goes_on_where_it_was(fd: int) -> None:
    bad = {5, 30_000}
    first = copy_of(DyingCard(bad, answers=9), fd)
    with pytest.raises(CardIOError, match="No such device"):
        first.read(WHOLE, Quiet())
    state = RescueMap.parse(first.state.encode())
    done = state.having(BlockState.SAVED)
    assert done.total_bytes > 2 * PIECE_BYTES
    card = DyingCard(bad)
    lost = copy_of(card, fd, state).read(WHOLE, Quiet())
    assert lost == sectors(bad)
    assert not ExtentMap(card.tried) & done


def test_what_was_lost_is_tried_once_more(fd: int) -> None:
    first = copy_of(DyingCard({5, 6, 30_000}), fd)
    first.read(WHOLE, Quiet())
    card = DyingCard({30_000})
    assert copy_of(card, fd, first.state).read(WHOLE, Quiet()) == sectors({30_000})
    assert len(card.tried) == 3
    assert os.pread(fd, 1024, 5 * 512) == CONTENT[5 * 512 : 7 * 512]


class FullDisk(Descriptor):
    """A file of this computer on which there is no more room."""

    def pwrite(self, offset: int, data: memoryview) -> int:
        if offset >= 2 * PIECE_BYTES:
            raise OSError(errno.ENOSPC, "full")
        return super().pwrite(offset, data)


def test_what_was_saved_is_kept_while_more_is_read(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut the next run goes on from there."""
    monkeypatch.setattr("imager.card.save.copy._KEPT_EVERY_SECONDS", 0.001)
    kept = threading.Event()
    file = Descriptor(fd, "the file", SIZE, 1)
    copy = CardCopy(DyingCard(), file, RescueMap(SIZE), lambda _: kept.set())
    with copy._kept_now_and_then():
        assert kept.wait(60)


def test_a_full_disk_of_this_computer_is_no_fault_of_the_card(fd: int) -> None:
    kept: list[bytes] = []
    file = FullDisk(fd, "the file", SIZE, 1)
    copy = CardCopy(DyingCard(), file, RescueMap(SIZE), kept.append)
    with pytest.raises(HostStorage, match="No space left"):
        copy.read(WHOLE, Quiet())
    assert kept and copy.state.having(BlockState.SAVED) == ExtentMap([Extent(0, 2 * PIECE_BYTES)])
    assert not copy.state.having(BlockState.BAD, BlockState.NOT_TRIMMED)


def test_a_second_reading_finds_what_is_not_read_twice_alike(fd: int) -> None:
    copy = copy_of(DyingCard(), fd)
    copy.read(WHOLE, Quiet())
    digests = dict(copy.digests)
    assert sorted(digests) == list(WHOLE.split(PIECE_BYTES))
    assert not differing(DyingCard(), digests, Quiet(), [])
    other = Extent(PIECE_BYTES, PIECE_BYTES)
    digests[other] = bytes(32)
    silent = DyingCard({4 * PIECE_BYTES // SECTOR_BYTES})
    assert differing(silent, digests, Quiet(), []) == ExtentMap(
        [other, Extent(4 * PIECE_BYTES, PIECE_BYTES)]
    )


def test_what_is_refused_once_when_it_is_read_again_does_not_differ() -> None:
    card = FaultyCard(8 * MiB)
    digests = {
        piece: hashlib.sha256(card.holds(piece)).digest()
        for piece in ExtentMap([Extent(0, card.size_bytes)]).split(PIECE_BYTES)
    }
    card.failing_once = {700, 5 * MiB}
    assert not differing(card, digests, Quiet(), [])
    assert not card.failing_once
    card.failing_once = {700}
    card.data[5 * MiB] ^= 1
    assert differing(card, digests, Quiet(), []) == ExtentMap([Extent(PIECE_BYTES, PIECE_BYTES)])


def test_a_card_that_is_gone_is_not_taken_for_one_that_differs(fd: int) -> None:
    copy = copy_of(DyingCard(), fd)
    copy.read(WHOLE, Quiet())
    with pytest.raises(CardIOError, match="No such device"):
        differing(DyingCard(answers=2), copy.digests, Quiet(), [])
