"""A card a node has run from: what the node did with it, and what was damaged since.

In: the card, its stamp, and the ranges that are not as they were written. Out: a Use: every file
that must be as it was and is not. The rules, and what they cannot see, are in docs/stamp.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from imager.bootcheck.own_files import FIRSTBOOT_PATH
from imager.card.inspect.card_files import CardFiles
from imager.card.inspect.record import CardRecord
from imager.card.medium.meter import Meter
from imager.disk.budget import OverBudget
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import FIRST_MIB
from imager.disk.manifest import Reader
from imager.disk.mbr import MbrError, Partition, encode, parse
from imager.image.compose.file_digests import MAX_FILE_BYTES, digest_of
from imager.node.stamp.stamp import Stamp

_NANOSECONDS = 1_000_000_000
_STATIC = "/usr/"
_MOST_LOST = 0.5
"""A node removes files one by one, and gives their inodes to others: never most of them."""
DIFFERS = "is not what was written"
UNREADABLE = "cannot be read"
_FOLDER_UNREADABLE = "is not found: a folder or table of the boot partition cannot be read"
_NONE = ExtentMap()


@dataclass(frozen=True, slots=True)
class Damaged:
    """Something the node has no reason to change that is not as it was; ``path`` as on the node,
    or the name of a structure."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path} {self.why}"


@dataclass(slots=True)
class CardUse:
    """What came of it. ``intact`` counts the files of the root partition that are as written,
    ``changed`` those the node changed or removed, ``boot_files`` the boot files as written.
    ``uncertain`` are paths that differ where the node lost power, so that nobody can tell.
    ``listed`` is false where the stamp had no room for the list of files, and only the boot
    partition was judged. ``unseen`` says what of the card would have cost too much to look at."""

    listed: bool
    intact: int = 0
    changed: int = 0
    boot_files: int = 0
    damaged: list[Damaged] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def damage(self, path: str, why: str) -> None:
        """Note one more damaged thing."""
        self.damaged.append(Damaged(path, why))


def was_used(files: CardFiles) -> bool:
    """Whether a node ran from the card: a kernel mounted p2, or first boot left its file."""
    try:
        root = files.root()
        if root.superblock_fits and root.mounted:
            return True
    except ValueError:
        pass
    boot = files.boot
    return not isinstance(boot, ValueError) and boot.find(FIRSTBOOT_PATH) is not None


def judge_use(
    stamp: Stamp, files: CardFiles, wrong: ExtentMap, meter: Meter, unreadable: ExtentMap = _NONE
) -> CardUse:
    """Judge a card of which the ranges ``wrong`` are not as they were written, because the card
    refuses the ranges ``unreadable`` of it or for other reasons.

    ``meter`` counts the bytes read for it. Raises what ``read`` raises (CardIOError).
    """
    use = CardUse(listed=bool(stamp.files.by_inode))
    if next(wrong.within(FIRST_MIB.offset, FIRST_MIB.length), None) is not None:
        _judge_first_mib(stamp, files.read, use)
    use.boot_files, damaged = damaged_boot_files(stamp, files, unreadable)
    use.damaged.extend(damaged)
    if files.boot_unseen:
        use.unseen.append(files.boot_unseen)
    proven = stamp.manifest.extents - wrong
    _judge_root(stamp, files, proven, unreadable, use, meter)
    return use


def _judge_first_mib(stamp: Stamp, read: Reader, use: CardUse) -> None:
    """The table may have a larger p2; with the old table in its place all must be as it was."""
    layout, facts = stamp.facts.layout, stamp.facts
    first, digest = next(stamp.manifest.chunks())
    data = bytearray(read(FIRST_MIB.offset, FIRST_MIB.length))
    written = encode(layout, facts.disk_id)
    if not _grown(bytes(data[: len(written)]), written):
        use.damage("partition table", DIFFERS)
    data[: len(written)] = written
    with memoryview(data) as view:
        stamp.without_itself(first, view)
        inside = hashlib.sha256(b"".join(view[part.offset : part.end] for part in first.extents))
    if inside.digest() != digest:
        use.damage(f"first MiB (bytes 512 to {FIRST_MIB.end - 1})", DIFFERS)


def _grown(now: bytes, then: bytes) -> bool:
    """Whether ``now`` is ``then``, but for a second partition that ends later."""
    try:
        new, old = parse(now), parse(then)
    except MbrError:
        return False
    if new.disk_id != old.disk_id or len(new.partitions) != len(old.partitions):
        return False
    last_new, last_old = new.partitions[-1], old.partitions[-1]
    return (
        _places(new.partitions[:-1]) == _places(old.partitions[:-1])
        and (last_new.type_id, last_new.start_lba) == (last_old.type_id, last_old.start_lba)
        and last_new.sector_count >= last_old.sector_count
    )


def _places(partitions: tuple[Partition, ...]) -> list[tuple[int, int, int]]:
    return [(part.type_id, part.start_lba, part.sector_count) for part in partitions]


