"""What is asked for when a card is made: one value, handed from step to step.

In: an image, or where it comes from, and a confirmed target. Out: an order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from imager.base.trusted_folder import TrustedFolder
from imager.card.host.refusals import AcceptedTarget
from imager.card.host.sysfs import HostTrees
from imager.card.source.source import ImageSource
from imager.card.stages import WriteOptions
from imager.card.write.options import DEFAULT_OPTIONS
from imager.card.write.stream import Seal
from imager.disk.manifest import Reader
from imager.node.image import NodeImage

Check = Callable[[Reader, int], None]
"""``check(read, size_bytes)`` of a finished card; raises a PicloudError (WouldNotBoot) if bad."""


class Order(Protocol):
    """What every order says, whatever image it is for."""

    @property
    def accepted(self) -> AcceptedTarget:
        """The confirmed target."""

    @property
    def receipts(self) -> TrustedFolder:
        """The folder its receipt goes into."""

    @property
    def options(self) -> WriteOptions:
        """How to write."""

    @property
    def check(self) -> Check | None:
        """Reads the finished card through a new descriptor."""

    @property
    def kernel(self) -> HostTrees | None:
        """Where the kernel's files about disks lie."""


@dataclass(frozen=True, slots=True)
class CardOrder:
    """One node's card: which image goes on which target, and how.

    Its receipt goes into the folder ``receipts``. ``check`` is the boot check; it reads the
    finished card through a new descriptor.
    """

    image: NodeImage
    accepted: AcceptedTarget
    receipts: TrustedFolder
    options: WriteOptions = DEFAULT_OPTIONS
    check: Check | None = None
    kernel: HostTrees | None = None


@dataclass(frozen=True, slots=True)
class SourceOrder:
    """One card with an image that is none of ours; else as CardOrder. The image needs
    ``size_bytes`` or more: what the source says of itself before it is read.

    Where a node's card is made of another card, ``node`` is whose it is, ``boot_files`` are its
    boot files with their digests, and ``seal`` gives its stamp. With ``grow`` the last partition
    is made to fill the card.
    """

    source: ImageSource
    size_bytes: int
    accepted: AcceptedTarget
    receipts: TrustedFolder
    options: WriteOptions = DEFAULT_OPTIONS
    check: Check | None = None
    kernel: HostTrees | None = None
    node: str = ""
    boot_files: Mapping[str, str] = field(default_factory=dict)
    seal: Seal | None = None
    grow: bool = False
