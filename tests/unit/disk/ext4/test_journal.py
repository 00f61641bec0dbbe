"""Journals built by hand from the kernel's documentation, in every form of their tags.

tests/image/test_ext4_journal.py has one that debugfs wrote.
"""

from __future__ import annotations

import stat
import struct

import pytest

from imager.disk.budget import Budget, OverBudget, ReadLimits
from imager.disk.ext4.filesystem import Ext4
from imager.disk.ext4.format import Ext4Error
from imager.disk.ext4.journal import replayed, require_journal
from imager.disk.manifest import Reader
from tests.unit.disk.ext4.test_blocks import disk

BLOCK, LENGTH = 1024, 160
PIECES = ((3000, 60), (4000, 100))
"""Where the journal lies: first block, number of blocks."""
INODE_8 = 1000 * BLOCK + 7 * 256
REVOKES, WIDE, V2, V3 = 0x1, 0x2, 0x8, 0x10
FORMS = [0, REVOKES, WIDE, V2, WIDE | V2, V3, WIDE | V3]
MAGIC = bytes.fromhex("c03b3998")
ESCAPED, SAME_UUID, LAST = 1, 2, 8


class Journal:
    """A filesystem that was not unmounted, and its journal from block ``start`` on."""

    def __init__(self, incompat: int = 0, start: int = 1, sequence: int = 7) -> None:
        self.data = disk(incompat=0x44)
        self.incompat, self.position, self.sequence = incompat, start, sequence
        inode = bytearray(256)
        struct.pack_into("<H", inode, 0, stat.S_IFREG | 0o600)
        struct.pack_into("<I", inode, 4, LENGTH * BLOCK)
        struct.pack_into("<I", inode, 32, 0x80000)
        struct.pack_into("<HHHH", inode, 40, 0xF30A, 2, 4, 0)
        logical = 0
        for number, (first, count) in enumerate(PIECES):
            struct.pack_into("<IHHI", inode, 52 + 12 * number, logical, count, 0, first)
            logical += count
        self.data[INODE_8 : INODE_8 + 256] = inode
        head = struct.pack(">IIIIIIII", 0xC03B3998, 4, 0, BLOCK, LENGTH, 1, sequence, start)
        self.write(0, head.ljust(40, b"\0") + struct.pack(">I", incompat))

    def write(self, number: int, content: bytes) -> None:
        first, count = PIECES[0]
        at = first + number if number < count else PIECES[1][0] + number - count
        self.data[at * BLOCK : (at + 1) * BLOCK] = content.ljust(BLOCK, b"\0")

    def add(self, content: bytes) -> None:
        self.write(self.position, content)
        self.position = self.position % (LENGTH - 1) + 1

    def header(self, kind: int) -> bytes:
        return MAGIC + struct.pack(">II", kind, self.sequence & 0xFFFFFFFF)

    def describe(self, *tags: tuple[int, int, bytes]) -> None:
        """A descriptor of (block, flags, content)."""
        raw = self.header(1)
        for block, flags, _ in tags:
            if self.incompat & V3:
                raw += struct.pack(">IIII", block & 0xFFFFFFFF, flags, block >> 32, 0)
            else:
                raw += struct.pack(">IHH", block & 0xFFFFFFFF, 0xFFFF, flags)
                raw += struct.pack(">I", block >> 32) if self.incompat & WIDE else b""
            raw += b"" if flags & SAME_UUID else b"\xff" * 16
        self.add(raw.ljust(BLOCK, b"\xff"))
        for _, _, content in tags:
            self.add(content)

    def revoke(self, *blocks: int, slack: int = 0) -> None:
        kind = ">Q" if self.incompat & WIDE else ">I"
        listed = b"".join(struct.pack(kind, block) for block in blocks)
        raw = self.header(5) + struct.pack(">I", 16 + len(listed) + slack) + listed
        self.add(raw.ljust(BLOCK, b"\0"))

    def commit(self) -> None:
        self.add(self.header(2))
        self.sequence += 1

    def raw(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def read(self, budget: Budget | None = None) -> Reader:
        return replayed(self.raw, 0, budget)

    def first_bytes(self, *blocks: int) -> list[bytes]:
        read = self.read()
        return [read(block * BLOCK, BLOCK)[:4] for block in blocks]


def content(word: bytes) -> bytes:
    return word * (BLOCK // len(word))


@pytest.mark.parametrize("incompat", FORMS)
@pytest.mark.parametrize(("start", "sequence"), [(1, 1), (57, 2), (156, 0xFFFFFFFF), (159, 7)])
def test_whole_transactions_are_replayed_in_their_order(
    incompat: int, start: int, sequence: int
) -> None:
    made = Journal(incompat, start, sequence)
    made.describe((500, 0, content(b"old1")), (501, SAME_UUID | LAST, content(b"old2")))
    made.describe((502, LAST, content(b"old3")))
    made.commit()
    made.revoke(501, 999)
    made.describe((502, SAME_UUID | LAST, content(b"new3")))
    made.commit()
    made.describe((503, LAST, content(b"lost")))
    assert made.first_bytes(500, 501, 502, 503) == [b"old1", bytes(4), b"new3", bytes(4)]
    made.commit()
    assert made.first_bytes(503) == [b"lost"]


@pytest.mark.parametrize("incompat", FORMS)
def test_a_tag_lies_behind_the_uuid_of_the_one_before_it(incompat: int) -> None:
    made = Journal(incompat)
    made.describe((500, 0, content(b"a111")), (501, 0, content(b"b222")), (502, LAST, b"c333"))
    made.commit()
    assert made.first_bytes(500, 501, 502) == [b"a111", b"b222", b"c333"]


def test_a_filesystem_need_not_begin_at_a_whole_block_of_its_own() -> None:
    made, offset = Journal(), 3 * 512
    made.describe((500, LAST, content(b"copy")))
    made.commit()
    whole = b"\xee" * offset + made.data
    read = replayed(lambda at, length: whole[at : at + length], offset)
    assert read(offset + 500 * BLOCK, BLOCK) == content(b"copy")
    assert read(offset + 501 * BLOCK - 4, 8) == b"copy" + bytes(4)
    assert read(offset - 4, 8) == b"\xee" * 4 + bytes(4)


def test_an_escaped_copy_gets_its_magic_number_back() -> None:
    made = Journal()
    made.describe((500, ESCAPED | LAST, bytes(4) + content(b"rest")[:-4]))
    made.commit()
    assert made.read()(500 * BLOCK, BLOCK) == MAGIC + content(b"rest")[:-4]


@pytest.mark.parametrize("incompat", FORMS)
def test_a_full_descriptor_needs_no_last_mark(incompat: int) -> None:
    size = 16 if incompat & V3 else 12 if incompat & WIDE else 8
    count = (BLOCK - 12 - (4 if incompat & (V2 | V3) else 0)) // size
    made = Journal(incompat)
    made.describe(*((500 + n, SAME_UUID, content(b"%04d" % n)) for n in range(count)))
    made.commit()
    assert made.first_bytes(500, 499 + count, 500 + count) == [
        b"0000", b"%04d" % (count - 1), bytes(4)
    ]  # fmt: skip


@pytest.mark.parametrize("incompat", FORMS)
def test_upper_halves_count_only_where_they_are_there(incompat: int) -> None:
    made = Journal(incompat)
    made.describe((500 | 1 << 32, SAME_UUID, content(b"high")), (501, LAST, content(b"low1")))
    made.commit()
    wide = bool(incompat & WIDE)
    assert made.first_bytes(500, 501) == [bytes(4) if wide else b"high", b"low1"]


@pytest.mark.parametrize(("slack", "kept"), [(0, [b"a111", bytes(4)]), (-4, [b"a111", b"b222"])])
def test_a_revoke_block_is_as_long_as_it_says(slack: int, kept: list[bytes]) -> None:
    made = Journal()
    made.describe((500, SAME_UUID, content(b"a111")), (501, LAST, content(b"b222")))
    made.commit()
    made.revoke(777, 501, slack=slack)
    made.commit()
    assert made.first_bytes(500, 501) == kept


def test_a_revoke_block_longer_than_a_block_ends_with_it() -> None:
    made = Journal()
    made.describe((500, SAME_UUID, content(b"a111")), (0, LAST, content(b"b222")))
    made.commit()
    made.revoke(500, slack=BLOCK)  # zeros follow: block 0 is revoked too
    made.commit()
    assert made.first_bytes(500, 0) == [bytes(4)] * 2


def test_a_filesystem_that_was_unmounted_is_read_as_it_is() -> None:
    made = Journal()
    made.describe((500, LAST, content(b"copy")))
    made.commit()
    made.data[1024 + 96] &= ~4
    read = made.raw
    assert replayed(read, 0) == read
    assert replayed(read, 0)(500 * BLOCK, 4) == bytes(4)


def test_reads_are_pieced_together_from_the_disk_and_the_journal() -> None:
    made = Journal()
    made.write(0, made.raw(3000 * BLOCK, BLOCK))
    made.data[499 * BLOCK : 502 * BLOCK] = content(b"disk") * 3
    made.describe((500, LAST, content(b"copy")))
    made.commit()
    read = made.read()
    assert read(500 * BLOCK - 2, 4) == b"skco"
    assert read(501 * BLOCK - 2, 4) == b"pydi"
    assert read(500 * BLOCK + 4, 4) == b"copy"
    assert read(499 * BLOCK, 3 * BLOCK) == content(b"disk") + content(b"copy") + content(b"disk")
    assert read(0, 8) == bytes(8)


def test_what_is_of_another_kind_or_number_ends_it() -> None:
    for kind in (3, 9):
        made = Journal()
        made.add(made.header(kind))
        made.describe((500, LAST, content(b"copy")))
        made.commit()
        assert made.first_bytes(500) == [bytes(4)]
    made = Journal()
    made.sequence += 1
    made.describe((500, LAST, content(b"copy")))
    made.commit()
    assert made.first_bytes(500) == [bytes(4)]
    assert Journal(start=0).first_bytes(500) == [bytes(4)]


def test_a_journal_without_end_has_one() -> None:
    """Every block is a commit with the number that would come next."""
    made = Journal()
    for _ in range(2 * LENGTH):
        made.commit()
    made.sequence = 7
    for _ in range(LENGTH - 1):
        made.commit()
    assert made.first_bytes(500) == [bytes(4)]


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0, 0xC03B3999, "superblock"),
        (4, 5, "superblock"),
        (12, 2048, "superblock"),
        (16, LENGTH + 1, "geometry"),
        (16, 1, "geometry"),
        (20, 0, "geometry"),
        (20, LENGTH, "geometry"),
        (28, LENGTH, "geometry"),
        (40, 0x20, "does not know: 0x20"),
    ],
)
def test_a_superblock_of_a_journal_that_cannot_be(at: int, value: int, why: str) -> None:
    made = Journal()
    struct.pack_into(">I", made.data, 3000 * BLOCK + at, value)
    with pytest.raises(Ext4Error, match=why):
        made.read()


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_journal_whose_inode_has_no_blocks_is_damage(blocks: int) -> None:
    """A filesystem of a stranger that says it must be replayed."""
    made = Journal()
    struct.pack_into("<H", made.data, INODE_8 + 42, blocks)
    with pytest.raises(Ext4Error, match="geometry" if blocks else "the journal has no block 0"):
        made.read()
    made.data[1024 + 92] |= 4
    with pytest.raises(Ext4Error, match="geometry" if blocks else "the journal has no blocks"):
        require_journal(made.raw, Ext4.open(made.raw, 0))


@pytest.mark.parametrize(
    ("at", "value"), [(4, 3), (20, LENGTH - 1), (28, LENGTH - 1), (40, 0x1F), (16, 2)]
)
def test_and_one_at_the_edge_of_what_may_be(at: int, value: int) -> None:
    made = Journal()
    struct.pack_into(">I", made.data, 3000 * BLOCK + at, value)
    assert made.read()(500 * BLOCK, 4) == bytes(4)


def test_long_journals_are_paid_for() -> None:
    made = Journal()
    made.describe((500, SAME_UUID, b""), (501, LAST, b""))
    made.revoke(502)
    made.commit()
    made.read(Budget(ReadLimits(pieces=3)))
    with pytest.raises(OverBudget, match="more than 2 pieces"):
        made.read(Budget(ReadLimits(pieces=2)))
