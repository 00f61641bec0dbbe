"""What a card is to hold, as the engine sees it, whoever made it.

In: nothing. Out: the interface of an image: its ranges with their digests, and a way to read it.
A node's image is one; so is an image of any other system, once it has been poured on a card.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from imager.disk.extents import ExtentMap
from imager.disk.layout import Layout
from imager.disk.manifest import Manifest


class ImageReader(Protocol):
    """An open image; safe to share between threads."""

    @property
    def unknown(self) -> ExtentMap:
        """What cannot be read here, because its source would have to be read again for more than
        there is memory for."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the card's bytes from byte ``offset``, proven by their digests;
        zeros where the image has nothing."""

    def peek_into(self, offset: int, buffer: memoryview) -> None:
        """As ``read_into``, of what was proven before."""

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the card from byte ``offset``, proven."""

    def peek(self, offset: int, length: int) -> bytes:
        """As ``read``, of what was proven before."""


class CardImage(Protocol):
    """An image that a card holds, or is to hold."""

    @property
    def manifest(self) -> Manifest:
        """Every range that counts, and the digest of each chunk."""

    @property
    def layout(self) -> Layout | None:
        """Where the boot and the root partition lie; None where only the table on it says which
        partitions there are."""

    @property
    def by_digest(self) -> bool:
        """Whether a card is compared with the digests, and not with the bytes, because the source
        of those has to be read from its beginning each time."""

    def open(self, wanted: ExtentMap = ...) -> AbstractContextManager[ImageReader]:
        """The image to be read until the block ends. ``wanted`` is what will surely be read: a
        source that has to be read from its beginning is read once for all of it."""
