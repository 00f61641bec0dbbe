"""Paths, links and folders of an ext4 built by hand."""

from __future__ import annotations

import stat
import struct

import pytest

from imager.disk.budget import Budget, OverBudget, ReadLimits
from imager.disk.ext4.checksum import directory_block_fits, inode_seed
from imager.disk.ext4.crc32c import crc32c
from imager.disk.ext4.directory import require_checksums
from imager.disk.ext4.filesystem import Ext4
from imager.disk.ext4.format import Ext4Error
from imager.disk.ext4.remembered import RememberedExt4
from imager.disk.extents import ExtentMap
from tests.unit.disk.ext4.test_format import UUID
from tests.unit.disk.ext4.test_maps import (
    FILE,
    FOLDER,
    JOURNAL,
    POWERS,
    blocks,
    extents,
    fixed,
    volume,
    with_inodes,
)

Inodes = dict[str, tuple[int, bytes, int]]
LINK = stat.S_IFLNK | 0o777
SEED = crc32c(UUID.bytes)
CHECKSUMS = 0x400


def entries(*names: tuple[bytes, int], room: int = 1024) -> bytes:
    """A block of names, the last of which takes what is left of ``room``."""
    block = b""
    for number, (name, inode) in enumerate(names, 1):
        length = room - len(block) if number == len(names) else (8 + len(name) + 3) & ~3
        block += struct.pack("<IHBB", inode, length, len(name), 1) + name.ljust(length - 8, b"\0")
    return block


def tree(
    names: bytes, ro_compat: int = 1, *, room: int = 1024, more: Inodes | None = None
) -> bytearray:
    """A filesystem whose root has ``names``, in block 9000; inode 13 is the file with one block."""
    data = with_inodes(
        i2=(FOLDER, extents(0, (0, 1, 9000)), 0),
        i13=(FILE, extents(0, (0, 1, 9100)), 0),
        **(more or {}),
    )
    struct.pack_into("<I", data, 1024 + 100, ro_compat)
    data[9000 * 1024 : 9000 * 1024 + len(names)] = names
    data[9100 * 1024 : 9100 * 1024 + 7] = b"content"
    for number, size in ((2, room), (13, 7)):
        struct.pack_into("<I", data, inode_at(number) + 4, size)
        struct.pack_into("<H", data, inode_at(number) + 26, 1)
    return data


def inode_at(number: int) -> int:
    return 1000 * 1024 + (number - 1) * 256


def links(*targets: bytes) -> Inodes:
    """Inodes from 20 on, links to these."""
    return {f"i{20 + n}": (LINK, to.ljust(60, b"\0"), 0) for n, to in enumerate(targets)}


def opened(data: bytearray, limits: ReadLimits | None = None) -> Ext4:
    return Ext4(volume(data, limits))


OWN = ((b".", 2), (b"..", 2))


def linked(*targets: bytes) -> Ext4:
    """A root with a file ``f`` and the links ``l0``, ``l1`` and so on."""
    named = [(b"l%d" % number, 20 + number) for number in range(len(targets))]
    data = tree(entries(*OWN, (b"f", 13), *named), more=links(*targets))
    for number, target in enumerate(targets, 20):
        struct.pack_into("<I", data, inode_at(number) + 4, len(target))
    return opened(data)


def test_links_are_followed_inside_the_filesystem() -> None:
    found = linked(b"f", b"/l0", b"../../f", b"././/l1", b"nowhere/../f", b"none")
    for number in range(4):
        assert found.resolve(f"l{number}") == "/f"
        assert found.read_file(f"/l{number}") == b"content"
    assert found.resolve("l4") == "/f"
    assert (found.resolve("l5"), found.lookup("l5")) == ("/none", None)
    assert found.resolve("l5/more") == "/none/more"
    assert found.resolve("f/more") == "/f/more"
    assert found.lookup("f/more") is None
    last = found.lookup("l1", follow=False)
    assert last is not None
    assert (last.number, last.is_symlink, last.is_file, last.is_dir) == (21, True, False, False)
    assert found.readlink("l1") == "/l0"
    for path in ("f", "none", "."):
        with pytest.raises(FileNotFoundError):
            found.readlink(path)
    for path in (".", "none", "l5"):
        with pytest.raises(FileNotFoundError):
            found.read_file(path)


def test_forty_links_are_followed_and_not_one_more() -> None:
    found = linked(*(b"l%d" % number for number in range(1, 41)), b"f")
    assert found.resolve("l1") == "/f"
    with pytest.raises(Ext4Error, match="l0: too many symbolic links"):
        found.resolve("l0")


