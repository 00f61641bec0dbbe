"""Types whose values are proven: a release with a checked signature, and a Salt with pinned bytes.

In: nothing; only ``imager.release`` makes such values, of what is in its archive. Out: where the
files are. Who has such a value need not check again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A signed root-filesystem tarball in the archive.

    ``name`` is the built-in name or the tarball's stem, ``models`` the boards it boots (``pi2``…),
    ``sha256`` the hex digest of the tarball, which also names its folder in the archive,
    ``fingerprint`` the OpenPGP primary key that signed it (40 hex digits, upper case).
    """

    name: str
    models: tuple[str, ...]
    sha256: str
    tarball: Path
    size_bytes: int
    fingerprint: str
    source_url: str
    fetched_at: str


@dataclass(frozen=True, slots=True)
class VerifiedPackage:
    """A Python package in the archive: a source release or a wheel from PyPI, whose bytes have the
    SHA-256 that the rack pins. ``fetched`` says that this run fetched it."""

    name: str
    version: str
    sha256: str
    path: Path
    size_bytes: int
    fetched: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A pacman package, or the signature of one, in a folder of the rack; ``name`` is the file's
    name. It is not proven here: the person put it there, and pacman checks signatures."""

    name: str
    sha256: str
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class VerifiedSalt:
    """The Salt for the cards: its ``source`` release, the ``wheels`` of Python packages that go on
    the card with it, and the ``bundle`` of pacman packages with what the release lacks, which are
    installed at first boot."""

    source: VerifiedPackage
    wheels: tuple[VerifiedPackage, ...]
    bundle: tuple[PackageFile, ...] = ()

    @property
    def version(self) -> str:
        return self.source.version

    @property
    def packages(self) -> tuple[VerifiedPackage, ...]:
        """All packages from PyPI: the source release and the wheels."""
        return (self.source, *self.wheels)
