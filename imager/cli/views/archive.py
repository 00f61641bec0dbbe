"""The archive, and what goes out of it and into it, as a person reads it, and as JSON.

In: entries and rows. Out: lines, cells and fields. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from imager.base.units import format_size
from imager.packages.carry.entries import Entry, EntryOrigin
from imager.packages.carry.lists import ArchiveRow, Intake

HEAD = ("kind", "name", "version", "size", "fetched", "sha256", "pinned by")
_NOUNS = {
    EntryOrigin.RELEASE: "release",
    EntryOrigin.PACMAN: "package",
    EntryOrigin.PYPI: "Python package",
}


def archive_rows(rows: Iterable[ArchiveRow]) -> list[tuple[str, ...]]:
    """A row under HEAD for each folder of the archive."""
    return [
        (
            row.kind.value,
            row.name,
            row.version or "-",
            "damaged" if row.fault else format_size(row.size_bytes),
            row.fetched_at[:10] or "-",
            f"{row.sha256[:12]}…",
            ", ".join(rack.name for rack in row.racks) or "-",
        )
        for row in rows
    ]


def archive_fields(rows: Iterable[ArchiveRow]) -> list[dict[str, object]]:
    """The same for a program."""
    return [
        {
            "kind": row.kind.value,
            "name": row.name,
            "version": row.version,
            "sha256": row.sha256,
            "size_bytes": row.size_bytes,
            "fetched_at": row.fetched_at or None,
            "racks": [str(rack) for rack in row.racks],
            "fault": row.fault,
        }
        for row in rows
    ]


def total_line(rows: Sequence[ArchiveRow], root: Path) -> str:
    """How much there is."""
    size = format_size(sum(row.size_bytes for row in rows))
    return f"{_counted(row.kind for row in rows)}, {size} in {root}" if rows else f"{root}: empty"


def entry_fields(entries: Iterable[Entry]) -> list[dict[str, object]]:
    """Entries for a program."""
    return [
        {
            "kind": entry.kind.value,
            "name": entry.name,
            "version": entry.version,
            "sha256": entry.sha256,
            "size_bytes": entry.size_bytes,
            "signer": entry.signer,
        }
        for entry in entries
    ]


def summary(entries: Sequence[Entry]) -> str:
    """``1 release, 30 packages, 2 Python packages``"""
    return _counted(entry.kind for entry in entries)


def intake_lines(intake: Intake, *, dry_run: bool) -> list[str]:
    """What became, or would become, of what a file brings."""
    would = "would be" if dry_run else "proven and"
    lines = [f"{summary(intake.wanted) or 'nothing'} {would} taken in"]
    if intake.here:
        lines.append(f"{summary(intake.here)} in the archive already")
    lines += [
        f"left out: {entry.called} has no signature and is not what rack.lock pins"
        for entry in intake.left
    ]
    return lines


def lock_lines(lock: Path, differing: Sequence[str], *, brought: bool, dry_run: bool) -> list[str]:
    """What became, or would become, of rack.lock."""
    if brought:
        return [f"{lock} {'would come' if dry_run else 'came'} from the file"]
    if not differing:
        return [f"{lock} pins the same"]
    return [f"{lock} stays as it is; it pins other bytes than the file:", *differing]


def _counted(kinds: Iterable[EntryOrigin]) -> str:
    counts = Counter(kinds)
    return ", ".join(
        f"{counts[kind]} {noun}{'' if counts[kind] == 1 else 's'}"
        for kind, noun in _NOUNS.items()
        if counts[kind]
    )
