"""What is asked for when a card is made: one value, handed from step to step.

In: a node's image and a confirmed target. Out: a CardOrder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imager.card.host.refusals import AcceptedTarget
from imager.card.host.sysfs import HostTrees
from imager.card.stages import WriteOptions
from imager.card.write.options import DEFAULT_OPTIONS
from imager.disk.manifest import Reader
from imager.node.image import NodeImage

Check = Callable[[Reader, int], None]
"""``check(read, size_bytes)`` of a finished card; raises a PicloudError (WouldNotBoot) if bad."""


@dataclass(frozen=True, slots=True)
class CardOrder:
    """One card: which image goes on which target, and how.

    Its receipt goes into the folder ``receipts``. ``check`` looks at the finished card through
    the fresh descriptor (the boot check).
    """

    image: NodeImage
    accepted: AcceptedTarget
    receipts: Path
    options: WriteOptions = DEFAULT_OPTIONS
    check: Check | None = None
    kernel: HostTrees | None = None
