"""What begins at some byte of a disk or file, told by the marks of its format.

In: a way to read, and where. Out: a Recognised: a filesystem with its names, a disk image of
another form, something packed, text, nothing at all. It is told by a few bytes: whether the rest is
whole is another question. Marks: each format's own specification, as in libblkid and file(1).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from imager.base.units import MiB
from imager.disk.manifest import Reader
from imager.disk.padded import padded


class Form(StrEnum):
    """What can be done with it."""

    FILESYSTEM = "filesystem"
    CONTAINER = "container"
    """Holds a filesystem that only its own tool can reach: LUKS, LVM, RAID."""
    SWAP = "swap"
    PACKED = "packed"
    IMAGE = "image"
    """A disk image in another form than byte for byte."""
    TEXT = "text"
    NOTHING = "nothing"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Recognised:
    """``kind`` as a person calls it; ``uuid`` and ``label`` as /dev/disk/by-uuid and by-label
    have them, None where they are not read here."""

    kind: str
    form: Form
    uuid: str | None = None
    label: str | None = None


_HEAD_BYTES = 70 * 1024
_SWAP_PAGES = (4096, 8192, 16384, 65536)

_MAGICS: tuple[tuple[int, bytes, str, Form], ...] = (
    (0, b"\xfd7zXZ\0", "xz", Form.PACKED),
    (0, b"\x1f\x8b", "gzip", Form.PACKED),
    (0, b"BZh", "bzip2", Form.PACKED),
    (0, b"\x28\xb5\x2f\xfd", "zstd", Form.PACKED),
    (0, b"\x04\x22\x4d\x18", "lz4", Form.PACKED),
    (0, b"\x02\x21\x4c\x18", "lz4", Form.PACKED),
    (0, b"LZIP", "lzip", Form.PACKED),
    (0, b"\x89LZO\0\r\n", "lzop", Form.PACKED),
    (0, b"\x1f\x9d", "compress", Form.PACKED),
    (0, b"\x5d\0\0\x80\0\xff\xff\xff", "lzma", Form.PACKED),
    (0, b"PK\3\4", "zip", Form.PACKED),
    (0, b"PK\5\6", "zip", Form.PACKED),
    (0, b"7z\xbc\xaf\x27\x1c", "7z", Form.PACKED),
    (0, b"Rar!\x1a\7", "rar", Form.PACKED),
    (257, b"ustar", "tar", Form.PACKED),
    (0, b"070701", "cpio", Form.PACKED),
    (0, b"!<arch>\n", "ar (a .deb package)", Form.PACKED),
    (0, b"QFI\xfb", "qcow2", Form.IMAGE),
    (0, b"KDMV", "VMDK", Form.IMAGE),
    (0, b"COWD", "VMDK", Form.IMAGE),
    (0, b"# Disk DescriptorFile", "VMDK", Form.IMAGE),
    (64, b"\x7f\x10\xda\xbe", "VDI", Form.IMAGE),
    (0, b"vhdxfile", "VHDX", Form.IMAGE),
    (0, b"conectix", "VHD", Form.IMAGE),
    (0, b"\x3a\xff\x26\xed", "Android sparse image", Form.IMAGE),
    (0, b"hsqs", "squashfs", Form.FILESYSTEM),
    (0, b"\x45\x3d\xcd\x28", "cramfs", Form.FILESYSTEM),
    (0, b"-rom1fs-", "romfs", Form.FILESYSTEM),
    (0, b"UBI#", "UBI", Form.CONTAINER),
    (3, b"NTFS    ", "NTFS", Form.FILESYSTEM),
    (3, b"EXFAT   ", "exFAT", Form.FILESYSTEM),
    (536, b"LVM2 001", "LVM", Form.CONTAINER),
    (4096, b"\xfc\x4e\x2b\xa9", "RAID", Form.CONTAINER),
    (0, b"\xfc\x4e\x2b\xa9", "RAID", Form.CONTAINER),
    (32769, b"CD001", "ISO 9660", Form.FILESYSTEM),
    (0, b"\x7fELF", "program (ELF)", Form.OTHER),
    (0, b"MZ", "program of Windows, or a kernel for EFI", Form.OTHER),
    (0, b"%PDF", "PDF", Form.OTHER),
    (0, b"\xd0\x0d\xfe\xed", "device tree", Form.OTHER),
    (0, b"\x27\x05\x19\x56", "U-Boot image", Form.OTHER),
)


def signature_at(read: Reader, offset: int, length: int) -> Recognised | None:
    """What begins at byte ``offset`` and has ``length`` bytes; None for what no mark tells."""
    if length <= 0:
        return Recognised("nothing: it is empty", Form.NOTHING)
    head = padded(read, offset + length)(offset, _HEAD_BYTES)
    for tell in _WITH_NAMES:
        found = tell(head)
        if found is not None:
            return found
    for at, magic, kind, form in _MAGICS:
        if head.startswith(magic, at):
            return Recognised(kind, form)
    if length > 512 and read(offset + length - 512, 8) == b"conectix":
        return Recognised("VHD", Form.IMAGE)
    return _plain(read, offset, min(length, MiB))


def _plain(read: Reader, offset: int, length: int) -> Recognised | None:
    """Something that has no marks: one value all over, or text."""
    data = read(offset, length)
    for value, name in ((0, "only zeros"), (0xFF, "only bytes FF")):
        if data.count(value) == len(data):
            return Recognised(name, Form.NOTHING)
    start = data[:4096]
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in start):
        return None
    try:
        text = start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:
            return None
        text = start[: error.start].decode("utf-8-sig")
    page = text.lstrip()[:200].casefold()
    if page.startswith(("<!doctype html", "<html")):
        return Recognised("web page", Form.TEXT)
    return Recognised("text", Form.TEXT)


def _ext(head: bytes) -> Recognised | None:
    if head[1080:1082] != b"\x53\xef" or head[1049:1052] != bytes(3) or head[1101:1104] != bytes(3):
        return None  # the block size and the revision are small numbers
    compat, incompat = (int.from_bytes(head[at : at + 4], "little") for at in (1116, 1120))
    kind = "ext4" if incompat & 0x2C0 else "ext3" if compat & 4 else "ext2"
    label = _text(head[1144:1160])
    if incompat & 8:
        return Recognised("journal of another ext4", Form.CONTAINER, _uuid(head[1128:1144]), label)
    return Recognised(kind, Form.FILESYSTEM, _uuid(head[1128:1144]), label)


def _fat(head: bytes) -> Recognised | None:
    for kind, at in ((b"FAT32   ", 82), (b"FAT1", 54), (b"FAT     ", 54)):
        if head[510:512] == b"\x55\xaa" and head.startswith(kind, at):
            low, high = (int.from_bytes(head[p : p + 2], "little") for p in (at - 15, at - 13))
            name = head[at : at + 8].decode("latin-1").strip()
            return Recognised(name, Form.FILESYSTEM, f"{high:04X}-{low:04X}")
    return None


def _swap(head: bytes) -> Recognised | None:
    for page in _SWAP_PAGES:
        if head[page - 10 : page] in (b"SWAPSPACE2", b"SWAP-SPACE"):
            return Recognised("swap", Form.SWAP, _uuid(head[1036:1052]), _text(head[1052:1068]))
    return None


def _luks(head: bytes) -> Recognised | None:
    if not head.startswith(b"LUKS\xba\xbe"):
        return None
    return Recognised("LUKS", Form.CONTAINER, _text(head[168:208]))


def _btrfs(head: bytes) -> Recognised | None:
    at = 65536
    if head[at + 64 : at + 72] != b"_BHRfS_M":
        return None
    label = _text(head[at + 299 : at + 299 + 256])
    return Recognised("btrfs", Form.FILESYSTEM, _uuid(head[at + 32 : at + 48]), label)


def _xfs(head: bytes) -> Recognised | None:
    if not head.startswith(b"XFSB"):
        return None
    return Recognised("XFS", Form.FILESYSTEM, _uuid(head[32:48]), _text(head[108:120]))


def _f2fs(head: bytes) -> Recognised | None:
    if head[1024:1028] != b"\x10\x20\xf5\xf2":
        return None
    label = head[1148 : 1148 + 1024].decode("utf-16-le", "replace").split("\0")[0]
    return Recognised("F2FS", Form.FILESYSTEM, _uuid(head[1132:1148]), label)


def _erofs(head: bytes) -> Recognised | None:
    if head[1024:1028] != b"\xe2\xe1\xf5\xe0":
        return None
    return Recognised("EROFS", Form.FILESYSTEM, _uuid(head[1072:1088]), _text(head[1088:1104]))


_WITH_NAMES: tuple[Callable[[bytes], Recognised | None], ...] = (
    _luks, _btrfs, _xfs, _f2fs, _erofs, _swap, _ext, _fat,
)  # fmt: skip


def _uuid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw))


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace")
