"""A GPT field by field, and chains of logical partitions, made by hand."""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass

import pytest

from imager.disk.extents import Extent
from imager.disk.gpt import Gpt, GptError, read_gpt, resized
from imager.disk.padded import padded
from imager.disk.table import read_table

SECTOR = 512
LINUX = uuid.UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")
DISK = uuid.UUID("AAAAAAAA-0000-4000-8000-000000000001")


def entry(low: int, high: int, name: str = "root", kind: bytes = LINUX.bytes_le) -> bytes:
    own = uuid.UUID(int=low).bytes_le
    return struct.pack("<16s16sQQQ72s", kind, own, low, high, 0, name.encode("utf-16-le"))


@dataclass(frozen=True)
class Made:
    """One copy of a table on a disk of so many sectors; the other copy is missing."""

    entries: bytes = entry(40, 49)
    count: int = 1
    size: int = 128
    length: int = 92
    lba: int = 1
    own: int | None = None
    first: int = 2
    sectors: int = 64

    def disk(self) -> bytearray:
        data = bytearray(self.sectors * SECTOR)
        table = self.entries.ljust(self.count * self.size, b"\0")[: self.count * self.size]
        header = struct.pack(
            "<8sIIIIQQQQ16sQIII",
            *(b"EFI PART", 0x10000, self.length, 0, 0),
            *(self.lba if self.own is None else self.own, 0, 0, 0, DISK.bytes_le),
            *(self.first, self.count, self.size, zlib.crc32(table)),
        ).ljust(self.length, b"\7")[: max(92, self.length)]
        summed = zlib.crc32(header[: self.length])
        header = header[:16] + summed.to_bytes(4, "little") + header[20:]
        data[self.first * SECTOR : self.first * SECTOR + len(table)] = table
        data[self.lba * SECTOR : self.lba * SECTOR + len(header)] = header
        return data[: self.sectors * SECTOR]

    def read(self, disk: bytearray | None = None) -> Gpt:
        data = bytes(self.disk() if disk is None else disk)
        return read_gpt(lambda at, length: data[at : at + length], len(data))


@pytest.mark.parametrize("lba", [1, 63])
def test_either_copy_is_the_table(lba: int) -> None:
    found = Made(lba=lba).read()
    assert (found.guid, found.is_backup) == (str(DISK), lba == 63)
    (part,) = found.partitions
    assert (part.index, part.type_guid, part.label) == (1, str(LINUX), "root")
    assert part.guid == str(uuid.UUID(int=40))
    assert part.extent == Extent(40 * SECTOR, 10 * SECTOR)


@pytest.mark.parametrize("lba", [1, 63])
@pytest.mark.parametrize("sectors", [52, 64, 100])
def test_a_table_is_moved_to_the_end_of_a_disk_of_another_size(lba: int, sectors: int) -> None:
    """Its partition ends at sector 49; behind it are one sector of entries and a header."""
    disk = Made(lba=lba).disk()
    disk[446 + 4], disk[510:512] = 0xEE, b"\x55\xaa"
    struct.pack_into("<II", disk, 446 + 8, 1, 63)
    disk[462:478] = b"\xee" * 4 + b"\x0c" + b"\xee" * 11  # of another type
    struct.pack_into("<BxxxBxxxII", disk, 478, 0, 0xEE, sectors + 5, 9)  # behind the end
    raw = bytes(disk)
    pieces = resized(lambda at, n: raw[at : at + n], len(raw), sectors * SECTOR)
    new = bytearray(raw[: sectors * SECTOR].ljust(sectors * SECTOR, b"\0"))
    for at, piece in pieces:
        new[at : at + len(piece)] = piece
    assert len(new) == sectors * SECTOR
    assert struct.unpack_from("<II", new, 446 + 8) == (1, sectors - 1)
    assert new[462:490] == disk[462:490]
    assert struct.unpack_from("<II", new, 478 + 8) == (sectors + 5, 0)
    first = Made().read(new)
    for own, other in ((1, sectors - 1), (sectors - 1, 1)):
        found = struct.unpack_from("<8sIIIIQQQQ16sQIII", new, own * SECTOR)
        assert found[5:7] == (own, other)
        assert found[8] == sectors - 3, "the last sector that a partition may have"
    new[SECTOR : 2 * SECTOR] = bytes(SECTOR)
    second = Made().read(new)
    assert (first.is_backup, second.is_backup) == (False, True)
    assert first.partitions == second.partitions == Made().read().partitions


def test_a_partition_must_fit_before_the_second_copy() -> None:
    raw = bytes(Made().disk())
    with pytest.raises(GptError, match=f"do not fit on a disk of {51 * SECTOR} bytes"):
        resized(lambda at, n: raw[at : at + n], len(raw), 51 * SECTOR)
    grown = dict(resized(lambda at, n: raw[at : at + n], len(raw), 80 * SECTOR, (1, 70 * SECTOR)))
    new = bytearray(80 * SECTOR)
    for at, piece in grown.items():
        new[at : at + len(piece)] = piece
    (part,) = Made().read(new).partitions
    assert part.extent == Extent(40 * SECTOR, 30 * SECTOR)


def test_a_partition_must_begin_behind_the_first_copy() -> None:
    """That one is lost, and what is left may be of more entries than lie before sector 40."""

    def moved(count: int) -> dict[int, bytes]:
        raw = bytes(Made(lba=127, first=88, count=count, sectors=128).disk())
        return dict(resized(lambda at, n: raw[at : at + n], len(raw), 200 * SECTOR))

    assert len(moved(152)[2 * SECTOR]) == 38 * SECTOR
    with pytest.raises(GptError, match="do not fit"):
        moved(153)


