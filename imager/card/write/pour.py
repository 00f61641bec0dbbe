"""A source is read once, for one card or for several at the same time.

In: an ImageSource, and how many cards are waiting for it. Out: for each card its Share: the blocks
of the image in order, and in the end the digest of each chunk. The source is read by a thread of
its own, a bounded number of blocks ahead of the slowest card. A card that fails, or that is taken
away, leaves, and the others go on.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from imager.base.errors import PicloudError
from imager.base.units import KiB, MiB, align_down
from imager.card.medium.raw import aligned_buffer
from imager.card.source.source import ImageSource, Piece
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Chunk, chunks_of

GRANULE_BYTES = 4 * KiB
"""What is written begins and ends at a multiple of this: no card has larger blocks."""
_GAP_BYTES = 64 * KiB
"""A gap below that is written as zeros, for fewer and larger transfers."""
_AHEAD_BYTES = 64 * MiB
"""So much is unpacked before it is written: a card goes on for three seconds while nothing but what
nobody uses comes out of the source."""


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of the image at a multiple of its own size: ``data`` is memory as O_DIRECT needs
    it, ``extents`` what of it counts, as offsets in the image. ``end`` is where its content ends.
    """

    offset: int
    data: memoryview
    extents: ExtentMap
    end: int

    def part(self, extent: Extent) -> memoryview:
        """The bytes of ``extent``, which lies in the block."""
        return self.data[extent.offset - self.offset : extent.end - self.offset]


def blocks_of(pieces: Iterable[Piece], block_bytes: int) -> Generator[Block]:
    """The blocks of ``block_bytes`` that ``pieces``, in ascending order, fill."""
    gathered: list[Extent] = []
    offset, data, end = 0, aligned_buffer(block_bytes), 0
    for start, piece in pieces:
        view = memoryview(piece)
        while view:
            if gathered and align_down(start, block_bytes) != offset:
                yield Block(offset, data, _widened(gathered), end)
                gathered, data = [], aligned_buffer(block_bytes)
            offset = align_down(start, block_bytes)
            place = start - offset
            taken = min(len(view), block_bytes - place)
            data[place : place + taken] = view[:taken]
            gathered.append(Extent(start, taken))
            start, view, end = start + taken, view[taken:], start + taken
    if gathered:
        yield Block(offset, data, _widened(gathered), end)


def _widened(extents: Iterable[Extent]) -> ExtentMap:
    return ExtentMap(extents).aligned(GRANULE_BYTES).without_gaps_below(_GAP_BYTES)


class Pouring:
    """One reading of ``source`` for as many cards as are ``expected``; it begins when each of them
    has its share or has withdrawn."""

    def __init__(self, source: ImageSource, *, block_bytes: int, expected: int = 1) -> None:
        self.source = source
        self.block_bytes = block_bytes
        self.digests: dict[Chunk, bytes] = {}
        self.size_bytes = 0
        self.sha256 = ""
        self._shares: list[Share] = []
        self._expected = expected
        # Several cards have memory of their own for what is being written.
        self._ahead_bytes = _AHEAD_BYTES if expected == 1 else _AHEAD_BYTES // 2
        self._lock = threading.Lock()

    def share(self, card_bytes: int) -> Share:
        """The blocks for a card of that size."""
        share = Share(self, card_bytes, max(2, self._ahead_bytes // self.block_bytes))
        with self._lock:
            self._shares.append(share)
        self.withdraw()
        return share

    def withdraw(self) -> None:
        """One card less is waited for."""
        with self._lock:
            self._expected -= 1
            if self._expected == 0 and self._shares:
                threading.Thread(target=self._read, name="pour", daemon=True).start()

    def _read(self) -> None:
        """Read the source and hand it out; in a thread of its own."""
        end: Exception | None = None
        try:
            limit = max(share.card_bytes for share in self._shares)
            with self.source.read(limit) as reading:
                for block in blocks_of(reading.pieces(), self.block_bytes):
                    self._digest(block)
                    # A list: every card gets the block, also after one that takes none any more.
                    if not any([share.take(block) for share in self._shares]):
                        return
                self.size_bytes, self.sha256 = reading.size_bytes, reading.sha256
        except Exception as error:  # noqa: BLE001 - raised again in the thread of each card
            end = error
        for share in self._shares:
            share.finish(end)

    def _digest(self, block: Block) -> None:
        for chunk in chunks_of(block.extents):
            sha256 = hashlib.sha256()
            for extent in chunk.extents:
                sha256.update(block.part(extent))
            self.digests[chunk] = sha256.digest()


class Share:
    """What one card of ``card_bytes`` gets of a Pouring."""

    def __init__(self, pouring: Pouring, card_bytes: int, ahead: int) -> None:
        self.pouring = pouring
        self.card_bytes = card_bytes
        self._blocks: SimpleQueue[Block | Exception | None] = SimpleQueue()
        self._room = threading.Semaphore(ahead)
        self._left = False

    def blocks(self) -> Iterator[Block]:
        """Every block, in order. Raises what reading the source raised."""
        while True:
            block = self._blocks.get()
            if isinstance(block, PicloudError):
                # Each card has an error of its own, to which the state of the card is added.
                raise type(block)(block.what, hint=block.hint, details=block.details) from block
            if isinstance(block, Exception):
                raise block
            if block is None:
                return
            yield block
            self._room.release()

    def close(self) -> None:
        """Take no more blocks; whoever waits for one is told that there is none."""
        self._left = True
        self._blocks.put(None)
        self._room.release()

    def take(self, block: Block) -> bool:
        """Give the card one more block, when it has room; False when it has left."""
        if not self._left:
            self._room.acquire()  # close() ends this, too
        if not self._left:
            self._blocks.put(block)
        return not self._left

    def finish(self, error: Exception | None) -> None:
        """There are no more blocks."""
        self._blocks.put(error)
