"""The root filesystem, as far as a kernel needs it to start what is on it.

In: a way to read, and a partition. Out: a RootFilesystem, or why no kernel would mount it. Only a
few things are looked at, whatever its size: superblock, journal, root directory, a handful of small
files. Whether the other files are whole is for ``verify`` and e2fsck to tell.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from imager.base.units import MiB
from imager.bootcheck.root.fstab import FstabLine, is_too_long, mounts_in
from imager.disk.budget import MAX_TEXT_BYTES, Budget, OverBudget
from imager.disk.ext4.filesystem import Ext4, Inode
from imager.disk.ext4.format import Ext4Error
from imager.disk.ext4.journal import replayed, require_journal
from imager.disk.manifest import Reader
from imager.disk.table import TablePartition

_FSTAB = "/etc/fstab"
_MODULE_FOLDERS = ("/usr/lib/modules", "/lib/modules")
_SYSTEM_NAMES = ("PRETTY_NAME", "NAME", "ID")
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class RootFilesystem:
    """An ext4 that a kernel can mount. ``node`` is the name in its /etc/hostname, ``system`` what
    /etc/os-release calls it, ``modules`` the kernels for which it has modules, ``mounts`` its
    /etc/fstab. ``journal`` says whether changes wait in its journal; they are seen here as if they
    were made. With ``damaged_groups``, whose descriptors do not fit their checksums, no kernel
    mounts it for writing before e2fsck has mended it. ``cut`` says why its /etc/fstab was not read
    to its end, empty where it was."""

    partition: int
    files: Ext4
    uuid: str
    label: str
    node: str | None
    system: str | None
    modules: tuple[str, ...]
    mounts: tuple[FstabLine, ...]
    journal: bool
    damaged_groups: tuple[int, ...]
    cut: str = ""


def mounted(read: Reader, part: TablePartition, budget: Budget) -> RootFilesystem:
    """The ext4 on ``part`` as the kernel would have it. Raises Ext4Error for what no kernel
    mounts, Ext4Unknown for what this reader cannot judge, OverBudget."""
    offset = part.extent.offset
    raw = Ext4.open(read, offset, budget)
    if not raw.superblock_fits:
        raise Ext4Error("its superblock does not fit its checksum")
    end = offset + raw.blocks_count * raw.block_size
    if end > part.extent.end:
        what = f"its filesystem ends at byte {end}, the partition at {part.extent.end}"
        raise Ext4Error(what)
    require_journal(read, raw)
    files = Ext4.open(replayed(read, offset, budget), offset, budget)
    try:
        files.require_root()
    except OverBudget:
        raise
    except (ValueError, struct.error) as error:
        raise Ext4Error(f"its root directory cannot be read: {error}") from None
    fstab, cut = _fstab(files)
    words = (_text(files, "/etc/hostname") or "").split()
    return RootFilesystem(
        partition=part.index,
        files=files,
        uuid=str(files.uuid),
        label=files.label,
        node=words[0] if words else None,
        system=_system(_text(files, "/etc/os-release") or _text(files, "/usr/lib/os-release")),
        modules=_modules(files),
        mounts=fstab,
        journal=raw.needs_recovery,
        damaged_groups=raw.damaged_groups,
        cut=cut,
    )


def is_blank(read: Reader, part: TablePartition) -> bool:
    """Whether the first MiB of ``part`` holds only zeros."""
    return not any(read(part.extent.offset, min(MiB, part.extent.length)))


def _fstab(files: Ext4) -> tuple[tuple[FstabLine, ...], str]:
    """The lines of /etc/fstab that were read, and why there are more."""
    found = _lookup(files, _FSTAB)
    if found is not None and found.size_bytes > MAX_TEXT_BYTES:
        return (), f"{_FSTAB} has {found.size_bytes} bytes"
    text = _text(files, _FSTAB) or ""
    return mounts_in(text), f"{_FSTAB} has more lines than any" if is_too_long(text) else ""


def _lookup(files: Ext4, path: str) -> Inode | None:
    try:
        return files.lookup(path)
    except OverBudget:
        raise
    except (ValueError, struct.error):
        return None


def _text(files: Ext4, path: str) -> str | None:
    try:
        return files.read_file(path, limit_bytes=MAX_TEXT_BYTES).decode(errors="replace")
    except OverBudget:
        raise
    except (ValueError, LookupError, struct.error, FileNotFoundError):
        return None


def _system(text: str | None) -> str | None:
    """The name in an os-release file (freedesktop's os-release(5))."""
    fields = dict(line.split("=", 1) for line in (text or "").splitlines() if "=" in line)
    for key in _SYSTEM_NAMES:
        if name := fields.get(key, "").strip().strip("\"'"):
            return " ".join(name.split())[:_LONGEST_NAME]
    return None


def _modules(files: Ext4) -> tuple[str, ...]:
    found: set[str] = set()
    for folder in _MODULE_FOLDERS:
        try:
            found.update(files.list_directory(folder))
        except OverBudget:
            raise
        except (ValueError, struct.error):
            continue
    return tuple(sorted(found))
