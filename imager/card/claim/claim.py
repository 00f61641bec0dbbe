"""Claim a confirmed target: from here on it is a card, and this program's alone.

In: an AcceptedTarget. Out: a ClaimedCard for as long as the ``with`` block lasts. How a target is
held is its own affair (``Target.hold``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imager.base.errors import Interrupted
from imager.card.claim.blank import leave_blank
from imager.card.host.refusals import AcceptedTarget
from imager.card.host.sysfs import HostTrees
from imager.card.stages import ClaimedCard


@contextmanager
def claim(
    accepted: AcceptedTarget, size_bytes: int, kernel: HostTrees | None = None
) -> Iterator[ClaimedCard]:
    """Hold the confirmed target for an image of ``size_bytes``; the only way to a ClaimedCard.

    Raises TargetRefused when it is in use after all, was swapped for another, or may not be
    opened; CardIOError when an image file cannot get its room.
    """
    target = accepted.target
    with target.hold(size_bytes, accepted.limits, kernel or HostTrees()) as held:
        card = ClaimedCard(target, held)
        try:
            yield card
        except KeyboardInterrupt as stop:
            # Between two steps; within one the step itself has seen to it.
            raise Interrupted("interrupted", hint=leave_blank(card)) from stop
