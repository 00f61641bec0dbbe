"""The paths of a release as they are collected, and which of them are impossible together.

In: members in archive order. Out: two trees, the root filesystem and the boot partition, or a
refusal that names the member. Pure: ``stager`` writes the files. A later file replaces an earlier
one of the same path, as with tar; but nothing replaces a directory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from imager.base.units import align_up
from imager.bootcheck.own_files import place_fault
from imager.disk.fat.names import LARGEST_FILE, name_fault, same_on_fat
from imager.image.unpack.members import EntryKind, TreeEntry, refuse

BOOT = "boot"
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class TreePlace:
    """Where a member goes: ``path`` below the root of the boot or of the root partition."""

    on_boot: bool
    path: str


def place_of(path: str) -> TreePlace:
    """The partition and path of the member ``path``; /boot itself stays as a mount point."""
    head, _, rest = path.partition("/")
    return TreePlace(True, rest) if head == BOOT and rest else TreePlace(False, path)


def full_path(place: TreePlace) -> str:
    """The path of ``place`` as it is in the archive."""
    return f"{BOOT}/{place.path}" if place.on_boot else place.path


@dataclass(slots=True)
class Tree:
    """The entries of one partition by path; "" is its root. Two paths of one entry are links."""

    is_boot: bool
    entries: dict[str, TreeEntry] = field(default_factory=dict)
    _fat_names: dict[str, str] = field(default_factory=dict)
    _children: Counter[str | None] = field(default_factory=Counter)

    def missing_parents(self, path: str) -> list[str]:
        """The directories above ``path`` that no member named yet, outermost first; refuses a
        path that leads through anything but directories."""
        missing = []
        parent = path
        while parent:
            parent = parent.rpartition("/")[0]
            known = self.entries.get(parent)
            if known is not None:
                if known.kind is not EntryKind.FOLDER:
                    above = full_path(TreePlace(self.is_boot, parent))
                    raise refuse(self._named(path), f"leads through {above!r}, a {known.kind}")
                break
            missing.append(parent)
        return missing[::-1]

    def put(self, path: str, entry: TreeEntry) -> TreeEntry | None:
        """Add ``entry`` at ``path``; returns what was there before, or None.

        Raises MalformedRelease for an entry that is impossible there.
        """
        before = self.entries.get(path)
        if before is not None and (before.kind is EntryKind.FOLDER) != (
            entry.kind is EntryKind.FOLDER
        ):
            raise refuse(self._named(path), f"is a {entry.kind} and comes after a {before.kind}")
        if self.is_boot:
            self._check_fat(path, entry)
        elif path in ("", BOOT) and entry.kind is not EntryKind.FOLDER:
            raise refuse(path or "/", f"is a {entry.kind} and must be a directory")
        self.entries[path] = entry
        if before is None:
            self._children[_above(path)] += 1
        return before

    def take_out(self, path: str) -> TreeEntry:
        """Remove the entry at ``path``, which is there; a directory must be empty."""
        self._children[_above(path)] -= 1
        if self.is_boot:
            del self._fat_names[same_on_fat(path)]
        return self.entries.pop(path)

    def is_empty(self, path: str) -> bool:
        """Whether nothing is in the directory ``path``."""
        return not self._children[path]

    def _check_fat(self, path: str, entry: TreeEntry) -> None:
        if not path:
            return
        if entry.kind not in (EntryKind.FILE, EntryKind.FOLDER):
            raise refuse(self._named(path), f"is a {entry.kind}, and FAT has none")
        fault = name_fault(path.rpartition("/")[2])
        if fault is not None:
            raise refuse(
                self._named(path), f"cannot be on the FAT boot partition: its name {fault}"
            )
        fault = place_fault(path, is_folder=entry.kind is EntryKind.FOLDER)
        if fault is not None:
            raise refuse(self._named(path), fault)
        if entry.size_bytes > LARGEST_FILE:
            raise refuse(self._named(path), "is larger than the 4 GiB - 1 FAT allows")
        first = self._fat_names.setdefault(same_on_fat(path), path)
        if first != path:
            raise refuse(self._named(path), f"and {self._named(first)!r} are one name on FAT")

    def _named(self, path: str) -> str:
        return full_path(TreePlace(self.is_boot, path))

    def files(self) -> Iterator[tuple[str, TreeEntry]]:
        """Every path but the root, sorted bytewise."""
        return iter(sorted(item for item in self.entries.items() if item[0]))

    def size_bytes(self) -> int:
        """The size of all content in whole blocks of 4096 bytes; a file with several names counts
        once."""
        distinct = {id(entry): entry for entry in self.entries.values()}
        return sum(_stored_bytes(entry) for entry in distinct.values())


def _above(path: str) -> str | None:
    """The directory that ``path`` is in; None for the root."""
    return path.rpartition("/")[0] if path else None


def _stored_bytes(entry: TreeEntry) -> int:
    match entry.kind:
        case EntryKind.FILE:
            return align_up(entry.size_bytes, _BLOCK)
        case EntryKind.FOLDER | EntryKind.SYMLINK:
            return _BLOCK
        case _:
            return 0


def implied_folder(mtime_ns: int) -> TreeEntry:
    """The directory for a parent that the archive never mentions."""
    return TreeEntry(EntryKind.FOLDER, 0o755, 0, 0, mtime_ns)


def copy_of(entry: TreeEntry) -> TreeEntry:
    """An entry equal to ``entry`` that is a file of its own: hard links to another partition are
    impossible."""
    return replace(entry)
