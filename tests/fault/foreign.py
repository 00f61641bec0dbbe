"""The rig with an image that is none of ours and is read only once.

In: a Rig. Out: the same with the image as a plain file. What must be said is the same, in other
words: a partition has a number and no name, and while the image is still coming in nobody knows
which file lies where.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.fault.cases import Outcome, Phase
from tests.fault.rig import Rig, Seen, faults_of
from tests.support.smallcard import LAYOUT, SIZE, Position

_WORDS = {
    "boot partition (p1)": "partition 1",
    "root partition (p2)": "partition 2",
    "partition table (first MiB)": "partition table",
    "/boot/": "/",
}


@contextmanager
def foreign(bench: Rig) -> Iterator[Rig]:
    """``bench`` with its image as a plain file, which is gone afterwards."""
    source = bench.folder / "any.img"
    with bench.image.open() as reader, source.open("wb") as file:
        file.truncate(SIZE)
        for extent in bench.image.manifest.extents:
            file.seek(extent.offset)
            file.write(reader.read(extent.offset, extent.length))
    try:
        yield replace(bench, source=source, places=tuple(map(_in_other_words, bench.places)))
    finally:
        source.unlink()


def _in_other_words(place: Position) -> Position:
    words = place.words
    for ours, theirs in _WORDS.items():
        words = words.replace(ours, theirs)
    return replace(place, words=words)


def foreign_faults_of(seen: Seen) -> Iterator[str]:
    """As ``faults_of``; what is refused while the image comes in is named by its partition, and
    before it comes in by its byte."""
    phase = seen.case.phase if seen.case.outcome is Outcome.IO_ERROR else None
    if seen.position is not None and phase in (Phase.ZEROING, Phase.BODY):
        number = 1 if seen.position.extent.offset < LAYOUT.root.offset else 2
        words = "byte" if phase is Phase.ZEROING else f"partition {number}"
        seen = replace(seen, position=replace(seen.position, words=words))
    yield from faults_of(seen)
