"""Says when a card is put in or taken out, so that the head need not ask all the time.

In: sysfs and the links of udev, looked at once a second. Out: whether anything changed, then and
every few seconds: who hears nothing knows that nobody looks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from imager.card.host.sysfs import HostTrees

_LOOK_SECONDS = 1.0
_BEAT_SECONDS = 5.0


def changes(kernel: HostTrees, seconds: float) -> Iterator[bool]:
    """Look for so many seconds; gives True when cards came or went, False now and then when they
    did not."""
    until = time.monotonic() + seconds
    before, told_at = _readers(kernel), -_BEAT_SECONDS
    while (now := time.monotonic()) < until:
        readers = _readers(kernel)
        if readers != before or now - told_at >= _BEAT_SECONDS:
            yield readers != before
            before, told_at = readers, now
        time.sleep(_LOOK_SECONDS)


def _readers(kernel: HostTrees) -> tuple[object, ...]:
    """What changes when a card is put in: the media of disks, and the names of slots, which udev
    gives them a moment later."""
    media = tuple((name, kernel.medium(name)) for name in kernel.disk_names())
    return media, sorted(link.name for link in (kernel.dev / "disk/by-path").glob("*"))
