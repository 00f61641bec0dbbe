"""A card that is not proven looks blank: its first MiB is zeros, and it says so.

In: a claimed card and whatever went wrong. Out: the same error, with a sentence about the state
the card is in. A card that was not written whole, or did not give back what was written, must not
look bootable; one that was not touched yet keeps what it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from imager.base.errors import CardIOError, Interrupted, PicloudError
from imager.base.units import MiB
from imager.card.medium.in_flight import in_flight
from imager.card.medium.meter import Meter
from imager.card.medium.raw import RawCard, aligned_buffer, flush, is_gone, write_stubbornly
from imager.card.medium.reopen import reader_of
from imager.card.stages import ClaimedCard
from imager.disk.extents import Extent
from imager.disk.layout import FIRST_MIB


def zero(raw: RawCard, extents: Iterable[Extent], meter: Meter | None = None) -> None:
    """Zero ranges of at most 1 MiB each, in order, and flush; raises CardIOError."""
    zeros = aligned_buffer(MiB)

    def work(extent: Extent, _: None) -> None:
        write_stubbornly(raw, extent.offset, zeros[: extent.length])
        if meter:
            meter.advance(extent.length)

    in_flight(extents, work, depth=1, tools=lambda: None)
    flush(raw)


@contextmanager
def blank_unless_done(card: ClaimedCard) -> Iterator[None]:
    """Blank the card when the block is left by an exception.

    The error's details tell its state; Ctrl-C becomes Interrupted, whose hint tells it.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted("interrupted", hint=leave_blank(card)) from stop
    except PicloudError as error:
        error.details = (*error.details, leave_blank(card))
        raise
    except BaseException:
        leave_blank(card)
        raise


def leave_blank(card: ClaimedCard) -> str:
    """Zero the first MiB if the card still takes it, however often Ctrl-C is pressed meanwhile;
    a sentence about its state."""
    name = card.target.node
    if card.target.made_anew:
        return f"no unfinished image was left at {name}"
    if not card.log.touched:
        return f"nothing was written to {name}"
    while True:
        with suppress(KeyboardInterrupt):
            return _blanked(card, name)


def _blanked(card: ClaimedCard, name: str) -> str:
    """Zero, and look: a card that drops writes without a word would keep its partition table."""
    never = "do not use this card, whatever it seems to hold"
    try:
        zero(card.raw, [FIRST_MIB])
        with suppress(CardIOError, OSError), card.reopen() as fresh:
            if not any(reader_of(fresh.raw)(0, FIRST_MIB.length)):
                return f"{name} is visibly blank: it has no partition table; write it again"
        return f"{name} could not be made blank: it does not keep what is written; {never}"
    except (CardIOError, OSError) as error:
        if isinstance(error, CardIOError) and is_gone(error):
            return f"the card that was in {name} is unfinished, write it again: {never}"
        return f"{name} no longer takes writes: {never}"
