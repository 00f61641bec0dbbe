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

from imager.base.errors import PicloudError
from imager.base.units import KiB, MiB, align_down
from imager.card.medium.raw import aligned_buffer
from imager.card.source.source import ImageSource, Piece
from imager.card.write.waiting import Block, WaitingBlocks
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Chunk, chunks_of

GRANULE_BYTES = 4 * KiB
"""What is written begins and ends at a multiple of this: no card has larger blocks."""
_GAP_BYTES = 64 * KiB
"""A gap below that is written as zeros, for fewer and larger transfers."""
_AHEAD_BYTES = 56 * MiB
"""So much memory is for what waits to be written: a card goes on for three seconds while nothing
but what nobody uses comes out of the source, and for eight where blocks are packed meanwhile."""


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
        # Several cards have memory of their own for what is being written, and would each pack.
        self._ahead_bytes = _AHEAD_BYTES if expected == 1 else _AHEAD_BYTES // 2
        self._packs = source.is_slow and expected == 1
        self._lock = threading.Lock()

    def share(self, card_bytes: int) -> Share:
        """The blocks for a card of that size."""
        share = Share(self, card_bytes, self._ahead_bytes, packs=self._packs)
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
                    if not any([share.put(block) for share in self._shares]):
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


class Share(WaitingBlocks):
    """What one card of ``card_bytes`` gets of a Pouring."""

    def __init__(self, pouring: Pouring, card_bytes: int, room_bytes: int, *, packs: bool) -> None:
        super().__init__(pouring.block_bytes, room_bytes, packs=packs)
        self.pouring = pouring
        self.card_bytes = card_bytes

    def blocks(self) -> Iterator[Block]:
        """Every block, in order. Raises what reading the source raised."""
        try:
            yield from self
        except PicloudError as error:
            # Each card has an error of its own, to which the state of the card is added.
            raise type(error)(error.what, hint=error.hint, details=error.details) from error
