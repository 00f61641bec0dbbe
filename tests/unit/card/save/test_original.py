"""How large a copy of a card is, and what it has."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import HostStorage, TargetRefused
from imager.base.run import run
from imager.base.units import KiB, MiB, format_size
from imager.card.save.original import _opened_alone, opened_original
from imager.card.save.saved_file import map_beside
from imager.disk.extents import Extent
from imager.disk.rescue_map import BlockState, RescueMap
from tests.support.cards import FaultyCard
from tests.support.sysfs import FakeHost

SIZE = 8 * MiB
NOISE = os.urandom(SIZE)


def card_with(folder: Path, label: str, sectors: int, size: int = SIZE) -> Path:
    """A card with one partition of so many sectors from 1 MiB on, of nothing that is known."""
    card = folder / "card.img"
    card.write_bytes(bytes(MiB) + NOISE[2 * MiB :] + bytes(MiB))
    os.truncate(card, size)
    run(["sfdisk", "--quiet", card], stdin=f"label: {label}\nstart=2048, size={sectors}".encode())
    return card


@pytest.mark.parametrize(
    ("label", "sectors", "size", "wanted"),
    [
        ("dos", 8192, SIZE, 5 * MiB),
        ("dos", 8193, SIZE, 5 * MiB + 4 * KiB),
        ("gpt", 8192, SIZE, 5 * MiB + 20 * KiB),
        ("gpt", 8193, SIZE, 5 * MiB + 20 * KiB),
        ("dos", 8193, 5 * MiB + 512, 5 * MiB + 512),
    ],
)
def test_a_copy_is_as_large_as_its_partitions_and_a_table_behind_them(
    tmp_path: Path, label: str, sectors: int, size: int, wanted: int
) -> None:
    card = card_with(tmp_path, label, sectors, size)
    with opened_original(card) as original:
        assert original.size_bytes == original.least_bytes == wanted
        assert original.lost_bytes == 0
        assert not original.is_slow
        assert original.title == f"{card}: an image file of {format_size(size)}"
        with original.read(SIZE) as reading:
            found = bytearray()
            for offset, data in reading.pieces():
                assert offset == len(found)
                found += data
            assert reading.size_bytes == wanted
    assert found[:wanted] == card.read_bytes()[: len(found)][:wanted]


def test_what_a_saved_card_lost_is_known(tmp_path: Path) -> None:
    card = card_with(tmp_path, "dos", 8192)
    state = RescueMap(SIZE)
    state.put(Extent(0, SIZE), BlockState.SAVED)
    state.put(Extent(MiB, 1024), BlockState.BAD)
    map_beside(card).write_bytes(state.encode())
    with opened_original(card) as original:
        assert original.lost_bytes == 1024
    map_beside(card).write_bytes(b"torn")
    with opened_original(card) as original:
        assert original.lost_bytes is None, "it would not be there if nothing were lost"


def test_the_bad_sector_is_named_and_what_fails_once_is_read_again(tmp_path: Path) -> None:
    bad = 2 * MiB + 5 * KiB
    worn = FaultyCard(SIZE, read_errors={bad + 7: errno.EIO}, failing_once={MiB})
    with opened_original(card_with(tmp_path, "dos", 8192)) as original:
        reading = replace(original, raw=worn).read(SIZE)
        with reading as its, pytest.raises(HostStorage) as caught:
            list(its.pieces())
    assert caught.value.what == (
        "the card to be copied cannot be read: /dev/faulty: reading at byte "
        f"{bad} failed: Input/output error"
    )


@pytest.mark.parametrize(
    ("number", "mounted", "refused"),
    [(errno.EBUSY, False, True), (errno.EBUSY, True, False), (errno.ENXIO, False, False)],
)
def test_what_another_program_holds_is_not_copied(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    mounted: bool,
    refused: bool,
) -> None:
    """But for what is mounted, which ``at_rest`` judges; whoever reads it says what else it is."""
    host = FakeHost(tmp_path)
    host.disk("sdb", "8:16")
    if mounted:
        host.mount("8:16", "/media/card")

    def fails(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("imager.card.save.original.os.open", fails)
    with pytest.raises(TargetRefused, match="in use by another") if refused else nullcontext():
        assert _opened_alone(Path("/dev/sdb"), "8:16", host.kernel) is None


def test_a_card_that_was_written_to_meanwhile_is_of_no_one_moment(tmp_path: Path) -> None:
    card = card_with(tmp_path, "dos", 8192)
    with opened_original(card) as original, original.read(SIZE) as reading:
        pieces = reading.pieces()
        next(pieces)
        with card.open("r+b") as file:
            file.seek(MiB)
            file.write(b"!")
        with pytest.raises(HostStorage, match="is not what it was when copying began"):
            list(pieces)
