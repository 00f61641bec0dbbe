"""Sources of images for tests: in memory, and misbehaving where they are told to.

In: pieces. Out: an ImageSource that counts how often it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from imager.card.source.source import Piece


@dataclass
class MemorySource:
    """An image of ``size`` bytes of which ``parts`` count. ``broken`` is raised behind the last
    piece; ``on_piece`` sees the offset of each before it is given."""

    parts: list[tuple[int, bytes]]
    size: int
    name: str = "any.img"
    broken: Exception | None = None
    on_piece: Callable[[int], None] = lambda _: None
    readings: int = 0
    size_bytes: int | None = None
    is_slow: bool = False
    least_bytes: int = field(init=False)
    address: str = field(init=False)

    def __post_init__(self) -> None:
        self.least_bytes, self.address = self.size_bytes or 0, self.name

    @contextmanager
    def read(self, limit_bytes: int) -> Iterator[MemoryReading]:
        self.readings += 1
        yield MemoryReading(self)


@dataclass
class MemoryReading:
    source: MemorySource
    size_bytes: int = 0
    sha256: str = ""

    def pieces(self) -> Iterator[Piece]:
        whole = hashlib.sha256()
        for offset, data in self.source.parts:
            self.source.on_piece(offset)
            whole.update(data)
            yield offset, data
        if self.source.broken is not None:
            raise self.source.broken
        self.size_bytes, self.sha256 = self.source.size, whole.hexdigest()
