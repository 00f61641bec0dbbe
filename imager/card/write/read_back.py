"""Read a card back, compare every byte with what it was given, and mend what differs.

In: an UnprovenCard. Out: a VerifiedCard, or an error that names the first differing byte, the
partition, the files and what happened there. Reading begins when the whole card is written; after
any repair it begins again, so that a VerifiedCard was read whole after its last write.
"""

from __future__ import annotations

from imager.base.progress import Progress
from imager.card.claim.blank import blank_unless_done
from imager.card.stages import UnprovenCard, VerifiedCard
from imager.card.write.compare import compare
from imager.card.write.repair import mend
from imager.card.write.verdict import tell
from imager.card.write.write import written_extents


def read_back(unproven: UnprovenCard, progress: Progress) -> VerifiedCard:
    """Compare every byte to be proven, the first MiB too; rewrite what is wrong, twice at most.

    Raises CardFaulty when bytes stay wrong, FakeCapacity when the card is smaller than it says,
    CardIOError when it cannot be read or no longer takes writes, Interrupted on Ctrl-C; the card
    is blanked then, so that nothing unproven looks good. What was found is in the card's log.
    """
    attempts = 0
    everything = written_extents(unproven.image.manifest.extents, unproven.card.raw)
    with blank_unless_done(unproven.card):
        while True:
            reading = compare(unproven, unproven.extents, progress)
            tell(unproven, reading.diagnosis, progress, attempts)
            if reading.is_right:
                return VerifiedCard(unproven, reading.cache_bypassed)
            # However little was written in this run, a repair puts all of the card in doubt.
            unproven = UnprovenCard(unproven.card, unproven.image, everything, unproven.options)
            attempts = mend(unproven, reading, attempts, progress)
