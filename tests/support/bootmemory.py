"""A boot partition in memory, with no filesystem around its files, for tests of what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from imager.base.boards import board_named
from imager.bootcheck.contents import Contents
from imager.bootcheck.findings import Finding, Severity
from imager.bootcheck.formats.cmdline import Cmdline
from imager.bootcheck.requirements import Requirements
from imager.bootcheck.root.roots import Roots
from imager.disk.budget import Budget
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatEntry, FatVolume

_NOTHING = ExtentMap()


class _AnyRoot(Roots):
    """A card on which every root= is right: what is wrong with one is tried elsewhere."""

    def __init__(self) -> None:
        super().__init__(lambda _, length: bytes(length), None, 0, Budget())

    def findings(
        self, line: Cmdline, path: str, *, initramfs: bool, bits: int | None = None
    ) -> Iterator[Finding]:
        if not line.value("root"):
            yield from super().findings(line, path, initramfs=initramfs)

    def presumed_findings(self, *, bits: int | None = None) -> Iterator[Finding]:
        return iter(())


def volume_of(files: Mapping[str, bytes]) -> FatVolume:
    """A FAT32 volume that holds ``files`` and has no faults."""
    entries, content, at = dict[str, FatEntry](), b"".join(files.values()), 0
    for path, data in files.items():
        folder = path.rpartition("/")[0]
        while folder:
            entries[folder] = FatEntry(folder, True, 0, ())
            folder = folder.rpartition("/")[0]
        extents = (Extent(at, len(data)),) if data else ()
        entries[path] = FatEntry(path, False, len(data), extents)
        at += len(data)
    folded = MappingProxyType({path.casefold(): path for path in entries})
    return FatVolume(
        kind=32, sector_bytes=512, sectors_per_cluster=1, cluster_count=70_000, volume_id=0,
        label="", dirty=False, entries=MappingProxyType(entries), metadata=_NOTHING, used=_NOTHING,
        faults=(), faults_left_out=0, hurt=frozenset(),
        _read=lambda offset, length: content[offset : offset + length], _folded=folded,
    )  # fmt: skip


def judged(
    files: Mapping[str, bytes],
    model: str,
    *,
    unseen: Mapping[str, str] | None = None,
    budget: Budget | None = None,
) -> Requirements:
    """The requirements of ``model`` for a partition with ``files``; ask it for ``findings``. Of
    ``unseen`` are the folders and files that were not read to their end."""
    volume = replace(volume_of(files), unseen=unseen or {})
    contents = Contents(volume, {}, budget or Budget())
    return Requirements(contents, board_named(model), _AnyRoot())


def found(files: Mapping[str, bytes], model: str) -> list[Finding]:
    """Everything that is wrong with ``files`` for ``model``."""
    return list(judged(files, model).findings())


def errors_of(files: Mapping[str, bytes], model: str) -> list[str]:
    """The codes of what stops the boot, in their order."""
    return [one.code.value for one in found(files, model) if one.severity is Severity.ERROR]
