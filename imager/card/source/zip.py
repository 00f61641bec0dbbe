"""The one image in a zip file, unpacked while the file is read once from its beginning.

In: an Origin. Out: where the packed image lies in it, and how to unpack it. The directory at the
end of the file is read first: what is no image, or more than one, is refused before anything is
written.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from imager.base.errors import MalformedRelease
from imager.base.units import MiB, align_down
from imager.card.source.origin import Origin
from imager.image.unpack.inflate import PackingError

_MOST_ENTRIES = 1000
_LOCAL_HEADER = 30
_LOCAL_MARK = b"PK\x03\x04"
_LOOK_BYTES = 64 * 1024
_MOST_DIRECTORY_BYTES = 4 * MiB
_SAID_BEHIND = 1 << 3
"""The flag of a file of which sizes and checksum are told behind its data (APPNOTE.TXT, 4.4.4)."""
_MOST_DEFLATED = 1032
"""No byte of deflate becomes more (zlib's technical details)."""
_BESIDE = (".txt", ".md", ".sha256", ".sha512", ".sig", ".asc", ".pdf", ".html", ".bmap", ".json")


@dataclass(frozen=True, slots=True)
class ZippedImage:
    """The image's bytes lie packed from byte ``start`` of the file on."""

    name: str
    start: int
    packed_bytes: int
    size_bytes: int
    crc: int
    is_deflated: bool

    def unpack(self, blocks: Iterator[bytes]) -> Generator[bytes]:
        """See Unpack; also reads what lies behind the image."""
        position, done, crc = 0, 0, 0
        inflate = zlib.decompressobj(-15)
        end = self.start + self.packed_bytes
        for block in blocks:
            low, high = max(self.start, position), min(end, position + len(block))
            waiting = block[low - position : high - position] if low < high else b""
            position += len(block)
            while waiting:
                try:
                    chunk = inflate.decompress(waiting, MiB) if self.is_deflated else waiting
                except zlib.error as error:
                    raise PackingError(f"{self.name}: {error} before its byte {high}") from error
                waiting = inflate.unconsumed_tail if self.is_deflated else b""
                done, crc = done + len(chunk), zlib.crc32(chunk, crc)
                if done > self.size_bytes:
                    raise PackingError(f"{self.name} is longer than the {self.size_bytes} it says")
                if chunk:
                    yield chunk
        if (rest := inflate.flush()) and self.is_deflated:
            done, crc = done + len(rest), zlib.crc32(rest, crc)
            yield rest
        if done != self.size_bytes or (self.is_deflated and not inflate.eof):
            raise PackingError(f"{self.name} ends after {done} of {self.size_bytes} bytes")
        if crc != self.crc:
            raise PackingError(f"{self.name} does not fit its checksum")


def zipped(origin: Origin) -> ZippedImage:
    """The image in a zip file; raises MalformedRelease where there is not exactly one that can be
    unpacked."""
    try:
        with zipfile.ZipFile(_Seekable(origin)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise MalformedRelease(
            f"{origin.name}: it is no whole zip file: {error}", hint="fetch it again"
        ) from error
    one = _the_image(origin.name, entries)
    # The directory may name any place, also one before the file or past what a file can have.
    last = (origin.size_bytes or 0) - _LOCAL_HEADER
    at = one.header_offset
    header = origin.look(at, _LOCAL_HEADER) if 0 <= at <= last else b""
    if not header.startswith(_LOCAL_MARK):
        raise MalformedRelease(
            f"{origin.name}: {one.filename} is not where the zip file says", hint="fetch it again"
        )
    _require_one_story(origin.name, one, header)
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return ZippedImage(
        one.filename,
        at + _LOCAL_HEADER + names,
        one.compress_size,
        one.file_size,
        one.CRC,
        one.compress_type == zipfile.ZIP_DEFLATED,
    )


def _the_image(name: str, entries: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    if len(entries) > _MOST_ENTRIES:
        raise MalformedRelease(
            f"{name}: it holds {len(entries)} files", hint="unpack it and give the image in it"
        )
    images = [entry for entry in entries if _may_be_image(entry.filename)]
    if len(images) != 1:
        raise MalformedRelease(
            f"{name}: it holds {len(images)} files that could be the image, not one",
            hint="unpack it and give the image itself",
            details=[one.filename for one in images[:20]],
        )
    (one,) = images
    parts = one.filename.replace("\\", "/").split("/")
    if ".." in parts or not parts[0]:
        raise MalformedRelease(
            f"{name}: {one.filename!r} leads out of the zip file",
            hint="somebody means harm; get the image elsewhere",
        )
    if one.flag_bits & 1:
        raise MalformedRelease(
            f"{name}: {one.filename} is locked with a password",
            hint="unpack it and give the image itself",
        )
    if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise MalformedRelease(
            f"{name}: {one.filename} is packed in a way that is not known here",
            hint="unpack it and give the image itself",
        )
    return one


def _may_be_image(name: str) -> bool:
    """No folder, no text or sums, and nothing that macOS puts into each zip file of its own: a file
    that begins with a dot, or lies in ``__MACOSX``."""
    folder, _, base = name.rpartition("/")
    of_macos = folder.split("/")[0] == "__MACOSX" or base.startswith(".")
    return bool(base) and not of_macos and not base.lower().endswith(_BESIDE)


def _require_one_story(name: str, one: zipfile.ZipInfo, header: bytes) -> None:
    """What the directory says of the image must be possible, and what is said where it begins:
    before it is unpacked its size decides which card is too small."""
    flags, *told = struct.unpack("<6xH6xIII4x", header)
    known = not flags & _SAID_BEHIND and 0xFFFFFFFF not in told
    packed, size = one.compress_size, one.file_size
    most = packed * _MOST_DEFLATED if one.compress_type == zipfile.ZIP_DEFLATED else packed
    if size > most or (known and told != [one.CRC, packed, size]):
        raise MalformedRelease(
            f"{name}: its directory is wrong about {one.filename}: {size} bytes of {packed} packed",
            hint="fetch it again",
        )


class _Seekable(io.RawIOBase):
    """An Origin as zipfile wants it, which reads only the directory at its end."""

    def __init__(self, origin: Origin) -> None:
        if origin.size_bytes is None:
            raise ValueError("the server does not say how large it is")
        self._origin, self._size, self._position = origin, origin.size_bytes, 0
        self._windows: dict[int, bytes] = {}

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("before its beginning")
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        length = max(0, self._size - self._position)
        length = length if size is None or size < 0 else min(size, length)
        if length > _MOST_DIRECTORY_BYTES:
            raise ValueError("its directory is larger than that of any image")
        found = bytearray()
        while len(found) < length:
            at = self._position + len(found)
            window = align_down(at, _LOOK_BYTES)
            if window not in self._windows:
                self._windows[window] = self._origin.look(window, _LOOK_BYTES)
            piece = self._windows[window][at - window :]
            if not piece:
                break
            found += piece
        del found[length:]
        self._position += len(found)
        return bytes(found)
