"""What begins somewhere is told as the tools that made it call it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.run import run
from imager.base.units import MiB
from imager.disk.padded import padded
from imager.disk.signature import Form, Recognised, signature_at
from tests.support.bootdisk import reading
from tests.support.fatdisk import tool


def told(data: bytes) -> Recognised | None:
    return signature_at(padded(lambda at, n: data[at : at + n], len(data)), 0, len(data))


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("card.img", b"x")
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("card.img"))
    return stream.getvalue()


BYTES: dict[str, tuple[bytes, str, Form]] = {
    "gzip": (gzip.compress(b"x"), "gzip", Form.PACKED),
    "xz": (lzma.compress(b"x"), "xz", Form.PACKED),
    "lzma": (lzma.compress(b"x", format=lzma.FORMAT_ALONE), "lzma", Form.PACKED),
    "bzip2": (bz2.compress(b"x"), "bzip2", Form.PACKED),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(20), "zstd", Form.PACKED),
    "zip": (zipped(), "zip", Form.PACKED),
    "tar": (tarred(), "tar", Form.PACKED),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(26), "7z", Form.PACKED),
    "rar": (b"Rar!\x1a\7\1\0" + bytes(9), "rar", Form.PACKED),
    "qcow2": (b"QFI\xfb\0\0\0\3" + bytes(96), "qcow2", Form.IMAGE),
    "vmdk": (b"KDMV" + bytes(508), "VMDK", Form.IMAGE),
    "vmdk text": (b"# Disk DescriptorFile\nversion=1\n", "VMDK", Form.IMAGE),
    "vdi": (b"<<< Oracle VM >>>".ljust(64) + b"\x7f\x10\xda\xbe" + bytes(9), "VDI", Form.IMAGE),
    "vhdx": (b"vhdxfile" + bytes(99), "VHDX", Form.IMAGE),
    "vhd": (bytes(4096) + b"conectix" + bytes(504), "VHD", Form.IMAGE),
    "squashfs": (b"hsqs" + bytes(99), "squashfs", Form.FILESYSTEM),
    "iso": (bytes(32769) + b"CD001\1" + bytes(999), "ISO 9660", Form.FILESYSTEM),
    "luks": (b"LUKS\xba\xbe\0\2" + bytes(600), "LUKS", Form.CONTAINER),
    "lvm": (bytes(512) + b"LABELONE" + bytes(16) + b"LVM2 001", "LVM", Form.CONTAINER),
    "elf": (b"\x7fELF" + bytes(99), "program (ELF)", Form.OTHER),
    "empty": (b"", "nothing: it is empty", Form.NOTHING),
    "zeros": (bytes(5000), "only zeros", Form.NOTHING),
    "ones": (b"\xff" * 5000, "only bytes FF", Form.NOTHING),
    "text": ("größe\nline\n".encode(), "text", Form.TEXT),
    "bom": (b"\xef\xbb\xbfroot=x\r\n", "text", Form.TEXT),
    "text cut in a letter": (("x" * 4095 + "ö").encode(), "text", Form.TEXT),
    "page": (b"\n<!DOCTYPE html><html>404", "web page", Form.TEXT),
}


@pytest.mark.parametrize("name", BYTES)
def test_a_form_is_told_by_its_marks(name: str) -> None:
    data, kind, form = BYTES[name]
    found = told(data)
    assert found is not None
    assert (found.kind, found.form) == (kind, form)


def _mke2fs(kind: str) -> Callable[[Path], object]:
    return lambda path: tool("mke2fs", "-q", "-t", kind, "-L", "a-label", "-F", path)


MADE: dict[str, Callable[[Path], object]] = {
    "ext2": _mke2fs("ext2"),
    "ext3": _mke2fs("ext3"),
    "ext4": _mke2fs("ext4"),
    "FAT32": lambda path: tool("mkfs.vfat", "-F", "32", "-s", "1", path),
    "FAT16": lambda path: tool("mkfs.vfat", "-F", "16", path),
    "FAT12": lambda path: tool("mkfs.vfat", "-F", "12", path),
    "swap": lambda path: tool("mkswap", "-q", "-L", "a-label", path),
    "btrfs": lambda path: tool("mkfs.btrfs", "-q", "-L", "a-label", path),
    "XFS": lambda path: tool("mkfs.xfs", "-q", "-L", "a-label", path),
    "F2FS": lambda path: tool("mkfs.f2fs", "-q", "-l", "a-label", path),
}
PROGRAM = {"btrfs": "mkfs.btrfs", "XFS": "mkfs.xfs", "F2FS": "mkfs.f2fs"}


@pytest.mark.parametrize("kind", MADE)
def test_a_filesystem_has_the_names_that_blkid_gives_it(tmp_path: Path, kind: str) -> None:
    if kind in PROGRAM and shutil.which(PROGRAM[kind]) is None:
        pytest.skip(f"{PROGRAM[kind]} is not installed")
    image = tmp_path / "image"
    size = 400 * MiB if kind in PROGRAM else 2 * MiB if kind == "FAT12" else 40 * MiB
    with image.open("wb") as made:
        made.truncate(size)
    MADE[kind](image)
    with reading(image) as read:
        found = signature_at(padded(read, size), 0, size)
    assert found is not None
    assert found.kind == kind
    said = run(["blkid", "-p", "-o", "export", image]).stdout.decode()
    fields = dict(line.split("=", 1) for line in said.splitlines())
    assert found.uuid == fields["UUID"]
    assert found.label == (None if kind.startswith("FAT") else fields["LABEL"])


@given(st.binary(max_size=3000))
def test_any_bytes_get_an_answer(data: bytes) -> None:
    found = told(data)
    assert found is None or found.kind
