"""Cards of one station that are ordered together, and how far their order is.

In: jobs, of which each is being prepared. Out: those that have not ended, for the crew.
"""

from __future__ import annotations

import math
from concurrent.futures import Future
from dataclasses import dataclass

from imager.image.compose.golden import GoldenImage
from imager.stations.head.line import Line
from imager.stations.head.prepare import Prepared
from imager.stations.head.remote import RemoteJob


@dataclass(slots=True)
class OrderedCards:
    """Jobs of one station that are ordered together: ``jobs`` are those that have not ended.
    ``ordering`` is set once they are ordered, ``told_at`` is when that was done: then the order was
    on its way. ``spoke`` is whether the station said anything of it. ``refused`` says why it has no
    such order, for sure; ``ended`` is when (of a monotonic clock) and how its program ended, where
    it did not end well."""

    name: str
    line: Line
    golden: GoldenImage
    jobs: dict[str, RemoteJob]
    preparing: dict[str, Future[Prepared]]
    ordering: Future[None] | None = None
    told_at: float = math.inf
    spoke: bool = False
    refused: tuple[str, str] | None = None
    ended: tuple[float, str] | None = None
