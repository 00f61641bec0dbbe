"""What a pacman package says of itself, in its own archive and in pacman's databases.

In: a package's file, or the text of a description. Out: its fields, and a PacmanPackage. The bytes
may be a stranger's: what is unpacked has an end. Sources: PKGINFO as makepkg(8) writes it; local
and sync databases as libalpm (be_local.c, be_sync.c) and repo-add(8) write them.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import SEEK_SET, BufferedIOBase, BufferedReader, BytesIO, RawIOBase
from typing import BinaryIO, cast

from imager.base.run import running
from imager.base.units import GiB, KiB, MiB, format_chosen

UNREADABLE = (
    *(tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError, RecursionError),
    OverflowError,
)
"""What reading an archive that is damaged, or made to do harm, may raise."""
LARGEST_TEXT = MiB
_BOUND = re.compile(r"[<>=].*")
_LARGEST_HEADER = 16 * MiB
_FIRST_MEMBERS = 64 * MiB
"""What is before .PKGINFO and it itself."""
XZ_MEMORY = 128 * MiB
"""Twice what the strongest preset, xz -9, needs (xz(1)); a header of 40 bytes can claim 4 GiB."""
_XZ_PIECE = 64 * KiB
_OPENERS: Mapping[bytes, Callable[[BinaryIO], BufferedIOBase]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"\xfd7zXZ": lambda file: BufferedReader(_Xz(file), _XZ_PIECE),
    b"BZh": bz2.BZ2File,
}
_MAGIC_BYTES = 6
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


class _Xz(RawIOBase):
    """The content of a file of xz, as lzma.LZMAFile has it, but in no more memory than XZ_MEMORY.
    Raises LZMAError for what needs more, and EOFError for what ends early."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begin()

    def _begin(self) -> None:
        self._file.seek(0)
        self._stream = _xz_stream()
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = SEEK_SET) -> int:
        if whence != SEEK_SET:
            raise OSError("the end of what is packed is not known")
        if position < self._position:
            self._begin()
        while self._position < position and self._piece(min(position - self._position, _XZ_PIECE)):
            pass
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        piece = self._piece(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _piece(self, most_bytes: int) -> bytes:
        """What comes next; empty at the end. There may be several streams, and zeros after each."""
        while True:
            data = b""
            if self._stream.eof:
                data = self._stream.unused_data.lstrip(b"\0")
                while not data:
                    read = self._file.read(_XZ_PIECE)
                    if not read:
                        return b""
                    data = read.lstrip(b"\0")
                self._stream = _xz_stream()
            elif self._stream.needs_input:
                data = self._file.read(_XZ_PIECE)
                if not data:
                    raise EOFError("it ends in the middle")
            piece = self._stream.decompress(data, most_bytes)
            if piece:
                self._position += len(piece)
                return piece


def _xz_stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


class Unpacked:
    """An archive, unpacked as ``tarfile`` reads it, but not without end: a few kilobytes can become
    gigabytes, and a header is read into memory. Raises tarfile.ReadError for those, and for what
    does not go on."""

    def __init__(self, file: BinaryIO, most_bytes: int = GiB) -> None:
        magic = file.read(_MAGIC_BYTES)
        file.seek(0)
        opener = next((way for key, way in _OPENERS.items() if magic.startswith(key)), None)
        self._file = opener(file) if opener else cast("BufferedIOBase", file)
        self._most = most_bytes

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int) -> int:
        # Between two members tarfile goes back by one byte, to see that it is there. A member of
        # less than no bytes would have it read one header for ever.
        if position < self.tell() - 1:
            raise tarfile.ReadError("a member ends before it begins")
        self._bound(position)
        return self._file.seek(position)

    def read(self, length: int) -> bytes:
        if length > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header claims {length} bytes")
        self._bound(self.tell() + length)
        return self._file.read(length)

    def _bound(self, position: int) -> None:
        if position > self._most:
            raise tarfile.ReadError(f"it unpacks to more than {format_chosen(self._most)}")


def archive_of(unpacked: Unpacked) -> tarfile.TarFile:
    """The tar archive that is unpacked so."""
    return tarfile.open(fileobj=unpacked, mode="r:")  # type: ignore[call-overload, no-any-return]


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
        return BytesIO(child.stdout.read(_LARGEST_HEADER) if child.stdout else b"")


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
