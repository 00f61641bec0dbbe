"""The boot check of one card: of its image before it is written, and of the card at its end.

In: a node and its image. Out: a check as a CardOrder takes it; it raises WouldNotBoot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from imager.base.errors import WouldNotBoot
from imager.bootcheck.check import check_boot
from imager.bootcheck.contents import remember
from imager.bootcheck.findings import Code
from imager.bootcheck.formats.kernel import inspect_kernel
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Reader
from imager.node.image import NodeImage


class Booted(Protocol):
    """What is to start from a card."""

    @property
    def name(self) -> str:
        """The node's name."""

    @property
    def model(self) -> str:
        """Its board, such as ``pi2``."""


class BootCheck:
    """The boot check of a card made for ``node`` from ``image``."""

    __slots__ = ("_asked", "_image", "_node")

    def __init__(self, node: Booted, image: NodeImage) -> None:
        self._node = node
        self._image = image
        self._asked: ExtentMap | None = None
        # To unpack a kernel takes a third of a second; it was done when the image was composed.
        remember(inspect_kernel, image.golden.kernels)

    def of_image(self) -> None:
        """Raise WouldNotBoot for an image that would not boot the node, before any card is
        touched."""
        asked: list[Extent] = []
        with self._image.open() as reader:

            def read(offset: int, length: int) -> bytes:
                asked.append(Extent(offset, length))
                return reader.read(offset, length)

            self._check(read, self._image.layout.size_bytes)
        self._asked = ExtentMap(asked)

    def __call__(self, read: Reader, size_bytes: int) -> None:
        """See ``Check``. Where the check of the image asked for nothing but what every proven card
        of the same size has from it, the answer is known."""
        same_size = size_bytes == self._image.layout.size_bytes
        if self._asked is None or not same_size or self._asked - self._image.manifest.extents:
            self._check(read, size_bytes)

    def _check(self, read: Reader, size_bytes: int) -> None:
        require_bootable(self._node, self._image.boot_files, read, size_bytes)


def require_bootable(
    node: Booted, boot_files: Mapping[str, str], read: Reader, size_bytes: int
) -> None:
    """Raise WouldNotBoot for a card, or an image of one, that would not boot ``node``, or of
    which not all was looked at that says whether it does: nothing passes here unread.
    ``boot_files`` has the digest (SHA-256 in hex) of each boot file it should have."""
    report = check_boot(read, size_bytes, model=node.model, expected=dict(boot_files))
    if not report.bootable:
        raise WouldNotBoot(
            f"{node.name} would not boot: {report.errors[0].what}",
            hint=report.errors[0].mend,
            details=[f"{found.code}: {found.what}" for found in report.errors],
        )
    if report.undecided is not None:
        raise WouldNotBoot(
            f"it cannot be said whether {node.name} would boot: {report.undecided.what}",
            hint="change or remove what is named: no Raspberry Pi needs as much of it",
            details=[
                f"{found.code}: {found.what}"
                for found in report.findings
                if found.code is Code.NOT_LOOKED_AT
            ],
        )