def test_a_folder_has_names_and_nothing_else_has_any() -> None:
    found = linked(b"f", b".")
    assert found.list_directory("/") == ("f", "l0", "l1")
    assert found.list_directory("l1") == ("f", "l0", "l1")
    assert found.list_directory("f") == found.list_directory("none") == ()
    assert dict(found.numbers()) == {"/": 2, "/f": 13, "/l0": 20, "/l1": 21}


def test_names_that_are_kept_are_paid_for_once() -> None:
    data = tree(entries(*OWN, *((b"f%d" % number, 13) for number in range(8))))
    found = opened(data, ReadLimits(names=10))
    assert found.lookup("f7") is not None
    assert found.lookup("f6") is not None
    with pytest.raises(OverBudget, match="more than 9 names"):
        opened(data, ReadLimits(names=9)).lookup("f7")
    assert len(list(opened(data, ReadLimits(names=10)).numbers())) == 1 + 8
    with pytest.raises(OverBudget, match="more than 9 names in its folders"):
        list(opened(data, ReadLimits(names=9)).numbers())
    twice = tree(entries(*OWN, *((b"same", 13) for _ in range(8))))
    assert opened(twice, ReadLimits(names=3)).lookup("same") is not None


def test_the_first_numbers_are_the_filesystems_own() -> None:
    data = tree(entries(*OWN), more={f"i{n}": (FILE, extents(0), 0) for n in (8, 10, 11, 12)})
    assert opened(data).file_numbers() == {11, 12, 13}
    assert opened(data).file_numbers({10, 11, 99}) == {11}
    assert [inode.number for inode in opened(data).files()] == [11, 12, 13]
    assert opened(data).damaged_inodes({11}) == set()
    struct.pack_into("<I", data, 1024 + 100, CHECKSUMS)
    assert opened(data).damaged_inodes({11}) == {11}
    seal(data, 11)
    assert opened(data).damaged_inodes({11, 12}) == {12}


def seal(data: bytearray, number: int) -> None:
    """Give an inode its checksum."""
    at = inode_at(number)
    raw = bytearray(data[at : at + 256])
    raw[124:126] = raw[130:132] = bytes(2)
    value = crc32c(raw, inode_seed(bytes(raw), number, SEED))
    reaches = struct.unpack_from("<H", raw, 128)[0] >= 4
    struct.pack_into("<H", data, at + 124, value & 0xFFFF)
    if reaches:
        struct.pack_into("<H", data, at + 130, value >> 16)


@pytest.mark.parametrize(("compat", "number", "has"), [(4, 8, True), (4, 0, False), (0, 8, False)])
def test_a_journal_is_kept_where_feature_and_number_say_so(
    compat: int, number: int, has: bool
) -> None:
    data = tree(entries(*OWN))
    struct.pack_into("<I", data, 1024 + 92, compat)
    struct.pack_into("<I", data, 1024 + 224, number)
    assert opened(data).has_journal is has


def test_a_root_that_no_kernel_could_read() -> None:
    def why(data: bytearray) -> str:
        with pytest.raises(Ext4Error) as caught:
            opened(data).require_root()
        return str(caught.value)

    good = tree(entries(*OWN))
    opened(good).require_root()
    for name in OWN:
        assert "lost its first entries" in why(tree(entries(name)))
    deleted = bytearray(good)
    struct.pack_into("<H", deleted, inode_at(2) + 26, 0)
    other = bytearray(good)
    struct.pack_into("<H", other, inode_at(2), FILE)
    for data in (deleted, other):
        assert "not a directory, or was deleted" in why(data)
    with pytest.raises(Ext4Error, match="the root directory is not a directory"):
        list(opened(other).numbers())
    unsealed = with_tail(tree(entries(*OWN, room=1012), CHECKSUMS))
    assert "inode of the root directory does not fit" in why(unsealed)
    seal(unsealed, 2)
    opened(unsealed).require_root()


def with_tail(data: bytearray, block: int = 9000, number: int = 2) -> bytearray:
    """Give a block of names the entry at its end that has its checksum."""
    at = block * 1024
    raw = bytes(data[inode_at(number) : inode_at(number) + 256])
    data[at + 1012 : at + 1024] = tail(bytes(data[at : at + 1012]), inode_seed(raw, number, SEED))
    return data


def tail(content: bytes, seed: int) -> bytes:
    return struct.pack("<IHBBI", 0, 12, 0, 0xDE, crc32c(content, seed))


