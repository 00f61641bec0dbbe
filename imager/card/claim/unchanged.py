"""Between a person's yes and our lock nothing may have changed on a card.

In: a card that is ours alone, and what its target had in its first MiB when it was shown. Out:
nothing, or TargetRefused that says what is there now: another run may have written the card while
this one fetched, composed, or waited for the lock.
"""

from __future__ import annotations

from datetime import UTC, datetime

from imager.base.errors import TargetRefused
from imager.base.units import SECTOR_BYTES
from imager.card.host.first_mib import digest_of, first_mib
from imager.card.stages import ClaimedCard
from imager.disk.mbr import MbrError, parse
from imager.node.stamp.facts import StampError
from imager.node.stamp.stamp import STAMP_AREA, parse_stamp


def require_unchanged(card: ClaimedCard) -> None:
    """Raise TargetRefused when the card's first MiB is another one than when it was shown;
    CardIOError when it cannot be read any more."""
    shown = card.target.first_mib
    if shown is None:
        return
    with card.reopen() as fresh:
        now = first_mib(fresh)
    if digest_of(now) != shown:
        raise TargetRefused(
            f"{card.target.node} is not what it was when it was shown: it holds {_named(now)} now",
            hint="if it may be overwritten all the same, run the same command again",
        )


def _named(first: bytes) -> str:
    try:
        facts = parse_stamp(first[STAMP_AREA.offset : STAMP_AREA.end]).facts
    except StampError:
        pass
    else:
        when = datetime.fromtimestamp(facts.imaged_at, UTC)
        return f"{facts.node} of rack {facts.rack}, made at {when:%Y-%m-%d %H:%M:%S} UTC,"
    if not any(first):
        return "nothing in its first MiB"
    try:
        return f"a partition table with disk id {parse(first[:SECTOR_BYTES]).disk_id:08x}"
    except MbrError:
        return "something else"
