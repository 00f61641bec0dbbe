"""A card held against its own stamp: fresh, used, damaged, and both, on real filesystems."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import CardIOError, StampMismatch
from imager.base.progress import Quiet
from imager.base.run import search_path
from imager.base.units import GiB, MiB
from imager.card.inspect.card_files import CardFiles
from imager.card.inspect.stamp import read_stamp, signature_of
from imager.card.inspect.use import judge_use
from imager.card.inspect.verification import Verification
from imager.card.inspect.verify import open_target, proof_for, verify_card
from imager.card.medium.meter import Meter
from imager.card.medium.raw import RawCard
from imager.config.rack import Rack
from imager.disk.budget import Budget, ReadLimits
from imager.disk.extents import Extent, ExtentMap
from imager.image.compose.compose import compose
from imager.image.compose.file_digests import FileDigests
from imager.image.compose.golden import GoldenImage
from imager.node.image import NodeImage
from imager.node.keys.signing import rack_key
from imager.node.personalise import personalise
from imager.node.stamp.stamp import STAMP_AREA, Stamp
from tests.support.fatdisk import tool
from tests.support.racks import rack_in, written
from tests.support.release import build_release
from tests.support.usedcard import UsedCard, copied

pytestmark = pytest.mark.image

TIME = 1_790_000_000
LATER = TIME + 86_400
SIZE = 2 * GiB
LARGE = "/usr/odd/large"
KERNEL = "/boot/kernel7.img"


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> GoldenImage:
    folder = tmp_path_factory.mktemp("golden")
    return compose(build_release(folder), Cache(folder / "cache"), Quiet())


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Rack:
    return rack_in(tmp_path_factory.mktemp("rack"), '[rack]\nnodes = "pi[0-7]"\nmaster = "pi0"\n')


def node_image(golden: GoldenImage, rack: Rack, node: str = "pi7") -> NodeImage:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", str(TIME))
        return personalise(golden, rack, rack.node(node), SIZE, Quiet())


@pytest.fixture(scope="module")
def image(golden: GoldenImage, rack: Rack) -> NodeImage:
    return node_image(golden, rack)


@pytest.fixture(scope="module")
def card(image: NodeImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("card") / "pi7.img"
    with written(image, path):
        return path


@pytest.fixture
def fresh(card: Path, tmp_path: Path) -> Iterator[UsedCard]:
    """A copy of a card nobody used yet."""
    with copied(card, tmp_path / "copy.img") as copy:
        yield copy


@pytest.fixture
def used(fresh: UsedCard, tmp_path: Path) -> UsedCard:
    """The same after a day in a Pi."""
    fresh.live_on(LATER, tmp_path / "source")
    return fresh


def verified(card: UsedCard) -> Verification:
    with open_target(card.path) as fresh:
        proof = proof_for(fresh.raw, None)
        assert isinstance(proof.held, Stamp)
        found = verify_card(fresh, proof.held, Quiet())
    assert found.figures.name == "verify"
    return found


def damage_in(card: UsedCard) -> dict[str, str]:
    """What verify says is damaged on a used card."""
    found = verified(card)
    assert found.used
    assert found.use is not None
    assert found.sound == (not found.use.damaged)
    return {damaged.path: damaged.why for damaged in found.use.damaged}


def test_the_stamp_says_what_the_image_is(card: Path, image: NodeImage, rack: Rack) -> None:
    copy = UsedCard(card)
    stamp = read_stamp(copy.read, SIZE)
    facts = stamp.facts
    assert (facts.rack, facts.node, facts.model) == (rack.name, "pi7", "pi2")
    assert facts.release_sha256 == image.golden.release_sha256
    assert (facts.golden_key, facts.image_id) == (image.golden.key, image.image_id)
    assert (facts.imaged_at, facts.layout) == (TIME, image.layout)
    assert stamp.public_key == rack_key(rack).public
    assert stamp.manifest.extents == image.manifest.extents
    assert stamp.manifest.digests[1:] == image.manifest.digests[1:]
    assert stamp.manifest.digests[0] != image.manifest.digests[0]


def test_every_regular_file_of_the_card_is_in_the_stamp(card: Path) -> None:
    copy = UsedCard(card)
    listed = read_stamp(copy.read, SIZE).files.by_inode
    assert set(listed) == copy.root.file_numbers()
    for path in ("/etc/hostname", "/etc/shadow", LARGE, "/usr/odd/sparse"):
        inode = copy.root.lookup(path)
        assert inode is not None
        assert inode.number in listed


def test_the_same_identity_and_time_give_the_same_stamp(
    golden: GoldenImage, rack: Rack, image: NodeImage
) -> None:
    again = node_image(golden, rack)
    assert again.image_id == image.image_id
    assert again.manifest == image.manifest


def test_another_node_has_another_stamp(golden: GoldenImage, rack: Rack, image: NodeImage) -> None:
    other = node_image(golden, rack, "pi3")
    assert other.image_id != image.image_id


def test_the_signature_is_told_from_another_racks(card: Path, rack: Rack, tmp_path: Path) -> None:
    stamp = read_stamp(UsedCard(card).read, SIZE)
    other = rack_in(tmp_path / "other", '[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n')
    assert signature_of(stamp, None).known is None
    assert signature_of(stamp, other.folder).known is None, "it has no key yet"
    rack_key(other)
    assert signature_of(stamp, other.folder).known is False
    assert signature_of(stamp, rack.folder).known is True
    assert "not known here" in str(signature_of(stamp, None))


def test_a_fresh_card_matches_byte_for_byte(fresh: UsedCard) -> None:
    found = verified(fresh)
    assert found.matches
    assert found.use is None
    found.require_sound()


@pytest.mark.parametrize("byte", [440, 3000, MiB - 1])
def test_the_rest_of_the_first_mib_is_covered_too(fresh: UsedCard, byte: int) -> None:
    fresh.flip(byte)
    with pytest.raises(StampMismatch) as caught:
        verified(fresh).require_sound()
    assert "first MiB" in "".join(caught.value.details)


def test_a_damaged_file_of_a_fresh_card_is_named_and_no_use_is_assumed(fresh: UsedCard) -> None:
    fresh.flip_in(LARGE)
    with pytest.raises(StampMismatch) as caught:
        verified(fresh).require_sound()
    assert caught.value.details[0] == f"{LARGE} is not what was written"
    assert caught.value.details[1].startswith("bytes ")
    assert "its computer or its disk did this" in caught.value.hint


def test_a_flipped_mount_count_is_damage_and_not_use(fresh: UsedCard) -> None:
    fresh.flip(fresh.layout.root.offset + 1024 + 52)
    found = verified(fresh)
    assert not found.used
    assert not found.sound


@pytest.mark.parametrize("byte", [0, 9, 40, 2000])
def test_a_flipped_byte_in_the_stamp_is_said(fresh: UsedCard, byte: int) -> None:
    fresh.flip(STAMP_AREA.offset + byte)
    with open_target(fresh.path) as opened, pytest.raises(StampMismatch, match="stamp is unusable"):
        proof_for(opened.raw, None)


def test_a_card_without_a_stamp_says_so(fresh: UsedCard) -> None:
    fresh.write(STAMP_AREA.offset, bytes(STAMP_AREA.length))
    with open_target(fresh.path) as opened, pytest.raises(StampMismatch, match="no stamp") as error:
        proof_for(opened.raw, None)
    assert "--receipt FILE" in error.value.hint


def test_a_used_card_is_sound_and_the_nodes_work_is_counted(used: UsedCard) -> None:
    listed = read_stamp(used.read, SIZE).files.by_inode
    found = verified(used)
    assert not found.matches
    assert found.use is not None
    assert found.use.damaged == []
    assert found.use.uncertain == []
    assert found.sound
    found.require_sound()
    assert found.figures.name == "verify"
    # One removed, one replaced, one touched; and what the release dates into the far future.
    assert found.use.changed == 4
    assert found.use.intact == len(listed) - 4
    assert found.use.boot_files > 10


def test_being_mounted_alone_changes_no_file(fresh: UsedCard) -> None:
    fresh.mark_mounted(LATER)
    found = verified(fresh)
    assert found.use is not None
    assert found.use.changed == 1, "only the one from the far future"
    assert found.sound


@pytest.mark.parametrize("path", [LARGE, "/etc/shadow", "/usr/bin/ping4", "/etc/ssh/sshd_config"])
def test_one_flipped_bit_of_a_static_file_of_a_used_card_is_named(
    used: UsedCard, path: str
) -> None:
    used.flip_in(path, 4)
    damaged = damage_in(used)
    first = path.replace("ping4", "ping")
    assert damaged == {first: "is not what was written"}
    with pytest.raises(StampMismatch, match="pi7 has run from this card, and one thing") as caught:
        verified(used).require_sound()
    assert caught.value.details == (f"{first} is not what was written",)


@dataclass
class Refusing:
    """A card that answers with an error wherever ``refused`` is touched."""

    inner: RawCard
    refused: ExtentMap

    def __post_init__(self) -> None:
        self.name, self.block_bytes = self.inner.name, self.inner.block_bytes
        self.size_bytes = self.inner.size_bytes

    def pread(self, offset: int, buffer: memoryview) -> int:
        if next(self.refused.within(offset, len(buffer)), None) is not None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.inner.pread(offset, buffer)

    def pwrite(self, offset: int, data: memoryview) -> int:
        raise AssertionError("nobody writes here")

    def flush(self) -> None:
        raise AssertionError("nobody writes here")


def test_unreadable_files_of_a_used_card_are_named_and_all_others_judged(used: UsedCard) -> None:
    used.flip_in("/usr/bin/ping", 4)
    large, volume = used.root.lookup(LARGE), used.boot
    assert large is not None
    long = max((entry for entry in volume.entries.values()), key=lambda entry: entry.size_bytes)
    middle = long.extents[0].offset + long.extents[0].length // 2
    blocks = [Extent(max(large.extents).end - 4096, 4096), Extent(middle, 512)]
    with open_target(used.path) as fresh:
        raw = Refusing(fresh.raw, ExtentMap(blocks))
        held = proof_for(fresh.raw, None).held
        found = verify_card(replace(fresh, raw=raw), held, Quiet())
    assert found.used
    assert found.use is not None
    assert {damaged.path: damaged.why for damaged in found.use.damaged} == {
        LARGE: "cannot be read",
        f"/boot/{long.path}": "cannot be read",
        "/usr/bin/ping": "is not what was written",
    }
    assert ExtentMap(m.extent for m in found.unreadable) == ExtentMap(blocks).aligned(4096)
    with pytest.raises(CardIOError, match="2 ranges of pi7's card cannot be read") as caught:
        found.require_sound()
    assert f"{LARGE} cannot be read" in caught.value.details


def test_an_unreadable_folder_of_the_boot_partition_is_not_called_a_missing_file(
    used: UsedCard,
) -> None:
    folder = used.boot.find("picloud")
    assert folder is not None
    with open_target(used.path) as fresh:
        raw = Refusing(fresh.raw, ExtentMap(folder.extents))
        found = verify_card(replace(fresh, raw=raw), proof_for(fresh.raw, None).held, Quiet())
    assert found.use is not None
    why = {damaged.path: damaged.why for damaged in found.use.damaged}
    assert "a folder or table" in why["/boot/picloud/SHA256SUMS"]


def test_a_file_the_node_wrote_itself_may_hold_anything(used: UsedCard) -> None:
    used.flip_in("/etc/hosts")
    used.flip_in("/var/journal")
    assert damage_in(used) == {}


@pytest.mark.parametrize("name", ["kernel7.img", "cmdline.txt", "picloud/node.json"])
def test_a_damaged_boot_file_of_a_used_card_is_named(used: UsedCard, name: str) -> None:
    used.flip_in(f"/boot/{name}", 3)
    assert damage_in(used) == {f"/boot/{name}": "is not what was written"}


def test_a_damaged_list_of_boot_files_is_named_and_not_believed(used: UsedCard) -> None:
    used.flip_in("/boot/picloud/SHA256SUMS", 3)
    assert damage_in(used) == {"/boot/picloud/SHA256SUMS": "is not what was written"}


def test_a_boot_file_that_is_gone_is_named(used: UsedCard) -> None:
    mtools(used, "mdel", "::kernel7.img")
    assert damage_in(used) == {KERNEL: "is missing"}


def test_first_boots_own_files_are_use(fresh: UsedCard, tmp_path: Path) -> None:
    (tmp_path / "firstboot.json").write_text('{"state": "joined"}')
    mtools(fresh, "mcopy", tmp_path / "firstboot.json", "::picloud/firstboot.json")
    assert damage_in(fresh) == {}


def mtools(card: UsedCard, tool: str, *words: str | Path) -> None:
    where = f"{card.path}@@{card.layout.boot.offset}"
    env = {"PATH": search_path(), "MTOOLS_SKIP_CHECK": "1"}
    subprocess.run([tool, "-i", where, *words], check=True, env=env)


def test_a_damaged_boot_partition_is_named(used: UsedCard) -> None:
    used.write(used.layout.boot.offset, bytes(512))
    assert "boot partition (p1)" in damage_in(used)


@pytest.mark.parametrize("field", [12, 44, 70])
def test_a_damaged_inode_is_not_taken_for_a_change(used: UsedCard, field: int) -> None:
    """Bytes 12 to 15 are the time of change itself, 40 to 99 the map."""
    used.flip(used.inode_offset(LARGE) + field)
    assert damage_in(used) == {LARGE: "has an inode that does not fit its checksum"}


def test_a_file_that_lost_its_name_is_damage_to_its_folder(used: UsedCard) -> None:
    inode = used.root.lookup(LARGE)
    assert inode is not None
    used.debugfs(f"unlink {LARGE}", at=LATER)
    used.debugfs(f"sif <{inode.number}> ctime @{TIME}", at=LATER)
    assert damage_in(used) == {f"file with inode {inode.number}": "is in no folder any more"}


def test_an_unreadable_root_filesystem_is_named(used: UsedCard, tmp_path: Path) -> None:
    (tmp_path / "firstboot.json").write_text("{}")
    mtools(used, "mcopy", tmp_path / "firstboot.json", "::picloud/firstboot.json")
    used.write(used.layout.root.offset + 1024, bytes(1024))
    assert "root partition (p2)" in damage_in(used)


def test_another_root_filesystem_is_damage_and_not_use(used: UsedCard) -> None:
    """Made anew on p2 and mounted once: nothing of what was written is left to be wrong."""
    where = used.layout.root
    options, size = f"offset={where.offset},nodiscard", f"{where.length >> 10}k"
    tool("mke2fs", "-q", "-t", "ext4", "-E", options, "-F", used.path, size)
    tool("debugfs", "-w", "-R", "set_super_value mnt_count 1", f"{used.path}?offset={where.offset}")
    found = verified(used)
    assert found.used
    assert not found.sound
    said = " | ".join(map(str, found.use.damaged if found.use else ()))
    assert "holds another filesystem: its UUID is" in said
    assert "has lost" in said


def test_the_uuid_of_the_root_filesystem_alone_tells_another_one(used: UsedCard) -> None:
    where = used.layout.root.offset
    value = "set_super_value uuid 01234567-89ab-4def-8123-456789abcdef"
    tool("debugfs", "-w", "-R", value, f"{used.path}?offset={where}")
    assert "another filesystem" in damage_in(used)["root partition (p2)"]


def test_after_lost_power_only_static_files_are_certain(used: UsedCard) -> None:
    offset = used.layout.root.offset + 1024
    used.debugfs("feature needs_recovery", at=LATER)
    used.flip_in(LARGE)
    used.flip_in("/etc/shadow", 3)
    found = verified(used)
    assert struct.unpack("<I", used.read(offset + 96, 4))[0] & 4
    assert found.use is not None
    assert [damaged.path for damaged in found.use.damaged] == [LARGE]
    assert found.use.uncertain == ["/etc/shadow"]


def test_a_root_partition_grown_at_first_boot_is_use(used: UsedCard) -> None:
    grow_root(used)
    assert damage_in(used) == {}


def grow_root(card: UsedCard) -> None:
    (count,) = struct.unpack("<I", card.read(446 + 16 + 12, 4))
    card.write(446 + 16 + 12, struct.pack("<I", count + 2048))


@pytest.mark.parametrize(
    ("byte", "name"),
    [
        (446 + 12, "partition table"),
        (440, "partition table"),
        (446 + 16 + 15, "partition table"),
        (700, "first MiB (bytes 512 to 1048575)"),
        (MiB - 1, "first MiB (bytes 512 to 1048575)"),
    ],
)
def test_other_changes_of_a_used_cards_first_mib_are_damage(
    used: UsedCard, byte: int, name: str
) -> None:
    grow_root(used)
    used.flip(byte)
    if byte == 446 + 16 + 15:
        used.write(446 + 16 + 12, struct.pack("<I", 2048))
    with open_target(used.path) as opened:
        proof = proof_for(opened.raw, None)
        found = verify_card(opened, proof.held, Quiet())
    assert found.use is not None
    assert [damaged.path for damaged in found.use.damaged] == [name]


def test_a_stamp_without_the_list_judges_the_boot_partition_alone(
    golden: GoldenImage, rack: Rack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileDigests, "pack", lambda self: b"")
    with written(node_image(golden, rack), tmp_path / "pi7.img"):
        card = UsedCard(tmp_path / "pi7.img")
    card.live_on(LATER, tmp_path / "source")
    card.flip_in(KERNEL)
    found = verified(card)
    assert found.use is not None
    assert not found.use.listed
    assert [damaged.path for damaged in found.use.damaged] == [KERNEL]


def test_unchanged_files_are_not_read_again(used: UsedCard) -> None:
    """Only files with blocks in changed chunks cost a second reading."""
    stamp = read_stamp(used.read, SIZE)
    seen: list[int] = []

    class Counting:
        def advance(self, size_bytes: int) -> None:
            seen.append(size_bytes)

    wrong = ExtentMap(mismatch.extent for mismatch in verified(used).mismatches)
    judge_use(stamp, CardFiles(used.read, stamp.facts.layout), wrong, Meter("files", Counting()))
    everything = sum(inode.size_bytes for inode in used.root.files())
    assert 0 < sum(seen) < everything


@pytest.mark.parametrize(
    ("limits", "unseen"),
    [
        (
            ReadLimits(names=5),
            [
                "there are more than 5 names: not looked at further",
                "root partition (p2): there are more than 5 names in its folders",
            ],
        ),
        (
            ReadLimits(content_bytes=0),
            [
                "root partition (p2): its files are larger together than the disk",
                "and the files after it: its files are larger together than the disk",
            ],
        ),
        (ReadLimits(steps=10_000), ["root partition (p2): looking at it takes too long"]),
    ],
)
def test_what_would_cost_too_much_is_said_and_is_no_damage(
    used: UsedCard, limits: ReadLimits, unseen: list[str]
) -> None:
    stamp = read_stamp(used.read, SIZE)
    files = CardFiles(used.read, stamp.facts.layout, Budget(limits))
    with Quiet().phase("files") as phase:
        found = judge_use(stamp, files, stamp.manifest.extents, Meter("files", phase))
    assert [line[-len(end) :] for line, end in zip(found.unseen, unseen, strict=True)] == unseen
    assert not [damaged for damaged in found.damaged if not damaged.path.startswith("/boot/")]


def test_a_card_cut_short_inside_its_stamp_is_said(fresh: UsedCard) -> None:
    os.truncate(fresh.path, STAMP_AREA.offset + 100)
    with open_target(fresh.path) as opened, pytest.raises(StampMismatch, match="unusable"):
        proof_for(opened.raw, None)
