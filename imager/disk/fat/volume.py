"""A FAT12, FAT16 or FAT32 filesystem, read without mounting it and without special rights.

In: a way to read a disk and the place of a partition on it. Out: its files with the bytes they
occupy, the bytes of its tables and directories, and every fault as data. FSInfo is not read: it is
a hint that any system may leave out of date. Firmware reads FAT with very small programs, so also
faults that a desktop system would silently put right are reported.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from types import MappingProxyType

from imager.base.units import SECTOR_BYTES, MiB
from imager.disk.budget import Budget, OverBudget
from imager.disk.extents import Extent, ExtentMap, beginning_of
from imager.disk.fat.directory import (
    RECORD_BYTES,
    DirectoryRecord,
    FatEntry,
    has_own_entries,
    parse_directory,
)
from imager.disk.fat.geometry import FAT16_BELOW, FatError, Geometry, parse_geometry
from imager.disk.fat.table import (
    Chains,
    FatFault,
    FaultKind,
    FaultList,
    Runs,
    Table,
    decode_table,
    naming,
)
from imager.disk.manifest import Reader

__all__ = ["FatEntry", "FatError", "FatFault", "FatVolume", "FaultKind"]

MAX_DIRECTORY_BYTES = 2 * MiB
"""The largest directory the format allows (65,536 records)."""


@dataclass(frozen=True, slots=True)
class FatVolume:
    """A FAT filesystem. Paths are relative, with ``/``; offsets are bytes from the disk's start.

    ``kind`` is 12, 16 or 32; ``volume_id`` its serial number; ``dirty`` whether it is marked as
    not cleanly unmounted. ``entries`` has every file and directory by path. ``metadata`` is
    everything but the content of files: reserved sectors, all copies of the table, directories.
    ``used`` is ``metadata`` and every cluster that the table does not call free. ``faults`` are
    the first faults, ``faults_left_out`` how many more there are, ``hurt`` the paths of all.
    ``unseen`` are the folders and files that were not read to their end, by path (the root is an
    empty one), and why.
    """

    kind: int
    sector_bytes: int
    sectors_per_cluster: int
    cluster_count: int
    volume_id: int
    label: str
    dirty: bool
    entries: Mapping[str, FatEntry]
    metadata: ExtentMap
    used: ExtentMap
    faults: tuple[FatFault, ...]
    faults_left_out: int
    hurt: frozenset[str]
    _read: Reader
    _folded: Mapping[str, str]
    _aliases: Mapping[str, str] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(
        cls, read: Reader, offset: int, length: int, budget: Budget | None = None
    ) -> FatVolume:
        """Read the filesystem in the ``length`` bytes from byte ``offset``, as far as ``budget``
        allows (that of one disk where there is none).

        Raises FatError when there is none; damage inside one is in ``faults``, and so is what was
        not looked at.
        """
        sector = _exactly(read, Extent(offset, max(0, min(SECTOR_BYTES, length))))
        geometry = parse_geometry(sector, offset, length)
        return _FatParser(read, geometry, sector, (budget or Budget()).share()).volume()

    def find(self, path: str) -> FatEntry | None:
        """The entry at ``path``, or None. As always on FAT, upper and lower case are the same, and
        a long name's short one does as well where no other file is called so."""
        wanted = path.strip("/").casefold()
        found = self._folded.get(wanted) or self._by_alias(wanted)
        return None if found is None else self.entries[found]

    def unseen_at(self, path: str) -> str | None:
        """Why it is not known what lies at ``path``, or what all of it is: the file, or the folder
        where it would be, was not read to its end. None where it is known."""
        if not self.unseen:
            return None
        found = self.find(path)
        if found is not None:
            return self.unseen.get(found.path)
        above = ""
        # From the top: a stranger's path of a MiB ends at the first folder that is not there.
        for name in path.strip("/").split("/")[:-1]:
            folder = self.find(f"{above}/{name}")
            if folder is None:
                break
            above = folder.path
        return self.unseen.get(above)

    def _by_alias(self, wanted: str) -> str | None:
        """The path that folder by folder is found by one name or the other."""
        found: str | None = ""
        for name in wanted.split("/"):
            step = f"{found.casefold()}/{name}" if found else name
            found = self._folded.get(step) or self._aliases.get(step)
            if found is None:
                break
        return found

    def read_file(self, path: str, *, limit_bytes: int | None = None) -> bytes:
        """The content of a file, or its first ``limit_bytes``; shorter than its size where its
        chain is broken.

        Raises FileNotFoundError or IsADirectoryError.
        """
        size = sum(extent.length for extent in self._file(path).extents)
        # All its room at once: to grow with each piece takes three times as much memory.
        content = BytesIO(bytes(size if limit_bytes is None else min(size, limit_bytes)))
        for chunk in self.chunks(path):
            content.write(chunk)
            if limit_bytes is not None and content.tell() >= limit_bytes:
                content.truncate(limit_bytes)
                break
        return content.getvalue()

    def chunks(self, path: str) -> Iterator[bytes]:
        """The content of a file in pieces of at most 1 MiB; raises as ``read_file`` does."""
        for extent in self._file(path).extents:
            for start in range(0, extent.length, MiB):
                piece = Extent(extent.offset + start, min(MiB, extent.length - start))
                yield _exactly(self._read, piece)

    def _file(self, path: str) -> FatEntry:
        entry = self.find(path)
        if entry is None:
            raise FileNotFoundError(path)
        if entry.is_dir:
            raise IsADirectoryError(path)
        return entry

    def sha256(self, path: str) -> str:
        """SHA-256 of a file's content in hex; raises as ``read_file`` does."""
        digest = hashlib.sha256()
        for chunk in self.chunks(path):
            digest.update(chunk)
        return digest.hexdigest()


