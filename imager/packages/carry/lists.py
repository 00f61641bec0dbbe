"""What the archive holds, which racks pin it, and what a carried file would add.

In: a cache, and rack.locks. Out: an ArchiveRow for each folder of the archive; an Intake; how two
rack.locks differ. Looks only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imager.base.cache import Cache
from imager.base.errors import NotAuthentic
from imager.base.json_fields import JsonFault
from imager.base.timestamps import timestamp
from imager.base.trusted_folder import TrustedFolder
from imager.packages.carry.entries import Entry, EntryOrigin, entries_of, found
from imager.packages.fetch.archive import RECORD, parse_record
from imager.release.archive import Archive
from imager.release.lock import AnyPin, RackLock, SetPin
from imager.release.salt.fetched import fetched_at
from imager.release.salt.salt import SALT, WHEELS, version_in

_RECORD_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ArchiveRow:
    """One folder of the archive. ``fetched_at`` is when it came from where it is published (for
    what has no record, as a Python package that was imported, when it was put here); ``racks`` are
    those whose rack.lock pins it; ``fault`` says what is wrong with it."""

    kind: EntryOrigin
    name: str
    version: str | None
    sha256: str
    size_bytes: int
    fetched_at: str
    racks: tuple[Path, ...]
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Intake:
    """What would become of the entries of a carried file: ``wanted`` would be taken in, ``here``
    are in the archive already. ``left`` have no signature, and are not what the rack pins."""

    wanted: tuple[Entry, ...]
    here: tuple[Entry, ...]
    left: tuple[Entry, ...]


def intake_of(entries: Iterable[Entry], lock: RackLock, cache: Cache) -> Intake:
    """What would become of ``entries`` for a rack with ``lock``.

    What no key signed is taken only by the hash that ``lock`` pins: nothing else says that it is
    what it is called.
    """
    pinned = {entry.sha256 for entry in entries_of(lock)}
    wanted: list[Entry] = []
    here: list[Entry] = []
    left: list[Entry] = []
    for entry in entries:
        if _is_here(entry, cache):
            here.append(entry)
        elif entry.signer is None and entry.sha256 not in pinned:
            left.append(entry)
        else:
            wanted.append(entry)
    return Intake(tuple(wanted), tuple(here), tuple(left))


def rows_of(cache: Cache, racks: Mapping[Path, RackLock]) -> tuple[ArchiveRow, ...]:
    """Everything in the archive, by kind, name and time, with what ``racks`` pin."""
    pinned: dict[str, list[Path]] = {}
    for rack, lock in racks.items():
        for entry in entries_of(lock):
            pinned.setdefault(entry.sha256, []).append(rack)
    rows = [*_releases(cache, pinned), *_packages(cache, pinned)]
    return tuple(sorted(rows, key=lambda row: (row.kind, row.name, row.fetched_at, row.sha256)))


def missing_of(cache: Cache, lock: RackLock) -> tuple[Entry, ...]:
    """What ``lock`` pins and the archive does not have, or not whole."""
    return tuple(entry for entry in entries_of(lock) if not _is_here(entry, cache))


def differences(own: RackLock, other: RackLock) -> list[str]:
    """A line for each name that both pin to other bytes, or only one of them pins."""
    mine, theirs = own.all_pins(), other.all_pins()
    return [
        f"{section} {name}: {_said(mine.get((section, name)))} here, "
        f"{_said(theirs.get((section, name)))} there"
        for section, name in sorted({*mine, *theirs})
        if _bytes_of(mine.get((section, name))) != _bytes_of(theirs.get((section, name)))
    ]


def _releases(cache: Cache, pinned: Mapping[str, Sequence[Path]]) -> Iterator[ArchiveRow]:
    kind = EntryOrigin.RELEASE
    for sha256 in _hashes(cache.looked_at("releases")):
        racks = tuple(pinned.get(sha256, ()))
        try:
            here = Archive(cache).find(sha256)
        except NotAuthentic as error:
            yield ArchiveRow(kind, "?", None, sha256, 0, "", racks, error.what)
            continue
        if here is not None:
            record = here.record
            said = (record.name, None, sha256, record.size_bytes, record.fetched_at)
            yield ArchiveRow(kind, *said, racks)


def _packages(cache: Cache, pinned: Mapping[str, Sequence[Path]]) -> Iterator[ArchiveRow]:
    above = cache.looked_at("packages")
    for sha256 in _hashes(above):
        folder, racks = above / sha256, tuple(pinned.get(sha256, ()))
        names = folder.names()
        yield (_pacman if RECORD in names else _python)(folder, names, racks)


def _pacman(folder: TrustedFolder, names: Sequence[str], racks: tuple[Path, ...]) -> ArchiveRow:
    kind, sha256 = EntryOrigin.PACMAN, folder.name
    try:
        name, pin = parse_record(folder.read(RECORD, _RECORD_BYTES))
    except JsonFault as error:
        fault = f"{folder.path / RECORD}: {error}"
        return ArchiveRow(kind, "?", None, sha256, 0, "", racks, fault)
    said = (name, pin.version, sha256)
    if pin.sha256 != sha256 or not {pin.file, f"{pin.file}.sig"} <= {*names}:
        fault = f"{folder.path}: does not hold what its record says"
        return ArchiveRow(kind, *said, 0, pin.fetched_at, racks, fault)
    return ArchiveRow(kind, *said, folder.size(pin.file), pin.fetched_at, racks)


def _python(folder: TrustedFolder, names: Sequence[str], racks: tuple[Path, ...]) -> ArchiveRow:
    kind, since = EntryOrigin.PYPI, fetched_at(folder) or timestamp(folder.changed() / 1e9)
    for file in names:
        for name in (SALT, *WHEELS):
            version = version_in(file, name)
            if version:
                size = folder.size(file)
                return ArchiveRow(kind, name, version, folder.name, size, since, racks)
    fault = f"{folder.path}: holds no package"
    return ArchiveRow(kind, "?", None, folder.name, 0, since, racks, fault)


def _hashes(folder: TrustedFolder) -> list[str]:
    return [name for name in folder.names() if _SHA256.fullmatch(name)]


def _is_here(entry: Entry, cache: Cache) -> bool:
    try:
        return found(entry, cache) is not None
    except NotAuthentic:
        return False


def _bytes_of(pin: AnyPin | None) -> object:
    """What a pin means, without where and when it was found."""
    return pin if pin is None or isinstance(pin, SetPin) else pin.sha256


def _said(pin: AnyPin | None) -> str:
    if pin is None:
        return "nothing"
    if isinstance(pin, SetPin):
        return f"{len(pin.packages)} packages"
    version = getattr(pin, "version", "")
    return f"{version} ({pin.sha256[:12]}…)".lstrip()