@pytest.mark.parametrize(
    "made",
    [
        Made(length=512),
        Made(count=0),
        Made(size=136),
        Made(size=1024),
        Made(count=1024, sectors=2 + 256),
        Made(first=63, count=4),
    ],
)
def test_what_the_specification_allows_is_read(made: Made) -> None:
    assert len(made.read().partitions) == min(made.count, 1)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (Made(length=91), "header of the GPT is damaged"),
        (Made(length=513), "header of the GPT is damaged"),
        (Made(own=2), "header of the GPT is damaged"),
        (Made(count=1025, sectors=400), "claims 1025 entries of 128 bytes"),
        (Made(size=120), "claims 1 entries of 120 bytes"),
        (Made(size=132), "claims 1 entries of 132 bytes"),
        (Made(size=1032), "claims 1 entries of 1032 bytes"),
        (Made(first=63, count=5), "beyond the disk"),
    ],
)
def test_what_it_does_not_is_refused(made: Made, why: str) -> None:
    with pytest.raises(GptError, match=why):
        made.read()


def test_every_byte_of_it_counts() -> None:
    """The header, its checksum, and the entries with theirs."""
    whole = Made(entries=entry(40, 49) + entry(50, 59), count=2)
    for at in (*range(SECTOR, SECTOR + 92), *range(2 * SECTOR, 2 * SECTOR + 256)):
        spoilt = whole.disk()
        spoilt[at] ^= 1
        with pytest.raises(GptError):
            whole.read(spoilt)


def test_entries_not_in_use_keep_their_numbers() -> None:
    entries = (
        entry(40, 49, kind=bytes(16)),
        entry(49, 48),
        entry(50, 50, "one\0left over\0"),
        entry(51, 60, "x" * 36),
    )
    found = Made(entries=b"".join(entries), count=4).read().partitions
    assert [(part.index, part.label) for part in found] == [(3, "one"), (4, "x" * 36)]
    assert found[0].extent == Extent(50 * SECTOR, SECTOR)


@pytest.mark.parametrize("sectors", [1, 2])
def test_a_disk_of_a_sector_or_two_has_none(sectors: int) -> None:
    with pytest.raises(GptError, match="no room" if sectors == 1 else "there is no GPT"):
        Made().read(bytearray(sectors * SECTOR))


def sector(*entries: tuple[int, int, int]) -> bytes:
    """A table of these entries: type, first sector, sectors."""
    packed = [struct.pack("<B3sB3sII", 0, b"", kind, b"", *where) for kind, *where in entries]
    return bytes(446) + b"".join(packed).ljust(64, b"\0") + b"\x55\xaa"


def numbers(disk: dict[int, bytes], sectors: int = 1000) -> list[tuple[int, int]]:
    """Number and first sector of each partition of a disk with these sectors."""

    def read(offset: int, length: int) -> bytes:
        assert offset + length <= sectors * SECTOR, "never beyond the disk"
        return disk.get(offset // SECTOR, bytes(SECTOR))[:length]

    found = read_table(read, sectors * SECTOR).partitions
    return [(part.index, part.extent.offset // SECTOR) for part in found]


@pytest.mark.parametrize("kind", [0x05, 0x0F, 0x85])
def test_each_kind_of_extended_partition_holds_logical_ones(kind: int) -> None:
    disk = {
        0: sector((kind, 100, 500), (0x83, 10, 20)),
        100: sector((0x83, 1, 5), (kind, 50, 9), (kind, 70, 9)),
        150: sector((kind, 60, 9), (0x83, 2, 5)),
        160: sector((0x83, 3, 5)),
    }
    assert numbers(disk) == [(2, 10), (5, 101), (6, 152), (7, 163)]


@pytest.mark.parametrize("kind", [0x04, 0x06, 0x0E, 0x10, 0x84, 0x86])
def test_no_other_kind_does(kind: int) -> None:
    assert numbers({0: sector((kind, 100, 500)), 100: sector((0x83, 1, 5))}) == [(1, 100)]


def chain(links: int, *, every: int = 1) -> dict[int, bytes]:
    """An extended partition of so many sectors in a chain, the last with a partition, and each of
    ``every``."""
    disk = {0: sector((5, 10, 900))}
    for number in range(links):
        own = [(0x83, 1, 1)] if number % every == 0 or number == links - 1 else []
        onward = [(5, number + 1, 1)] if number < links - 1 else []
        disk[10 + number] = sector(*own, *onward)
    return disk


def test_sixty_logical_partitions_are_numbered() -> None:
    assert numbers(chain(60)) == [(5 + n, 11 + n) for n in range(60)]
    assert numbers(chain(61)) == numbers(chain(60))


def test_a_hundred_links_are_followed() -> None:
    assert [index for index, _ in numbers(chain(100, every=100))] == [5, 6]
    assert [index for index, _ in numbers(chain(101, every=1000))] == [5]


def test_a_chain_that_leads_beyond_the_disk_ends_there() -> None:
    disk = {0: sector((5, 100, 500)), 100: sector((0x83, 1, 1), (5, 50, 1)), 150: sector((6, 1, 1))}
    assert numbers(disk, 151) == [(5, 101), (6, 151)]
    assert numbers(disk, 150) == [(5, 101)]


def test_behind_the_end_of_a_disk_are_zeros() -> None:
    asked: list[tuple[int, int]] = []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return b"x" * length

    reading = padded(read, 10)
    pieces = [reading(*where) for where in ((0, 10), (8, 4), (10, 3), (12, 2))]
    assert pieces == [b"x" * 10, b"xx\0\0", bytes(3), bytes(2)]
    assert asked == [(0, 10), (8, 2)]
