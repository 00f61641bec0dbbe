"""Writes a node's files into a FAT filesystem without mounting it, through mtools.

In: a working copy of the boot partition and the files to put on it. Out: the same file, changed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import PurePosixPath

from imager.base.run import run
from imager.base.units import SECTOR_BYTES, format_size
from imager.disk.extents import ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.node.edit.ext4 import tool_times
from imager.node.edit.memory_file import MemoryFile, scratch
from imager.node.files.boot import unplaceable
from imager.node.files.tree import CardFile

_MTOOLS = {"MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": os.devnull, "HOME": os.devnull}
"""A home without a .mtoolsrc, so that no settings of the user apply."""
_VOLUME_ID_OFFSET = 67
_BACKUP_SECTOR_OFFSET = 50
"""FAT32 boot sector, BS_VolID and BPB_BkBootSec (Microsoft's FAT32 File System Specification)."""


def put_files(work: MemoryFile, volume: FatVolume, files: Sequence[CardFile], time: int) -> None:
    """Write ``files`` onto the filesystem in ``work``, which holds ``volume``; folders on the
    way are made. Raises ConfigurationError when they do not fit."""
    _check_room(volume, files)
    env = tool_times(time) | _MTOOLS
    for folder in _missing_folders(volume, files):
        run(["mmd", "-i", work.path, f"::/{folder}"], env=env, inherit=[work.descriptor])
    for file in files:
        with scratch(content=file.content) as source:
            # -m keeps this time, which is in UTC because the tool runs in UTC.
            os.utime(source.descriptor, (time, time))
            words = ["mcopy", "-o", "-m", "-i", work.path, source.path, f"::/{file.path}"]
            run(words, env=env, inherit=[work.descriptor, source.descriptor])


def remove_files(work: MemoryFile, volume: FatVolume, paths: Sequence[str]) -> None:
    """Remove those of ``paths`` that are files on the filesystem in ``work``, which holds
    ``volume``."""
    for path in paths:
        found = volume.find(path)
        if found is not None and not found.is_dir:
            words = ["mdel", "-i", work.path, f"::/{found.path}"]
            run(words, env=_MTOOLS, inherit=[work.descriptor])


def set_volume_id(work: MemoryFile, volume_id: int) -> None:
    """Give the FAT32 filesystem in ``work`` another volume id, in its boot sector and in the
    copy of it."""
    (backup,) = struct.unpack("<H", work.read(_BACKUP_SECTOR_OFFSET, 2))
    for sector in (0, backup):
        work.write(sector * SECTOR_BYTES + _VOLUME_ID_OFFSET, struct.pack("<I", volume_id))


def _check_room(volume: FatVolume, files: Sequence[CardFile]) -> None:
    cluster = volume.sectors_per_cluster * volume.sector_bytes
    needed = sum(len(file.content) + cluster for file in files)
    free = volume.cluster_count * cluster - (volume.used - volume.metadata).total_bytes
    if needed > free:
        fault = f"{format_size(needed)} do not fit; the partition has {format_size(free)}"
        raise unplaceable([fault])


def written_files(volume: FatVolume, files: Sequence[CardFile]) -> ExtentMap:
    """Where the content of ``files`` lies on ``volume``, onto which they were put. Raises
    ConfigurationError for those that mtools wrote under another name."""
    found = [(file, volume.find(file.path)) for file in files]
    faults = [
        f"{file.source}: mtools cannot write the name {file.path}"
        for file, entry in found
        if entry is None or entry.is_dir
    ]
    if faults:
        raise unplaceable(faults)
    return ExtentMap(extent for _, entry in found if entry for extent in entry.extents)


def _missing_folders(volume: FatVolume, files: Sequence[CardFile]) -> list[str]:
    folders = {str(parent) for file in files for parent in PurePosixPath(file.path).parents}
    return sorted(folder for folder in folders - {"."} if volume.find(folder) is None)
