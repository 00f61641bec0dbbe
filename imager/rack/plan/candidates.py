"""The cards that could be written: which slot each is in, and what it holds. Nothing is changed.

In: disks and image files, the rack's slots and key. Out: Candidates for the plan. A card counts as
the rack's own only when its stamp was signed with this rack's key, and as blank only when it has
nothing that is recognised and its first MiB is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from imager.base.errors import PicloudError
from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk
from imager.card.host.first_mib import first_mib
from imager.card.host.refusals import refusals
from imager.card.host.swap_room import swap_refusals
from imager.card.host.target import Limits, Target
from imager.card.inspect.identity import system_on
from imager.card.inspect.stamp import signature_of
from imager.card.inspect.verify import open_target
from imager.config.rack import Rack
from imager.config.slot_labels import by_place
from imager.image.compose.golden import GoldenImage
from imager.node.stamp.facts import StampError, StampFacts
from imager.node.stamp.stamp import STAMP_AREA, Stamp, parse_stamp
from imager.rack.plan.slots import Slots


class Holds(StrEnum):
    """What is on a card, as far as it matters before it is overwritten."""

    BLANK = "blank"
    OURS = "ours"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A card that may be written. ``slot`` is the label of its reader; ``stamp`` is what its stamp
    says, if this rack signed it; ``about`` says what it holds in a few words. ``wanted`` is the
    node that an image file is named after. ``refuses``: its first MiB cannot be read."""

    target: Target
    holds: Holds
    about: str
    slot: str | None = None
    stamp: StampFacts | None = None
    wanted: str | None = None
    refuses: bool = False

    @property
    def size_bytes(self) -> int:
        """What it can hold; 0 for a file that can be made as large as need be."""
        return self.target.capacity_bytes or 0


@dataclass(frozen=True, slots=True)
class Unfit:
    """A card that may not be written, and why."""

    target: Target
    slot: str | None
    reasons: tuple[str, ...]


def reasons_against(
    target: Target, goldens: Collection[GoldenImage], rack: Rack, limits: Limits
) -> tuple[str, ...]:
    """Every reason ``target`` must not become a card of ``rack`` with any of ``goldens`` on it."""
    need = max((golden.layout.size_bytes for golden in goldens), default=0)
    found = (*refusals(target, need, limits), *swap_refusals(target, goldens, rack))
    return tuple(str(reason) for reason in found)


def sort_disks(
    disks: Iterable[Disk],
    slots: Slots,
    against: Callable[[Disk], tuple[str, ...]],
) -> tuple[list[Disk], list[Unfit]]:
    """The disks that a batch may use without being told, and the cards that it may not use, as
    ``against`` gives reasons.

    Disks that are part of the computer are in neither list: a batch never uses one. Loop devices,
    which show somebody's files, are only there when slots.toml names them.
    """
    fit: list[Disk] = []
    unfit: list[Unfit] = []
    for disk in disks:
        label = slots.label_of(disk.by_path)
        if disk.is_fixed or not disk.has_medium or (disk.bus is Bus.LOOP and label is None):
            continue
        reasons = against(disk)
        if reasons:
            unfit.append(Unfit(disk, label, reasons))
        else:
            fit.append(disk)
    return sorted(fit, key=lambda disk: _order(disk, slots)), unfit


def _order(disk: Disk, slots: Slots) -> tuple[object, ...]:
    label = slots.label_of(disk.by_path)
    return (label is None, by_place(label) if label else (), disk.by_path, disk.node)


def look_at(target: Target, slots: Slots, rack: Path, *, wanted: str | None = None) -> Candidate:
    """What ``target`` holds, seen from the rack in the folder ``rack``; a card that cannot be read
    is a foreign one that says so."""
    return look(target, slots, lambda stamp: bool(signature_of(stamp, rack).known), wanted=wanted)


def look(
    target: Target, slots: Slots, signed: Callable[[Stamp], bool], *, wanted: str | None = None
) -> Candidate:
    """As ``look_at``; a stamp is the rack's own if it is ``signed`` so."""
    slot = slots.label_of(target.by_path)
    if target.is_new:
        return Candidate(target, Holds.BLANK, "a new file", wanted=wanted)
    try:
        with open_target(Path(target.node)) as fresh:
            first = first_mib(fresh)
            stamp = _stamp_in(first)
            system = "" if stamp else system_on(fresh.reader(), fresh.raw.size_bytes)
    except PicloudError as error:
        return Candidate(target, Holds.FOREIGN, error.what, slot, wanted=wanted, refuses=True)
    if stamp is None:
        holds, about = _judged(target, first, system)
        facts = None
    else:
        holds, about, facts = _stamped(stamp, signed)
    return Candidate(target.shown_with(first), holds, about, slot, facts, wanted)


def _stamp_in(first_mib: bytes) -> Stamp | None:
    try:
        return parse_stamp(first_mib[STAMP_AREA.offset :])
    except StampError:
        return None


def _stamped(stamp: Stamp, signed: Callable[[Stamp], bool]) -> tuple[Holds, str, StampFacts | None]:
    facts = stamp.facts
    if signed(stamp):
        return Holds.OURS, f"{facts.node} of {facts.day}", facts
    return Holds.FOREIGN, f"{facts.node} of another rack, {facts.day}", None


def _judged(target: Target, first_mib: bytes, system: str) -> tuple[Holds, str]:
    if system:
        return Holds.FOREIGN, system
    # What is made anew was made by somebody, whatever it holds.
    held = (target.noun,) if target.made_anew else target.holds
    if held:
        return Holds.FOREIGN, ", ".join(_short(line) for line in held)
    if first_mib.strip(first_mib[:1]) or first_mib[:1] not in (b"\0", b"\xff", b""):
        return Holds.FOREIGN, "unknown data"
    return Holds.BLANK, "blank"


def _short(line: str) -> str:
    """``/dev/sdb1: 256 MiB, vfat 'BOOT'`` without the device, which stands beside it."""
    return line.partition(": ")[2] or line
