"""A FAT read as a whole, on small ones built by hand; tests/image/test_fat.py has real ones."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imager.base.units import MiB
from imager.disk.budget import MAX_FINDINGS, Budget, ReadLimits
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatError, FatVolume, FaultKind
from imager.disk.layout import Layout
from tests.support.hostile import END, OWN_ENTRIES, HostileFat, record
from tests.unit.disk.fat.test_geometry import NARROW, sector

TABLE_BYTES = 70_002 * 4
TABLE_SECTORS = -(-TABLE_BYTES // 512)
DATA = (32 + 2 * TABLE_SECTORS) * 512
"""Where cluster 2 begins, from the start of the partition."""


@dataclass
class Surgeon:
    """A FAT that can be damaged byte by byte."""

    layout: Layout
    data: bytearray
    asked: list[Extent] = field(default_factory=list)

    def read(self, offset: int, length: int) -> bytes:
        self.asked.append(Extent(offset, length))
        return bytes(self.data[offset : offset + length])

    def put(self, place: int, piece: bytes) -> None:
        at = self.layout.boot.offset + place
        self.data[at : at + len(piece)] = piece

    def volume(self, budget: Budget | None = None) -> FatVolume:
        boot = self.layout.boot
        return FatVolume.parse(self.read, boot.offset, boot.length, budget)

    def faults(self, budget: Budget | None = None) -> list[tuple[FaultKind, str]]:
        return [(fault.kind, fault.what) for fault in self.volume(budget).faults]


def made(folder: Path, fat: HostileFat) -> Surgeon:
    layout = fat.write(folder / "card")
    return Surgeon(layout, bytearray((folder / "card").read_bytes()))


@pytest.fixture
def fat() -> HostileFat:
    """A long file, an empty one, and one in a folder."""
    fat = HostileFat()
    fat.put("long.bin", bytes(range(256)) * 10_000)
    fat.put("empty")
    fat.folder("Sub", record("File", fat.claim(b"inner"), 5) + record("..x", 0, 0))
    return fat


@pytest.fixture
def disk(fat: HostileFat, tmp_path: Path) -> Surgeon:
    return made(tmp_path, fat)


def at(disk: Surgeon, cluster: int, count: int = 1) -> Extent:
    return Extent(disk.layout.boot.offset + DATA + (cluster - 2) * 512, count * 512)


def test_a_sound_filesystem_is_all_there(disk: Surgeon) -> None:
    found = disk.volume()
    assert found.faults == ()
    assert (found.kind, found.sector_bytes, found.sectors_per_cluster) == (32, 512, 1)
    assert (found.cluster_count, found.volume_id, found.label) == (70_000, 0, "BOOT")
    assert (found.dirty, found.faults_left_out, found.hurt) == (False, 0, frozenset())
    assert list(found.entries) == ["long.bin", "empty", "Sub", "Sub/File", "Sub/..x"]
    long, sub = found.entries["long.bin"], found.entries["Sub"]
    assert (long.size_bytes, long.is_dir, long.written) == (2_560_000, False, 0)
    assert long.extents == (Extent(at(disk, 3).offset, 2_560_000),)
    assert (sub.size_bytes, sub.is_dir, sub.extents) == (0, True, (at(disk, 5004),))
    assert found.entries["empty"].extents == ()
    inner = found.entries["Sub/File"]
    assert inner.extents == (Extent(at(disk, 5003).offset, 5),)
    boot = disk.layout.boot.offset
    folders = [Extent(boot, DATA), at(disk, 2), at(disk, 5004)]
    assert found.metadata == ExtentMap(folders)
    assert found.used == ExtentMap([*folders, at(disk, 3, 5000), at(disk, 5003)])


def test_a_sound_filesystem_costs_what_its_folders_cost(disk: Surgeon) -> None:
    """16 records of 4 steps in each cluster of a folder, and a step to follow each of the two."""
    budget = Budget()
    disk.volume(budget)
    assert budget.spent == (2 * (16 * 4 + 1), 0)
    disk.put((32 + TABLE_SECTORS) * 512 + 4 * 3, b"\xff")
    disk.volume(budget)
    assert budget.spent == (4 * (16 * 4 + 1) + TABLE_BYTES // 8, 0)


@pytest.mark.parametrize("cluster", [0xFFFF, 0x10000, 70_001])
def test_a_file_may_lie_in_any_cluster(tmp_path: Path, cluster: int) -> None:
    fat = HostileFat(_next=cluster)
    fat.put("far", b"far away")
    found = made(tmp_path, fat).volume()
    assert found.faults == ()
    assert found.read_file("far") == b"far away"


@pytest.mark.parametrize(
    ("size", "lengths"), [(1, [1]), (512, [512]), (513, [512, 1]), (1024, [512, 512])]
)
def test_a_file_ends_where_its_size_says(tmp_path: Path, size: int, lengths: list[int]) -> None:
    """Two clusters that are not side by side; what is left of them is not the file's."""
    fat = HostileFat()
    first = fat.claim(bytes(3 * 512))
    fat.root += record("torn", first, size)
    fat.table[first] = first + 2
    found = made(tmp_path, fat).volume()
    assert [extent.length for extent in found.entries["torn"].extents] == lengths
    kinds = {FaultKind.LOST_CLUSTERS} | ({FaultKind.CHAIN_LONG} if size <= 512 else set())
    assert {fault.kind for fault in found.faults} == kinds


