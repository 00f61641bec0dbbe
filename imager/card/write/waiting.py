"""The blocks of an image that wait for one card, in bounded memory.

In: blocks, from the thread that reads the source. Out: the same blocks in the same order, for the
threads that write. Where half of the room is taken, a block waits packed: while xz passes over what
nobody uses, half a GiB each second, nothing comes, and the card shall have something to write.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue

from imager.base.units import KiB
from imager.card.medium.raw import aligned_buffer
from imager.disk.extents import Extent, ExtentMap

_QUICKEST = 1
"""zlib's level that takes the least time: 100 MB/s, and a third remains of a root filesystem."""
_PIECE_BYTES = 64 * KiB


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
    """A block as it waits; with its data packed by zlib, where ``is_packed``."""

    block: Block
    is_packed: bool = False

    @property
    def size_bytes(self) -> int:
        return len(self.block.data)

    def smaller(self) -> _Held:
        packed = _filled(_packed(self.block.data), self.size_bytes)
        if len(packed) == self.size_bytes:
            return self
        return _Held(replace(self.block, data=packed), is_packed=True)

    def whole(self, block_bytes: int) -> Block:
        if not self.is_packed:
            return self.block
        return replace(self.block, data=_filled(_unpacked(self.block.data), block_bytes))


def _filled(parts: Iterable[bytes], size_bytes: int) -> memoryview:
    """``parts`` one after the other, as far as they fit into ``size_bytes``. The memory goes back
    to the system as soon as nobody needs it; that of large objects would stay with the program."""
    data, end = aligned_buffer(size_bytes), 0
    for part in parts:
        part = part[: size_bytes - end]
        data[end : end + len(part)] = part
        end += len(part)
    return data[:end]


def _packed(data: memoryview) -> Iterator[bytes]:
    pack = zlib.compressobj(_QUICKEST)
    for at in range(0, len(data), _PIECE_BYTES):
        yield pack.compress(data[at : at + _PIECE_BYTES])
    yield pack.flush()


def _unpacked(data: memoryview) -> Iterator[bytes]:
    unpack = zlib.decompressobj()
    for at in range(0, len(data), _PIECE_BYTES):
        waiting: bytes | memoryview = data[at : at + _PIECE_BYTES]
        while waiting:
            yield unpack.decompress(waiting, _PIECE_BYTES)
            waiting = unpack.unconsumed_tail
    yield unpack.flush()


class WaitingBlocks:
    """Blocks of ``block_bytes`` each, in ``room_bytes`` of memory at most, or one block. With
    ``packs`` they are packed while half of that is taken."""

    def __init__(self, block_bytes: int, room_bytes: int, *, packs: bool) -> None:
        self._block_bytes = block_bytes
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
            yield held.whole(self._block_bytes)
            with self._lock:
                self._used_bytes -= held.size_bytes
            self._changed.set()
        if held is not None:
            raise held
