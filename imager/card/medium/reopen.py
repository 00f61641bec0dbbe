"""Opens a card again, to read what is really on it and not what this computer has in its cache.

In: a path (``/proc/self/fd/N`` for a card that is already open, so that it is surely the same one).
Out: a FreshRead, which says whether the cache was bypassed, and a Reader for parsers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from imager.base.errors import CardIOError
from imager.base.units import KiB, align_down, align_up
from imager.card.medium.raw import (
    Descriptor,
    RawCard,
    aligned_buffer,
    card_error,
    drop_cache,
    is_gone,
    read_fully,
)
from imager.disk.manifest import NotAtHand, Reader

_WINDOW_BYTES = 64 * KiB


@dataclass(frozen=True, slots=True)
class FreshRead:
    """A card opened again, for reading only, after everything was written.

    ``cache_bypassed`` says that what is read comes from the card and not from this computer's
    memory. The cache inside a card or a card reader cannot be bypassed. It is small, so reading
    back begins only when the whole card has been written.
    """

    raw: RawCard
    cache_bypassed: bool

    def reader(self) -> Reader:
        """``read(offset, length)`` of it, for those who look about on it in small pieces; raises
        CardIOError."""
        return remembering(reader_of(self.raw), self.raw.size_bytes)


@contextmanager
def fresh_read(
    path: Path | str, name: str, size_bytes: int, block_bytes: int
) -> Iterator[FreshRead]:
    """Open ``path`` again for reading with O_DIRECT. Where that is refused, or the size is no
    multiple of the block, open it after asking the kernel to drop its cached pages."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    direct = block_bytes > 1 and size_bytes % block_bytes == 0
    try:
        fd = os.open(path, flags | (os.O_DIRECT if direct else 0))
    except OSError:
        fd, direct = _open_cached(path, flags, Descriptor(-1, name, size_bytes, block_bytes)), False
    try:
        if not direct:
            drop_cache(fd)
        # Without direct I/O any byte may be read, also the last ones of an odd-sized file.
        yield FreshRead(Descriptor(fd, name, size_bytes, block_bytes if direct else 1), direct)
    finally:
        os.close(fd)


def _open_cached(path: Path | str, flags: int, card: RawCard) -> int:
    try:
        return os.open(path, flags)
    except OSError as error:
        raise card_error(card, "opening it for reading", error) from error


def reader_of(raw: RawCard) -> Reader:
    """``read(offset, length)`` of a card, for any offset and length; raises CardIOError as
    ``read_fully`` does."""

    def read(offset: int, length: int) -> bytes:
        low = align_down(offset, raw.block_bytes)
        high = min(align_up(offset + length, raw.block_bytes), raw.size_bytes)
        if not low <= offset + length <= high:
            raise ValueError(f"bytes {offset} to {offset + length} are not on {raw.name}")
        if high == low:
            return b""
        buffer = aligned_buffer(high - low)
        read_fully(raw, low, buffer)
        return bytes(buffer[offset - low : offset - low + length])

    return read


def remembering(read: Reader, size_bytes: int) -> Reader:
    """As ``read``, of a card of ``size_bytes``, but it keeps the last 16 MiB that it read, because
    a filesystem is read in many small pieces that lie side by side. Where something of a large
    piece cannot be read, the small ones are read one by one."""

    @lru_cache(maxsize=256)
    def window(offset: int) -> bytes | None:
        try:
            return read(offset, min(_WINDOW_BYTES, size_bytes - offset))
        except NotAtHand:
            return None
        except CardIOError as error:
            if is_gone(error):
                raise
            return None

    def reading(offset: int, length: int) -> bytes:
        start = align_down(offset, _WINDOW_BYTES)
        if offset + length > min(start + _WINDOW_BYTES, size_bytes):
            return read(offset, length)
        kept = window(start)
        if kept is None:
            return read(offset, length)
        return kept[offset - start : offset - start + length]

    return reading