def test_what_lies_behind_the_last_entry_of_a_table_has_no_meaning(disk: Surgeon) -> None:
    disk.put(32 * 512 + 4 * 70_002, b"\7")
    assert disk.faults() == []
    disk.put((32 + TABLE_SECTORS) * 512 + 4 * 70_002, b"\7")
    assert disk.faults() == []


def test_many_faults_are_counted(tmp_path: Path) -> None:
    fat = HostileFat()
    for number in range(MAX_FINDINGS + 2):
        fat.root += record(f"f{number}", 60_000, 1)
    found = made(tmp_path, fat).volume()
    assert len(found.faults) == MAX_FINDINGS
    assert found.faults_left_out == 2


@pytest.mark.parametrize(("files", "more"), [(5, ""), (7, " and 2 more")])
def test_only_the_first_five_files_of_a_difference_are_named(
    tmp_path: Path, files: int, more: str
) -> None:
    fat = HostileFat()
    for number in range(files):
        fat.put(f"f{number}", b"x")
    disk = made(tmp_path, fat)
    disk.put((32 + TABLE_SECTORS) * 512 + 4 * 3, bytes(4 * files))
    ((_, what),) = disk.faults()
    assert what.endswith(f"(cluster 3): f0, f1, f2, f3, f4{more}")


def test_a_folder_without_its_own_entries_was_overwritten(tmp_path: Path) -> None:
    fat = HostileFat()
    fat.root += record("none", fat.claim(record("File", 0, 0)), 0, is_dir=True)
    disk = made(tmp_path, fat)
    assert disk.faults() == [
        (
            FaultKind.DIRECTORY_DAMAGED,
            "directory none: it does not begin with its entries . and ..",
        )
    ]
    assert "none/File" in disk.volume().entries
    fat.root += record("worse", fat.claim(record("a|b", 0, 0)), 0, is_dir=True)
    what = made(tmp_path, fat).faults()[-2:]
    assert any(text.endswith("its entries . and .. (and 1 more)") for _, text in what)


