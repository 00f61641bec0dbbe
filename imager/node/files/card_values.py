"""The values of one card that its files are made with: its ids as text, and its date.

In: a node's identity and the time. Out: the values templates may use as ``card``.
"""

from __future__ import annotations

import os
import time as clock
from dataclasses import dataclass

from imager.base.errors import ConfigurationError
from imager.base.programs import tool_version
from imager.disk.mbr import Mbr
from imager.node.keys.identity import Identity
from imager.node.keys.salt import fingerprint

_EARLIEST, _LATEST = 315_532_800, (1 << 32) - 1
"""1980, where FAT's dates begin, and the last second that 32 bits without sign can hold."""


@dataclass(frozen=True, slots=True)
class CardValues:
    """What templates may use as ``card.…``: text in the form in which files have it.

    ``imaged_at`` is in seconds since 1970 (UTC); ``master_finger`` is None where the master's
    key is not known.
    """

    machine_id: str
    boot_partuuid: str
    root_partuuid: str
    root_uuid: str
    imaged_at: int
    master_finger: str | None


@dataclass(frozen=True, slots=True)
class Occasion:
    """When a card is imaged (seconds since 1970, UTC) and by which version of this program. While
    the rack stays the same, two images of one node differ in nothing else."""

    imaged_at: int
    tool_version: str

    @classmethod
    def now(cls) -> Occasion:
        """The present time and version; raises ConfigurationError for a wrong SOURCE_DATE_EPOCH."""
        return cls(imaging_time(), tool_version())


def card_values(identity: Identity, time: int) -> CardValues:
    """The values of the card made for ``identity`` at ``time``."""
    numbers, master = identity.numbers, identity.master.public
    partuuid = Mbr(numbers.disk_id, ()).partuuid
    return CardValues(
        machine_id=numbers.machine_id,
        boot_partuuid=partuuid(1),
        root_partuuid=partuuid(2),
        root_uuid=numbers.root_uuid,
        imaged_at=time,
        master_finger=fingerprint(master) if master else None,
    )


def imaging_time() -> int:
    """Now, or SOURCE_DATE_EPOCH, in seconds since 1970; every file written gets this time.
    Raises ConfigurationError."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        return int(clock.time())
    if not given.isdigit() or not _EARLIEST <= int(given) <= _LATEST:
        raise ConfigurationError(
            f"SOURCE_DATE_EPOCH is {given!r}, not a time FAT and ext4 can both hold",
            hint="give whole seconds since 1970, from 315532800 (the year 1980) on",
        )
    return int(given)
