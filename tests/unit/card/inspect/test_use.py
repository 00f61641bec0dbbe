"""Judging a used card: what is the node's own work, what is damage, what nobody can tell.

One small card is made by hand; each test changes a few of its bytes as they are read.
"""

from __future__ import annotations

import hashlib
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pytest

from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.card.inspect.card_files import CardFiles
from imager.card.inspect.use import DIFFERS, UNREADABLE, CardUse, judge_use, was_used
from imager.card.inspect.verification import Verification
from imager.card.inspect.verify import verify_card
from imager.card.medium.meter import Meter
from imager.card.medium.reopen import FreshRead
from imager.disk.budget import Budget, ReadLimits
from imager.disk.ext4.checksum import inode_seed
from imager.disk.ext4.crc32c import crc32c
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.manifest import build_manifest
from imager.image.compose.file_digests import FileDigests, digest_files
from imager.node.stamp.stamp import STAMP_AREA, Stamp
from tests.support.cards import FaultyCard
from tests.support.hostile import HostileFat, make_ext4, record
from tests.support.stamps import FACTS

pytestmark = pytest.mark.image

UUID = "01234567-89ab-4def-8123-456789abcdef"
ROOT = "root partition (p2)"
NOTHING = ExtentMap()
CONTENT = b"as it was written\n" * 300


@dataclass(frozen=True)
class Made:
    """The card as it was written, its stamp, and the numbers of its files."""

    data: bytes
    layout: Layout
    stamp: Stamp
    numbers: Mapping[str, int]

    def files(
        self, changes: Mapping[int, bytes] | None = None, limits: ReadLimits | None = None
    ) -> CardFiles:
        """The card with ``changes`` of its bytes, by their offset."""

        def read(offset: int, length: int) -> bytes:
            piece = bytearray(self.data[offset : offset + length])
            for at, new in (changes or {}).items():
                for number, byte in enumerate(new, at - offset):
                    if 0 <= number < length:
                        piece[number] = byte
            return bytes(piece)

        return CardFiles(read, self.layout, Budget(limits) if limits else None)

    @property
    def root(self) -> Ext4:
        return self.files().root()

    def extent(self, path: str) -> Extent:
        return self.root.inode(self.numbers[path]).extents[0]

    def flipped(self, offset: int) -> dict[int, bytes]:
        return {offset: bytes([self.data[offset] ^ 4])}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("card")
    fat = HostileFat()
    fat.put("kernel7.img", b"kernel")
    sums = f"{hashlib.sha256(b'kernel').hexdigest()}  kernel7.img\n".encode()
    fat.folder("picloud", record("SHA256SUMS", fat.claim(sums), len(sums)))
    layout = fat.write(folder / "card")
    (folder / "content").write_bytes(CONTENT)
    paths = ("/usr/a", "/etc/b", "/etc/old", "/etc/new")
    commands = ["mkdir usr", "mkdir etc"]
    for path in paths:
        commands += [f"write {folder}/content {path}", f"sif {path} ctime_extra 0"]
        seconds = FACTS.imaged_at + (path == "/etc/new")
        commands.append(f"sif {path} ctime @{seconds}")
    commands.append("ln /etc/b /etc/z")
    make_ext4(folder / "card", layout, commands, "-U", UUID)
    data = (folder / "card").read_bytes()

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    root = Ext4.open(read, layout.root.offset)
    everything = ExtentMap([Extent(0, MiB), layout.boot, layout.root])
    facts = replace(
        FACTS, layout=layout, disk_id=0x0BADCA2D, boot_sums=hashlib.sha256(sums).hexdigest(),
        root_uuid=UUID.upper(),
    )  # fmt: skip
    with Quiet().phase("") as phase:
        digests = digest_files(root, phase)
    stamp = Stamp(facts, build_manifest(layout.size_bytes, everything, read), digests, b"", 100)
    return Made(data, layout, stamp, {path: n for path, n in root.numbers() if path in paths})


def judged(
    made: Made,
    changes: Mapping[int, bytes] | None = None,
    *,
    wrong: ExtentMap | None = None,
    unreadable: ExtentMap = NOTHING,
    stamp: Stamp | None = None,
    limits: ReadLimits | None = None,
) -> CardUse:
    """What comes of a card on which all differs, so that every file of it is looked at."""
    stamp = stamp or made.stamp
    wrong = stamp.manifest.extents if wrong is None else wrong
    with Quiet().phase("files") as phase:
        meter = Meter("files", phase)
        return judge_use(stamp, made.files(changes, limits), wrong, meter, unreadable)


