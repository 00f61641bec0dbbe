"""Types whose values are proven: a pacman package in the archive, and all that nodes have of them.

In: nothing; only ``imager.packages`` makes such values, of what is in its archive. Out: where the
files are, and what is to become of them. Who has such a value need not check again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class VerifiedPacman:
    """A pacman package in the archive, proven by its detached signature and the pinned key.

    ``version`` includes epoch and release number (``1:3.14.7-2``), ``file_name`` is its name on
    the mirror, ``signer`` the OpenPGP primary key that signed it (40 hex digits, upper case).
    ``path`` and ``signature`` are files in the archive.
    """

    name: str
    version: str
    arch: str
    file_name: str
    sha256: str
    size_bytes: int
    signer: str
    path: Path
    signature: Path


@dataclass(frozen=True, slots=True)
class PackageSet:
    """What a group of nodes has beyond its release.

    ``install`` are all packages to install, in an order in which what is needed comes first.
    ``remove`` are names of packages of the release that the nodes do not have. ``explicit`` are
    the names that a person, or Salt, asked for; the others are dependencies. ``enable`` are names
    of systemd units.
    """

    install: tuple[VerifiedPacman, ...]
    remove: tuple[str, ...] = ()
    explicit: frozenset[str] = frozenset()
    enable: tuple[str, ...] = ()
