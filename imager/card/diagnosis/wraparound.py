"""Blocks in the wrong place: where their content belongs, and whether the card is a fake.

In: blocks of a card with content that does not belong there, and the image the card should hold.
Out: how far away each content belongs, and how much the card really stores, if it is a fake. A card
sold as larger than it is often ignores the upper bits of an address: then two addresses that are
its real size apart are the same memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from math import gcd

from imager.base.units import MiB, align_up
from imager.card.diagnosis.damage import GRANULE_BYTES
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Reader

_SOURCES_KEPT = 8
_PAIRS_COMPARED = 16384
_READ_BYTES = MiB


def distances(strangers: Mapping[int, int], extents: ExtentMap, read: Reader) -> Mapping[int, int]:
    """How many bytes further on in the image the content of each strange block belongs.

    ``strangers`` maps the offset of a block of GRANULE_BYTES to ``hash`` of its bytes. The whole
    image is read once. If some content is in several places of the image, the distance that fits
    most blocks is taken. Blocks that are nowhere in the image are left out.
    """
    wanted = set(strangers.values())
    places: defaultdict[int, list[int]] = defaultdict(list)
    for offset, block in _blocks(extents, read):
        mark = hash(block)
        if mark in wanted and len(places[mark]) < _SOURCES_KEPT:
            places[mark].append(offset)
    votes = Counter(
        abs(place - offset) for offset, mark in strangers.items() for place in places[mark]
    )
    return {
        offset: max((p - offset for p in places[mark]), key=lambda far: (votes[abs(far)], far))
        for offset, mark in strangers.items()
        if places[mark]
    }


def _blocks(extents: ExtentMap, read: Reader) -> Iterator[tuple[int, bytes]]:
    for extent in extents.split(_READ_BYTES):
        data = read(extent.offset, extent.length)
        first = align_up(extent.offset, GRANULE_BYTES) - extent.offset
        for start in range(first, extent.length - GRANULE_BYTES + 1, GRANULE_BYTES):
            yield extent.offset + start, data[start : start + GRANULE_BYTES]


def real_size(
    found: Mapping[int, int], bad: ExtentMap, extents: ExtentMap, read: Reader
) -> int | None:
    """At most how many bytes the card holds, if ``found`` (of ``distances``) shows that it wraps.

    None when two different blocks that far apart are both right, which is impossible on a card that
    wraps there: then a write went to the wrong place, and writing again may help.
    """
    if not found:
        return None
    far = Counter(map(abs, found.values()))
    for size in (gcd(*far), far.most_common(1)[0][0]):
        if size >= MiB and not _both_right(size, bad, extents, read):
            return size
    return None


def _both_right(size: int, bad: ExtentMap, extents: ExtentMap, read: Reader) -> bool:
    """Whether two blocks ``size`` apart are both right although they differ."""
    beyond = ExtentMap([Extent(size, max(0, extents.end - size))])
    right = extents - bad
    pairs = right & (right & beyond).shifted(-size)
    for number, extent in enumerate(pairs.split(GRANULE_BYTES)):
        if number == _PAIRS_COMPARED:
            return False
        here = read(extent.offset, extent.length)
        if here != read(extent.offset + size, extent.length):
            return True
    return False
