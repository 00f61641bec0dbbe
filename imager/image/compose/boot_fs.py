"""The boot partition: a FAT32 filesystem with the release's /boot files, never mounted.

In: a staged release and a place in the image file. Out: the filesystem there, and the SHA-256 of
each file in it as read back. A Raspberry Pi's ROM wants 512-byte sectors, 1 or 4 of them to a
cluster, and at least 65,525 clusters, or it takes the filesystem for FAT16 (firmware issue 1738).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from imager.base.errors import ToolFailed
from imager.base.run import run
from imager.base.units import SECTOR_BYTES, KiB, MiB
from imager.disk.budget import Budget
from imager.disk.extents import Extent
from imager.disk.fat.volume import FatVolume
from imager.disk.manifest import Reader
from imager.image.compose.ids import FilesystemIds
from imager.image.compose.staging import Staged
from imager.image.unpack.members import EntryKind, TreeEntry, refuse
from imager.image.unpack.tree import Tree

LABEL = "PICLOUD"
_ONE_SECTOR_CLUSTERS_UP_TO = 512 * MiB
_FILES_PER_RUN = 200
_FAT_TIMES = (315_532_800, 4_354_819_198)
"""1980-01-01 and 2107-12-31 23:59:58 UTC: the first and last time a FAT can store."""


def make_boot(image: Path, where: Extent, staged: Staged, identity: FilesystemIds) -> None:
    """Fill the range ``where`` of the file ``image`` with the boot filesystem.

    The staged files must lie below the folder of ``image``. All names are relative to it, because
    mtools take ``@@`` and other things in a path for options.
    """
    folder = image.parent
    environment = {
        "SOURCE_DATE_EPOCH": str(max(staged.made_at, _FAT_TIMES[0])),
        "MTOOLS_SKIP_CHECK": "1",
        "HOME": str(folder),  # where there is no .mtoolsrc
        "MTOOLSRC": os.devnull,
    }
    run(_mkfs_words(image.name, where, identity), cwd=folder, env=environment)
    drive = f"{image.name}@@{where.offset}"
    files = staged.boot_folder.relative_to(folder)
    for path, entry in staged.boot.files():
        if entry.kind is EntryKind.FILE:
            _set_time(staged.boot_folder / path, entry)
        else:
            run(["mmd", "-i", drive, f"::/{path}"], cwd=folder, env=environment)
    for inner, names in _files_by_folder(staged.boot):
        sources = [files / inner / name for name in names]
        run(["mcopy", "-m", "-i", drive, *sources, f"::/{inner}"], cwd=folder, env=environment)


def _mkfs_words(name: str, where: Extent, identity: FilesystemIds) -> list[str]:
    sector = where.offset // SECTOR_BYTES
    cluster_sectors = 1 if where.length <= _ONE_SECTOR_CLUSTERS_UP_TO else 4
    return [
        *("mkfs.vfat", "--invariant", "-F", "32", "-s", str(cluster_sectors), "-n", LABEL),
        *("-i", f"{identity.volume_id:08x}", "-h", str(sector), f"--offset={sector}"),
        *(name, str(where.length // KiB)),
    ]


def _set_time(file: Path, entry: TreeEntry) -> None:
    earliest, latest = _FAT_TIMES
    seconds = min(max(entry.mtime_ns // 1_000_000_000, earliest), latest)
    os.utime(file, (seconds, seconds))


def _files_by_folder(tree: Tree) -> Iterator[tuple[str, Sequence[str]]]:
    """Each folder with the names of its files in order, in groups that fit on a command line."""
    files = [path.rpartition("/") for path, entry in tree.files() if entry.kind is EntryKind.FILE]
    files.sort()
    for folder, group in groupby(files, key=lambda parts: parts[0]):
        names = [name for _, _, name in group]
        for start in range(0, len(names), _FILES_PER_RUN):
            yield folder, names[start : start + _FILES_PER_RUN]


def check_boot_fs(image: Path, where: Extent, staged: Staged, read: Reader) -> FatVolume:
    """The finished filesystem, parsed; raises ToolFailed unless it is clean and complete, and
    MalformedRelease for a name that mtools wrote as another."""
    part = image.parent / "boot.img"
    _extract(image, where, part)
    try:
        run(["fsck.vfat", "-n", part])
    finally:
        part.unlink()
    volume = FatVolume.parse(read, where.offset, where.length, Budget.of_our_image())
    wanted = {path: (e.kind is EntryKind.FOLDER, e.size_bytes) for path, e in staged.boot.files()}
    found = {path: (e.is_dir, e.size_bytes) for path, e in volume.entries.items()}
    renamed = sorted(wanted.keys() - found.keys())
    if renamed and not volume.faults and len(found) == len(wanted):
        raise refuse(f"boot/{renamed[0]}", "is written by mtools under another name")
    if volume.faults or found != wanted:
        differing = sorted(dict(wanted.items() ^ found.items()))
        faults = [*map(str, volume.faults), *differing]
        raise ToolFailed(
            f"the boot filesystem is not what it should be: {faults[0]}",
            hint="please report this, with the name of the release",
            details=faults[:20],
        )
    return volume


def _extract(image: Path, where: Extent, part: Path) -> None:
    """A sparse copy of one partition: fsck.vfat knows no offsets."""
    with image.open("rb") as source, part.open("wb") as target:
        target.truncate(where.length)
        position = where.offset
        while position < where.end:
            try:
                start = os.lseek(source.fileno(), position, os.SEEK_DATA)
            except OSError:  # no data to the end of the file
                break
            stop = min(os.lseek(source.fileno(), start, os.SEEK_HOLE), where.end)
            while start < stop:
                data = os.pread(source.fileno(), min(stop - start, MiB), start)
                start += os.pwrite(target.fileno(), data, start - where.offset)
            position = max(stop, start)


def boot_hashes(volume: FatVolume) -> Mapping[str, str]:
    """Path and SHA-256 in hex of every file, as the card will hold it."""
    return {
        path: hashlib.sha256(volume.read_file(path)).hexdigest()
        for path, entry in volume.entries.items()
        if not entry.is_dir
    }