def listing(made: Made, paths: Iterable[str], *others: int) -> Stamp:
    """A stamp whose list has these files, and others that are not on the card."""
    known = made.stamp.files.by_inode
    chosen = {made.numbers[path]: known[made.numbers[path]] for path in paths}
    return replace(made.stamp, files=FileDigests(chosen | dict.fromkeys(others, bytes(8))))


def damage(use: CardUse) -> dict[str, str]:
    assert use.unseen == []
    return {damaged.path: damaged.why for damaged in use.damaged}


@pytest.mark.parametrize("wrong", [None, NOTHING], ids=["looked at", "proven"])
def test_what_is_as_it_was_written_is_intact(made: Made, wrong: ExtentMap | None) -> None:
    use = judged(made, wrong=wrong)
    assert (use.listed, use.intact, use.changed, use.boot_files) == (True, 3, 1, 2)
    assert (use.damaged, use.uncertain, use.unseen) == ([], [], [])


def test_a_file_proven_by_its_chunks_is_not_read(made: Made) -> None:
    changes = made.flipped(made.extent("/usr/a").offset)
    assert damage(judged(made, changes, wrong=NOTHING)) == {}
    one = ExtentMap([Extent(made.extent("/usr/a").offset + 1, 1)])
    assert damage(judged(made, changes, wrong=one)) == {"/usr/a": DIFFERS}


def test_only_a_file_of_a_later_time_is_the_nodes_own(made: Made) -> None:
    """One second later is; the very second of the image is not."""
    changes: dict[int, bytes] = {}
    for path in made.numbers:
        changes |= made.flipped(made.extent(path).offset)
    use = judged(made, changes)
    assert damage(use) == dict.fromkeys(("/usr/a", "/etc/b", "/etc/old"), DIFFERS)
    assert (use.intact, use.changed, use.uncertain) == (0, 1, [])


def test_a_file_is_called_by_its_first_name(made: Made) -> None:
    names = {path for path, number in made.root.numbers() if number == made.numbers["/etc/b"]}
    assert names == {"/etc/b", "/etc/z"}
    changes = made.flipped(made.extent("/etc/b").offset)
    assert damage(judged(made, changes)) == {"/etc/b": DIFFERS}


def test_what_cannot_be_read_is_told_from_what_differs(made: Made) -> None:
    refused = ExtentMap([made.extent("/usr/a"), made.extent("/etc/b")])
    changes = made.flipped(made.extent("/usr/a").offset) | made.flipped(
        made.extent("/etc/old").offset
    )
    use = judged(made, changes, unreadable=refused)
    assert damage(use) == {"/usr/a": UNREADABLE, "/etc/old": DIFFERS}
    assert use.intact == 1, "what was read in the end after all is judged by what it holds"


def test_a_file_that_is_gone_is_the_nodes_work_but_not_most_of_them(made: Made) -> None:
    paths = tuple(made.numbers)
    half = judged(made, stamp=listing(made, paths, 901, 902, 903, 904))
    assert (half.intact, half.changed, damage(half)) == (3, 5, {})
    more = judged(made, stamp=listing(made, paths, 901, 902, 903, 904, 905))
    assert damage(more) == {ROOT: "has lost 5 of the 9 files on it"}


def test_another_filesystem_is_told_by_its_uuid_alone(made: Made) -> None:
    facts = replace(made.stamp.facts, root_uuid="76543210" + UUID[8:])
    (why,) = damage(judged(made, stamp=replace(made.stamp, facts=facts))).values()
    assert why.startswith(f"holds another filesystem: its UUID is {UUID}, 7654")
    facts = replace(facts, root_uuid=None)
    assert damage(judged(made, stamp=replace(made.stamp, facts=facts))) == {}


def test_a_superblock_that_does_not_fit_is_damage_and_its_uuid_not_believed(made: Made) -> None:
    uuid = made.layout.root.offset + 1024 + 0x68
    found = damage(judged(made, made.flipped(uuid)))
    assert found[ROOT] == "has a superblock that does not fit its checksum"


def test_a_damaged_inode_is_named_by_its_file(made: Made) -> None:
    whole = made.files()
    raw = struct.pack("<I", FACTS.imaged_at)
    at = made.data.index(raw, made.layout.root.offset)  # the first file's ctime
    number = min(made.numbers.values())
    path = next(path for path in made.numbers if made.numbers[path] == number)
    assert whole.root().damaged_inodes(set(made.numbers.values())) == set()
    found = judged(made, made.flipped(at + 3))
    assert damage(found) == {path: "has an inode that does not fit its checksum"}
    assert found.intact == 2


