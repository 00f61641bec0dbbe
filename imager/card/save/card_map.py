"""What of a card is to be read: what its filesystems use, and what lies around them; of one of our
cards also what was written on it.

In: an open card. Out: a CardMap. Where the card does not answer while its tables are read, all of
that partition is read. What lies behind the last partition is left out, but for the last MiB of a
disk with a GPT, where the second copy of the table is; and unless something begins there that looks
like a partition which the table has lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from imager.base.errors import CardIOError
from imager.base.units import SECTOR_BYTES, KiB, MiB, align_up
from imager.card.inspect.stamp import read_stamp
from imager.card.medium.raw import RawCard, is_gone
from imager.card.medium.reopen import reader_of, remembering
from imager.disk.extents import Extent, ExtentMap
from imager.disk.in_use import Area, InUse
from imager.disk.manifest import NotAtHand, Reader
from imager.disk.signature import Form, signature_at
from imager.node.stamp.facts import StampError

BLOCK_BYTES = 4 * KiB
"""The map counts in blocks of this size, as bmaptool does."""
_SMALLEST_GAP = 64 * KiB
"""To read over a smaller gap takes less time than to begin another transfer."""
_MOST_RANGES = 100_000
_HEAD_BYTES = 8 * KiB
"""Here every filesystem notes that it was written to: the superblock of an ext4, say."""
_UNKNOWN = "-"
_BOUNDARIES = (SECTOR_BYTES, MiB, 4 * MiB, 8 * MiB)
"""Programs that make partitions let the next one begin at once, or at a multiple of these."""
_OF_A_PARTITION = (Form.FILESYSTEM, Form.CONTAINER, Form.SWAP)


@dataclass(frozen=True, slots=True)
class CardMap:
    """``extents`` of the card are to be read, whole blocks of 4 KiB. What counts of it ends at
    byte ``end_bytes``, mostly with the last partition; ``left_out_bytes`` of what lies behind that
    are not read. ``note`` says what is odd about the card as a whole, or nothing. ``marks`` tell
    whether the card is the same and still as it was: a few letters for its first sectors and those
    of each partition, ``-`` for what cannot be read."""

    size_bytes: int
    extents: ExtentMap
    areas: tuple[Area, ...]
    end_bytes: int
    left_out_bytes: int
    has_gpt: bool
    note: str
    marks: tuple[str, ...]

    @property
    def in_use_bytes(self) -> int:
        """How many bytes are to be read."""
        return self.extents.total_bytes

    def is_of(self, marks: Sequence[str]) -> bool:
        """Whether a card with ``marks`` may be this one: nothing that both could read differs."""
        pairs = [*zip(self.marks, marks, strict=False)]
        return len(marks) == len(self.marks) and all(
            one == other or _UNKNOWN in (one, other) for one, other in pairs
        )


def map_card(raw: RawCard, *, sector_bytes: int = SECTOR_BYTES) -> CardMap:
    """What is to be read of the card. Raises CardIOError only when it is gone.

    A table of partitions may count in the sectors of the reader, ``sector_bytes``, where those are
    larger than 512 bytes: then its end is not believed.
    """
    size = raw.size_bytes
    read = remembering(_answering(raw), size)
    found = InUse(read, size)
    ranges = gathered(found.ranges())
    behind, note = found.behind, found.note
    is_all_read = sector_bytes != SECTOR_BYTES
    if not is_all_read and (lost := _begins_in(read, behind)):
        is_all_read, note = True, f"all behind the last partition too: {lost}, in no partition"
    if is_all_read:
        ranges |= ExtentMap([behind])
    elif found.has_gpt:
        ranges |= ExtentMap([Extent(max(found.end, size - MiB), min(MiB, behind.length))])
    ranges |= _written(read, size)
    extents = ranges.aligned(BLOCK_BYTES, limit=size).without_gaps_below(_SMALLEST_GAP)
    left_out = (ExtentMap([behind]) - extents).total_bytes
    return CardMap(
        size,
        extents,
        tuple(found.areas),
        size if is_all_read else found.end,
        left_out,
        found.has_gpt,
        note,
        _marks(read, found.areas),
    )


def _begins_in(read: Reader, behind: Extent) -> str:
    """What begins in ``behind`` as in a partition, and where; nothing where nothing does."""
    for place in sorted({align_up(behind.offset, unit) for unit in _BOUNDARIES}):
        with suppress(NotAtHand):
            found = signature_at(read, place, behind.end - place)
            if found is not None and found.form in _OF_A_PARTITION:
                return f"{found.kind} begins at byte {place}"
    return ""


def _written(read: Reader, size: int) -> ExtentMap:
    """What the stamp of one of our cards names: a copy is held against it, and that counts bytes
    which no file has any more. Nothing for any other card."""
    try:
        return read_stamp(read, size).manifest.extents & ExtentMap([Extent(0, size)])
    except (StampError, NotAtHand):
        return ExtentMap()


def marks_of(raw: RawCard, areas: Iterable[Area]) -> tuple[str, ...]:
    """The ``marks`` of the card as it is now. Raises CardIOError only when it is gone."""
    return _marks(_answering(raw), areas)


def gathered(ranges: Iterable[Extent]) -> ExtentMap:
    """``ranges``, which ascend, with the small gaps between them; so many that there is memory for
    all, whatever a stranger's card says."""
    kept: list[Extent] = []
    gap = _SMALLEST_GAP
    for extent in ranges:
        if kept and extent.offset - kept[-1].end < gap:
            kept[-1] = Extent(kept[-1].offset, extent.end - kept[-1].offset)
        elif extent.length:
            kept.append(extent)
        if len(kept) > _MOST_RANGES:
            gap *= 4
            kept = [*ExtentMap(kept).without_gaps_below(gap)]
    return ExtentMap(kept)


def _answering(raw: RawCard) -> Reader:
    """``read`` of the card; NotAtHand where it refuses."""
    read = reader_of(raw)

    def reading(offset: int, length: int) -> bytes:
        try:
            return read(offset, length)
        except CardIOError as error:
            if is_gone(error):
                raise
            raise NotAtHand from error

    return reading


def _marks(read: Reader, areas: Iterable[Area]) -> tuple[str, ...]:
    return tuple(_mark(read, place) for place in (0, *(area.extent.offset for area in areas)))


def _mark(read: Reader, offset: int) -> str:
    try:
        return hashlib.sha256(read(offset, _HEAD_BYTES)).hexdigest()[:12]
    except (NotAtHand, ValueError):
        return _UNKNOWN
