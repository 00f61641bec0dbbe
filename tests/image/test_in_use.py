"""Which bytes of a disk count: of real filesystems nothing is missing and nothing more copied."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.run import run
from imager.base.units import KiB, MiB
from imager.card.source.opened import WantedImage, opened_source
from imager.disk.budget import Budget, ReadLimits
from imager.disk.ext4.format import SUPERBLOCK_OFFSET
from imager.disk.extents import Extent, ExtentMap
from imager.disk.in_use import InUse
from imager.disk.manifest import NotAtHand, Reader

pytestmark = pytest.mark.image

SHAPES = {
    "ext4 of today": ["-t", "ext4", "-b", "4096", "-g", "1024"],
    "1 KiB blocks": ["-t", "ext4", "-b", "1024"],
    "ext2, indirect": ["-t", "ext2", "-b", "1024", "-I", "128"],
    "ext3": ["-t", "ext3", "-b", "1024", "-J", "size=4"],
    "2 KiB blocks, meta_bg": ["-b", "2048", "-g", "1024", "-O", "^resize_inode,meta_bg"],
    "sparse_super2": ["-b", "1024", "-O", "sparse_super2,^resize_inode"],
    "no flex_bg": ["-t", "ext4", "-b", "4096", "-g", "1024", "-O", "^flex_bg,^metadata_csum"],
    "tables in front": ["-t", "ext4", "-b", "1024", "-E", "packed_meta_blocks=1"],
    "tables zeroed": ["-t", "ext4", "-b", "1024", "-E", "lazy_itable_init=0"],
}
SIZE = 32 * MiB
LEFTOVER = b"\xaa"


def reader_of(path: Path) -> Reader:
    data = path.read_bytes()
    return lambda offset, length: data[offset : offset + length]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree") / "files"
    (folder / "etc").mkdir(parents=True)
    (folder / "large").write_bytes(os.urandom(3 * MiB))
    with (folder / "holes").open("wb") as file:
        for number in range(300):
            file.seek(number * 20_000)
            file.write(b"%04d" % number)
    for number in range(200):
        (folder / "etc" / f"entry-{number}").write_text(f"{number}\n")
    return folder


def filesystem(image: Path, tree: Path, options: list[str]) -> None:
    """One that was used: files were deleted, and the places between are free again."""
    run(["mke2fs", "-q", "-F", "-d", tree, *options, image, f"{SIZE // KiB}k"])
    script = "".join(f"rm etc/entry-{number}\n" for number in range(0, 200, 3))
    commands = image.with_suffix(".commands")
    commands.write_text(script)
    run(["debugfs", "-w", "-f", commands, image])


def copied(image: Path, ranges: list[Extent]) -> Path:
    """A disk full of leftovers onto which ``ranges`` of ``image`` were written."""
    data, copy = image.read_bytes(), bytearray(LEFTOVER * image.stat().st_size)
    for part in ranges:
        copy[part.offset : part.end] = data[part.offset : part.end]
    target = image.with_name("copy.img")
    target.write_bytes(copy)
    return target


def free_by_dumpe2fs(image: Path) -> ExtentMap:
    told = run(["dumpe2fs", image]).stdout.decode()
    size = int(re.findall(r"Block size: +(\d+)", told)[0])
    runs = re.findall(r"Free blocks: (.*)", told)[1:]
    pairs = [
        (word.split("-")[0], word.split("-")[-1])
        for line in runs
        for word in line.split(", ")
        if word
    ]
    return ExtentMap(
        Extent(int(low) * size, (int(high) - int(low) + 1) * size) for low, high in pairs
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_copy_of_what_counts_is_the_same_filesystem(
    tmp_path: Path, tree: Path, shape: str
) -> None:
    image = tmp_path / "root.img"
    filesystem(image, tree, SHAPES[shape])
    found = InUse(reader_of(image), SIZE)
    ranges = [*found.ranges()]
    (area,) = found.areas
    assert (area.name, area.note, area.dirty) == ("disk", "", False)
    assert ranges == sorted(ranges)
    free = free_by_dumpe2fs(image)
    assert ExtentMap(ranges) & free == ExtentMap()
    missing = ExtentMap([Extent(0, SIZE)]) - free - ExtentMap(ranges)
    assert missing.total_bytes < area.used_bytes / 2
    copy = copied(image, ranges)
    assert run(["e2fsck", "-fn", copy]).returncode == 0
    assert run(["debugfs", "-R", "cat large", copy]).stdout == (tree / "large").read_bytes()
    assert [*in_order(image, MiB)] == ranges


def in_order(image: Path, ahead: int) -> Iterator[Extent]:
    """The ranges as they are told to one who reads ``image`` from start to end, ``ahead`` bytes
    before the last range at most."""
    data, position = image.read_bytes(), 0

    def read(offset: int, length: int) -> bytes:
        if offset < position or offset + length > position + ahead:
            raise NotAtHand
        return data[offset : offset + length]

    for extent in InUse(read, len(data)).ranges():
        yield extent
        position = extent.end


def test_of_a_filesystem_that_grew_a_stream_tells_nearly_as_much(
    tmp_path: Path, tree: Path
) -> None:
    """resize2fs puts bitmaps where there is room, which may be behind their groups."""
    image = tmp_path / "root.img"
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-g", "1024", "-d", tree, image, "9M"])
    with image.open("r+b") as file:
        file.truncate(SIZE)
    run(["resize2fs", image])
    run(["e2fsck", "-fn", image])
    exact = ExtentMap(InUse(reader_of(image), SIZE).ranges())
    told = ExtentMap(in_order(image, 128 * KiB))
    assert not exact - told
    assert (told - exact).total_bytes <= 4 * MiB


def test_a_journal_that_must_be_replayed_is_asked_first(tmp_path: Path, tree: Path) -> None:
    """A block that only the journal's copy of the bitmap calls used."""
    image = tmp_path / "root.img"
    filesystem(image, tree, ["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^uninit_bg"])
    told = run(["dumpe2fs", image]).stdout.decode()
    block = int(re.findall(r"Block bitmap at (\d+)", told)[0])
    data = bytearray(image.read_bytes())
    bitmap = data[block * KiB : (block + 1) * KiB]
    free = next(byte for byte in range(900, 1000) if bitmap[byte] == 0)
    bitmap[free] = 0xFF
    (tmp_path / "bitmap").write_bytes(bitmap)
    descriptors = data[2 * KiB : 3 * KiB]
    descriptors[12:14] = (int.from_bytes(descriptors[12:14], "little") - 8).to_bytes(2, "little")
    (tmp_path / "descriptors").write_bytes(descriptors)
    writes = f"-b {block} {tmp_path}/bitmap\njournal_write -b 2 {tmp_path}/descriptors"
    (tmp_path / "commands").write_text(f"journal_open\njournal_write {writes}\njournal_close\n")
    place = Extent((1 + 8 * free) * KiB, 8 * KiB)
    assert not ExtentMap(InUse(reader_of(image), SIZE).ranges()).covers(place)
    run(["debugfs", "-w", "-f", tmp_path / "commands", image])
    found = InUse(reader_of(image), SIZE)
    ranges = ExtentMap(found.ranges())
    assert found.areas[0].dirty and not found.areas[0].note
    assert len([*ranges.within(place.offset, place.length)]) == 1
    assert ranges.total_bytes < SIZE // 2
    assert sum(part.length for part in in_order(image, 64 * KiB)) == SIZE


