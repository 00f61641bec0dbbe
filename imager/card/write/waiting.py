"""The blocks of an image that wait for one card, in bounded memory.

In: blocks, from the thread that reads the source. Out: the same blocks in the same order, for the
threads that write. Where half of the room is taken, a block waits packed: while xz passes over what
nobody uses, half a GiB each second, nothing comes, and the card shall have something to write.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue

from imager.card.medium.raw import aligned_buffer
from imager.disk.extents import Extent, ExtentMap

_NOTHING = memoryview(b"")
_QUICKEST = 1
"""zlib's level that takes the least time: 100 MB/s, and a third remains of a root filesystem."""


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


@dataclass(frozen=True, slots=True)
class _Held:
    """A block as it waits. ``packed`` is its data by zlib, empty where the block has them."""

    block: Block
    packed: bytes = b""

    @property
    def size_bytes(self) -> int:
        return len(self.packed) or len(self.block.data)

    def smaller(self) -> _Held:
        packed = zlib.compress(self.block.data, _QUICKEST)
        if len(packed) >= len(self.block.data):
            return self
        return _Held(replace(self.block, data=_NOTHING), packed)

    def whole(self) -> Block:
        if not self.packed:
            return self.block
        content = zlib.decompress(self.packed)
        data = aligned_buffer(len(content))
        data[:] = content
        return replace(self.block, data=data)


class WaitingBlocks:
    """Blocks that take ``room_bytes`` of memory at most, or one block. With ``packs`` they are
    packed while half of that is taken."""

    def __init__(self, room_bytes: int, *, packs: bool) -> None:
        self._room_bytes = room_bytes
        self._packs = packs
        self._queue: SimpleQueue[_Held | Exception | None] = SimpleQueue()
        self._used_bytes = 0
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closed = False

    def put(self, block: Block) -> bool:
        """Add a block, when there is room; False when no more are taken."""
        held = _Held(block)
        if self._packs and 2 * self._used_bytes >= self._room_bytes:
            held = held.smaller()
        while not (self._closed or self._has_room(held)):
            self._changed.wait()
            self._changed.clear()
        if self._closed:
            return False
        with self._lock:
            self._used_bytes += held.size_bytes
        self._queue.put(held)
        return True

    def _has_room(self, held: _Held) -> bool:
        return not self._used_bytes or self._used_bytes + held.size_bytes <= self._room_bytes

    def finish(self, error: Exception | None) -> None:
        """There are no more blocks; ``error`` says why, if it is not that all were given."""
        self._queue.put(error)

    def close(self) -> None:
        """Take no more blocks; whoever waits for one is told that there is none."""
        self._closed = True
        self._queue.put(None)
        self._changed.set()

    def __iter__(self) -> Iterator[Block]:
        """Every block, in order, each held until the next is asked for. Raises the error that
        ``finish`` was given."""
        while isinstance(held := self._queue.get(), _Held):
            yield held.whole()
            with self._lock:
                self._used_bytes -= held.size_bytes
            self._changed.set()
        if held is not None:
            raise held
