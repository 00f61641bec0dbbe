"""e2fsprogs' own damaged filesystems as the root of a card, held against e2fsck and debugfs.

They are fetched from Debian's source package, never kept here. What e2fsck gives up, and what has
no root directory that debugfs can list, must be an error or said to be unproven; what e2fsck finds
nothing wrong with must not be called damaged.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imager.base.units import MiB
from imager.bootcheck.check import check_boot
from imager.bootcheck.findings import Finding
from imager.disk.extents import Extent
from imager.disk.layout import Layout
from imager.disk.mbr import encode
from imager.disk.padded import padded
from tests.support.corpora import Package, ends_in
from tests.support.telling import Tell

pytestmark = [pytest.mark.image, pytest.mark.long(minutes=10)]
SOURCE = Package(
    "e/e2fsprogs/e2fsprogs_1.47.0.orig.tar.gz",
    "6667afde56eef0c6af26684974400e4d2288ea49e9441bf5e6229195d51a3578",
    "987645f563f279ab32aac19d824c64e9690e3152",
)
ROOT = 2 * MiB
LARGEST = 256 * MiB
SECONDS = 20
DIFFER = {"f_zero_inode_size": "e2fsck takes inodes of 0 bytes for 128, the kernel mounts no such"}
"""Filesystems of which e2fsck and a kernel think differently."""


@dataclass(frozen=True)
class Damaged:
    name: str
    data: bytes


def images(package: Path) -> Iterator[Damaged]:
    with tarfile.open(package) as archive:
        for member in archive:
            parts = Path(member.name).parts
            if len(parts) == 4 and parts[2].startswith("f_") and parts[3] == "image.gz":
                packed = archive.extractfile(member)
                assert packed is not None
                with gzip.open(packed) as file:
                    yield Damaged(parts[2], file.read(LARGEST))


def findings(data: bytes) -> tuple[Finding, ...]:
    """What the check finds of a card that has ``data`` for its root and nothing to boot from."""
    size = max(len(data), 512)
    layout = Layout(ROOT + size, Extent(MiB, MiB), Extent(ROOT, size))
    head = encode(layout, 1).ljust(ROOT, b"\0")

    def read(at: int, length: int) -> bytes:
        low = head[at : at + length]
        start = max(0, at - ROOT)
        return low + data[start : start + length - len(low)].ljust(length - len(low), b"\0")

    found = check_boot(padded(read, layout.size_bytes), layout.size_bytes).findings
    return tuple(one for one in found if one.what.startswith(("partition 2", "no init")))


def test_what_e2fsck_gives_up_is_found_and_what_is_clean_is_not_called_damaged(
    tmp_path: Path, tell: Tell
) -> None:
    image = tmp_path / "image"
    tried = given_up = clean = unproven = 0
    for damaged in images(SOURCE.fetched()):
        tried += 1
        image.write_bytes(damaged.data)
        found = findings(damaged.data)
        codes = {one.code.value for one in found}
        verdict, output, _ = ends_in(["e2fsck", "-fn", image], SECONDS)
        _, listed, _ = ends_in(["debugfs", "-c", "-R", "ls -p /", image], SECONDS)
        # None of them has a system on it, so there is always something to say.
        assert found, damaged.name
        if verdict >= 8 or b"/2/" not in listed:
            given_up += 1
            assert codes & {"root-filesystem", "root-unproven", "root-init"}, damaged.name
        # Of a wrong checksum of a group it speaks, and ends with 0.
        bad_group = b"group descriptor checksums are invalid" in output
        if bad_group:
            assert codes & {"root-filesystem", "root-unproven"}, damaged.name
        if verdict == 0 and not bad_group and damaged.name not in DIFFER:
            clean += 1
            assert "root-filesystem" not in codes, (damaged.name, found[0].what)
        unproven += codes == {"root-unproven"}
    assert tried > 150
    tell(
        f"e2fsprogs' {tried} filesystems: {given_up} that e2fsck gives up are all found, {clean} "
        f"that it calls clean are not called damaged, {unproven} are not read here"
    )