def test_files_are_found_and_read(disk: Surgeon) -> None:
    found = disk.volume()
    content = bytes(range(256)) * 10_000
    assert found.find("/sub/FILE") == found.entries["Sub/File"]
    assert found.find("sub/none") is None
    assert found.read_file("LONG.BIN") == content
    assert [len(chunk) for chunk in found.chunks("long.bin")] == [MiB, MiB, 2_560_000 - 2 * MiB]
    for limit in (1, MiB - 1, MiB, MiB + 1, 2_560_000):
        assert found.read_file("long.bin", limit_bytes=limit) == content[:limit]
    assert found.read_file("empty") == b""
    assert found.sha256("long.bin") == hashlib.sha256(content).hexdigest()
    disk.asked.clear()
    found.read_file("long.bin", limit_bytes=MiB)
    assert len(disk.asked) == 1
    with pytest.raises(FileNotFoundError):
        found.read_file("none")
    with pytest.raises(IsADirectoryError):
        found.read_file("sub")


def test_a_disk_that_ends_early_is_no_fat(disk: Surgeon) -> None:
    boot = disk.layout.boot
    with pytest.raises(FatError, match=f"ends before byte {boot.offset + 512}"):
        FatVolume.parse(lambda _, length: bytes(length - 1), boot.offset, boot.length)
    with pytest.raises(FatError, match="shorter than one sector"):
        FatVolume.parse(disk.read, boot.offset, 511)
    with pytest.raises(FatError, match="shorter than one sector"):
        FatVolume.parse(disk.read, boot.offset, -5)


def test_each_mark_of_an_unclean_unmount_is_enough(disk: Surgeon) -> None:
    disk.put(65, b"\1")
    assert disk.faults() == [(FaultKind.DIRTY, "it is marked as not cleanly unmounted")]
    disk.put(65, b"\0")
    for copy in (0, 1):
        disk.put(32 * 512 + copy * TABLE_SECTORS * 512 + 7, b"\7")
    assert disk.faults() == [(FaultKind.DIRTY, "it is marked as not cleanly unmounted")]
    assert disk.volume().dirty
    for copy in (0, 1):
        disk.put(32 * 512 + copy * TABLE_SECTORS * 512 + 4, b"\xf8\xff\xff\x0f")
    assert disk.faults() == [], "any mark of an end will do"


