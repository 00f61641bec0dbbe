"""FAT filesystems made by mkfs.vfat and mcopy, read by us; then broken byte by byte."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imager.base.run import run
from imager.base.units import MiB
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatError, FatVolume, FaultKind
from tests.support.fatdisk import make_fat, reader, tool

pytestmark = pytest.mark.image

OFFSET = MiB
LONG = "überlange Namen mit Leerzeichen, 漢字 und Punkten ... sind erlaubt.dtbo"
FILES = {
    "config.txt": b"[all]\n",
    "EMPTY": b"",
    "kernel7.img": random.Random(1).randbytes(70_001),
    "overlays/README": b"read me",
    f"overlays/deep/{LONG}": b"x" * 513,
    "overlays/exactly-two-clusters.bin": b"y" * 1024,
    **{f"overlays/name-{i:03}.dtbo": bytes([i]) * (i * 11) for i in range(120)},
}
SHAPES = [(12, 1, 600), (16, 1, 9 * 1024), (16, 4, 20 * 1024), (32, 1, 34 * 1024)]


def volume_of(data: bytes, size_kib: int = 600) -> FatVolume:
    return FatVolume.parse(reader(data), OFFSET, size_kib * 1024)


@pytest.fixture(scope="module")
def fat12(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A disk of 1 MiB of nothing and a FAT12 of 600 KiB with FILES."""
    image = tmp_path_factory.mktemp("fat12") / "disk"
    make_fat(image, FILES, size_kib=600, kind=12, offset_bytes=OFFSET)
    return image.read_bytes()


