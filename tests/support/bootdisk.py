"""Whole card images from plain tools (sfdisk, mkfs.vfat, mcopy, mke2fs), not from our composer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from imager.base.run import run
from imager.base.units import KiB, MiB
from imager.bootcheck.check import BootReport, check_boot
from imager.disk.manifest import Reader
from tests.support.bootfiles import minimal_boot_files
from tests.support.fatdisk import make_fat, put_files, tool

DISK_ID = 0x5EED1E57
PARTUUID = "5eed1e57-02"
BOOT_OFFSET = MiB
BOOT_KIB = 34 * 1024
ROOT_OFFSET = 36 * MiB
SIZE = 44 * MiB
RootFile = tuple[bytes, int] | str


def make_disk(
    image: Path,
    files: Mapping[str, bytes],
    *,
    node: str = "pi7",
    type_id: str = "c",
    fat_kind: int = 32,
    sectors_per_cluster: int = 1,
    boot_kib: int = BOOT_KIB,
) -> None:
    """An MBR, a FAT with ``files``, and an ext4 whose /etc/hostname is ``node``."""
    boot, root = (BOOT_OFFSET, boot_kib * KiB), (ROOT_OFFSET, SIZE - ROOT_OFFSET)
    partition(image, SIZE, {boot: type_id, root: "83"})
    make_fat(
        image, files, size_kib=boot_kib, kind=fat_kind,
        sectors_per_cluster=sectors_per_cluster, offset_bytes=BOOT_OFFSET,
    )  # fmt: skip
    make_root(image, node)


def partition(image: Path, size_bytes: int, places: Mapping[tuple[int, int], str]) -> None:
    """An empty disk with an MBR: each of ``places``, an offset and a length in bytes, is a
    partition of that type."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    lines = (f"start={at // 512}, size={n // 512}, type={kind}" for (at, n), kind in places.items())
    table = "\n".join((f"label: dos\nlabel-id: {DISK_ID:#x}", *lines, ""))
    run(["sfdisk", "--quiet", image], stdin=table.encode())


@pytest.fixture(scope="session")
def good_pi2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good card for a Pi 2, made once and copied for every test that breaks it."""
    image = tmp_path_factory.mktemp("good") / "card.img"
    make_disk(image, minimal_boot_files("pi2"))
    return image


INIT: Mapping[str, RootFile] = {"sbin/init": (b"\x7fELF look-alike", 0o755)}
"""A first program, as far as anybody looks at it."""


def make_root(
    image: Path,
    node: str,
    files: Mapping[str, RootFile] = INIT,
    *,
    offset: int = ROOT_OFFSET,
    options: tuple[str, ...] = (),
) -> None:
    """Put an ext4 at ``offset``, with ``files``: content and mode, or the target of a link.
    ``options`` are for mke2fs."""
    tree = image.with_name(image.name + ".root")
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text(f"{node}\n")
    for name, what in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, str):
            path.symlink_to(what)
            continue
        path.write_bytes(what[0])
        path.chmod(what[1])
    tool(
        "mke2fs", "-q", "-t", "ext4", "-d", tree, "-L", "root", *options,
        "-E", f"offset={offset},lazy_itable_init=1,nodiscard", "-F", image,
        f"{(SIZE - ROOT_OFFSET) // 1024}k",
    )  # fmt: skip
    shutil.rmtree(tree)


class Disk:
    """A card image a test may break."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self.fat = f"{image}@@{BOOT_OFFSET}"

    @classmethod
    def copy_of(cls, good: Path, folder: Path) -> Disk:
        """A copy of ``good`` in ``folder``, to be broken."""
        image = folder / "card.img"
        tool("cp", "--sparse=always", good, image)
        return cls(image)

    def write(self, path: str, content: bytes) -> None:
        """Put one file onto the boot partition, over an old one."""
        put_files(self.image, BOOT_OFFSET, {path: content})

    def remove(self, *paths: str) -> None:
        """Delete files from the boot partition."""
        tool("mdel", "-i", self.fat, *(f"::{path}" for path in paths))

    def poke(self, offset: int, content: bytes) -> None:
        """Overwrite bytes of the card."""
        with self.image.open("r+b") as file:
            file.seek(offset)
            file.write(content)

    def peek(self, offset: int, length: int) -> bytes:
        """Bytes of the card."""
        with self.image.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def check(
        self, model: str | None = None, expected: Mapping[str, str] | None = None
    ) -> BootReport:
        """The boot check of the image as it is now."""
        with reading(self.image) as read:
            size = self.image.stat().st_size
            return check_boot(read, size, model=model, expected=expected)


@contextmanager
def reading(image: Path) -> Iterator[Reader]:
    """A Reader of ``image``."""
    descriptor = os.open(image, os.O_RDONLY)
    try:
        yield lambda offset, length: os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
