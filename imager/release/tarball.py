"""A tar archive from outside, read member by member, and what a release's must have to be one.

In: a file, packed or not. Out: its members; or MalformedRelease, which says what it is instead. The
bytes may be a stranger's, and a few kilobytes of them can become gigabytes: what is unpacked here
has an end. (What is composed is read by ``image.unpack``, which takes everything out.)
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from io import SEEK_SET, BufferedIOBase, BufferedReader, RawIOBase
from pathlib import Path
from typing import BinaryIO, cast

from imager.base.errors import MalformedRelease
from imager.base.trusted_folder import kept_file
from imager.base.units import GiB, KiB, MiB, format_chosen

UNREADABLE = (
    *(tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError, RecursionError),
    OverflowError,
)
"""What reading an archive that is damaged, or made to do harm, may raise."""
LARGEST_RELEASE = 64 * GiB
"""Bytes, unpacked."""
_MOST_MEMBERS = 400_000
_LARGEST_HEADER = 16 * MiB
XZ_MEMORY = 128 * MiB
"""Twice what the strongest preset, xz -9, needs (xz(1)); a header of 40 bytes can claim 4 GiB."""
_XZ_PIECE = 64 * KiB
_OPENERS: Mapping[bytes, Callable[[BinaryIO], BufferedIOBase]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"\xfd7zXZ": lambda file: BufferedReader(_Xz(file), _XZ_PIECE),
    b"BZh": bz2.BZ2File,
}
_MAGIC_BYTES = 6
_ROOTS = {"etc", "boot"}
"""Folders that every release has. The distribution's tarball has them among its first."""
_ABOUT_PACKAGE = ".PKGINFO"
"""What makes an archive a package of pacman (makepkg(8)); it is among the first members."""
_CALLED = re.compile(r"^pkg(?:name|ver) = (\S+)", re.MULTILINE)
_LARGEST_ABOUT = MiB


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


def members_of(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Its members, none of which is remembered. Raises ValueError where there are too many."""
    count = 0
    while (info := archive.next()) is not None:
        vars(archive)["members"].clear()  # tarfile keeps every header otherwise
        count += 1
        if count > _MOST_MEMBERS:
            raise ValueError("it has too many files")
        yield info


def require_release(tarball: Path, url: str) -> None:
    """Raise MalformedRelease unless the file that came from ``url`` looks like a release. A key
    signs other files, too, packages above all; whoever is on the way can give one of those.

    It is read until both folders were seen.
    """
    missing = set(_ROOTS)
    try:
        with kept_file(tarball) as file, archive_of(Unpacked(file, LARGEST_RELEASE)) as archive:
            for info in members_of(archive):
                first = info.name.removeprefix("./").partition("/")[0]
                if first == _ABOUT_PACKAGE:
                    about = archive.extractfile(info)
                    said = about.read(_LARGEST_ABOUT).decode(errors="replace") if about else ""
                    raise _no_release(url, f"it is the package {' '.join(_CALLED.findall(said))}")
                missing.discard(first)
                if not missing:
                    return
    except (*UNREADABLE, ValueError) as error:
        raise _no_release(url, f"it cannot be read: {error or 'it ends early'}") from error
    raise _no_release(url, f"it has no {' and no '.join(sorted(missing))}")


def _no_release(url: str, why: str) -> MalformedRelease:
    return MalformedRelease(
        f"{url} is signed by the right key and is no release: {why}",
        hint="it was not pinned; look whether that is the address of the release's own tarball, "
        "else try again later, or another mirror",
    )
