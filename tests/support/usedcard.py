"""A card image as a node leaves it, and damage in exact places, without mounting anything.

In: a finished image file. Out: the same file with the root filesystem marked as mounted, files
written, removed and changed at a later time (debugfs), and single bytes flipped.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imager.base.run import search_path
from imager.disk.ext4.filesystem import Ext4
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import Layout
from imager.disk.mbr import parse

_BLOCK = 1 << 16


@dataclass(frozen=True)
class UsedCard:
    """A card image file that tests change."""

    path: Path

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    def write(self, offset: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            os.pwrite(file.fileno(), data, offset)

    def flip(self, offset: int) -> None:
        """Flip one bit of the byte at ``offset``."""
        self.write(offset, bytes([self.read(offset, 1)[0] ^ 4]))

    @property
    def layout(self) -> Layout:
        boot, root = (part.extent for part in parse(self.read(0, 512)).partitions)
        return Layout(self.path.stat().st_size, boot, root)

    @property
    def root(self) -> Ext4:
        return Ext4.open(self.read, self.layout.root.offset)

    @property
    def boot(self) -> FatVolume:
        return FatVolume.parse(self.read, self.layout.boot.offset, self.layout.boot.length)

    def flip_in(self, path: str, position: int = 10) -> None:
        """Flip one bit of a file of the root filesystem, or of ``/boot/…``."""
        if path.startswith("/boot/"):
            entry = self.boot.find(path.removeprefix("/boot/"))
            assert entry is not None
            self.flip(entry.extents[0].offset + position)
            return
        inode = self.root.lookup(path)
        assert inode is not None, path
        assert position < inode.size_bytes
        self.flip(inode.extents[0].offset + position)

    def inode_offset(self, path: str) -> int:
        """Where the inode of ``path`` begins on the card, as debugfs says."""
        said = self.debugfs(f"imap {path}", at=0)
        found = re.search(r"located at block (\d+), offset (0x[0-9a-f]+)", said)
        assert found, said
        return self.layout.root.offset + int(found[1]) * 4096 + int(found[2], 16)

    def debugfs(self, *requests: str, at: int) -> str:
        """Run debugfs at the time ``at``, seconds since 1970."""
        said = ""
        for request in requests:
            done = subprocess.run(
                ["debugfs", "-w", "-R", request, f"{self.path}?offset={self.layout.root.offset}"],
                env={
                    "PATH": search_path(),
                    "E2FSPROGS_FAKE_TIME": str(at),
                    "SOURCE_DATE_EPOCH": str(at),
                },
                capture_output=True,
                check=True,
                text=True,
            )
            said += done.stdout
        return said

    def mark_mounted(self, at: int) -> None:
        """What a kernel leaves in the superblock of a filesystem it mounted and unmounted."""
        self.debugfs("ssv mnt_count 1", f"ssv mtime @{at}", at=at)

    def live_on(self, at: int, source: Path) -> None:
        """A node's life: a file written, one replaced, one removed, one touched. ``at`` is a later
        second than that of the image: by it ``verify`` knows what the node did."""
        source.write_bytes(b"what the node wrote\n" * 5000)
        self.mark_mounted(at)
        self.debugfs(
            f"write {source} /var/journal",
            "rm /etc/empty",
            "rm /etc/hosts",
            f"write {source} /etc/hosts",
            f"sif /etc/os-release ctime @{at}",
            at=at,
        )


@contextmanager
def copied(card: Path, place: Path) -> Iterator[UsedCard]:
    """A sparse copy of ``card`` at ``place``, removed afterwards."""
    subprocess.run(["cp", "--sparse=always", card, place], check=True)
    try:
        yield UsedCard(place)
    finally:
        place.unlink()


def content_of(image: Path) -> str:
    """A digest of all that is not zero in ``image`` and of where it lies: holes and zeros are one,
    and of a card of gigabytes only what was written is read."""
    digest = hashlib.sha256()
    with image.open("rb") as file:
        for start, end in _data_in(file.fileno()):
            for offset in range(start - start % _BLOCK, end, _BLOCK):
                block = os.pread(file.fileno(), _BLOCK, offset)
                if any(block):
                    digest.update(b"%d %d " % (offset, len(block)) + block)
    return digest.hexdigest()


def _data_in(descriptor: int) -> Iterator[tuple[int, int]]:
    """Where the file is no hole, each start in another block than the end before it."""
    end = 0
    while True:
        try:
            start = max(os.lseek(descriptor, end, os.SEEK_DATA), end)
        except OSError:
            return  # nothing but a hole is left
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        end += -end % _BLOCK
        yield start, end