def test_a_block_of_names_fits_by_its_last_entry_and_its_checksum() -> None:
    content = entries(*OWN, room=1012)
    block = content + tail(content, 7)
    assert directory_block_fits(block, 7)
    assert not directory_block_fits(block, 8)
    for at in (0, 1011, 1012, 1016, 1018, 1019, 1020, 1023):
        spoilt = bytearray(block)
        spoilt[at] ^= 1
        assert not directory_block_fits(bytes(spoilt), 7), at


def test_only_blocks_of_an_index_need_no_checksum_of_their_own() -> None:
    names = entries(*OWN, room=1012)
    require_checksums(volume(tree(names)), 2)  # nothing here keeps checksums
    data = with_tail(tree(names, CHECKSUMS))
    require_checksums(volume(data), 2)
    data[9000 * 1024 + 20] ^= 1
    with pytest.raises(Ext4Error, match="block 0 of a directory does not fit"):
        require_checksums(volume(data), 2)
    # With an index: its root, a block of it that looks like one empty entry, a block of names.
    three = extents(0, (0, 3, 9000))
    for second, third, damaged in (
        (entries((b"", 0)), None, None),
        (entries((b"", 0)), b"\1", 2),
        (entries((b"", 5)), None, 1),
        (entries((b"", 0), (b"", 0)), None, 1),
    ):
        indexed = tree(names, CHECKSUMS, room=3 * 1024)
        struct.pack_into("<I", indexed, inode_at(2) + 32, 0x80000 | 0x1000)
        indexed[inode_at(2) + 40 : inode_at(2) + 100] = three
        indexed[9001 * 1024 : 9002 * 1024] = second
        indexed[9002 * 1024 : 9002 * 1024 + len(names)] = names
        with_tail(indexed, 9002)
        if third:
            indexed[9002 * 1024 + 100 : 9002 * 1024 + 101] = third
        if damaged is None:
            require_checksums(volume(indexed), 2)
            continue
        with pytest.raises(Ext4Error, match=f"block {damaged} of a directory"):
            require_checksums(volume(indexed), 2)


def test_what_it_says_of_itself_is_in_its_superblock() -> None:
    found = opened(tree(entries(*OWN), more={"i8": JOURNAL}))
    assert (found.uuid, found.label, found.block_size) == (UUID, "root", 1024)
    assert (found.blocks_count, found.inodes_count) == (16485, 65 * 64)
    assert (found.mounted, found.needs_recovery, found.superblock_fits) == (False, False, True)
    assert found.damaged_groups == ()
    assert found.used & fixed(POWERS, 4) == fixed(POWERS, 4)
    assert found.metadata == fixed(POWERS, 4) | blocks((9000, 1), (9500, 1))
    assert found.journal == ExtentMap(found.journal_extents) == blocks((9500, 2), (9600, 1))


def test_kinds_and_times_of_an_inode() -> None:
    device = struct.pack("<II", 0x0801, 0).ljust(60, b"\0")
    nodes = {"i14": (stat.S_IFBLK | 0o600, device, 0), "i15": (stat.S_IFCHR | 0o600, device, 0)}
    data = tree(entries(*OWN), more=nodes)
    struct.pack_into("<I", data, inode_at(13) + 16, 5)
    found = opened(data)
    assert found.inode(14).device == found.inode(15).device == (8, 1)
    assert found.inode(13).device is None
    file = found.inode(13)
    assert (file.mode, file.uid, file.gid, file.size_bytes, file.links) == (FILE, 0, 0, 7, 1)
    assert (file.mtime_ns, file.is_file, file.is_dir, file.is_symlink) == (5e9, True, False, False)
    with pytest.raises(Ext4Error, match="not a whole number of blocks"):
        opened(tree(entries(*OWN), room=1023)).list_directory("/")


def test_a_filesystem_that_remembers_says_the_same() -> None:
    data = tree(entries(*OWN, (b"f", 13), (b"l", 20)), more=links(b"f"))
    struct.pack_into("<I", data, inode_at(20) + 4, 1)
    for size in (7, 16384, 16385):
        struct.pack_into("<I", data, inode_at(13) + 4, size)
        found = RememberedExt4(volume(data))
        for _ in range(2):
            assert found.read_file("l") == b"content".ljust(size, b"\0")
            assert found.resolve("l") == "/f"
            link = found.lookup("l", follow=False)
            assert link is not None
            assert link.number == 20
        with pytest.raises(Ext4Error, match="are more than"):
            found.read_file("l", limit_bytes=size - 1)


def test_a_purse_is_shared_by_all_who_look() -> None:
    purse = Budget()
    data = bytes(tree(entries(*OWN)))
    found = Ext4.open(lambda at, length: data[at : at + length], 0, purse)
    before = purse.spent[0]
    found.list_directory("/")
    assert purse.spent[0] > before
