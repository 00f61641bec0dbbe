"""What is said of a card that read back wrong: the error, the findings, the receipt's record.

In: a diagnosis. Out: the exception whose class decides the exit code, and words for a person.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from imager.base.errors import CardFaulty, CardIOError, FakeCapacity, PicloudError
from imager.base.progress import Progress
from imager.base.units import MiB, format_size
from imager.card.diagnosis.damage import Damage, DamageKind, Diagnosis
from imager.card.diagnosis.places import Places
from imager.card.diagnosis.trouble import Trouble
from imager.card.image import CardImage, ImageReader
from imager.card.probe.plan import least_loss_bytes
from imager.card.stages import UnprovenCard
from imager.card.write.compare import Reading
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import FIRST_MIB
from imager.disk.manifest import Reader

_KEPT = 1000


_SILENT = (DamageKind.ZEROS, DamageKind.ONES, DamageKind.FOREIGN)


def tell(unproven: UnprovenCard, diagnosis: Diagnosis, progress: Progress, attempts: int) -> None:
    """Report what was found and keep it for the receipt, beside what was found before; what was
    found before and is still there is only counted."""
    name, log = unproven.card.target.node, unproven.card.log
    before = log.trouble
    known = before.found if before else ()
    new = replace(diagnosis, damages=tuple(d for d in diagnosis.damages if d not in known))
    for damage in new.damages:
        progress.finding(damage)
    for line in new.lines:
        progress.note(f"{name}: {line}")
    if attempts and diagnosis.damages:
        progress.note(f"{name}: {diagnosis.ranges} still wrong after rewriting")
    if diagnosis.lies:
        progress.warn(_lie(name, diagnosis.lies))
    if before is None and not (diagnosis.damages or diagnosis.lies):
        return
    lies = ExtentMap((*(before.lies if before else ()), *diagnosis.lies))
    log.trouble = Trouble(
        found=(*known, *new.damages)[:_KEPT],
        left=diagnosis.damages,
        lies=tuple(lies)[:_KEPT],
        attempts=attempts,
        meaning=_meaning(diagnosis, attempts),
    )


def _lie(name: str, lies: ExtentMap) -> str:
    return (
        f"{name}: the first reading was wrong from byte {next(iter(lies)).offset} on, "
        f"{format_size(lies.total_bytes)} in all, and the second one right: the reader, its cable "
        "or its port is not reliable"
    )


def _meaning(diagnosis: Diagnosis, attempts: int) -> str:
    if diagnosis.damages:
        return diagnosis.meaning()
    if attempts:
        return (
            "Not everything was as it was written; what was wrong was written again and is right "
            "now. If it happens again, try another reader first, then another card."
        )
    return "The card is good. The reader gave wrong answers at first: use another one."


def condemned(unproven: UnprovenCard, reading: Reading, attempts: int) -> PicloudError:
    """The error for a card that stays wrong after ``attempts`` at rewriting it."""
    name, size = unproven.card.target.node, unproven.card.raw.size_bytes
    with unproven.image.open() as reader:
        diagnosis = with_lost_end(reading.diagnosis, unproven.extents, size, reader.read)
    if not diagnosis.damages:
        return CardIOError(
            f"{name}: reading fails again and again, though not always at the same place",
            hint="try another reader, cable or port",
        )
    error = _error(name, size, diagnosis, attempts)
    error.details = (*diagnosis.lines, diagnosis.meaning())
    return error


def _error(name: str, size: int, diagnosis: Diagnosis, attempts: int) -> PicloudError:
    first = diagnosis.damages[0]
    where = f"{diagnosis.ranges}, first at byte {first.first_byte}, {first.where}: {first.what}"
    again = {0: "", 1: ", rewritten once"}.get(attempts, f", rewritten {attempts} times")
    if diagnosis.holds_bytes is not None:
        return FakeCapacity(
            f"{name} is a fake: it says it holds {format_size(size)} and holds "
            f"{format_size(diagnosis.holds_bytes)} at most ({where})",
            hint="do not use this card for anything; give it back where it was bought",
        )
    if diagnosis.unreadable:
        return CardIOError(
            f"{name}: the card cannot be read back{again}: {where}",
            hint="try the card in another reader once; if it fails again, throw it away",
        )
    return CardFaulty(
        f"{name}: the card did not give back what was written{again}: {where}",
        hint="try the card in another reader once; if it fails again, throw it away",
    )


@contextmanager
def places_named(image: CardImage, reader: ImageReader) -> Iterator[None]:
    """Add to a CardIOError what lies at its byte."""
    with bytes_named(Places.of_image(image.layout, reader.read, image.manifest.size_bytes)):
        yield


@contextmanager
def bytes_named(places: Places) -> Iterator[None]:
    """Add to a CardIOError which of ``places`` is at its byte."""
    try:
        yield
    except CardIOError as error:
        if error.offset is not None:
            there = " | ".join(map(str, places.of(Extent(error.offset, 1))))
            error.details = (f"byte {error.offset}: {there}", *error.details)
        raise


def with_lost_end(
    diagnosis: Diagnosis, extents: ExtentMap, size_bytes: int, read: Reader
) -> Diagnosis:
    """``diagnosis`` with ``holds_bytes`` when nothing of the card's end was kept: some fakes
    forget what is beyond their size and do not wrap around."""
    if diagnosis.holds_bytes is not None or diagnosis.unreadable:
        return diagnosis
    # The first MiB is zeros while a card is mended, so it proves nothing.
    kept = _end_of_what_was_kept(extents - diagnosis.bad - ExtentMap([FIRST_MIB]), read)
    beyond = [damage for damage in diagnosis.damages if damage.extent.offset >= kept]
    if (
        not kept
        or size_bytes - kept < least_loss_bytes(size_bytes)
        or len(beyond) < 2
        or not _all_lost(beyond)
    ):
        return diagnosis
    return replace(diagnosis, holds_bytes=kept)


def lost_its_end(unproven: UnprovenCard, diagnosis: Diagnosis) -> bool:
    """Whether the last of what was written is lost, however little that is: too little to call the
    card a fake, and enough to ask it."""
    with unproven.image.open() as reader:
        good = unproven.extents - diagnosis.bad - ExtentMap([FIRST_MIB])
        kept = _end_of_what_was_kept(good, reader.read)
    beyond = [damage for damage in diagnosis.damages if damage.extent.offset >= kept]
    # Where nobody knows what is wrong, nothing may have been kept.
    silent = (*_SILENT, DamageKind.DIFFERENT)
    return bool(beyond) and _all_lost(beyond, silent)


def _all_lost(damages: Iterable[Damage], silent_kinds: Collection[DamageKind] = _SILENT) -> bool:
    """Whether nothing was kept there. A sector of few set bits that came back as zeros counts as
    flipped bits; there may be some of these among the lost ones."""
    silent = lost = 0
    for damage in damages:
        lost += damage.extent.length
        if damage.kind in silent_kinds:
            silent += damage.extent.length
        elif damage.kind is not DamageKind.FLIPPED:
            return False
    return silent * 10 >= lost * 9


def _end_of_what_was_kept(good: ExtentMap, read: Reader) -> int:
    """The end of the last piece that came back right and is not zeros, which a card that forgot
    them would give back, too; 0 when there is none."""
    for part in reversed(list(good.split(MiB))):
        if any(read(part.offset, part.length)):
            return part.end
    return 0