@pytest.mark.parametrize("kind", [12, 16, 32])
def test_of_a_fat_its_tables_say_what_counts(tmp_path: Path, tree: Path, kind: int) -> None:
    image = tmp_path / "boot.img"
    size = 40 * MiB if kind == 32 else 12 * MiB
    cluster = {12: "16", 16: "1", 32: "1"}[kind]
    run(["mkfs.vfat", "-C", "-F", str(kind), "-s", cluster, image, str(size // KiB)])
    run(["mcopy", "-i", image, "-s", tree / "large", tree / "etc", "::/"])
    run(["mdel", "-i", image, "::/etc/entry-7"])
    found = InUse(reader_of(image), size)
    ranges = [*found.ranges()]
    assert ranges == sorted(ranges) and found.areas[0].kind == f"FAT{kind}"
    assert found.areas[0].used_bytes < 8 * MiB
    assert not found.areas[0].dirty
    copy = copied(image, ranges)
    assert run(["fsck.vfat", "-n", copy]).returncode == 0
    assert run(["mcopy", "-i", copy, "::/large", "-"]).stdout == (tree / "large").read_bytes()
    assert [*in_order(image, MiB)] == ranges


DOS = """label: dos
start=2048, size=8192, type=c
start=12288, size=2048, type=82
start=16384, size=40960, type=5
start=18432, size=8192, type=83
start=30720, size=8192, type=83
"""


@pytest.fixture
def two(tmp_path: Path, tree: Path) -> Path:
    """A disk of 32 MiB with a logical partition in which an ext4 lies; see DOS."""
    disk, root = tmp_path / "disk.img", tmp_path / "root"
    with disk.open("wb") as file:
        file.truncate(SIZE)
    run(["sfdisk", "--quiet", disk], stdin=DOS.encode())
    run(["mke2fs", "-q", "-t", "ext2", "-b", "1024", root, "4096k"])
    data = bytearray(disk.read_bytes())
    data[30720 * 512 : 30720 * 512 + 4 * MiB] = root.read_bytes()
    disk.write_bytes(data)
    return disk


def test_all_that_lies_between_partitions_counts_and_what_is_behind_is_apart(two: Path) -> None:
    found = InUse(reader_of(two), SIZE)
    ranges = ExtentMap(found.ranges())
    assert [area.name for area in found.areas] == ["p1", "p2", "p5", "p6"]
    assert [area.kind for area in found.areas][-1] == "ext2"
    assert found.behind == Extent(57344 * 512, SIZE - 57344 * 512)
    last = Extent(30720 * 512, 4 * MiB)
    assert ranges | ExtentMap([last]) == ExtentMap([Extent(0, found.end)])
    assert (ranges & ExtentMap([last])).total_bytes == found.areas[-1].used_bytes < MiB


@pytest.mark.parametrize(
    ("entry", "names"), [(1, ["p1", "p2", "p5", "p6"]), (2, ["p1", "p2", "p3"])]
)
def test_a_partition_of_type_00_counts_like_any_other(
    two: Path, entry: int, names: list[str]
) -> None:
    """And an extended one without its type is, to Linux, one of something unknown."""
    data = bytearray(two.read_bytes())
    data[446 + 16 * entry + 4] = 0
    two.write_bytes(data)
    found = InUse(reader_of(two), SIZE)
    ranges = ExtentMap(found.ranges())
    assert [area.name for area in found.areas] == names
    assert found.end == 57344 * 512
    assert ranges.covers(Extent(12288 * 512, 2048 * 512))
    assert ranges.covers(Extent(16384 * 512, 40960 * 512)) == (entry == 2)


@pytest.mark.parametrize(
    "make",
    [["mke2fs", "-q", "-F", "-t", "ext4"], ["mkfs.vfat", "-F", "16"], ["mkfs.vfat", "-F", "32"]],
    ids=lambda make: make[-1],
)
def test_a_filesystem_longer_than_its_partition_counts_to_its_own_end(
    tmp_path: Path, make: list[str]
) -> None:
    disk, root = tmp_path / "disk.img", tmp_path / "root"
    root.write_bytes(bytes(20 * MiB))
    run([*make, root])
    for length, size in ((19 * MiB, SIZE), (19 * MiB, 20 * MiB), (24 * MiB, SIZE)):
        disk.write_bytes(bytes(size))
        table = f"label: dos\nstart={MiB // 512}, size={length // 512}, type=83\n"
        run(["sfdisk", "--quiet", "--force", disk], stdin=table.encode())
        data = bytearray(disk.read_bytes())
        data[MiB : 21 * MiB] = root.read_bytes()
        disk.write_bytes(data[:size])
        found = InUse(reader_of(disk), size)
        ranges = ExtentMap(found.ranges())
        is_long = length < 20 * MiB
        assert found.end == (min(21 * MiB, size) if is_long else length + MiB)
        assert bool(found.areas[0].note) == is_long
        assert ranges.covers(Extent(MiB, found.end - MiB)) == is_long
        if not is_long:
            continue
        with disk.open("r+b") as file:
            file.truncate(20 * MiB)
        with opened_source(WantedImage(str(disk))) as opened, opened.source.read(SIZE) as reading:
            read = sum(len(data) for _, data in reading.pieces())
        assert read > 19 * MiB, "an image that ends with its partitions is whole"


def test_who_cannot_go_ahead_to_an_extended_partition_takes_it_whole(two: Path) -> None:
    assert sum(part.length for part in in_order(two, MiB)) == 57344 * 512


def test_the_free_end_of_a_partition_is_let_go_before_the_next_is_looked_at(
    tmp_path: Path, tree: Path
) -> None:
    """Else a stream would have to hold all of it."""
    disk, boot, root = (tmp_path / name for name in ("disk.img", "boot", "root"))
    disk.write_bytes(bytes(SIZE))
    run(["sfdisk", "--quiet", disk], stdin=b"label: dos\nsize=24M, type=c\ntype=83\n")
    boot.write_bytes(bytes(24 * MiB))
    run(["mkfs.vfat", "-F", "16", boot])
    run(["mke2fs", "-q", "-t", "ext4", root, "4096k"])
    data = bytearray(disk.read_bytes())
    for start, part in ((1, boot), (25, root)):
        content = part.read_bytes()
        data[start * MiB : start * MiB + len(content)] = content
    disk.write_bytes(data)
    ranges = [*in_order(disk, MiB)]
    assert ranges == [*InUse(reader_of(disk), SIZE).ranges()]
    assert sum(part.length for part in ranges) < 8 * MiB


def test_a_damaged_filesystem_counts_whole(tmp_path: Path, tree: Path) -> None:
    image = tmp_path / "root.img"
    filesystem(image, tree, SHAPES["ext4 of today"])
    data = image.read_bytes()
    told = run(["dumpe2fs", image]).stdout.decode()
    bitmaps = [int(number) for number in re.findall(r"Block bitmap at (\d+)", told)]
    for name, at in {
        "the superblock": SUPERBLOCK_OFFSET + 200,
        "the descriptor of group 1": 4096 + 64 + 12,
        "the block bitmap of group 0": bitmaps[0] * 4096 + 5,
    }.items():
        spoilt = bytearray(data)
        spoilt[at] ^= 0xFF
        image.write_bytes(spoilt)
        found = InUse(reader_of(image), SIZE)
        ranges = ExtentMap(found.ranges())
        assert name in found.areas[0].note
        assert ranges == ExtentMap([Extent(0, SIZE)])


@pytest.mark.parametrize("lie", ["-R freeb 1100 60", "-R ssv state 3"])
def test_a_filesystem_without_checksums_that_contradicts_itself_counts_whole(
    tmp_path: Path, tree: Path, lie: str
) -> None:
    """A bitmap that calls files free has too many free blocks; or the kernel saw it."""
    image = tmp_path / "root.img"
    filesystem(image, tree, SHAPES["ext3"])
    before = InUse(reader_of(image), SIZE)
    assert ExtentMap(before.ranges()).total_bytes < SIZE and not before.areas[0].note
    option, words = lie.split(" ", 1)
    run(["debugfs", "-w", option, words, image])
    if "freeb" in lie:  # debugfs counts what it frees
        data = bytearray(image.read_bytes())
        free = int.from_bytes(data[2048 + 12 : 2048 + 14], "little")
        data[2048 + 12 : 2048 + 14] = (free - 60).to_bytes(2, "little")
        image.write_bytes(data)
    found = InUse(reader_of(image), SIZE)
    assert ExtentMap(found.ranges()) == ExtentMap([Extent(0, SIZE)])
    assert found.areas[0].note in (
        "the block bitmap of group 0 does not fit its count of blocks",
        "a system that used it met damage in it",
    )


def test_what_would_cost_too_much_to_tell_counts_whole(tmp_path: Path, tree: Path) -> None:
    image = tmp_path / "root.img"
    filesystem(image, tree, SHAPES["1 KiB blocks"])
    budget = Budget()
    whole = ExtentMap(InUse(reader_of(image), SIZE, budget).ranges())
    (enough, _) = budget.spent
    for steps in (10, enough // 2, enough - 20, enough - 1):
        found = InUse(reader_of(image), SIZE, Budget(ReadLimits(steps=steps)))
        ranges = ExtentMap(found.ranges())
        assert "takes too long" in found.areas[0].note
        assert not whole - ranges and ranges.end == SIZE
