"""A stream seen through a window: some of it is held, so that what is in use can be told.

In: the content of an image, chunk by chunk, from its beginning. Out: a way to read a little ahead,
and the bytes themselves in order. What lies behind the window is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from imager.base.errors import TargetRefused
from imager.base.units import KiB, MiB, format_size
from imager.card.source.source import Piece
from imager.disk.extents import Extent
from imager.disk.manifest import NotAtHand

HELD_AT_MOST = 32 * MiB
"""The bitmaps of ext4 lie before the blocks they speak of, in the first few MiB of each 2 GiB; a
FAT, of at most 16 MiB on a card of 256 GB, before its clusters."""

_GATHERED = 64 * KiB


class Window:
    """``content`` from byte ``low`` to byte ``high``; ``size_bytes`` is None until its end was
    seen. Content beyond ``limit_bytes`` is an error: TargetRefused that names ``name``."""

    def __init__(self, content: Iterator[bytes], limit_bytes: int, name: str) -> None:
        self.low = self.high = 0
        self.size_bytes: int | None = None
        self._content = content
        self._limit_bytes = limit_bytes
        self._name = name
        self._held: deque[memoryview] = deque()

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from byte ``offset``, fewer at the end of the content. Raises NotAtHand
        for what is gone, or too far ahead to be held."""
        end = offset + length
        if offset < self.low or end - self.low > HELD_AT_MOST:
            raise NotAtHand
        while self.high < end and self._pull():
            pass
        found, position = bytearray(), self.low
        for chunk in self._held:
            if position >= end:
                break
            found += chunk[max(0, offset - position) : end - position]
            position += len(chunk)
        return bytes(found)

    def take(self, extent: Extent) -> Iterator[Piece]:
        """The bytes of ``extent``, which must not begin before ``low``; they are gone then."""
        self.skip(extent.offset)
        while self.low < extent.end and (self._held or self._pull()):
            chunk = self._held.popleft()
            taken, rest = chunk[: extent.end - self.low], chunk[extent.end - self.low :]
            if rest:
                self._held.appendleft(rest)
            yield self.low, taken
            self.low += len(taken)

    def skip(self, offset: int) -> None:
        """Let go of what lies before byte ``offset``."""
        while self.low < offset and (self._held or self._pull()):
            chunk = self._held.popleft()
            if rest := chunk[offset - self.low :]:
                self._held.appendleft(rest)
            self.low += len(chunk) - len(rest)

    def _some(self) -> bytes:
        """The next chunk of the content. Small ones are gathered: a packed file of many streams
        of a byte each would otherwise take hundreds of bytes of memory for each of them."""
        chunk = next(self._content, b"")
        if not 0 < len(chunk) < _GATHERED:
            return chunk
        gathered = bytearray(chunk)
        while len(gathered) < _GATHERED and (chunk := next(self._content, b"")):
            gathered += chunk
        return bytes(gathered)

    def _pull(self) -> bool:
        chunk = self._some() if self.size_bytes is None else b""
        if not chunk:
            self.size_bytes = self.high
            return False
        self._held.append(memoryview(chunk))
        self.high += len(chunk)
        if self.high > self._limit_bytes:
            raise TargetRefused(
                f"the image in {self._name} does not fit: it has more than {self._limit_bytes} "
                f"bytes ({format_size(self._limit_bytes)})",
                hint="use a larger card",
            )
        return True