@pytest.mark.parametrize(
    ("kind", "first_entries", "dirty"),
    [
        (12, "f0ffff", False),
        (12, "f00fff", False),
        (16, "f8ffffff", False),
        (16, "f8ffff7f", True),
        (16, "f8ff00ff", False),
    ],
)
def test_fat16_is_marked_in_its_table_and_fat12_nowhere(
    kind: int, first_entries: str, dirty: bool
) -> None:
    clusters, table = (4084, 12) if kind == 12 else (4085, 16)
    sectors = 1 + 2 * table + 2 + clusters
    data = bytearray(sectors * 512)
    data[:512] = sector(NARROW, table16=table, total16=sectors)
    for copy in (0, 1):
        at = (1 + copy * table) * 512
        data[at : at + len(first_entries) // 2] = bytes.fromhex(first_entries)
    found = FatVolume.parse(lambda at, n: bytes(data[at : at + n]), 0, len(data))
    assert (found.kind, found.dirty) == (kind, dirty)
    assert [fault.kind for fault in found.faults] == [FaultKind.DIRTY] * dirty


def test_tables_that_differ_name_entry_byte_and_files(disk: Surgeon) -> None:
    second = (32 + TABLE_SECTORS) * 512
    disk.put(second + 4 * 3, b"\xff")
    disk.put(second + 4 * 5003, b"\0")
    found = disk.volume()
    (fault,) = found.faults
    assert fault.kind is FaultKind.COPIES_DIFFER
    assert fault.what == (
        "its two tables differ in 2 entries, first at byte 12 of the table (cluster 3): "
        "long.bin, Sub/File"
    )
    assert fault.offset == disk.layout.boot.offset + 32 * 512 + 12
    assert found.hurt == {"long.bin", "Sub/File"}
    disk.put(40, b"\x81")  # the second is the one in use
    assert any("its two tables differ in 2 entries" in what for _, what in disk.faults())


def test_a_difference_without_meaning_is_no_cluster_s(disk: Surgeon) -> None:
    disk.put((32 + TABLE_SECTORS) * 512 + 4 * 3 + 3, b"\xf0")
    ((kind, what),) = disk.faults()
    assert kind is FaultKind.COPIES_DIFFER
    assert "differ in 0 entries, first at byte 15 of the table (cluster 0)" in what


def test_a_boot_sector_and_its_backup(disk: Surgeon) -> None:
    disk.put(6 * 512 + 65, b"\1")
    assert disk.faults() == []
    disk.put(6 * 512 + 100, b"ab")
    (fault,) = disk.volume().faults
    assert fault.kind is FaultKind.BACKUP_DIFFERS
    assert "the backup in sector 6 differ in 2 bytes, first at byte 100" in fault.what
    assert fault.offset == disk.layout.boot.offset + 100


def test_lost_clusters_are_told_and_stay_in_use(fat: HostileFat, tmp_path: Path) -> None:
    fat.claim(bytes(1024))
    fat.put("behind", b"x")
    fat.claim(b"")
    disk = made(tmp_path, fat)
    found = disk.volume()
    (fault,) = found.faults
    assert fault.kind is FaultKind.LOST_CLUSTERS
    assert fault.what.startswith("3 clusters (1536 bytes) are marked")
    assert fault.offset == at(disk, 5005).offset
    assert found.used & ExtentMap([at(disk, 5005, 2)]) == ExtentMap([at(disk, 5005, 2)])


def test_a_damaged_folder_keeps_what_can_be_read(fat: HostileFat, tmp_path: Path) -> None:
    fat.put("EMPTY")
    fat.root += record("bad|name", 0, 0) + record("worse|name", 0, 0)
    fat.root += record("nowhere", 0, 0, is_dir=True)
    disk = made(tmp_path, fat)
    found = disk.volume()
    assert [fault.what for fault in found.faults] == [
        "directory /: a name FAT does not allow: 'bad|name' (and 1 more)",
        "directory /: two entries are called EMPTY",
        "directory nowhere: it has no cluster",
    ]
    assert found.hurt == {"/", "nowhere"}
    assert found.entries["nowhere"].extents == ()
    assert "empty" in found.entries


def test_one_damaged_record_is_told_without_a_number(tmp_path: Path) -> None:
    fat = HostileFat()
    fat.root += record("bad|name", 0, 0)
    ((kind, what),) = made(tmp_path, fat).faults()
    assert kind is FaultKind.DIRECTORY_DAMAGED
    assert what == "directory /: a name FAT does not allow: 'bad|name'"


def test_a_label_is_that_of_the_root(fat: HostileFat, tmp_path: Path) -> None:
    label = bytearray(record("L", 0, 0)[-32:])
    label[:12] = b"PI.CLOUD 7 \x08"
    fat.root += label
    assert made(tmp_path, fat).volume().label == "PICLOUD 7"
    assert made(tmp_path, HostileFat(label=b"NO NAME    ")).volume().label == ""


def test_a_folder_has_at_most_65536_records(tmp_path: Path) -> None:
    deleted = b"\xe5" + bytes(31)
    for count, faults in ((65536, 0), (65537, 1)):
        fat = HostileFat()
        fat.folder("large", deleted * (count - 2))  # behind its own entries
        disk = made(tmp_path, fat)
        found = disk.volume()
        assert len(found.faults) == faults
        large = found.entries["large"].extents
        assert sum(extent.length for extent in large) == 2 * MiB


def test_a_filesystem_larger_than_its_partition_or_too_small_for_its_kind(tmp_path: Path) -> None:
    disk = made(tmp_path, HostileFat())
    boot = disk.layout.boot
    short = FatVolume.parse(disk.read, boot.offset, DATA + 60_000 * 512)
    assert [fault.kind for fault in short.faults] == [FaultKind.TOO_LARGE]
    assert "claims 70000 clusters; its table and partition have room for 60000" in (
        short.faults[0].what
    )
    for clusters, faults in ((65_525, []), (65_524, [FaultKind.CLUSTER_COUNT])):
        found = made(tmp_path, HostileFat(clusters=clusters)).volume()
        assert [fault.kind for fault in found.faults] == faults


def test_what_costs_too_much_is_not_looked_at(fat: HostileFat, tmp_path: Path) -> None:
    fat.root += record("d" * 30, fat.claim(record("e", fat.claim(b""), 0)), 0, is_dir=True)
    disk = made(tmp_path, fat)
    names = disk.volume(Budget(ReadLimits(names=2)))
    assert list(names.entries) == ["long.bin", "empty"]
    assert names.faults[0].what == "there are more than 2 names: not looked at further"
    paths = disk.volume(Budget(ReadLimits(path_bytes=20)))
    assert "d" * 30 not in paths.entries
    assert "Sub/File" in paths.entries
    assert paths.faults[0].what.startswith("directory /: there are paths of more than 20 bytes")
    deep = disk.volume(Budget(ReadLimits(depth=1)))
    assert "Sub" in deep.entries
    assert "Sub/File" not in deep.entries
    assert deep.faults[0].what.startswith("directory d")


def test_of_what_was_not_read_it_is_not_known_whether_it_is_there(tmp_path: Path) -> None:
    fat = HostileFat()
    fat.folder("A", record("kernel.img", fat.claim(b"k"), 1) + record("B", fat.claim(b""), 0))
    fat.folder("many", b"".join(record(f"{n}", 0, 0) for n in range(20)))
    disk = made(tmp_path, fat)
    volume, why = disk.volume(Budget(ReadLimits(names=10))), "there are more than 10 names"
    assert volume.unseen == {"A": why, "many": why}
    for path in ("A/kernel.img", "a/b/c", "many/19", "/MANY/x/y/", "A", "many"):
        assert volume.unseen_at(path) == why
    for path in ("many/1", "none", "none/a", ""):
        assert volume.unseen_at(path) is None
    assert not disk.volume().unseen
    whole = disk.volume(Budget(ReadLimits(names=1)))
    assert whole.unseen_at("none") == whole.unseen_at("many/1") == "there are more than 1 names"


def test_a_long_path_of_a_stranger_is_not_searched_for_folder_by_folder(tmp_path: Path) -> None:
    fat = HostileFat()
    fat.folder("many", b"".join(record(f"{n}", 0, 0) for n in range(20)))
    volume = made(tmp_path, fat).volume(Budget(ReadLimits(names=10)))
    began = time.process_time()
    assert volume.unseen_at("none/" * 200_000 + "x") is None
    assert volume.unseen_at("many/" + "none/" * 200_000 + "x") is not None
    assert time.process_time() - began < 5


def test_a_folder_within_one_that_was_not_read_to_its_end_is_not_read(tmp_path: Path) -> None:
    fat = HostileFat()
    inner = fat.claim(OWN_ENTRIES + record("kernel.img", fat.claim(b"k"), 1))
    many = b"".join(record(f"{n}", 0, 0) for n in range(20))
    fat.folder("A", record("B", inner, 0, is_dir=True) + many)
    volume = made(tmp_path, fat).volume(Budget(ReadLimits(names=10)))
    assert "A/B" in volume.entries
    assert volume.unseen_at("A/B/kernel.img") == "there are more than 10 names"


def test_a_chain_that_is_not_followed_to_its_end_leaves_its_file_unseen(tmp_path: Path) -> None:
    fat = HostileFat()
    fat.put("whole", b"x" * 512)
    first = fat.claim(b"x" * 2048)
    fat.table[first], fat.table[first + 2] = first + 2, first + 1
    fat.table[first + 1], fat.table[first + 3] = first + 3, END
    fat.root += record("pieces", first, 2048)
    volume = made(tmp_path, fat).volume(Budget(ReadLimits(pieces=2)))
    assert volume.unseen == {"pieces": "its files lie in more than 2 pieces"}
    assert volume.unseen_at("PIECES") is not None
    assert volume.unseen_at("whole") is None
