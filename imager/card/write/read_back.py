"""Read a written card back, compare every byte with what it was given, and mend what differs.

In: a WrittenCard. Out: a VerifiedCard, or an error that names the first differing byte, the
partition, the files and what happened there. Reading begins when the whole card is written; after
any repair it begins again, so that a VerifiedCard was read whole after its last write.
"""

from __future__ import annotations

from dataclasses import replace

from imager.base.progress import Progress
from imager.card.claim.blank import blank_unless_done
from imager.card.stages import VerifiedCard, WrittenCard
from imager.card.write.compare import compare
from imager.card.write.repair import mend
from imager.card.write.verdict import tell
from imager.card.write.write import written_extents


def read_back(written: WrittenCard, progress: Progress) -> VerifiedCard:
    """Compare every written byte, the first MiB included; rewrite what is wrong, twice at most.

    Raises CardFaulty when bytes stay wrong, FakeCapacity when the card is smaller than it says,
    CardIOError when it cannot be read or no longer takes writes, Interrupted on Ctrl-C; the card
    is blanked then, so that nothing unproven looks good. What was found is in the card's log.
    """
    attempts = 0
    everything = written_extents(written.image.manifest.extents, written.card.raw)
    with blank_unless_done(written.card):
        while True:
            reading = compare(written, written.extents, progress)
            tell(written, reading.diagnosis, progress, attempts)
            if reading.is_right:
                return VerifiedCard(written, reading.cache_bypassed)
            # However little was written in this run, a repair puts all of the card in doubt.
            written = replace(written, extents=everything)
            attempts = mend(written, reading, attempts, progress)
