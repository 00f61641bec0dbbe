"""A node's image: the golden image with the blocks that are different for this node.

In: a golden image and the blocks in which this node differs. Out: a value that can be read like a
whole card image. Nothing is copied: for 56 nodes there are one golden file on the disk and 56 small
deltas in memory.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imager.base.durable import host_storage
from imager.base.units import align_down
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.manifest import Manifest
from imager.image.compose.golden import GoldenImage


class Delta:
    """Changed ranges and their new bytes. Holds private keys: it never leaves memory."""

    __slots__ = ("_offsets", "_pieces", "extents")

    def __init__(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        """``pieces`` are (offset on the card, bytes); raises ValueError where two overlap."""
        self._pieces = sorted((offset, data) for offset, data in pieces if data)
        self._offsets = [offset for offset, _ in self._pieces]
        self.extents = ExtentMap(Extent(offset, len(data)) for offset, data in self._pieces)
        if self.extents.total_bytes != sum(len(data) for _, data in self._pieces):
            raise ValueError("the pieces of a delta overlap")

    def with_piece(self, offset: int, data: bytes) -> Delta:
        """The same delta and ``data`` at byte ``offset``; raises ValueError where they overlap."""
        return Delta([*self._pieces, (offset, data)])

    def overlay(self, offset: int, buffer: memoryview) -> None:
        """Write the delta's bytes into ``buffer``, which holds the card's bytes from ``offset``."""
        end = offset + len(buffer)
        for start, data in self._pieces[max(0, bisect_right(self._offsets, offset) - 1) :]:
            if start >= end:
                return
            low, high = max(start, offset), min(start + len(data), end)
            if low < high:
                buffer[low - offset : high - offset] = data[low - start : high - start]


class ImageReader:
    """An open NodeImage; safe to share between threads (pread keeps no position)."""

    def __init__(self, descriptor: int, delta: Delta, path: Path) -> None:
        """``descriptor`` is the open golden file; ``path`` is its name in errors."""
        self._descriptor = descriptor
        self._delta = delta
        self._path = path

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the card's bytes from byte ``offset``; zeros past its end.

        Raises HostStorage when this computer's disk cannot read them.
        """
        done = 0
        with host_storage(self._path):
            while done < len(buffer):
                count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
                if count == 0:
                    buffer[done:] = bytes(len(buffer) - done)
                    break
                done += count
        self._delta.overlay(offset, buffer)

    def pages(self, extent: Extent) -> memoryview | None:
        """The golden file's bytes of ``extent``, mapped into memory and not copied; None where the
        node has bytes of its own there, or where the file cannot be mapped.

        Give them to a system call only and do not read them here. If the file gets shorter or its
        disk fails meanwhile, a system call ends with EFAULT, but reading would kill this program
        (SIGBUS). The memory is freed with the last reference.
        """
        if next(self._delta.extents.within(extent.offset, extent.length), None) is not None:
            return None
        start = align_down(extent.offset, mmap.ALLOCATIONGRANULARITY)
        try:
            pages = mmap.mmap(
                self._descriptor,
                extent.end - start,
                flags=mmap.MAP_SHARED,
                prot=mmap.PROT_READ,
                offset=start,
            )
        except (OSError, ValueError, OverflowError):
            return None  # past the file's end (a grown card), or a filesystem that cannot
        pages.madvise(mmap.MADV_SEQUENTIAL)
        return memoryview(pages)[extent.offset - start :]

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the card from byte ``offset``."""
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)


@contextmanager
def golden_open(golden: GoldenImage, delta: Delta | None = None) -> Iterator[ImageReader]:
    """A golden image to be read, changed by ``delta`` if there is one; raises as GoldenImage.open
    does."""
    with golden.open() as descriptor:
        yield ImageReader(descriptor, delta or Delta(()), golden.path)


@dataclass(frozen=True, slots=True)
class NodeImage:
    """Everything one card must hold: golden image, delta, size, and the manifest of the whole.

    ``image_id`` is the SHA-256 (hex) of the manifest without the stamp: two cards with the same id
    have the same bytes, except for the stamp. ``boot_files`` maps each path on the boot partition
    to its SHA-256 in hex.
    """

    golden: GoldenImage
    node: str
    image_id: str
    layout: Layout
    delta: Delta
    manifest: Manifest
    boot_files: Mapping[str, str]

    @contextmanager
    def open(self) -> Iterator[ImageReader]:
        """The image to be read until the block ends; raises as GoldenImage.open does."""
        with golden_open(self.golden, self.delta) as reader:
            yield reader
