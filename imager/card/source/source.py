"""Where an image comes from that is written while it is read: once, from its beginning to its end.

In: nothing. Out: the interface of such a source. What kind it is, and how it is packed, nobody else
asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

Piece = tuple[int, bytes | memoryview]
"""The offset in the image, and the bytes there."""


class SourceReading(Protocol):
    """One reading of a source."""

    def pieces(self) -> Iterator[Piece]:
        """What counts of the image, in ascending order; nobody reads what lies between.

        Ends only when the source was proven as far as it can be: raises MalformedRelease for one
        that is damaged, cut short or altered, NotAuthentic for one that is not what it should be,
        TargetRefused for an image that is larger than the limit, HostStorage and NetworkError for
        one that cannot be read.
        """

    @property
    def size_bytes(self) -> int:
        """The size of the image, which is known when ``pieces`` has ended."""

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the source itself, as packed, when ``pieces`` has ended; empty where it
        was not read whole."""


class ImageSource(Protocol):
    """An image of any system. ``name`` is what a person calls it: its path or URL."""

    @property
    def name(self) -> str:
        """Its path or URL."""

    @property
    def address(self) -> str:
        """The same for who reads it in another folder: a path from the root."""

    @property
    def size_bytes(self) -> int | None:
        """The size of the image, unpacked, where the source says it before it is read."""

    @property
    def least_bytes(self) -> int:
        """How large the image is at least: ``size_bytes`` where that is known."""

    @property
    def is_slow(self) -> bool:
        """Whether it takes seconds to pass a GiB of which nothing counts."""

    def read(self, limit_bytes: int) -> AbstractContextManager[SourceReading]:
        """Begin a reading. It ends with an error when the image is larger than ``limit_bytes``."""