def damaged_boot_files(
    held: CardRecord, files: CardFiles, unreadable: ExtentMap = _NONE
) -> tuple[int, tuple[Damaged, ...]]:
    """How many boot files are as they were written, and every one that is not."""
    volume = files.boot
    if isinstance(volume, ValueError):
        return 0, (Damaged("boot partition (p1)", f"cannot be read: {volume}"),)
    expected = held.boot_digests(volume)
    found, unseen = [], 0
    for path, digest in expected.items():
        if volume.unseen_at(path) is not None:
            unseen += 1
            continue
        entry = volume.find(path)
        if entry is None or entry.is_dir:
            lost = "is missing" if not volume.metadata & unreadable else _FOLDER_UNREADABLE
            found.append(Damaged(f"/boot/{path}", lost))
        elif _sha256(volume, path) != digest:
            refused = ExtentMap(entry.extents) & unreadable
            found.append(Damaged(f"/boot/{path}", UNREADABLE if refused else DIFFERS))
    return len(expected) - len(found) - unseen, tuple(found)


def _sha256(volume: FatVolume, path: str) -> str:
    try:
        return volume.sha256(path)
    except ValueError:
        return ""


def _judge_root(
    stamp: Stamp,
    files: CardFiles,
    proven: ExtentMap,
    unreadable: ExtentMap,
    use: CardUse,
    meter: Meter,
) -> None:
    listed = stamp.files.by_inode
    try:
        root = files.root_as_its_node_knows_it()
        present, broken = root.file_numbers(listed), root.damaged_inodes(listed)
    except OverBudget as spent:
        use.unseen.append(f"root partition (p2): {spent}")
        return
    except ValueError as error:
        use.damage("root partition (p2)", f"has a filesystem that cannot be read: {error}")
        return
    if not root.superblock_fits:
        use.damage("root partition (p2)", "has a superblock that does not fit its checksum")
    written = stamp.facts.root_uuid
    if written is not None and root.superblock_fits and str(root.uuid) != written.casefold():
        what = f"holds another filesystem: its UUID is {root.uuid}, {written} was written"
        use.damage("root partition (p2)", what)
    lost = len(listed) - len(present)
    if lost > _MOST_LOST * len(listed):
        use.damage("root partition (p2)", f"has lost {lost} of the {len(listed)} files on it")
    look = _FileLook(stamp, root, proven, unreadable, use, meter)
    for number, digest in listed.items():
        if number not in present:
            use.changed += 1
        elif number in broken:
            use.damage(look.name(number), "has an inode that does not fit its checksum")
        elif not look.at(number, digest):
            return


class _FileLook:
    """Looks at one file after the other."""

    def __init__(
        self,
        stamp: Stamp,
        root: Ext4,
        proven: ExtentMap,
        unreadable: ExtentMap,
        use: CardUse,
        meter: Meter,
    ) -> None:
        self._unreadable = unreadable
        self._imaged_ns = stamp.facts.imaged_at * _NANOSECONDS
        self._root, self._proven, self._use, self._meter = root, proven, use, meter
        self._listed = stamp.files.by_inode
        self._all_named = True
        self._paths = self._all_paths()

    def _all_paths(self) -> Mapping[int, str]:
        paths: dict[int, str] = {}
        listed = self._listed
        try:
            for path, number in self._root.numbers():
                if number in listed and number not in paths:
                    self._root.budget.keep_name(path)
                    paths[number] = path
        except OverBudget as spent:
            self._use.unseen.append(f"root partition (p2): {spent}")
            self._all_named = False
        except ValueError as error:
            self._use.damage("root partition (p2)", f"has a damaged folder: {error}")
        return paths

    def name(self, number: int) -> str:
        """The path of a file, or its number where no folder names it."""
        return self._paths.get(number, f"file with inode {number}")

    def at(self, number: int, digest: bytes) -> bool:
        """Judge the file ``number`` whose content had ``digest``; False when looking at more
        files would cost too much."""
        try:
            inode = self._root.inode(number)
            if inode.raw.ctime_ns > self._imaged_ns:
                self._use.changed += 1
                return True
            if self._all_named and self._paths and number not in self._paths:
                self._use.damage(self.name(number), "is in no folder any more")
                return True
            if all(self._is_proven(extent) for extent in inode.extents):
                same = True
            else:
                self._meter.advance(sum(extent.length for extent in inode.extents))
                same = inode.size_bytes <= MAX_FILE_BYTES and digest == digest_of(
                    self._root.content_in_pieces(inode)
                )
            if not same and ExtentMap(inode.extents) & self._unreadable:
                self._use.damage(self.name(number), UNREADABLE)
                return True
        except OverBudget as spent:
            self._use.unseen.append(f"{self.name(number)} and the files after it: {spent}")
            return False
        except ValueError:
            same = False
        self._note(number, same)
        return True

    def _is_proven(self, extent: Extent) -> bool:
        parts = self._proven.within(extent.offset, extent.length)
        return sum(part.length for part in parts) == extent.length

    def _note(self, number: int, same: bool) -> None:
        path = self.name(number)
        if same:
            self._use.intact += 1
        # What was written in place in the last seconds may be there before the time of it is.
        elif self._root.needs_recovery and not path.startswith(_STATIC):
            self._use.uncertain.append(path)
        else:
            self._use.damage(path, DIFFERS)
