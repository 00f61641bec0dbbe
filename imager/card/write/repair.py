"""Rewrite what read back wrong, and only that; a card that stays wrong is condemned.

In: an UnprovenCard and a Reading that is not right. Out: the card whole again, or an error and a
blank card. The order keeps the promise of the first writing (blank or whole, whenever it is
pulled): the first MiB is zeroed and flushed, then the bad ranges of the body are rewritten,
flushed and read again on a fresh descriptor; only when they are right comes the first MiB, its
partition table last of all. The caller reads the whole card once more afterwards, because a write
that goes astray damages what was right before.

What comes of each fault (``write``; exit code, and what is left on the card):

====================================  =====================================================
reads that lie once, EIO once (read)  0; warning, ``trouble.lies``; nothing is rewritten
flip, zeros, 0xff, stale, dropped,    0 after one rewrite; ``trouble.found``, attempts 1
shifted or misdirected write, once
the same at every write               21, attempts 2, first MiB zero
the same at every read                21, attempts 2, first MiB zero
EIO at reading, mended by a rewrite   0; ``unreadable`` in ``trouble.found``
EIO at reading, always                22, attempts 2, first MiB zero
EIO at more than 8 transfers          22, attempts 0, first MiB zero
EIO once at writing                   0; the transfer is repeated in pieces, with a warning
EIO always at writing                 22, naming byte and place; also within a repair
EIO at flushing                       22, never repeated: the kernel forgets what was lost
ENOSPC, read-only, vanished           22 at once; the details say whether it could be blanked
address wrap (mapped bytes collide)   24, attempts 0, naming the real size; first MiB zero
nothing kept beyond some byte         24, attempts 2, naming that byte; where only one range of
                                      ours lies there, after a short probe
short write, stall                    0; they are normal
an image file read back wrong         21, attempts 0; no file is left
====================================  =====================================================
"""

from __future__ import annotations

from imager.base.errors import CardFaulty, PicloudError
from imager.base.progress import Progress
from imager.card.claim.blank import zero
from imager.card.diagnosis.damage import GRANULE_BYTES
from imager.card.probe.probe import fake_after_all
from imager.card.stages import ClaimedCard, UnprovenCard
from imager.card.write.compare import Reading, compare
from imager.card.write.verdict import condemned, lost_its_end, places_named, tell
from imager.card.write.write import copy, write_first_mib
from imager.disk.extents import ExtentMap
from imager.disk.layout import FIRST_MIB

ATTEMPTS = 2
"""A range that is bad after this many rewrites condemns the card."""


def mend(unproven: UnprovenCard, reading: Reading, attempts: int, progress: Progress) -> int:
    """Rewrite what ``reading`` found wrong until it reads back right; gives the attempts made
    so far, of which ``attempts`` were made before.

    The caller blanks the card on any exception. Raises CardFaulty, CardIOError or FakeCapacity
    when the card is condemned or no longer takes writes.
    """
    first = unproven.extents & ExtentMap([FIRST_MIB])
    while True:
        if attempts == ATTEMPTS or not _can_be_mended(unproven.card, reading):
            raise _given_up(unproven, reading, attempts, progress)
        attempts += 1
        bad = reading.diagnosis.bad.aligned(GRANULE_BYTES) & unproven.extents
        _blank(unproven.card)
        with unproven.image.open() as reader, places_named(unproven.image, reader):
            read_into, options = reader.read_into, unproven.options
            copy("repair", read_into, unproven.card, [bad - first], options, progress)
            reading = _read_again(unproven, bad - first, attempts, progress)
            if not reading.is_right:
                continue
            write_first_mib(reader, unproven.card, unproven.extents, unproven.options, progress)
        reading = _read_again(unproven, bad & first, attempts, progress)
        if reading.is_right:
            return attempts


def mend_in_place(unproven: UnprovenCard, progress: Progress) -> int:
    """Bring ``unproven.extents`` of a card in use back to what the image has there; gives the
    attempts it took.

    The card is not blanked meanwhile, nor when it is condemned: it holds a node's own data, and
    what is rewritten here was damaged before. Raises as ``mend`` does.
    """
    attempts = 0
    first = ExtentMap([FIRST_MIB])
    while True:
        reading = compare(unproven, unproven.extents, progress)
        tell(unproven, reading.diagnosis, progress, attempts)
        if reading.is_right:
            return attempts
        if attempts == ATTEMPTS or not _can_be_mended(unproven.card, reading):
            raise condemned(unproven, reading, attempts)
        attempts += 1
        bad = reading.diagnosis.bad.aligned(GRANULE_BYTES) & unproven.extents
        with unproven.image.open() as reader, places_named(unproven.image, reader):
            steps = [bad - first, bad & first]
            copy("repair", reader.read_into, unproven.card, steps, unproven.options, progress)


def _given_up(
    unproven: UnprovenCard, reading: Reading, attempts: int, progress: Progress
) -> PicloudError:
    """Why the card is condemned. Where our image has next to nothing at the card's end, losing it
    proves no fake; then the card itself is asked, for nothing on it is worth keeping any more."""
    error = condemned(unproven, reading, attempts)
    silent = isinstance(error, CardFaulty) and not unproven.card.target.made_anew
    if not silent or not lost_its_end(unproven, reading.diagnosis):
        return error
    progress.note(f"{unproven.card.target.node} lost its end: is it smaller than it says?")
    fake = fake_after_all(unproven.card, progress)
    if fake is None:
        return error
    fake.details = (*error.details, *fake.details)
    return fake


def _can_be_mended(card: ClaimedCard, reading: Reading) -> bool:
    """A fake is not, a card that hardly answers is not; a file is made anew instead."""
    return not card.target.made_anew and reading.complete and reading.diagnosis.holds_bytes is None


def _blank(card: ClaimedCard) -> None:
    card.log.touched = True
    zero(card.raw, [FIRST_MIB])


def _read_again(
    unproven: UnprovenCard, extents: ExtentMap, attempts: int, progress: Progress
) -> Reading:
    reading = compare(unproven, extents, progress, "read repair")
    tell(unproven, reading.diagnosis, progress, attempts)
    return reading
