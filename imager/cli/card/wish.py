"""How a card shall be made, whatever it is of: the options of ``write`` that both kinds have.

In: words from the command line. Out: a CardWish.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import UsageError
from imager.card.host.target import Limits, Target
from imager.card.stages import WriteOptions
from imager.card.write.options import options_for
from imager.cli.consent import limits_of, whole_sectors


@dataclass(frozen=True, slots=True)
class CardWish:
    """What the person said of the card; sizes are bytes, None for what was not said."""

    path: Path
    size_bytes: int | None
    max_size_bytes: int | None
    block_bytes: int | None
    depth: int | None
    allow_fixed_disk: bool
    probe: bool
    yes: bool
    dry_run: bool

    def limits(self, ours: tuple[Path, ...]) -> Limits:
        """Which targets are allowed; ``ours`` are the folders that must not lie on one."""
        return limits_of(ours, self.max_size_bytes, allow_fixed_disk=self.allow_fixed_disk)

    def options(self, target: Target) -> WriteOptions:
        """How to write to ``target``."""
        return options_for(target, block_bytes=self.block_bytes, depth=self.depth)

    def size_for(self, target: Target) -> int | None:
        """How large the card is to be; None for an image file as small as the image allows."""
        if self.size_bytes is None:
            return target.capacity_bytes
        if target.capacity_bytes is not None:
            raise UsageError(
                "--size is for image files; a disk is used whole",
                hint="leave --size out, or name a file ending in .img",
            )
        return whole_sectors(self.size_bytes)
