"""Both filesystems of a card that is being verified, read once and within one budget.

In: a way to read the card and where its partitions lie. Out: the boot files, and the root
filesystem as it lies there, or why either cannot be read.
"""

from __future__ import annotations

from functools import cached_property

from imager.disk.budget import Budget
from imager.disk.ext4.filesystem import Ext4
from imager.disk.ext4.journal import replayed
from imager.disk.fat.table import FaultKind
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import Layout
from imager.disk.manifest import Reader


class CardFiles:
    """The filesystems of one card; whatever is read of them is paid for from ``budget``."""

    def __init__(self, read: Reader, layout: Layout, budget: Budget | None = None) -> None:
        self.read, self.layout, self.budget = read, layout, budget or Budget()

    @cached_property
    def boot(self) -> FatVolume | ValueError:
        """The boot partition, or why it cannot be read."""
        where = self.layout.boot
        try:
            return FatVolume.parse(self.read, where.offset, where.length, self.budget)
        except ValueError as error:
            return error

    @property
    def boot_unseen(self) -> str:
        """What of the boot partition was not looked at, in words; empty for nothing."""
        faults = () if isinstance(self.boot, ValueError) else self.boot.faults
        unseen = (fault.what for fault in faults if fault.kind is FaultKind.NOT_LOOKED_AT)
        return next(unseen, "")

    def root(self) -> Ext4:
        """The root filesystem as it lies there. Raises ValueError."""
        return Ext4.open(self.read, self.layout.root.offset, self.budget)

    def root_as_its_node_knows_it(self) -> Ext4:
        """The root filesystem with its journal replayed. Raises ValueError."""
        where = self.layout.root.offset
        return Ext4.open(replayed(self.read, where, self.budget), where, self.budget)
