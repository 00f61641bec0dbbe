"""What a rack.lock pins, as folders of the archive.

In: the pins. Out: an Entry for each release and package, and the files that belong to it: what
``archive export`` must find here, and all that a file for ``archive import`` may hold. Pure but for
``found``, which looks and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from imager.base.cache import Cache
from imager.base.errors import NotAuthentic
from imager.base.units import GiB
from imager.packages.fetch.archive import RECORD as PACKAGE_RECORD
from imager.packages.fetch.archive import PackageArchive, record_of
from imager.release.archive import RECORD as RELEASE_RECORD
from imager.release.archive import SIGNATURE, TARBALL, Archive, encode_record
from imager.release.lock import PackagePin, PacmanPin, Pin, RackLock
from imager.release.salt.pip import LARGEST_FILE
from imager.release.salt.salt import archived_package


class EntryOrigin(StrEnum):
    """Where something in the archive came from, which says what proves it."""

    RELEASE = "release"
    PACMAN = "pacman"
    PYPI = "pypi"


LARGEST_CONTENT = {
    EntryOrigin.RELEASE: 4 * GiB,
    EntryOrigin.PACMAN: 2 * GiB,
    EntryOrigin.PYPI: LARGEST_FILE,
}
"""Bytes; as much as a fetch takes in."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder of the archive. ``folder`` is its path in a cache, which ends in the ``sha256`` of
    its content; ``signer`` is the key that signed it, None where only the hash is a proof."""

    kind: EntryOrigin
    name: str
    pin: Pin | PacmanPin | PackagePin

    @property
    def sha256(self) -> str:
        return self.pin.sha256

    @property
    def size_bytes(self) -> int:
        return self.pin.size_bytes

    @property
    def folder(self) -> str:
        above = "releases" if self.kind is EntryOrigin.RELEASE else "packages"
        return f"{above}/{self.pin.sha256}"

    @property
    def version(self) -> str | None:
        return None if isinstance(self.pin, Pin) else self.pin.version

    @property
    def called(self) -> str:
        return f"{self.name} {self.version or ''}".rstrip()

    @property
    def signer(self) -> str | None:
        match self.pin:
            case Pin():
                return self.pin.fingerprint
            case PacmanPin():
                return self.pin.signer
            case PackagePin():
                return None

    @property
    def content(self) -> str | None:
        """The name of the file itself; None where rack.lock does not say it."""
        match self.pin:
            case Pin():
                return TARBALL
            case PacmanPin():
                return self.pin.file
            case PackagePin():
                return None

    @property
    def beside(self) -> tuple[str, ...]:
        """The names of record and signature."""
        match self.pin:
            case Pin():
                return (RELEASE_RECORD, SIGNATURE)
            case PacmanPin():
                return (PACKAGE_RECORD, f"{self.pin.file}.sig")
            case PackagePin():
                return ()


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """An Entry that is in the archive: its ``content`` and its ``signature``, and the ``record`` as
    it is carried."""

    entry: Entry
    content: Path
    record: bytes = b""
    signature: Path | None = None


def entries_of(lock: RackLock) -> tuple[Entry, ...]:
    """All that ``lock`` pins, each folder once, in the order of the folders."""
    found = {entry.folder: entry for entry in reversed(list(_entries(lock)))}
    return tuple(found[folder] for folder in sorted(found))


def found(entry: Entry, cache: Cache) -> FoundEntry | None:
    """What the archive has of ``entry``; None when it is not here, or not signed by its key.

    Checks only what a full disk or a power cut damages. Raises NotAuthentic that names the file.
    """
    match entry.pin:
        case Pin() as pin:
            tarball = Archive(cache).find(pin.sha256, pin.fingerprint)
            if tarball is None:
                return None
            record = encode_record(tarball.record)
            return FoundEntry(entry, tarball.tarball, record, tarball.signature)
        case PacmanPin() as pin:
            package = PackageArchive(cache).find(entry.name, pin)
            if package is None:
                return None
            record = record_of(entry.name, pin)
            return FoundEntry(entry, package.path, record, package.signature)
        case PackagePin() as pin:
            python = archived_package(entry.name, cache, pin)
            if python is None:
                return None
            if python.size_bytes != pin.size_bytes:
                raise NotAuthentic(
                    f"{python.path} is damaged: {python.size_bytes} bytes instead of "
                    f"{pin.size_bytes}",
                    hint="run picloud-image fetch: it sets this aside and fetches it anew",
                )
            return FoundEntry(entry, python.path)


def _entries(lock: RackLock) -> Iterator[Entry]:
    for name, release in sorted(lock.pins.items()):
        yield Entry(EntryOrigin.RELEASE, name, release)
    for name, package in sorted(lock.pacman.items()):
        yield Entry(EntryOrigin.PACMAN, name, package)
    for name, python in sorted(lock.packages.items()):
        yield Entry(EntryOrigin.PYPI, name, python)
