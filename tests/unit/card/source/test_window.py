"""A stream is read ahead as little as is asked for, and held as little as is said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imager.base.errors import TargetRefused
from imager.base.units import KiB, MiB
from imager.card.source.window import HELD_AT_MOST, Window
from imager.disk.extents import Extent
from imager.disk.manifest import NotAtHand

CHUNK = 64 * KiB


class Content:
    """``count`` chunks, each of its own number; ``given`` of them were asked for."""

    def __init__(self, count: int) -> None:
        self.count, self.given = count, 0

    def chunks(self) -> Iterator[bytes]:
        for number in range(self.count):
            self.given += 1
            yield bytes([number % 256]) * CHUNK


def window(content: Content, limit: int = 1 << 40) -> Window:
    return Window(content.chunks(), limit, "any.img")


def test_no_chunk_is_asked_for_before_it_is_needed() -> None:
    content = Content(8)
    found = window(content)
    assert found.read(0, CHUNK) == bytes(CHUNK)
    assert (content.given, found.high) == (1, CHUNK)
    assert found.read(CHUNK - 1, 2) == b"\0\1"
    assert content.given == 2
    assert b"".join(data for _, data in found.take(Extent(0, 2 * CHUNK)))[-1:] == b"\1"
    assert content.given == 2
    found.skip(3 * CHUNK)
    assert (content.given, found.low) == (3, 3 * CHUNK)
    assert found.size_bytes is None


def test_so_much_is_held_and_no_more_wherever_the_window_is() -> None:
    found = window(Content(1024))
    for low in (0, 24 * MiB):
        found.skip(low)
        assert len(found.read(low + HELD_AT_MOST - 1, 1)) == 1
        with pytest.raises(NotAtHand):
            found.read(low + HELD_AT_MOST, 1)
    with pytest.raises(NotAtHand):
        found.read(24 * MiB - 1, 1)


def test_pieces_of_chunks_are_taken_and_skipped() -> None:
    found = window(Content(3))
    half = CHUNK // 2
    assert [(at, bytes(data[:1]), len(data)) for at, data in found.take(Extent(half, CHUNK))] == [
        (half, b"\0", half),
        (CHUNK, b"\1", half),
    ]
    assert found.read(found.low, 1) == b"\1"
    found.skip(CHUNK + half + 1)
    assert found.low == CHUNK + half + 1
    assert found.read(found.low, CHUNK) == b"\1" * (half - 1) + b"\2" * (half + 1)
    assert [len(data) for _, data in found.take(Extent(2 * CHUNK, 9 * CHUNK))] == [CHUNK]
    assert (found.low, found.high, found.size_bytes) == (3 * CHUNK,) * 3
    assert found.read(found.low, 5) == b""


def test_an_image_may_be_as_large_as_the_card_and_no_byte_more() -> None:
    found = window(Content(2), 2 * CHUNK)
    found.skip(1 << 50)
    assert found.size_bytes == 2 * CHUNK
    with pytest.raises(TargetRefused, match=rf"any\.img does not fit: .* {2 * CHUNK - 1} bytes"):
        window(Content(2), 2 * CHUNK - 1).skip(1 << 50)
