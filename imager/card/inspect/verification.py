"""What came of verifying a card, and the words for it.

In: ranges and files that are not as they should be. Out: a verdict, and the error that names each
of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.base.errors import CardIOError, StampMismatch
from imager.card.diagnosis.places import CardPlace
from imager.card.inspect.use import CardUse
from imager.card.medium.meter import PhaseFigures
from imager.disk.extents import Extent

_LISTED = 20
STAMP, RECEIPT = "stamp", "receipt"
_UNUSED = (
    "nothing shows that a Pi has run from it, so the card or reader did this: put it back with "
    "{repair}, or write it again"
)
_FILE = "its computer or its disk did this: copy it again from where it is whole, or write it again"
_PERHAPS_USED = "if a Pi has run from it since, that is its own work; if not, write it again"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A chunk whose digest is not the receipt's, or a range the card refuses to read: where it
    lies and what lies there."""

    extent: Extent
    places: tuple[CardPlace, ...]
    unreadable: bool = False

    def __str__(self) -> str:
        where = " | ".join(map(str, self.places))
        refused = "cannot be read: " if self.unreadable else ""
        return f"bytes {self.extent.offset} to {self.extent.end - 1}: {refused}{where}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of it. ``mismatches`` are the ranges that are not as they were written,
    ``boot_files`` the boot files that are missing or differ. ``use`` says which files are damaged
    where the stamp can tell, and what the node changed if one has run from the card (``used``)."""

    node: str
    target: str
    size_bytes: int
    receipt_size_bytes: int
    checked_bytes: int
    cache_bypassed: bool
    mismatches: tuple[Mismatch, ...]
    boot_files: tuple[str, ...]
    figures: PhaseFigures
    proof: str = RECEIPT
    used: bool = False
    use: CardUse | None = None

    @property
    def unreadable(self) -> tuple[Mismatch, ...]:
        """What the card refuses to read."""
        return tuple(mismatch for mismatch in self.mismatches if mismatch.unreadable)

    @property
    def matches(self) -> bool:
        """Whether every byte is as it was written."""
        return not self.mismatches

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged: all as written, or changed by the node alone."""
        if self.unreadable:
            return False
        return self.matches or (self.used and self.use is not None and not self.use.damaged)

    def require_sound(self, repair: str = "") -> None:
        """Raise StampMismatch, with every place named, where something is damaged; CardIOError
        where the card refuses to be read. ``repair`` is the command that puts back what a card
        has lost from which no Pi has run; empty for what cannot be repaired, an image file."""
        if self.sound:
            return
        if self.unreadable:
            raise _not_readable(self)
        if self.used and self.use is not None:
            raise _damaged_in_use(self, self.use)
        lines = _lines(self)
        count = len(self.mismatches)
        ranges = "one range differs" if count == 1 else f"{count} ranges differ"
        raise StampMismatch(
            f"{self.target}: this is not what was written for {self.node}: {ranges}",
            hint=(
                _PERHAPS_USED
                if self.proof != STAMP
                else _UNUSED.format(repair=repair)
                if repair
                else _FILE
            ),
            details=lines,
        )


def _lines(found: Verification) -> list[str]:
    """That the card ends too early, then every damaged file, then every range."""
    lines = _cut_short(found)
    if found.use is not None:
        lines += [str(damaged) for damaged in found.use.damaged[:_LISTED]]
    else:
        lines += [f"boot file {path} is not what was written" for path in found.boot_files]
    lines += [str(mismatch) for mismatch in found.mismatches[:_LISTED]]
    if len(found.mismatches) > _LISTED:
        lines.append(f"and {len(found.mismatches) - _LISTED} more ranges")
    return lines


def _cut_short(found: Verification) -> list[str]:
    size, written = found.size_bytes, found.receipt_size_bytes
    return [f"cut short at byte {size} of {written}"] if size < written else []


def _not_readable(found: Verification) -> CardIOError:
    count, first = len(found.unreadable), found.unreadable[0]
    ranges = "one range" if count == 1 else f"{count} ranges"
    where = " | ".join(map(str, first.places))
    error = CardIOError(
        f"{found.target}: {ranges} of {found.node}'s card cannot be read, first at byte "
        f"{first.extent.offset}: {where}",
        hint="try another reader; if it is the same there, save what you need and replace the card",
        details=_lines(found),
    )
    error.offset = first.extent.offset
    return error


def _damaged_in_use(found: Verification, use: CardUse) -> StampMismatch:
    lines = [*_cut_short(found), *map(str, use.damaged[:_LISTED])]
    if len(use.damaged) > _LISTED:
        lines.append(f"and {len(use.damaged) - _LISTED} more")
    return StampMismatch(
        f"{found.target}: {found.node} has run from this card, and "
        f"{'one thing' if len(use.damaged) == 1 else f'{len(use.damaged)} things'} it had no "
        f"reason to change {'is' if len(use.damaged) == 1 else 'are'} damaged",
        hint="save what you need from the card and write it again; if it comes back, another card",
        details=lines,
    )
