"""Blocks in the wrong place: where strange content comes from, and whether the card is a fake.

In: strange blocks of a card and the image it should hold. Out: the distance each came from, and
how much the card really holds if it wraps around there. A card sold larger than it is keeps the
low bits of an address only, so two addresses one real size apart are the same memory.
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
    """How many bytes further on in the image each strange block belongs.

    ``strangers`` maps the offset of a block of GRANULE_BYTES to ``hash`` of its bytes. The image
    is read once, whole. Where one content has several places, the distance that explains most
    blocks is taken. Blocks that are nowhere in the image are left out.
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

    None when two different blocks just that far apart both came back right, which a card that
    wraps there cannot do: then a write went astray, and may be mended.
    """
    if not found:
        return None
    far = Counter(map(abs, found.values()))
    for size in (gcd(*far), far.most_common(1)[0][0]):
        if size >= MiB and not _both_right(size, bad, extents, read):
            return size
    return None


def _both_right(size: int, bad: ExtentMap, extents: ExtentMap, read: Reader) -> bool:
    """Whether two blocks ``size`` apart came back right though they are not the same."""
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