def test_after_lost_power_only_static_files_are_certain(made: Made) -> None:
    """Flagged by hand: the journal is empty, and the superblock's checksum does not fit then."""
    flag = made.layout.root.offset + 1024 + 0x60
    changes = {flag: bytes([made.data[flag] | 4])}
    for path in ("/usr/a", "/etc/b"):
        changes |= made.flipped(made.extent(path).offset)
    use = judged(made, changes)
    assert use.uncertain == ["/etc/b"]
    assert damage(use).pop("/usr/a") == DIFFERS


def test_names_that_would_cost_too_much_are_left_out_and_files_judged_all_the_same(
    made: Made,
) -> None:
    use = judged(made, limits=ReadLimits(name_bytes=10))
    why = "its names take more than 10 B"
    assert use.unseen == [f"{why}: not looked at further", f"root partition (p2): {why}"]
    assert use.intact == 3
    assert all(damaged.path.startswith("/boot/") for damaged in use.damaged)


def test_files_that_would_cost_too_much_are_not_looked_at(made: Made) -> None:
    inodes = dict(made.root.walk()).values()
    folders = sum(inode.size_bytes for inode in inodes if stat.S_ISDIR(inode.raw.mode))
    use = judged(made, limits=ReadLimits(content_bytes=folders + 2 * len(CONTENT) - 1))
    second = sorted(made.numbers, key=lambda path: made.numbers[path])[1]
    why = "its files are larger together than the disk"
    assert use.unseen == [f"{second} and the files after it: {why}"]
    assert (use.intact, use.changed, use.damaged) == (1, 0, [])


def test_a_partition_that_would_cost_too_much_is_not_judged(made: Made) -> None:
    use = judged(made, limits=ReadLimits(steps=1))
    why = "looking at it takes too long"
    assert use.unseen == [f"{why}: not looked at further", f"root partition (p2): {why}"]
    assert (use.intact, use.changed) == (0, 0)


def test_a_file_that_a_damaged_folder_names_no_more_is_damaged(made: Made) -> None:
    folder = made.root.lookup("/usr")
    assert folder is not None
    spoilt = {folder.extents[0].offset + 4: b"\xff\xff"}  # the length of its first entry
    use = judged(made, spoilt)
    assert damage(use) == {
        ROOT: "has a damaged folder: a directory entry has an impossible length",
        f"file with inode {made.numbers['/usr/a']}": "is in no folder any more",
    }
    assert (use.intact, use.changed) == (2, 1)


def test_files_without_any_folder_are_judged_by_what_they_hold(made: Made) -> None:
    root = made.root.inode(2).extents[0].offset
    changes = {root + 4: b"\xff\xff"} | made.flipped(made.extent("/etc/b").offset)
    use = judged(made, changes)
    assert damage(use).keys() == {ROOT, f"file with inode {made.numbers['/etc/b']}"}
    assert (use.intact, use.changed) == (2, 1)


def test_a_file_whose_blocks_lie_outside_is_damaged_though_its_inode_fits(made: Made) -> None:
    """As a disk has it that was written by a kernel of broken memory."""
    at = made.data.index(struct.pack("<I", FACTS.imaged_at), made.layout.root.offset) - 12
    number = min(made.numbers.values())
    raw = bytearray(made.data[at : at + 256])
    raw[60:64], raw[124:126], raw[130:132] = b"\xff\xff\xff\x7f", bytes(2), bytes(2)
    seed = inode_seed(bytes(raw), number, crc32c(made.root.uuid.bytes))
    checksum = struct.pack("<I", crc32c(raw, seed))
    raw[124:126], raw[130:132] = checksum[:2], checksum[2:]
    use = judged(made, {at: bytes(raw)})
    (path,) = (path for path in made.numbers if made.numbers[path] == number)
    assert damage(use) == {path: DIFFERS}


TABLE = 446 + 16  # the entry of p2


