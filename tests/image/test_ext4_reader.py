"""The ext4 reader agrees with the kernel's own tools, and survives any bytes."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imager.base.run import search_path
from imager.base.units import KiB, MiB
from imager.disk.budget import Budget, OverBudget, ReadLimits
from imager.disk.ext4.filesystem import Ext4, Ext4Error
from imager.disk.ext4.remembered import RememberedExt4
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Reader

pytestmark = pytest.mark.image

SHAPES = {
    "as composed": [
        "-b",
        "4096",
        "-O",
        "metadata_csum,metadata_csum_seed,64bit",
        "-E",
        "nodiscard",
    ],
    "1 KiB blocks": ["-b", "1024"],
    "indirect blocks": ["-b", "1024", "-O", "^extent,^64bit,^metadata_csum", "-I", "128"],
    "2 KiB blocks, meta_bg": ["-b", "2048", "-O", "^resize_inode,meta_bg"],
    "sparse_super2": ["-b", "1024", "-O", "sparse_super2,^resize_inode"],
    "no flex_bg": ["-b", "4096", "-O", "^flex_bg,^metadata_csum"],
}


def tool(*words: str | Path, stdin: str = "") -> str:
    done = subprocess.run(
        [str(word) for word in words],
        input=stdin,
        capture_output=True,
        text=True,
        env={"PATH": search_path(), "LC_ALL": "C.UTF-8"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def reader_of(path: Path) -> Reader:
    data = path.read_bytes()
    return lambda offset, length: data[offset : offset + length]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree") / "files"
    (folder / "etc" / "deep").mkdir(parents=True)
    (folder / "etc" / "hostname").write_text("pi7\n")
    (folder / "etc" / "deep" / "linked").hardlink_to(folder / "etc" / "hostname")
    (folder / "etc" / "name").symlink_to("hostname")
    (folder / "up").symlink_to("/etc/deep/../name")
    (folder / "long").symlink_to("./" * 60 + "etc/hostname")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere/else")
    (folder / "empty").touch()
    (folder / "large").write_bytes(os.urandom(700 * KiB))
    with (folder / "holes").open("wb") as file:
        for number in range(12):
            file.seek(number * 20_000)
            file.write(b"%04d" % number * 600)
    many = folder / "many"
    many.mkdir()
    for number in range(600):
        (many / f"entry-{number}-{'x' * 40}").touch()
    return folder


@pytest.fixture(scope="module")
def make(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def one(shape: str) -> Path:
        if shape not in made:
            image = tmp_path_factory.mktemp("fs") / "image"
            image.touch()
            tool("mke2fs", "-q", "-F", "-t", "ext4", *SHAPES[shape], "-d", tree, image, "24M")
            tool("e2fsck", "-fn", image)
            made[shape] = image
        return made[shape]

    return one


@pytest.fixture(params=SHAPES)
def image(request: pytest.FixtureRequest, make: Callable[[str], Path]) -> Path:
    return make(request.param)


def test_every_path_has_the_content_that_went_in(image: Path, tree: Path) -> None:
    filesystem = Ext4.open(reader_of(image), 0)
    found = {path: inode for path, inode in filesystem.walk() if path != "/lost+found"}
    expected = {"/", *(f"/{path.relative_to(tree)}" for path in tree.rglob("*"))}
    assert set(found) == expected
    for path, inode in found.items():
        source = tree / path[1:]
        if source.is_symlink():
            assert filesystem.readlink(path) == os.readlink(source)
        elif source.is_file():
            assert filesystem.content(inode) == source.read_bytes()
    assert found["/etc/hostname"].number == found["/etc/deep/linked"].number
    assert found["/etc/hostname"].links == 2


def test_used_is_what_dumpe2fs_calls_used(image: Path) -> None:
    """dumpe2fs counts whole inode tables; the reader leaves out what no program reads yet."""
    said = tool("dumpe2fs", image)
    filesystem = Ext4.open(reader_of(image), 0)
    size = filesystem.block_size
    first = int(next(iter(re.findall(r"First block: +(\d+)", said))))
    free: list[Extent] = []
    for line in re.findall(r"^  Free blocks: (.+)$", said, re.MULTILINE):
        for part in line.split(", "):
            low, _, high = part.partition("-")
            free.append(Extent(int(low) * size, (int(high or low) - int(low) + 1) * size))
    whole = ExtentMap([Extent(first * size, (filesystem.blocks_count - first) * size)])
    by_tool = whole - ExtentMap(free)
    assert filesystem.used - by_tool == ExtentMap([Extent(0, first * size)])
    tables = ExtentMap(
        Extent(int(low) * size, (int(high) - int(low) + 1) * size)
        for low, high in re.findall(r"Inode table at (\d+)-(\d+)", said)
    )
    assert (by_tool - filesystem.used) - tables == ExtentMap()
    assert filesystem.metadata - filesystem.used == ExtentMap()
    assert filesystem.journal - filesystem.used == ExtentMap()


def test_inode_tables_that_were_zeroed_belong_to_the_filesystem(
    make: Callable[[str], Path], tmp_path: Path
) -> None:
    """The kernel relies on their zeros, so a card must get them. Tables that it zeroes itself it
    marks, and only those are left out."""
    lazy, zeroed = tmp_path / "lazy", tmp_path / "zeroed"
    for image, flag in ((lazy, 1), (zeroed, 0)):
        image.touch()
        words = ("-b", "4096", "-O", "metadata_csum", "-E", f"lazy_itable_init={flag}")
        tool("mke2fs", "-q", "-F", "-t", "ext4", *words, "-N", "8192", image, "24M")
    tables = ExtentMap(
        Extent(int(low) * 4096, (int(high) - int(low) + 1) * 4096)
        for low, high in re.findall(r"Inode table at (\d+)-(\d+)", tool("dumpe2fs", zeroed))
    )
    assert tables.total_bytes == 8192 * 256
    whole = Ext4.open(reader_of(zeroed), 0)
    assert tables - whole.used == ExtentMap()
    assert tables - whole.metadata == ExtentMap()
    left_out = Ext4.open(reader_of(lazy), 0)
    assert (tables - left_out.used).total_bytes > tables.total_bytes // 2


@pytest.mark.parametrize(("length", "blocks", "written"), [(32768, 32768, True), (32769, 1, False)])
def test_the_longest_extent_and_the_shortest_unwritten_one(
    tmp_path: Path, length: int, blocks: int, written: bool
) -> None:
    """An extent's length above 32768 says that so many less blocks were never written; exactly
    32768 is an extent like any other (kernel: ext4_ext_is_unwritten)."""
    image, file = tmp_path / "image", tmp_path / "file"
    image.touch()
    file.write_bytes(b"content")
    words = ("-b", "1024", "-O", "^metadata_csum,^has_journal")
    tool("mke2fs", "-q", "-F", "-t", "ext4", *words, image, "48M")
    tool("debugfs", "-w", "-R", f"write {file} file", image)
    said = tool("debugfs", "-R", "imap file", image)
    found = re.search(r"located at block (\d+), offset 0x([0-9a-f]+)", said)
    assert found
    root = int(found[1]) * 1024 + int(found[2], 16) + 40
    data = bytearray(image.read_bytes())
    assert struct.unpack_from("<HH", data, root) == (0xF30A, 1)
    struct.pack_into("<H", data, root + 12 + 4, length)
    image.write_bytes(data)
    tool("debugfs", "-w", "-R", f"sif file size {blocks * 1024}", image)
    assert ("Uninit" in tool("debugfs", "-R", "dump_extents file", image)) != written
    filesystem = Ext4.open(reader_of(image), 0)
    inode = filesystem.lookup("/file")
    assert inode is not None
    assert sum(extent.length for extent in inode.extents) == blocks * 1024
    assert filesystem.content(inode)[:7] == (b"content" if written else bytes(7))


def test_metadata_alone_is_a_filesystem_e2fsck_finds_nothing_wrong_with(
    image: Path, tmp_path: Path
) -> None:
    """The working copy of a node is just these bytes; what is not in them must be file data."""
    data = image.read_bytes()
    bare = tmp_path / "bare"
    with bare.open("wb") as file:
        file.truncate(len(data))
        for extent in Ext4.open(reader_of(image), 0).metadata:
            file.seek(extent.offset)
            file.write(data[extent.offset : extent.end])
    tool("e2fsck", "-fn", bare)
    with_data = Ext4.open(reader_of(bare), 0)
    assert with_data.read_file("/etc/hostname").strip(b"\0") == b""  # content is left out
    assert with_data.readlink("/long").endswith("etc/hostname")


def test_used_alone_on_a_card_full_of_junk_is_the_whole_filesystem(
    image: Path, tmp_path: Path
) -> None:
    data = image.read_bytes()
    filesystem = Ext4.open(reader_of(image), 0)
    card = tmp_path / "card"
    with card.open("wb") as file:
        file.write(os.urandom(len(data)))
        for extent in filesystem.used | filesystem.journal:
            file.seek(extent.offset)
            file.write(data[extent.offset : extent.end])
    tool("e2fsck", "-fn", card)
    read_back = Ext4.open(reader_of(card), 0)
    for path, inode in filesystem.walk():
        if inode.is_file:
            assert read_back.read_file(path) == filesystem.content(inode)


def test_links_are_followed_inside_the_filesystem(make: Callable[[str], Path]) -> None:
    filesystem = Ext4.open(reader_of(make("as composed")), 0)
    assert filesystem.read_file("up") == b"pi7\n"
    assert filesystem.resolve("up") == "/etc/hostname"
    assert filesystem.resolve("/etc/deep/../../long") == "/etc/hostname"
    assert filesystem.resolve("/etc/new/file") == "/etc/new/file"
    assert filesystem.resolve("/dangling/x") == "/nowhere/else/x"
    assert filesystem.lookup("/dangling") is None
    assert filesystem.lookup("/etc/hostname/x") is None
    link = filesystem.lookup("/up", follow=False)
    assert link is not None
    assert link.is_symlink
    with pytest.raises(Ext4Error, match="too many symbolic links"):
        filesystem.lookup("/loop")
    with pytest.raises(FileNotFoundError):
        filesystem.read_file("/etc")


def test_a_file_larger_than_expected_is_not_read_into_memory(make: Callable[[str], Path]) -> None:
    filesystem = Ext4.open(reader_of(make("as composed")), 0)
    with pytest.raises(Ext4Error, match="more than 1000"):
        filesystem.read_file("/large", limit_bytes=1000)


def test_a_filesystem_inside_a_disk_has_the_addresses_of_the_disk(
    make: Callable[[str], Path], tmp_path: Path
) -> None:
    inner = make("as composed").read_bytes()
    disk = bytes(3 * MiB) + inner
    alone = Ext4.open(lambda offset, length: inner[offset : offset + length], 0)
    inside = Ext4.open(lambda offset, length: disk[offset : offset + length], 3 * MiB)
    assert inside.used == alone.used.shifted(3 * MiB)
    assert inside.read_file("/large") == alone.read_file("/large")
    large = inside.lookup("/large")
    assert large is not None
    on_disk = b"".join(disk[extent.offset : extent.end] for extent in large.extents)
    assert on_disk[: large.size_bytes] == alone.read_file("/large")


def exercise(read: Reader) -> None:
    filesystem = Ext4.open(read, 0)
    assert filesystem.used.end <= filesystem.blocks_count * filesystem.block_size
    assert filesystem.metadata.total_bytes >= 0
    assert filesystem.journal.total_bytes >= 0
    for path, inode in filesystem.walk():
        filesystem.xattrs(inode)
        if inode.is_symlink:
            filesystem.readlink(path)
        elif inode.is_file:
            filesystem.content(inode, limit_bytes=4 * MiB)
    filesystem.lookup("up")
    filesystem.resolve("/etc/deep/../name/x")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), shape=st.sampled_from(["as composed", "indirect blocks"]))
def test_damage_anywhere_ends_in_ext4_error_or_an_answer(
    make: Callable[[str], Path], data: st.DataObject, shape: str
) -> None:
    whole = bytearray(make(shape).read_bytes())
    metadata = list(Ext4.open(reader_of(make(shape)), 0).metadata)
    for _ in range(data.draw(st.integers(1, 12))):
        extent = data.draw(st.sampled_from(metadata))
        # Most of the metadata is empty inode tables; the first bytes of a block are not.
        within = data.draw(st.integers(0, min(extent.length, 8192) - 1))
        junk = data.draw(st.binary(min_size=1, max_size=8))
        whole[extent.offset + within : extent.offset + within + len(junk)] = junk
    try:
        exercise(lambda offset, length: bytes(whole[offset : offset + length]))
    except Ext4Error as error:
        assert str(error)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(cut=st.integers(0, 24 * MiB))
def test_a_disk_that_ends_early_is_an_ext4_error(make: Callable[[str], Path], cut: int) -> None:
    data = make("as composed").read_bytes()[:cut]
    short = False

    def read(offset: int, length: int) -> bytes:
        nonlocal short
        short = short or offset + length > len(data)
        return data[offset : offset + length]

    try:
        exercise(read)
    except Ext4Error:
        assert short
    else:
        assert not short


def test_what_is_no_filesystem_is_refused_with_the_reason() -> None:
    with pytest.raises(Ext4Error, match="magic number at byte 1080"):
        Ext4.open(lambda _, length: bytes(length), 0)


def test_a_feature_this_reader_does_not_know_is_refused(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.touch()
    tool("mke2fs", "-q", "-F", "-t", "ext4", "-O", "inline_data", "-d", tree, image, "24M")
    with pytest.raises(Ext4Error, match="0x8000"):
        Ext4.open(reader_of(image), 0)


def test_a_block_map_that_leads_back_to_itself_has_an_end(make: Callable[[str], Path]) -> None:
    data = bytearray(make("indirect blocks").read_bytes())
    large = Ext4.open(lambda offset, length: bytes(data[offset : offset + length]), 0).lookup(
        "/large"
    )
    assert large is not None
    at = data.find(large.raw.block)
    block = large.extents[-1].end // KiB - 1
    data[at + 14 * 4 : at + 15 * 4] = block.to_bytes(4, "little")  # triple indirect
    data[block * KiB : (block + 1) * KiB] = block.to_bytes(4, "little") * (KiB // 4)
    with pytest.raises(Ext4Error, match=f"block {block} is in a file's block map twice"):
        exercise(lambda offset, length: bytes(data[offset : offset + length]))


def test_what_is_remembered_is_what_is_there_and_is_read_once(
    make: Callable[[str], Path],
) -> None:
    read = reader_of(make("as composed"))
    asked: list[int] = []

    def counted(offset: int, length: int) -> bytes:
        asked.append(offset)
        return read(offset, length)

    plain, remembered = Ext4.open(read, 0), RememberedExt4.open(counted, 0)

    def compare(*paths: str) -> None:
        for path in paths:
            found = plain.lookup(path)
            assert remembered.lookup(path) == found
            assert remembered.lookup(path, follow=False) == plain.lookup(path, follow=False)
            assert remembered.resolve(path) == plain.resolve(path)
            if found is not None and found.is_file:
                assert remembered.content(found) == plain.content(found)

    small = ("/etc/name", "up", "/dangling", "/nowhere", "/etc", "/etc/deep/linked")
    compare(*small, "/large")
    asked.clear()
    compare(*small)
    assert asked == []
    name = plain.lookup("/etc/hostname")
    assert name is not None
    with pytest.raises(Ext4Error):
        remembered.content(name, limit_bytes=3)
    for _ in range(2):
        with pytest.raises(Ext4Error, match="too many symbolic links"):
            remembered.lookup("/loop")


def test_a_folder_that_leads_into_itself_is_gone_through_once_for_each_time(tmp_path: Path) -> None:
    """Through forty links of two thousand names each, as many as are followed."""
    files, card, again, links = tmp_path / "files", tmp_path / "card", "a/" * 2000, 40
    files.mkdir()
    (files / "hostname").write_text("pi7\n")
    for number in range(links - 1):
        (files / f"l{number}").symlink_to(f"{again}l{number + 1}")
    (files / f"l{links - 1}").symlink_to(f"{again}hostname")
    tool("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", files, card, "8M")
    tool("debugfs", "-w", "-R", "link <2> a", card)
    ext4 = Ext4.open(reader_of(card), 0)
    assert ext4.read_file("/l0") == b"pi7\n"
    steps, _ = ext4.budget.spent
    assert steps > links * 2000
    with pytest.raises(OverBudget, match="takes too long"):
        Ext4.open(reader_of(card), 0, Budget(ReadLimits(steps=steps // 2))).read_file("/l0")


def test_the_older_checksum_of_groups_costs_what_it_takes(tmp_path: Path) -> None:
    spent = {}
    for feature in ("^uninit_bg", "uninit_bg"):
        card = tmp_path / feature
        features = f"^metadata_csum,^64bit,{feature}"
        tool("mke2fs", "-q", "-t", "ext4", "-b", "1024", "-O", features, card, "64M")
        spent[feature] = Ext4.open(reader_of(card), 0).budget.spent[0]
    groups, descriptor = 8, 32
    assert spent["uninit_bg"] - spent["^uninit_bg"] == groups * (descriptor - descriptor // 8)
