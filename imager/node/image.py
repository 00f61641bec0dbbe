"""A node's image: the golden image with the blocks that are different for this node.

In: a golden image and the blocks in which this node differs. Out: a value that can be read like a
whole card image. Nothing is copied: for 56 nodes there are one golden file on the disk and 56 small
deltas in memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.manifest import Manifest, Reader, build_manifest
from imager.image.compose.golden import GoldenFile, GoldenImage


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

    @property
    def pieces(self) -> tuple[tuple[int, bytes], ...]:
        """What it was made of, by ascending offset: (offset on the card, bytes)."""
        return tuple(self._pieces)

    def with_piece(self, offset: int, data: bytes) -> Delta:
        """The same delta and ``data`` at byte ``offset``; raises ValueError where they overlap."""
        return Delta([*self._pieces, (offset, data)])

    def inside(self, extents: ExtentMap) -> Delta:
        """What of it lies in ``extents``."""
        read = self.over(lambda _, length: bytes(length))
        parts = self.extents & extents
        return Delta((part.offset, read(part.offset, part.length)) for part in parts)

    def over(self, read: Reader) -> Reader:
        """``read`` with the delta's bytes in the place of what is there."""

        def changed(offset: int, length: int) -> bytes:
            buffer = bytearray(read(offset, length))
            self.overlay(offset, memoryview(buffer))
            return bytes(buffer)

        return changed

    def overlay(self, offset: int, buffer: memoryview) -> None:
        """Write the delta's bytes into ``buffer``, which holds the card's bytes from ``offset``."""
        end = offset + len(buffer)
        for start, data in self._pieces[max(0, bisect_right(self._offsets, offset) - 1) :]:
            if start >= end:
                return
            low, high = max(start, offset), min(start + len(data), end)
            if low < high:
                buffer[low - offset : high - offset] = data[low - start : high - start]


_NOTHING = ExtentMap()


class NodeReader:
    """An open NodeImage; safe to share between threads."""

    unknown = _NOTHING

    def __init__(self, golden: GoldenFile, delta: Delta) -> None:
        """``golden`` is the open golden image."""
        self._golden = golden
        self._delta = delta

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the card's bytes from byte ``offset``; zeros past its end. The
        golden image's part of them is proven.

        Raises HostStorage when this computer's disk does not give them as they were composed, and
        they cannot be composed anew.
        """
        self._golden.read_into(offset, buffer)
        self._delta.overlay(offset, buffer)

    def peek_into(self, offset: int, buffer: memoryview) -> None:
        """As ``read_into``, but not proven: see ``GoldenFile.peek_into``."""
        self._golden.peek_into(offset, buffer)
        self._delta.overlay(offset, buffer)

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the card from byte ``offset``, proven."""
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def peek(self, offset: int, length: int) -> bytes:
        """As ``read``, of what was proven before."""
        buffer = bytearray(length)
        self.peek_into(offset, memoryview(buffer))
        return bytes(buffer)


@contextmanager
def golden_open(golden: GoldenImage, delta: Delta | None = None) -> Iterator[NodeReader]:
    """A golden image to be read, changed by ``delta`` if there is one; raises as GoldenImage.open
    does."""
    with golden.open() as file:
        yield NodeReader(file, delta or Delta(()))


def manifest_of(golden: GoldenImage, delta: Delta, size_bytes: int, extents: ExtentMap) -> Manifest:
    """The manifest of ``extents`` on a card of ``size_bytes`` that holds ``golden``, changed by
    ``delta``: only what that touches is read. Raises as ``golden_open``."""
    with golden_open(golden, delta) as reader:
        return build_manifest(
            size_bytes, extents, reader.read, base=golden.manifest, changed=delta.extents
        )


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
    by_digest: ClassVar[bool] = False

    @contextmanager
    def open(self, wanted: ExtentMap = _NOTHING) -> Iterator[NodeReader]:
        """The image to be read until the block ends; any of it can be, not only what is
        ``wanted``. Raises as GoldenImage.open does."""
        del wanted
        with golden_open(self.golden, self.delta) as reader:
            yield reader
