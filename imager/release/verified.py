"""The types that stand for proof: a release whose signature and bytes were checked, and a Salt
whose bytes are those the rack pinned.

Only ``imager.release`` makes one, from the content-addressed archive.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    """A Python package in the archive, as PyPI publishes it: a source release or a wheel, whose
    bytes have the hash ``sha256`` that the rack pins."""

    name: str
    version: str
    sha256: str
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A pacman package, or the signature of one, in a folder of the rack: ``name`` is the file's
    name. Nobody vouches for it but the person who put it there; pacman checks signatures."""

    name: str
    sha256: str
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class VerifiedSalt:
    """The Salt for the cards: its ``source`` release, the ``wheels`` of pure Python packages that
    go on the card beside it, and the ``bundle`` of pacman packages that first boot installs, which
    bring what the release lacks for it."""

    source: VerifiedPackage
    wheels: tuple[VerifiedPackage, ...]
    bundle: tuple[PackageFile, ...] = ()

    @property
    def version(self) -> str:
        return self.source.version

    @property
    def packages(self) -> tuple[VerifiedPackage, ...]:
        """What is published on PyPI and pinned."""
        return (self.source, *self.wheels)