@pytest.mark.parametrize(
    ("changes", "damaged"),
    [
        ({}, []),
        ({STAMP_AREA.offset: b"x" * 100}, []),
        ({STAMP_AREA.offset + 100: b"x"}, ["first MiB (bytes 512 to 1048575)"]),
        ({MiB - 1: b"x"}, ["first MiB (bytes 512 to 1048575)"]),
        ({600: b"x"}, ["first MiB (bytes 512 to 1048575)"]),
        ({TABLE + 12: struct.pack("<I", 16384 + 1)}, []),
        ({TABLE + 12: struct.pack("<I", 16384 - 1)}, ["partition table"]),
        ({TABLE + 4: b"\x0c"}, ["partition table"]),
        ({TABLE: bytes(16)}, ["partition table"]),
        ({TABLE - 16 + 12: b"\x07"}, ["partition table"]),
        ({440: b"\x07"}, ["partition table"]),
        ({510: b"\0"}, ["partition table"]),
        ({0: b"x"}, []),
    ],
)
def test_only_a_larger_second_partition_is_the_nodes_work(
    made: Made, changes: dict[int, bytes], damaged: list[str]
) -> None:
    assert struct.unpack_from("<I", made.data, TABLE + 12) == (16384,)
    assert list(damage(judged(made, changes))) == damaged


def test_a_first_mib_that_was_proven_is_not_judged_again(made: Made) -> None:
    assert damage(judged(made, {440: b"\x07"}, wrong=ExtentMap([made.layout.root]))) == {}


def test_a_card_was_used_when_a_kernel_mounted_it(made: Made) -> None:
    assert not was_used(made.files())
    at = made.layout.root.offset + 1024
    superblock = bytearray(made.data[at : at + 1024])
    superblock[0x34] = 1  # times it was mounted
    assert not was_used(made.files({at: bytes(superblock)})), "one flipped bit is no use"
    assert was_used(made.files(mounted(made)))


def mounted(made: Made) -> dict[int, bytes]:
    """What a kernel changes that mounts the card once."""
    at = made.layout.root.offset + 1024
    superblock = bytearray(made.data[at : at + 1024])
    superblock[0x34] = 1
    struct.pack_into("<I", superblock, 1020, crc32c(superblock[:1020]))
    return {at: bytes(superblock)}


def verified(
    made: Made, changes: Mapping[int, bytes] | None = None, size_bytes: int | None = None
) -> Verification:
    """What comes of the card, or its first ``size_bytes``, against a stamp that knows the start of
    each part of it."""
    parts = (Extent(part.offset, MiB) for part in (Extent(0, MiB), made.layout.boot))
    some = ExtentMap([*parts, Extent(made.layout.root.offset, 2 * MiB)])

    def read(offset: int, length: int) -> bytes:
        return made.data[offset : offset + length]

    stamp = replace(made.stamp, manifest=build_manifest(len(made.data), some, read))
    card = FaultyCard(size_bytes or len(made.data))
    card.data[:] = made.data[:size_bytes]
    for at, new in (changes or {}).items():
        card.data[at : at + len(new)] = new
    return verify_card(FreshRead(card, cache_bypassed=True), stamp, Quiet())


@pytest.mark.parametrize("changes", [{}, {STAMP_AREA.offset: b"x" * 100}], ids=["zeros", "stamp"])
def test_a_card_as_it_was_written_is_not_judged(made: Made, changes: dict[int, bytes]) -> None:
    found = verified(made, changes)
    assert (found.matches, found.used, found.use, found.boot_files) == (True, False, None, ())
    assert not verified(made, {STAMP_AREA.offset + 100: b"x"}).matches


@pytest.mark.parametrize("used", [False, True])
def test_what_differs_is_judged_and_whether_a_node_was_at_work(made: Made, used: bool) -> None:
    changes = made.flipped(made.extent("/usr/a").offset)
    changes |= made.flipped(made.data.index(b"kernel", made.layout.boot.offset + MiB // 2))
    found = verified(made, changes | (mounted(made) if used else {}))
    assert found.use is not None
    assert damage(found.use) == {"/boot/kernel7.img": DIFFERS, "/usr/a": DIFFERS}
    assert (found.boot_files, found.used, found.sound) == (("kernel7.img",), used, False)
    assert (found.figures.name, found.figures.size_bytes) == ("verify", found.checked_bytes)


@pytest.mark.parametrize(
    ("part", "by", "boot_files"),
    [("root", 0, ()), ("root", -4096, ()), ("boot", 8192, ("picloud/SHA256SUMS",))],
)
def test_past_its_end_a_card_is_zeros(
    made: Made, part: str, by: int, boot_files: tuple[str, ...]
) -> None:
    """It ends at its second partition, before that, and before the tables of its first one."""
    found = verified(made, size_bytes=getattr(made.layout, part).offset + by)
    assert found.use is not None
    assert damage(found.use)[ROOT].endswith("magic number at byte 1080 is missing")
    assert found.boot_files == boot_files
