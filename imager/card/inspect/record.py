"""What a card is held against: its own stamp, or a receipt.

In: nothing. Out: the interface that both have, so that whoever verifies or repairs a card need not
know which of them is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from imager.disk.fat.volume import FatVolume
from imager.disk.layout import Layout
from imager.disk.manifest import Chunk, Manifest
from imager.node.stamp.stamp import Stamp


class CardRecord(Protocol):
    """What was written to a card, and when, as far as it was noted down."""

    @property
    def kind(self) -> str:
        """``stamp`` or ``receipt``."""

    @property
    def node(self) -> str:
        """The node it was written for."""

    @property
    def layout(self) -> Layout | None:
        """Where its partitions were put; None for an image that is none of ours."""

    @property
    def golden_key(self) -> str:
        """The key of its golden image."""

    @property
    def image_id(self) -> str:
        """The name of all bytes that were written, without the stamp."""

    @property
    def tool_version(self) -> str:
        """The version of this program that wrote it."""

    @property
    def imaged_at(self) -> int | None:
        """When its image was made, in seconds since 1970, UTC; None where that was not noted."""

    @property
    def manifest(self) -> Manifest:
        """The digests of all that was written."""

    @property
    def stamp(self) -> Stamp | None:
        """The record itself where it is a stamp, which alone is signed and lists the files."""

    def boot_digests(self, volume: FatVolume) -> Mapping[str, str]:
        """Path -> SHA-256 (hex) of every boot file, as it was written. ``volume`` is the boot
        partition as it is now, which may hold the list of them."""

    def without_itself(self, chunk: Chunk, data: memoryview) -> None:
        """Zero what the digests leave out in ``data``, the card's bytes from the start of
        ``chunk``."""
