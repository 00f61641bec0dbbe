"""Every reason why a target must not be overwritten, all at once and as data.

In: a target as it was found, how many bytes it must hold, and the limits the person set. Out: a
tuple of refusals, empty when there is none. Each kind of target has reasons of its own; the
reasons against a disk are here. Nothing is read or opened, so tests need no disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import TargetRefused
from imager.base.units import format_chosen, format_size
from imager.card.host.disk_facts import Bus, DiskFacts
from imager.card.host.target import Limits, Refusal, RefusalCode, Target
from imager.card.host.usage import SYSTEM_FOLDERS, UseKind
from imager.disk.mbr import MAX_DISK_BYTES


@dataclass(frozen=True, slots=True)
class AcceptedTarget:
    """A target that has no refusals and that a person (or ``--yes``) has confirmed.

    Only ``accept`` makes one. ``claim`` compares the device it opens with it.
    """

    target: Target
    need_bytes: int
    limits: Limits


def refusals(target: Target, need_bytes: int, limits: Limits | None = None) -> tuple[Refusal, ...]:
    """Every reason ``target`` must not be given ``need_bytes`` bytes; empty means it may be."""
    reasons = target.against(need_bytes, limits or Limits())
    return (*reasons, *_against_table(target, need_bytes))


def _against_table(target: Target, need_bytes: int) -> Iterator[Refusal]:
    size = need_bytes if target.made_anew else max(need_bytes, target.size_bytes)
    if size > MAX_DISK_BYTES:
        yield Refusal(
            RefusalCode.TOO_LARGE,
            f"{target.node}: {format_size(size)} is more than 2 TiB, the most that the partition "
            "table describes from which every Raspberry Pi starts",
            "choose a size of 2 TiB or less"
            if target.made_anew
            else "use a card of 2 TiB or less; one sold as larger may be a fake",
        )


def accept(target: Target, need_bytes: int, limits: Limits | None = None) -> AcceptedTarget:
    """The target as one that may be overwritten; raises TargetRefused with every reason."""
    limits = limits or Limits()
    reasons = refusals(target, need_bytes, limits)
    if reasons:
        raise refused(target, reasons)
    return AcceptedTarget(target, need_bytes, limits)


def refused(target: Target, reasons: tuple[Refusal, ...]) -> TargetRefused:
    """The error for ``reasons``. A single reason is its message; several are listed in details."""
    if len(reasons) == 1:
        return TargetRefused(reasons[0].message, hint=reasons[0].hint)
    return TargetRefused(
        f"{target.node} must not be overwritten, for {len(reasons)} reasons",
        hint="mend every one of them, or choose another target",
        details=[str(reason) for reason in reasons],
    )


def against_disk(disk: DiskFacts, need_bytes: int, limits: Limits) -> Iterator[Refusal]:
    """Every reason why a disk must not be given ``need_bytes`` bytes."""
    yield from _against_use(disk)
    yield from _against_place(disk, limits)
    yield from _against_size(disk, need_bytes, limits)
    yield from _against_kind(disk, limits)


_CODE_OF = {
    UseKind.MOUNT: (RefusalCode.MOUNTED, "unmount it: umount {by}"),
    UseKind.SWAP: (RefusalCode.SWAP, "stop swapping to it: swapoff {node}"),
    UseKind.HOLDER: (RefusalCode.HELD, "close or stop {by} first"),
    UseKind.LOOP: (RefusalCode.LOOP_ON_TOP, "detach it: losetup -d {by}"),
}


def _against_use(disk: DiskFacts) -> Iterator[Refusal]:
    for use in disk.uses:
        code, hint = _CODE_OF[use.kind]
        if Path(use.by) in SYSTEM_FOLDERS:
            hint = "choose another disk"
        yield Refusal(code, str(use), hint.format(by=use.by, node=use.node))


def _against_place(disk: DiskFacts, limits: Limits) -> Iterator[Refusal]:
    if disk.backing_disk:
        yield Refusal(
            RefusalCode.LOOP_OVER_DISK,
            f"{disk.node} is a window onto the disk {disk.backing_disk}",
            f"give {disk.backing_disk} itself",
        )
    system = [str(folder) for folder in disk.backs if folder in SYSTEM_FOLDERS]
    if system:
        yield Refusal(
            RefusalCode.SYSTEM,
            f"{disk.node} is a disk of this computer: it holds {', '.join(system)}",
            "choose another disk",
        )
    for folder in limits.ours:
        behind = disk.backing_file is not None and disk.backing_file.is_relative_to(folder)
        if behind or folder in disk.backs:
            yield own_files(disk.node, folder)


def own_files(node: str, folder: Path) -> Refusal:
    """The refusal for a target on which the cache or the rack lies, in ``folder``."""
    return Refusal(
        RefusalCode.OURS,
        f"{node} holds this program's own files in {folder}",
        "move them elsewhere (--cache DIR, --rack DIR), or choose another target",
    )


def _against_size(disk: DiskFacts, need_bytes: int, limits: Limits) -> Iterator[Refusal]:
    size = disk.size_bytes
    if not disk.has_medium:
        yield Refusal(
            RefusalCode.NO_MEDIUM,
            f"there is no card in {disk.node}",
            "put a card in; if there is one, push it home or try another reader",
        )
    elif size < need_bytes:
        yield Refusal(
            RefusalCode.TOO_SMALL,
            f"{disk.node} is too small: it has {size} bytes ({format_size(size)}), the image "
            f"needs {need_bytes} ({format_size(need_bytes)}): {need_bytes - size} bytes short",
            "use a larger card",
        )
    if limits.max_size_bytes < size <= MAX_DISK_BYTES:
        yield Refusal(
            RefusalCode.TOO_LARGE,
            f"{disk.node} is suspiciously large for a card: {format_size(size)}, "
            f"the limit is {format_chosen(limits.max_size_bytes)}",
            f"if it is the right one, say --max-size {size}",
        )


def _against_kind(disk: DiskFacts, limits: Limits) -> Iterator[Refusal]:
    if disk.read_only:
        yield Refusal(
            RefusalCode.READ_ONLY,
            f"{disk.node} is read-only",
            "slide the lock on the card's edge away from LOCK; a worn-out card locks itself",
        )
    if disk.bus is Bus.VIRTUAL:
        yield Refusal(
            RefusalCode.VIRTUAL,
            f"{disk.node} is no disk of its own but made from others or from memory",
            "give a card reader's disk such as /dev/sdb",
        )
    elif disk.is_fixed and not limits.allow_fixed_disk:
        yield Refusal(
            RefusalCode.FIXED,
            f"{disk.node} ({disk.typed_name}) is not removable, so perhaps no card at all",
            "no batch takes such a disk; picloud-image write can, with --allow-fixed-disk"
            if limits.allow_fixed_disk is None
            else "if it is the right one, say --allow-fixed-disk and type its name when asked",
        )
    elif disk.is_fixed and limits.typed_name != disk.typed_name:
        yield Refusal(
            RefusalCode.NAME_NOT_TYPED,
            f"{disk.node} is not removable, and its name was not typed",
            f"type {disk.typed_name} when asked",
        )
