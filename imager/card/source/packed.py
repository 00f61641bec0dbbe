"""How a source is packed, and what it says of its content before it is unpacked.

In: an Origin. Out: a Packing: the way to unpack it while it is read, and how large the image is,
where that is known. What cannot be an image, as a tar archive, is refused by name.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from imager.base.errors import MalformedRelease, NetworkError
from imager.base.run import require_tools
from imager.base.units import MiB
from imager.card.source.beside import PACKED_NAMES, file_name
from imager.card.source.origin import Origin
from imager.card.source.zip import zipped
from imager.disk.signature import Form, Recognised, signature_at
from imager.image.unpack.inflate import GZIP_MAGIC, Unpack
from imager.image.unpack.packings import PZSTD, way_of

LOOKED_AT = 70 * 1024
_XZ = b"\xfd7zXZ\x00"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_MOST_INDEX_BYTES = 16 * MiB
_NO_DISK = (Form.PACKED, Form.IMAGE, Form.TEXT, Form.OTHER)
_CALLED_PACKED = (*PACKED_NAMES, ".lzma", ".lz", ".lz4", ".7z", ".rar", ".tar", ".tgz")
_BOOT_MARK = (510, b"\x55\xaa")


@dataclass(frozen=True, slots=True)
class Packing:
    """``name`` is what it is called, empty for what is not packed. ``size_bytes`` is the size of
    the image where the file surely says it; it has at least ``least_bytes``. ``is_slow`` as of an
    ImageSource: zstd passes over 4 GiB in a second, xz over half a GiB."""

    name: str
    unpack: Unpack
    size_bytes: int | None = None
    least_bytes: int = 0
    is_slow: bool = True


def packing_in(origin: Origin) -> Packing:
    """How ``origin`` is packed. Raises MalformedRelease for what is no image or cannot be unpacked,
    MissingTool where a program is needed for it, and what looking at it raises."""
    head = origin.look(0, LOOKED_AT)
    if head.startswith(_ZIP):
        member = zipped(origin)
        return Packing("zip", member.unpack, member.size_bytes, member.size_bytes)
    unpack = way_of(head)
    if head.startswith(_XZ):
        size = _of_xz(origin)
        return Packing("xz", unpack, size, size or 0)
    if head.startswith((_ZSTD, PZSTD)):
        require_tools("zstd")
        least = _of_zstd(head) if head.startswith(_ZSTD) else 0
        return Packing("zstd", unpack, None, least, is_slow=False)
    if head.startswith(GZIP_MAGIC):
        return Packing("gzip", unpack, None, _of_gzip(origin))
    if head.startswith(b"BZh"):
        return Packing("bzip2", unpack)
    refuse_other_kinds(origin.name, head)
    _refuse_misnamed(origin, head)
    return Packing("", unpack, origin.size_bytes, origin.size_bytes or 0, is_slow=False)


def refuse_other_kinds(name: str, head: bytes) -> None:
    """Raise MalformedRelease for a file, or what is packed in it, that begins with ``head`` as no
    disk does; ``LOOKED_AT`` bytes tell it surely."""
    if not head:
        raise MalformedRelease(f"{name} is empty", hint="fetch it again")
    found = signature_at(lambda at, length: head[at : at + length], 0, len(head))
    if found is None or found.form not in _NO_DISK:
        return
    # A disk's first bytes are a program, and may look like any other.
    if found.form in (Form.TEXT, Form.OTHER) and head.startswith(_BOOT_MARK[1], _BOOT_MARK[0]):
        return
    raise MalformedRelease(f"{name} is no disk image: it is {found.kind}", hint=_instead(found))


def _refuse_misnamed(origin: Origin, head: bytes) -> None:
    """Raise MalformedRelease for a plain file that is called a packed one, unless a disk or a
    filesystem begins in it: programs that fetch files unpack some and leave the name as it was."""
    called = file_name(origin).casefold()
    suffix = next((end for end in _CALLED_PACKED if called.endswith(end)), "")
    found = signature_at(lambda at, length: head[at : at + length], 0, len(head))
    is_disk = head.startswith(_BOOT_MARK[1], _BOOT_MARK[0]) or (
        found is not None and found.form in (Form.FILESYSTEM, Form.CONTAINER, Form.SWAP)
    )
    if suffix and not is_disk:
        raise MalformedRelease(
            f"{origin.name} is called {suffix}, and is packed in no way that is known here",
            hint="fetch it again; if it is a plain image after all, call it .img",
        )


def _instead(found: Recognised) -> str:
    if found.form is Form.IMAGE:
        return "make a plain image of it: qemu-img convert -O raw"
    if found.form is Form.PACKED:
        return "unpack it, and give the image if there is one in it"
    if found.kind == "web page":
        return "give the address of the file itself"
    return "give a disk image"


def _end_of(origin: Origin, length: int) -> bytes:
    """The last ``length`` bytes; fewer, or none, where they cannot be had by themselves."""
    if origin.size_bytes is None:
        return b""
    start = max(0, origin.size_bytes - length)
    try:
        return origin.look(start, min(length, origin.size_bytes))
    except NetworkError:
        return b""


def _of_xz(origin: Origin) -> int | None:
    """The size of the content by the index at the end of the file (xz format 1.2.0, 2.1.2 and 4);
    None where that does not account for the whole file, which then has several streams."""
    size = origin.size_bytes
    footer = _end_of(origin, 12)
    if size is None or len(footer) < 12 or footer[10:] != b"YZ":
        return None
    index_bytes = (int.from_bytes(footer[4:8], "little") + 1) * 4
    if index_bytes > min(_MOST_INDEX_BYTES, size):
        return None
    index = _end_of(origin, 12 + index_bytes)[:-12]
    if zlib.crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        return None
    try:
        return _of_index(index, size - 24 - index_bytes)
    except (IndexError, ValueError):
        return None


def _of_index(index: bytes, blocks_bytes: int) -> int:
    position = 1

    def number() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = index[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("a number without an end")

    if index[0] != 0:
        raise ValueError("no index")
    packed = content = 0
    for _ in range(number()):
        packed += (number() + 3) // 4 * 4
        content += number()
    if packed != blocks_bytes:
        raise ValueError("not the blocks of the whole file")
    return content


def _of_zstd(head: bytes) -> int:
    """What the first frame says of its size (RFC 8878, 3.1.1.1); 0 where it does not."""
    descriptor = head[4] if len(head) > 4 else 0
    flag, single = descriptor >> 6, bool(descriptor & 0x20)
    width = (1 if single else 0, 2, 4, 8)[flag]
    start = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    value = int.from_bytes(head[start : start + width], "little")
    return value + 256 if width == 2 else value


def _of_gzip(origin: Origin) -> int:
    """What the last member says of its size, modulo 4 GiB (RFC 1952): the content has no less, if
    the file was not cut and has nothing behind its end."""
    end = _end_of(origin, 4)
    return struct.unpack("<I", end)[0] if len(end) == 4 else 0
