"""What a pacman package says of itself, in its own archive and in pacman's databases.

In: a package's file, or the text of a description. Out: its fields, and a PacmanPackage. The bytes
may be a stranger's: what is unpacked has an end. Sources: PKGINFO as makepkg(8) writes it; local
and sync databases as libalpm (be_local.c, be_sync.c) and repo-add(8) write them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from imager.base.run import running
from imager.base.units import MiB
from imager.release.tarball import Unpacked, archive_of

LARGEST_TEXT = MiB
_BOUND = re.compile(r"[<>=].*")
_LARGEST_START = 16 * MiB
_FIRST_MEMBERS = 64 * MiB
"""What is before .PKGINFO and it itself."""
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class PacmanPackage:
    """A package's own description. ``version`` includes the release number; ``depends`` and
    ``provides`` are names without versions."""

    name: str
    version: str
    arch: str
    depends: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def names(self) -> tuple[str, ...]:
        """What other packages may depend on."""
        return (self.name, *self.provides)


def read_pkginfo(file: BinaryIO) -> dict[str, list[str]]:
    """The fields of the .PKGINFO in the package ``file``, read no further than that.

    Raises ValueError when there is none, and one of UNREADABLE.
    """
    with archive_of(Unpacked(_without_zstd(file), _FIRST_MEMBERS)) as archive:
        for info in archive:
            if info.name == ".PKGINFO" and info.isreg():
                found = archive.extractfile(info)
                text = found.read(LARGEST_TEXT) if found else b""
                return pkginfo_fields(text.decode(errors="replace"))
    raise ValueError("it has no .PKGINFO")


def _without_zstd(file: BinaryIO) -> BinaryIO:
    """``file``, or where it is packed by zstd(1), which Python cannot unpack before 3.14, the
    beginning of its content: .PKGINFO is among the first members."""
    magic = file.read(len(_ZSTD))
    file.seek(0)
    if magic != _ZSTD:
        return file
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # zstd does not see what was read ahead
    with running(["zstd", "-dcq"], stdin=file.fileno()) as child:
        return BytesIO(child.stdout.read(_LARGEST_START) if child.stdout else b"")


def pkginfo_fields(text: str) -> dict[str, list[str]]:
    """.PKGINFO, lines of ``key = value``: each key's values in their order."""
    facts: dict[str, list[str]] = {}
    for line in text.split("\n"):
        key, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            facts.setdefault(key.strip(), []).append(value.strip())
    return facts


def description_fields(text: str) -> dict[str, list[str]]:
    """``desc`` of a database: ``%KEY%``, its values line by line, an empty line."""
    facts: dict[str, list[str]] = {}
    values: list[str] = []
    for line in text.split("\n"):
        if line.startswith("%"):
            values = facts.setdefault(line.strip("%"), [])
        elif line:
            values.append(line)
    return facts


def parse_pkginfo(text: str) -> PacmanPackage:
    """The package of a .PKGINFO; raises ValueError when a line is missing."""
    return _package(pkginfo_fields(text), ("pkgname", "pkgver", "arch", "depend", "provides"))


def parse_description(text: str) -> PacmanPackage:
    """The installed package of a ``desc``; raises ValueError when a key is missing."""
    return _package(description_fields(text), ("NAME", "VERSION", "ARCH", "DEPENDS", "PROVIDES"))


def without_bound(word: str) -> str:
    """``openssl`` for a dependency such as ``openssl>=3.7``."""
    return _BOUND.sub("", word).strip()


def _package(
    facts: Mapping[str, Sequence[str]], keys: tuple[str, str, str, str, str]
) -> PacmanPackage:
    for key in keys[:3]:
        if not facts.get(key) or not facts[key][0]:
            raise ValueError(f"it does not tell its {key}")
    name, version, arch = (facts[key][0] for key in keys[:3])
    depends, provides = (
        tuple(without_bound(word) for word in facts.get(key, ())) for key in keys[3:]
    )
    return PacmanPackage(name, version, arch, depends, provides)