def _exactly(read: Reader, extent: Extent) -> bytes:
    data = read(extent.offset, extent.length)
    if len(data) != extent.length:
        raise FatError(f"the image ends before byte {extent.end}")
    return data


class _FatParser:
    """Walks one filesystem once; what it finds is handed over as a FatVolume."""

    def __init__(self, read: Reader, geometry: Geometry, sector: bytes, budget: Budget) -> None:
        self.read, self.geometry, self.sector, self.budget = read, geometry, sector, budget
        self.table = self._read_table(geometry.active_table)
        self.chains = Chains(self.table, budget)
        self.entries: dict[str, FatEntry] = {}
        self.folded: dict[str, str] = {}
        self.aliases: dict[str, str] = {}
        self.faults = FaultList()
        self.unseen: dict[str, str] = {}
        self.directories: list[Extent] = []
        self.files: list[Extent] = []
        self.label = "" if geometry.label == "NO NAME" else geometry.label

    def volume(self) -> FatVolume:
        geometry = self.geometry
        lost: Runs = []
        try:
            self._walk()
            lost = self._note_lost()
            self._compare_copies()
        except OverBudget as spent:
            self._fault(FaultKind.NOT_LOOKED_AT, f"{spent}: not looked at further")
        self._compare_backup()
        self._check_shape()
        clean_bits = {12: 0, 16: 0x8000, 32: 0x08000000}[geometry.kind]
        dirty = geometry.dirty or self.table[1] & clean_bits != clean_bits
        if dirty:
            self._fault(FaultKind.DIRTY, "it is marked as not cleanly unmounted")
        start = geometry.offset
        tables_end = geometry.table(geometry.table_count).offset
        metadata = ExtentMap(
            (Extent(start, tables_end - start), geometry.fixed_root, *self.directories)
        )
        return FatVolume(
            kind=geometry.kind,
            sector_bytes=geometry.sector_bytes,
            sectors_per_cluster=geometry.sectors_per_cluster,
            cluster_count=geometry.cluster_count,
            volume_id=geometry.volume_id,
            label=self.label,
            dirty=dirty,
            entries=MappingProxyType(self.entries),
            metadata=metadata,
            used=ExtentMap((*metadata, *self.files, *self._extents(lost))),
            faults=(*self.faults.listed, *self.chains.faults.listed),
            faults_left_out=self.faults.more + self.chains.faults.more,
            hurt=frozenset(self.faults.hurt | self.chains.faults.hurt),
            _read=self.read,
            _folded=MappingProxyType(self.folded),
            _aliases=MappingProxyType(self.aliases),
            unseen=MappingProxyType(self.unseen | self._unfollowed()),
        )

    def _fault(self, kind: FaultKind, what: str, *paths: str, offset: int | None = None) -> None:
        self.faults.add(kind, what, *paths, offset=offset)

    def _read_table(self, number: int) -> Table:
        entries = self.geometry.readable_clusters + 2
        return decode_table(self._table_bytes(number), self.geometry.kind, entries)

    def _table_bytes(self, number: int) -> bytes:
        """The entries of table ``number`` that belong to a cluster; the rest has no meaning."""
        bits = (self.geometry.readable_clusters + 2) * self.geometry.kind
        return _exactly(self.read, Extent(self.geometry.table(number).offset, -(-bits // 8)))

    def _extents(self, runs: Runs) -> Iterator[Extent]:
        return (self.geometry.clusters(first, count) for first, count in runs)

    # -- directories ---------------------------------------------------------------------------

    def _walk(self) -> None:
        waiting: list[tuple[str, FatEntry | None]] = [("", None)]
        folder = ""
        try:
            while waiting:
                folder, directory = waiting.pop()
                self._enter(folder, directory, waiting)
        except OverBudget as spent:
            self.unseen |= dict.fromkeys((folder, *(path for path, _ in waiting)), str(spent))
            raise

    def _enter(
        self, folder: str, directory: FatEntry | None, waiting: list[tuple[str, FatEntry | None]]
    ) -> None:
        """Take the names in one folder (None is the root); the folders among them are put to
        those that are ``waiting``."""
        data = self._root() if directory is None else self._content(directory)
        self.budget.step(len(data) >> 3)  # a record of 32 bytes takes 4 µs
        records, damage = parse_directory(data, wide=self.geometry.kind == 32)
        if data and directory is not None and not has_own_entries(data):
            damage.insert(0, "it does not begin with its entries . and ..")
        if damage:
            more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
            self._damaged(folder, damage[0] + more)
        left_out: dict[str, None] = {}
        for record in records:
            if record.is_volume_label:
                self.label = record.name.replace(".", "") if not folder else self.label
                continue
            path = f"{folder}/{record.name}" if folder else record.name
            if path.casefold() in self.folded:
                self._damaged(folder, f"two entries are called {record.name}")
                continue
            if too_far := self.budget.path_fault(path):
                left_out[too_far] = None
                continue
            self.budget.keep_name(path)
            entry = self._entry(path, record)
            self.entries[path] = entry
            self.folded[path.casefold()] = path
            if record.alias:
                alias = f"{folder}/{record.alias}" if folder else record.alias
                self.aliases.setdefault(alias.casefold(), path)
            if entry.is_dir:
                waiting.append((path, entry))
        for why in left_out:
            self.unseen[folder] = why
            what = f"directory {folder or '/'}: {why}: not looked at further"
            self._fault(FaultKind.NOT_LOOKED_AT, what)

    def _unfollowed(self) -> dict[str, str]:
        return {path.strip("/"): why for path, why in self.chains.unfollowed.items()}

    def _root(self) -> bytes:
        if self.geometry.kind != 32:
            return _exactly(self.read, self.geometry.fixed_root)
        runs = self.chains.claim("/", self.geometry.root_cluster, None)
        root = FatEntry("", True, 0, self._directory("/", runs))
        return self._content(root)

    def _content(self, directory: FatEntry) -> bytes:
        return b"".join(_exactly(self.read, extent) for extent in directory.extents)

    def _entry(self, path: str, record: DirectoryRecord) -> FatEntry:
        size = 0 if record.is_dir else record.size_bytes
        wanted = None if record.is_dir else -(-size // self.geometry.cluster_bytes)
        runs = self.chains.claim(path, record.first_cluster, wanted)
        if record.is_dir:
            if not runs:
                self._damaged(path, "it has no cluster")
            return FatEntry(path, True, 0, self._directory(path, runs))
        extents = tuple(self._extents(runs))
        self.files.extend(extents)
        return FatEntry(path, False, size, tuple(beginning_of(extents, size)), record.written)

    def _directory(self, path: str, runs: Runs) -> tuple[Extent, ...]:
        extents = tuple(self._extents(runs))
        self.directories.extend(extents)
        if sum(extent.length for extent in extents) > MAX_DIRECTORY_BYTES:
            self._damaged(path, f"it is longer than {MAX_DIRECTORY_BYTES // RECORD_BYTES} records")
            return tuple(beginning_of(extents, MAX_DIRECTORY_BYTES))
        return extents

    def _damaged(self, folder: str, what: str) -> None:
        name = folder or "/"
        self._fault(FaultKind.DIRECTORY_DAMAGED, f"directory {name}: {what}", name)

    # -- the whole -----------------------------------------------------------------------------

    def _note_lost(self) -> Runs:
        lost = self.chains.lost()
        count = sum(length for _, length in lost)
        if count:
            size = count * self.geometry.cluster_bytes
            self._fault(
                FaultKind.LOST_CLUSTERS,
                f"{count} clusters ({size} bytes) are marked as used and belong to no file",
                offset=self.geometry.clusters(lost[0][0], 1).offset,
            )
        return lost

    def _compare_copies(self) -> None:
        if self.geometry.table_count < 2:
            return
        first, second = self._table_bytes(0), self._table_bytes(1)
        if first == second:
            return
        self.budget.step(len(first) >> 3)
        at = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
        other = self._read_table(1 - self.geometry.active_table)
        pairs = enumerate(zip(self.table, other, strict=True))
        clusters = array("I", (n for n, (a, b) in pairs if a != b))
        holders = dict.fromkeys(filter(None, map(self.chains.owner_of, clusters)))
        offset = self.geometry.table(0).offset + at
        self._fault(
            FaultKind.COPIES_DIFFER,
            f"its two tables differ in {len(clusters)} entries, first at byte {at} of the table "
            f"(cluster {clusters[0] if clusters else 0}){naming(tuple(holders))}",
            *holders,
            offset=offset,
        )

    def _compare_backup(self) -> None:
        geometry = self.geometry
        if geometry.backup_sector == 0:
            return
        place = geometry.offset + geometry.backup_sector * geometry.sector_bytes
        backup = _exactly(self.read, Extent(place, SECTOR_BYTES))
        # Byte 65 is the dirty flag, which a system that mounts the volume sets in one copy only.
        pairs = enumerate(zip(self.sector, backup, strict=True))
        wrong = [at for at, (a, b) in pairs if a != b and at != 65]
        if wrong:
            self._fault(
                FaultKind.BACKUP_DIFFERS,
                f"its boot sector and the backup in sector {geometry.backup_sector} differ in "
                f"{len(wrong)} bytes, first at byte {wrong[0]}",
                offset=geometry.offset + wrong[0],
            )

    def _check_shape(self) -> None:
        geometry = self.geometry
        by_count = 32 if geometry.cluster_count >= FAT16_BELOW else 16
        if (by_count == 32) != (geometry.kind == 32):
            self._fault(
                FaultKind.CLUSTER_COUNT,
                f"it is laid out as FAT{geometry.kind} but has {geometry.cluster_count} clusters, "
                f"and {FAT16_BELOW} is where FAT32 begins",
            )
        if geometry.readable_clusters < geometry.cluster_count:
            self._fault(
                FaultKind.TOO_LARGE,
                f"it claims {geometry.cluster_count} clusters; its table and partition have room "
                f"for {geometry.readable_clusters}",
            )
