"""An image that was poured on a card: what a card has proven is read from it, the rest once more.

In: a source, what came of pouring it, and the card it was poured on. Out: a CardImage. Its bytes
are kept nowhere else. A chunk that the card gives back as it was written is as good as the source;
only for those that it does not, the source is read again, for as many as there is memory for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager

from imager.base.errors import CardIOError, HostStorage
from imager.base.progress import Progress
from imager.base.units import align_down
from imager.card.medium.reopen import FreshRead, reader_of
from imager.card.source.source import ImageSource
from imager.card.stages import ClaimedCard
from imager.card.write.pour import blocks_of
from imager.disk.extents import ExtentMap
from imager.disk.manifest import CHUNK_BYTES, Chunk, Manifest, Reader, digest_chunk
from imager.node.image import Delta

_HELD_AT_MOST = 48
"""So many chunks are held that the card does not give back. Where more are wrong, it is not worth
mending."""
_CACHED = 8
_READINGS_AT_MOST = 8
_NOTHING = ExtentMap()
_NO_DELTA = Delta(())


class PouredImage:
    """What one card should hold. ``ends`` are the chunks that were put on it last, its first MiB
    and its end, by their offset: they are this card's own."""

    layout = None
    by_digest = True

    def __init__(
        self,
        source: ImageSource,
        manifest: Manifest,
        ends: Mapping[int, bytes],
        card: ClaimedCard,
        progress: Progress,
        delta: Delta = _NO_DELTA,
    ) -> None:
        """``delta`` is what this card has in place of, or besides, what the source has there."""
        self.source = source
        self.delta = delta
        self.manifest = manifest
        self.ends = ends
        self.chunks = {chunk.offset: (chunk, digest) for chunk, digest in manifest.chunks()}
        self.held: dict[int, bytes] = {}
        self.card = card
        self._progress = progress
        self._readings = 0

    @contextmanager
    def open(self, wanted: ExtentMap = _NOTHING) -> Iterator[PouredReader]:
        """The image to be read until the block ends.

        What is ``wanted`` is read from the source, as much as can be held. Raises as a reading of
        the source does, and HostStorage when it is not what it was.
        """
        missing = [at for at in self.chunks if self._is_wanted(at, wanted)]
        if missing:
            keep = missing[:_HELD_AT_MOST]
            self.held = {at: self.held[at] for at in keep if at in self.held}
            self.fetch(at for at in keep if at not in self.held)
        unknown = (
            extent for at in missing if at not in self.held for extent in self.chunks[at][0].extents
        )
        with self.card.reopen() as fresh:
            yield PouredReader(self, fresh, ExtentMap(unknown))

    def _is_wanted(self, offset: int, wanted: ExtentMap) -> bool:
        inside = next(wanted.within(offset, CHUNK_BYTES), None) is not None
        return inside and offset not in self.ends

    def fetch(self, offsets: Iterable[int]) -> None:
        """Read the source again until the chunks at ``offsets`` are held. Raises what the source
        raises, and CardIOError for a card that needed it too often."""
        missing = {at for at in offsets if not self._is_own(at)}
        if not missing:
            return
        self._readings += 1
        if self._readings > _READINGS_AT_MOST:
            raise CardIOError(
                f"{self.card.target.node}: what it gives back is another thing each time",
                hint="try another reader, cable or port",
            )
        self._progress.note(f"{self.source.name} is read again, for what the card did not keep")
        with (
            self._progress.phase("read again"),
            self.source.read(self.manifest.size_bytes) as reading,
            closing(blocks_of(reading.pieces(), CHUNK_BYTES)) as blocks,
        ):
            while missing:
                block = next(blocks, None)
                if block is None or block.offset > max(missing):
                    raise _altered(self.source)
                if block.offset in missing:
                    chunk, digest = self.chunks[block.offset]
                    data = self._overlaid(chunk, bytes(block.data))
                    if digest_chunk(chunk, _reader_of(chunk, data)) != digest:
                        raise _altered(self.source)
                    self.held[block.offset] = data
                    missing.remove(block.offset)

    def _is_own(self, at: int) -> bool:
        """Whether nothing of the chunk at ``at`` is the source's; it is held then."""
        chunk, _ = self.chunks[at]
        if not all(self.delta.extents.covers(extent) for extent in chunk.extents):
            return False
        self.held[at] = self._overlaid(chunk, b"")
        return True

    def _overlaid(self, chunk: Chunk, data: bytes) -> bytes:
        buffer = bytearray(data.ljust(chunk.extents[-1].end - chunk.offset, b"\0"))
        self.delta.overlay(chunk.offset, memoryview(buffer))
        return bytes(buffer)


class PouredReader:
    """An open PouredImage; safe to share between threads."""

    def __init__(self, image: PouredImage, fresh: FreshRead, unknown: ExtentMap) -> None:
        self.unknown = unknown
        self._image = image
        self._read_card = reader_of(fresh.raw)
        self._cached: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See ImageReader."""
        end = offset + len(buffer)
        for start in range(align_down(offset, CHUNK_BYTES), end, CHUNK_BYTES):
            low, high = max(start, offset), min(start + CHUNK_BYTES, end)
            with self._lock:
                chunk = self._chunk(start)
            there = chunk[low - start : high - start]
            part = buffer[low - offset : high - offset]
            part[:] = there + bytes(len(part) - len(there))

    peek_into = read_into

    def read(self, offset: int, length: int) -> bytes:
        """See ImageReader."""
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    peek = read

    def _chunk(self, at: int) -> bytes:
        """The bytes of the stretch of 1 MiB at byte ``at``; zeros behind the end of the bytes."""
        image = self._image
        if at in image.ends:
            return image.ends[at]
        if at in image.held:
            return image.held[at]
        if at not in image.chunks:
            return b""
        if at not in self._cached:
            chunk, digest = image.chunks[at]
            data = self._on_card(chunk)
            if digest_chunk(chunk, _reader_of(chunk, data)) != digest:
                image.fetch([at])
                return image.held[at]
            self._cached[at] = data
            if len(self._cached) > _CACHED:
                self._cached.popitem(last=False)
        self._cached.move_to_end(at)
        return self._cached[at]

    def _on_card(self, chunk: Chunk) -> bytes:
        data = bytearray(chunk.extents[-1].end - chunk.offset)
        for extent in chunk.extents:
            place = extent.offset - chunk.offset
            try:
                data[place : place + extent.length] = self._read_card(extent.offset, extent.length)
            except CardIOError:
                return bytes(len(data))
        return bytes(data)


def _reader_of(chunk: Chunk, data: bytes) -> Reader:
    return lambda at, length: data[at - chunk.offset : at - chunk.offset + length]


def _altered(source: ImageSource) -> HostStorage:
    return HostStorage(
        f"{source.name} is not what it was when it was written to the card",
        hint="leave it alone until the card is done, and run the same command again",
    )
