"""What a station works with: its memory, its cache, its head and its disks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from imager.base.cache import Cache
from imager.card.host.sysfs import HostTrees
from imager.stations.desk.records import Records
from imager.stations.wire.golden import Bring
from imager.stations.wire.report import StationProgress

EVERY_SECONDS = 1.0
"""How often something is said to the head, and its stop looked for."""
Tell = Callable[[StationProgress], None]
"""Says something to the head, if it still listens; it never raises."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a station works with."""

    records: Records
    cache: Cache
    bring: Bring
    tell: Tell
    kernel: HostTrees = field(default_factory=HostTrees)