@pytest.fixture(scope="module")
def fat32(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The smallest honest FAT32, with FILES."""
    image = tmp_path_factory.mktemp("fat32") / "disk"
    make_fat(image, FILES, size_kib=34 * 1024, kind=32, offset_bytes=OFFSET)
    return image.read_bytes()


def kinds(volume: FatVolume) -> set[FaultKind]:
    return {fault.kind for fault in volume.faults}


@pytest.mark.parametrize(("kind", "per_cluster", "size_kib"), SHAPES)
def test_every_file_reads_back_as_it_was_copied(
    tmp_path: Path, kind: int, per_cluster: int, size_kib: int
) -> None:
    image = tmp_path / "disk"
    make_fat(
        image, FILES, size_kib=size_kib, kind=kind, sectors_per_cluster=per_cluster,
        offset_bytes=OFFSET,
    )  # fmt: skip
    volume = FatVolume.parse(reader(image), OFFSET, size_kib * 1024)
    assert volume.faults == ()
    assert (volume.kind, volume.sectors_per_cluster) == (kind, per_cluster)
    assert (volume.volume_id, volume.label, volume.dirty) == (0x1234ABCD, "BOOT", False)
    files = {path for path, entry in volume.entries.items() if not entry.is_dir}
    assert files == set(FILES)
    for path, content in FILES.items():
        assert volume.read_file(path) == content
        assert volume.entries[path].size_bytes == len(content)


def test_what_is_written_at_the_used_bytes_alone_is_a_whole_filesystem(
    tmp_path: Path, fat32: bytes
) -> None:
    copy = bytearray(random.Random(2).randbytes(len(fat32)))
    for extent in volume_of(fat32, 34 * 1024).used:
        copy[extent.offset : extent.end] = fat32[extent.offset : extent.end]
    alone = tmp_path / "p1"
    alone.write_bytes(copy[OFFSET:])
    tool("fsck.vfat", "-n", alone)
    volume = volume_of(bytes(copy), 34 * 1024)
    assert volume.faults == ()
    assert all(volume.read_file(path) == content for path, content in FILES.items())


def test_metadata_and_files_are_disjoint_and_together_all_that_is_used(fat32: bytes) -> None:
    volume = volume_of(fat32, 34 * 1024)
    content = ExtentMap(
        extent for entry in volume.entries.values() if not entry.is_dir for extent in entry.extents
    )
    assert (content & volume.metadata).total_bytes == 0
    assert (content - volume.used).total_bytes == 0
    assert (volume.metadata - volume.used).total_bytes == 0
    slack = volume.used.total_bytes - volume.metadata.total_bytes - content.total_bytes
    assert 0 < slack < 512 * len(FILES)


def test_find_ignores_case_and_read_file_refuses_what_is_no_file(fat12: bytes) -> None:
    volume = volume_of(fat12)
    found = volume.find("OVERLAYS/readme")
    assert found is not None
    assert found.path == "overlays/README"
    assert volume.find("overlays/nothing") is None
    with pytest.raises(IsADirectoryError):
        volume.read_file("overlays")
    with pytest.raises(FileNotFoundError):
        volume.read_file("nothing")


@pytest.mark.parametrize(
    "path",
    ["MY-VER~1.IMG", "my-ver~1.img", "A-LONG~1/plain.txt", "a long folder/MY-VER~1.IMG",
     "A-LONG~1/MY-VER~2.IMG", "Two Dots.v1.txt", "TWODOT~1.TXT"],
)  # fmt: skip
def test_a_file_is_found_by_its_short_name_too_as_mtools_does(tmp_path: Path, path: str) -> None:
    files = {
        "my-very-long-kernel.img": b"first",
        "My-very-other-kernel.img": b"second",
        "a-long-folder/plain.txt": b"plain",
        "a-long-folder/my-very-long-kernel.img": b"third",
        "a-long-folder/my-very-other-kernel.img": b"fourth",
        "Two Dots.v1.txt": b"two dots",
    }
    image = tmp_path / "disk"
    make_fat(image, files, size_kib=600, kind=12, offset_bytes=OFFSET)
    volume = FatVolume.parse(reader(image.read_bytes()), OFFSET, 600 * 1024)
    found = volume.find(path)
    given = run(["mcopy", "-i", f"{image}@@{OFFSET}", f"::{path}", "-"], ok=(0, 1))
    assert (found is None) == bool(given.returncode)
    if found is not None:
        assert volume.read_file(path) == given.stdout == files[found.path]
        assert found is volume.entries[found.path]
    assert volume.find("MY-VER~9.IMG") is volume.find("NONE~1/plain.txt") is None
    assert volume.find("") is volume.find("MY-VER~1.IMG/plain.txt") is None


def test_a_deleted_file_is_gone_and_its_clusters_are_not_used(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    make_fat(image, FILES, size_kib=600, kind=12, offset_bytes=OFFSET)
    before = volume_of(image.read_bytes())
    tool("mdel", "-i", f"{image}@@{OFFSET}", "::kernel7.img")
    after = volume_of(image.read_bytes())
    assert after.faults == ()
    assert after.find("kernel7.img") is None
    freed = ExtentMap(before.entries["kernel7.img"].extents)
    assert (after.used & freed).total_bytes == 0


# -- breaking it -----------------------------------------------------------------------------------


class Surgeon:
    """Edits the FAT32 of a disk as a failing card would: in one table, in both, in a record."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.reserved: int = struct.unpack_from("<H", data, OFFSET + 14)[0]
        self.table_sectors: int = struct.unpack_from("<I", data, OFFSET + 36)[0]
        self.data_start: int = OFFSET + (self.reserved + 2 * self.table_sectors) * 512

    def first_cluster(self, path: str) -> int:
        first: Extent = self.volume().entries[path].extents[0]
        return 2 + (first.offset - self.data_start) // 512

    def set(self, cluster: int, value: int, *, tables: tuple[int, ...] = (0, 1)) -> None:
        for table in tables:
            place = OFFSET + (self.reserved + table * self.table_sectors) * 512 + cluster * 4
            struct.pack_into("<I", self.data, place, value)

    def volume(self) -> FatVolume:
        return volume_of(bytes(self.data), 34 * 1024)


@pytest.fixture
def surgeon(fat32: bytes) -> Surgeon:
    return Surgeon(fat32)


def test_tables_that_differ_name_the_byte_and_the_file(surgeon: Surgeon) -> None:
    cluster = surgeon.first_cluster("kernel7.img") + 3
    surgeon.set(cluster, 0, tables=(1,))
    (fault,) = surgeon.volume().faults
    assert fault.kind is FaultKind.COPIES_DIFFER
    assert fault.paths == ("kernel7.img",)
    # cluster numbers below 65536 differ from 0 in their lowest byte unless that is 0
    assert fault.offset == OFFSET + surgeon.reserved * 512 + cluster * 4
    assert f"cluster {cluster}" in fault.what


def test_two_files_on_one_chain_are_both_named(surgeon: Surgeon) -> None:
    into = surgeon.first_cluster("kernel7.img") + 5
    surgeon.set(surgeon.first_cluster("overlays/name-100.dtbo"), into)
    (fault,) = [f for f in surgeon.volume().faults if f.kind is FaultKind.CROSS_LINKED]
    assert set(fault.paths) == {"kernel7.img", "overlays/name-100.dtbo"}
    assert f"cluster {into}" in fault.what


@pytest.mark.parametrize(
    ("step", "value", "kind"),
    [
        (3, 0x0FFFFFFF, FaultKind.CHAIN_SHORT),
        (3, 0, FaultKind.CHAIN_BROKEN),
        (3, 0x0FFFFFF7, FaultKind.CHAIN_BROKEN),
        (3, 0x0ABCDEF0, FaultKind.CHAIN_BROKEN),
        (3, None, FaultKind.LOOP),
    ],
)
def test_a_chain_that_goes_wrong_is_named(
    surgeon: Surgeon, step: int, value: int | None, kind: FaultKind
) -> None:
    first = surgeon.first_cluster("kernel7.img")
    surgeon.set(first + step, first if value is None else value)
    volume = surgeon.volume()
    assert [f.paths for f in volume.faults if f.kind is kind] == [("kernel7.img",)]
    # What the chain no longer reaches still counts as used and is reported as lost.
    assert FaultKind.LOST_CLUSTERS in kinds(volume)
    assert len(volume.read_file("kernel7.img")) < len(FILES["kernel7.img"])


def test_a_chain_longer_than_the_size_is_named(surgeon: Surgeon) -> None:
    last = surgeon.first_cluster("overlays/exactly-two-clusters.bin") + 1
    free = 60_000
    surgeon.set(last, free)
    surgeon.set(free, 0x0FFFFFFF)
    (fault,) = surgeon.volume().faults
    assert (fault.kind, fault.paths) == (
        FaultKind.CHAIN_LONG,
        ("overlays/exactly-two-clusters.bin",),
    )


def test_lost_clusters_are_counted_and_stay_in_use(surgeon: Surgeon) -> None:
    surgeon.set(60_000, 60_001)
    surgeon.set(60_001, 0x0FFFFFFF)
    volume = surgeon.volume()
    (fault,) = volume.faults
    assert fault.kind is FaultKind.LOST_CLUSTERS
    assert "2 clusters (1024 bytes)" in fault.what
    where = Extent(surgeon.data_start + (60_000 - 2) * 512, 1024)
    assert fault.offset == where.offset
    assert list(volume.used.within(where.offset, where.length)) == [where]


@pytest.mark.parametrize(
    ("place", "clear"), [(65, None), (None, 0x08000000)], ids=["boot sector", "table"]
)
def test_both_marks_of_an_unclean_unmount_are_seen(
    surgeon: Surgeon, place: int | None, clear: int | None
) -> None:
    if place is not None:
        surgeon.data[OFFSET + place] |= 1
    if clear is not None:
        surgeon.set(1, 0x0FFFFFFF & ~clear)
    volume = surgeon.volume()
    assert volume.dirty
    assert kinds(volume) == {FaultKind.DIRTY}


def test_a_boot_sector_unlike_its_backup_is_named_with_the_byte(surgeon: Surgeon) -> None:
    surgeon.data[OFFSET + 6 * 512 + 67] ^= 0xFF
    (fault,) = surgeon.volume().faults
    assert (fault.kind, fault.offset) == (FaultKind.BACKUP_DIFFERS, OFFSET + 67)


def test_upper_four_bits_of_a_fat32_entry_mean_nothing(surgeon: Surgeon) -> None:
    first = surgeon.first_cluster("kernel7.img")
    surgeon.set(first, 0xF0000000 | (first + 1))
    volume = surgeon.volume()
    assert volume.faults == ()
    assert volume.read_file("kernel7.img") == FILES["kernel7.img"]


def test_fat32_with_too_few_clusters_is_named(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    make_fat(image, {}, size_kib=8 * 1024, kind=32)
    volume = FatVolume.parse(reader(image), 0, 8 * MiB)
    assert volume.kind == 32
    assert kinds(volume) == {FaultKind.CLUSTER_COUNT}


def test_a_filesystem_larger_than_its_partition_is_named(fat32: bytes) -> None:
    volume = FatVolume.parse(reader(fat32), OFFSET, 20 * MiB)
    assert FaultKind.TOO_LARGE in kinds(volume)
    assert volume.used.end <= OFFSET + 20 * MiB


def test_a_damaged_long_name_is_a_damaged_directory(fat12: bytes) -> None:
    place = fat12.index("überl".encode("utf-16-le"))
    record = place - place % 32
    data = bytearray(fat12)
    data[record + 13] ^= 0xFF
    volume = volume_of(bytes(data))
    (path,) = {path for fault in volume.faults for path in fault.paths}
    assert kinds(volume) == {FaultKind.DIRECTORY_DAMAGED}
    assert path == "overlays/deep"


def test_two_entries_of_one_name_are_a_damaged_directory(tmp_path: Path) -> None:
    """The firmware takes the first, other programs may take the second."""
    image = tmp_path / "disk"
    make_fat(image, {"A.TXT": b"first", "B.TXT": b"second"}, size_kib=600, kind=12)
    data = image.read_bytes()
    assert data.count(b"B       TXT") == 1
    volume = FatVolume.parse(reader(data.replace(b"B       TXT", b"A       TXT")), 0, 600 * 1024)
    told = [f.what for f in volume.faults if f.kind is FaultKind.DIRECTORY_DAMAGED]
    assert len(told) == 1
    assert "two entries are called a.txt" in told[0].casefold()
    assert len(volume.entries) == 1
    assert volume.read_file("A.TXT") == b"first"


@pytest.mark.parametrize("sector", [0, 32, 40, 0xFFFF])
def test_a_backup_boot_sector_that_cannot_be_is_none(surgeon: Surgeon, sector: int) -> None:
    """0 says that there is none; from sector 32 on, here, the tables begin."""
    assert surgeon.reserved == 32
    struct.pack_into("<H", surgeon.data, OFFSET + 50, sector)
    assert surgeon.volume().faults == ()


def test_a_directory_of_garbage_is_one_fault(fat12: bytes) -> None:
    extent = volume_of(fat12).entries["overlays"].extents[-1]
    garbage = (b"A?*" + b"x" * 8 + bytes(21)) * (extent.length // 32)
    data = fat12[: extent.offset] + garbage + fat12[extent.end :]
    damaged = [f for f in volume_of(data).faults if f.kind is FaultKind.DIRECTORY_DAMAGED]
    assert [fault.paths for fault in damaged] == [("overlays",)]
    assert "more)" in damaged[0].what


@pytest.mark.parametrize("value", [0x00, 0xE5, 0xFF])
def test_a_directory_that_was_overwritten_is_not_an_empty_one(fat12: bytes, value: int) -> None:
    """fsck.fat says so too: every directory but the root begins with . and .. ."""
    extent = volume_of(fat12).entries["overlays"].extents[0]
    data = fat12[: extent.offset] + bytes([value]) * extent.length + fat12[extent.end :]
    damaged = [f for f in volume_of(data).faults if f.kind is FaultKind.DIRECTORY_DAMAGED]
    assert [fault.paths for fault in damaged] == [("overlays",)]
    assert "does not begin with its entries . and .." in damaged[0].what


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "shorter than one sector"),
        (bytes(4096), "all zeros"),
        (b"\xeb\x58\x90NTFS    " + b"\1" * 4000, "NTFS"),
        (b"\xeb\x58\x90EXFAT   " + b"\1" * 4000, "exFAT"),
        (b"\1" * 4096, "55 AA"),
        (b"\1" * 510 + b"\x55\xaa" + bytes(4000), "sector of"),
    ],
)
def test_what_is_no_fat_says_why(data: bytes, why: str) -> None:
    with pytest.raises(FatError, match=why):
        FatVolume.parse(reader(data), 0, len(data))


class Counting:
    """A Reader that counts what it is asked for."""

    def __init__(self, data: bytes) -> None:
        self.data, self.total = data, 0

    def __call__(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert length >= 0
        self.total += length
        return self.data[offset : offset + length]


IN_TABLES = st.tuples(st.integers(0, 20_000), st.integers(0, 255))
IN_BOOT_SECTOR = st.tuples(st.integers(0, 90), st.integers(0, 255))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edits=st.lists(IN_TABLES | IN_BOOT_SECTOR, max_size=12))
def test_no_damage_raises_anything_else_or_reads_without_end(
    fat12: bytes, edits: list[tuple[int, int]]
) -> None:
    data = bytearray(fat12)
    for place, value in edits:
        data[OFFSET + place] = value
    read = Counting(bytes(data))
    try:
        volume = FatVolume.parse(read, OFFSET, 600 * 1024)
        for path, entry in volume.entries.items():
            if not entry.is_dir:
                assert len(volume.read_file(path)) <= entry.size_bytes
        assert volume.used.end <= OFFSET + 600 * 1024
    except FatError:
        pass
    assert read.total <= 8 * MiB
