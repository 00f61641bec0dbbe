"""Every mark at its very byte, also of formats whose tools are not at hand."""

from __future__ import annotations

import uuid

import pytest

from imager.disk.padded import padded
from imager.disk.signature import Form, Recognised, signature_at

UUID = uuid.UUID(bytes=bytes(range(0x31, 0x41)))
RAW, NAME = UUID.bytes, str(UUID)


def disk(pieces: dict[int, bytes]) -> bytes:
    """70 KiB of ``~`` with these pieces, so that a byte too many is seen."""
    data = bytearray(b"~" * 70 * 1024)
    for at, piece in pieces.items():
        data[at : at + len(piece)] = piece
    return bytes(data)


def told(data: bytes) -> Recognised | None:
    return signature_at(padded(lambda at, n: data[at : at + n], len(data)), 0, len(data))


MARKS = [
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
]


@pytest.mark.parametrize(("at", "magic", "kind", "form"), MARKS, ids=[m[2] for m in MARKS])
def test_a_mark_counts_at_its_own_place(at: int, magic: bytes, kind: str, form: Form) -> None:
    assert told(disk({at: magic})) == Recognised(kind, form)
    beside = told(disk({at + 1: magic}))
    assert beside is None or beside.form is Form.TEXT


def ext(compat: int, incompat: int) -> dict[int, bytes]:
    return {
        1048: b"\2\0\0\0", 1080: b"\x53\xef", 1100: b"\1\0\0\0",
        1116: compat.to_bytes(4, "little"), 1120: incompat.to_bytes(4, "little"),
        1128: RAW, 1144: b"0123456789abcdef",
    }  # fmt: skip


LABEL = "0123456789abcdef"
FILESYSTEM, CONTAINER = Form.FILESYSTEM, Form.CONTAINER
NAMED: dict[str, tuple[dict[int, bytes], Recognised]] = {
    "ext2": (ext(0xFFFFFFFB, 0xFFFFFD37), Recognised("ext2", FILESYSTEM, NAME, LABEL)),
    "ext3": (ext(4, 0), Recognised("ext3", FILESYSTEM, NAME, LABEL)),
    "ext4 extents": (ext(4, 0x40), Recognised("ext4", FILESYSTEM, NAME, LABEL)),
    "ext4 64bit": (ext(0, 0x80), Recognised("ext4", FILESYSTEM, NAME, LABEL)),
    "ext4 flex_bg": (ext(4, 0x200), Recognised("ext4", FILESYSTEM, NAME, LABEL)),
    "ext journal": (ext(0, 8), Recognised("journal of another ext4", CONTAINER, NAME, LABEL)),
    "FAT32": ({510: b"\x55\xaa", 82: b"FAT32   ", 67: b"\1\2\3\4"},
              Recognised("FAT32", FILESYSTEM, "0403-0201")),
    "FAT16": ({510: b"\x55\xaa", 54: b"FAT16   ", 39: b"\1\2\3\4"},
              Recognised("FAT16", FILESYSTEM, "0403-0201")),
    "FAT12": ({510: b"\x55\xaa", 54: b"FAT12abc", 39: b"\1\2\3\4"},
              Recognised("FAT12abc", FILESYSTEM, "0403-0201")),
    "FAT": ({510: b"\x55\xaa", 54: b"FAT     ", 39: b"\1\2\3\4"},
            Recognised("FAT", FILESYSTEM, "0403-0201")),
    **{
        f"swap {page}": ({1036: RAW, 1052: LABEL.encode(), page - 10: b"SWAPSPACE2"},
                         Recognised("swap", Form.SWAP, NAME, LABEL))
        for page in (4096, 8192, 16384, 65536)
    },
    "old swap": ({1036: RAW, 1052: b"a\0b\0", 4086: b"SWAP-SPACE"},
                 Recognised("swap", Form.SWAP, NAME, "a")),
    "LUKS": ({0: b"LUKS\xba\xbe", 168: b"u" * 40}, Recognised("LUKS", CONTAINER, "u" * 40)),
    "btrfs": ({65600: b"_BHRfS_M", 65568: RAW, 65835: b"l" * 256},
              Recognised("btrfs", FILESYSTEM, NAME, "l" * 256)),
    "XFS": ({0: b"XFSB", 32: RAW, 108: b"0123456789ab"},
            Recognised("XFS", FILESYSTEM, NAME, "0123456789ab")),
    "F2FS": ({1024: b"\x10\x20\xf5\xf2", 1132: RAW, 1148: "f".encode("utf-16-le") * 512},
             Recognised("F2FS", FILESYSTEM, NAME, "f" * 512)),
    "F2FS short": ({1024: b"\x10\x20\xf5\xf2", 1132: RAW, 1148: "f\0g\0h".encode("utf-16-le")},
                   Recognised("F2FS", FILESYSTEM, NAME, "f")),
    "EROFS": ({1024: b"\xe2\xe1\xf5\xe0", 1072: RAW, 1088: LABEL.encode()},
              Recognised("EROFS", FILESYSTEM, NAME, LABEL)),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_a_filesystem_has_its_names_to_the_byte(name: str) -> None:
    pieces, expected = NAMED[name]
    assert told(disk(pieces)) == expected
    assert told(disk({at + 1: piece for at, piece in pieces.items()})) != expected


@pytest.mark.parametrize("at", [1049, 1050, 1051, 1080, 1081, 1101, 1102, 1103])
def test_a_superblock_of_ext_has_a_small_block_size_and_revision(at: int) -> None:
    found = told(disk(ext(4, 0x40) | {at: b"\7"}))
    assert found is None or found.form is Form.TEXT


@pytest.mark.parametrize("at", [510, 511])
def test_a_fat_ends_its_first_sector_with_55_aa(at: int) -> None:
    found = told(disk({510: b"\x55\xaa", 82: b"FAT32   "} | {at: b"~"}))
    assert found is None or found.form is Form.TEXT


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\t\n\r\f\x1b x" * 9, True),
        (b"x\x1fx", False),
        (b"x" * 4095 + b"\0", False),
        (b"x" * 4096 + b"\0", True),
        (b"x" * 4093 + b"\xf0\x9f\x98\x80", True),
        (b"x" * 4092 + b"\xf0xxx", False),
        (b"x\xffxxxx", False),
    ],
)
def test_text_has_no_control_characters_and_is_utf8(data: bytes, text: bool) -> None:
    assert told(data) == (Recognised("text", Form.TEXT) if text else None)


@pytest.mark.parametrize("head", ["<!DOCTYPE html>", "<HTML lang=de>", "  \n<html>"])
def test_a_page_of_the_web_is_told_from_other_text(head: str) -> None:
    assert told(head.encode() + b" 404") == Recognised("web page", Form.TEXT)
    assert told(b"x" + head.encode()) == Recognised("text", Form.TEXT)


def test_a_fixed_vhd_has_its_mark_in_the_last_sector() -> None:
    data = bytes(1024) + b"conectix" + bytes(504)
    assert told(data) == Recognised("VHD", Form.IMAGE)
    assert told(data + bytes(1)) is None
    assert told(bytes(512)) == Recognised("only zeros", Form.NOTHING)


def test_a_single_byte_is_something() -> None:
    assert told(b"x") == Recognised("text", Form.TEXT)
    assert told(b"\0") == Recognised("only zeros", Form.NOTHING)
    assert told(b"") == Recognised("nothing: it is empty", Form.NOTHING)
