"""Every reason why a target must not be overwritten, as data and all at once.

In: a target as it was found, how many bytes it must hold, and the limits the person set. Out: a
tuple of refusals, empty when there is none. Pure: tested as a table, without a disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from imager.base.errors import TargetRefused
from imager.base.units import GiB, format_size
from imager.card.host.disks import Bus, Disk
from imager.card.host.targets import ImageFile, Target, Unsuitable
from imager.card.host.usage import SYSTEM_FOLDERS, UseKind


class RefusalCode(StrEnum):
    """The kinds of refusal, as ``--json`` names them."""

    NOT_A_TARGET = "not-a-target"
    VIRTUAL = "virtual"
    MOUNTED = "mounted"
    SWAP = "swap"
    HELD = "held"
    LOOP_ON_TOP = "loop-on-top"
    LOOP_OVER_DISK = "loop-over-disk"
    SYSTEM = "system"
    OURS = "ours"
    READ_ONLY = "read-only"
    NO_MEDIUM = "no-medium"
    TOO_SMALL = "too-small"
    TOO_LARGE = "too-large"
    NO_SWAP_ROOM = "no-swap-room"
    FIXED = "fixed"
    NAME_NOT_TYPED = "name-not-typed"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason; ``message`` says what is so, ``hint`` what to do about it."""

    code: RefusalCode
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the person allowed.

    ``max_size_bytes`` is 256 GiB by default, because cards sold as 256 GB hold up to one per cent
    more than 256 × 10⁹ bytes. ``typed_name`` is what was typed to confirm a fixed disk.
    ``ours`` are the cache and the rack's folder, as absolute real paths.
    """

    max_size_bytes: int = 256 * GiB
    allow_fixed_disk: bool = False
    typed_name: str | None = None
    ours: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class AcceptedTarget:
    """A target without refusals, which a person (or ``--yes``) then confirmed.

    Made by ``accept`` alone; ``claim`` compares what it opens with it.
    """

    target: Disk | ImageFile
    need_bytes: int
    limits: Limits


def refusals(target: Target, need_bytes: int, limits: Limits | None = None) -> tuple[Refusal, ...]:
    """Every reason ``target`` must not be given ``need_bytes`` bytes; empty means it may be."""
    limits = limits or Limits()
    match target:
        case Unsuitable():
            return (Refusal(RefusalCode.NOT_A_TARGET, target.reason, target.hint),)
        case ImageFile():
            return tuple(_against_file(target, limits))
        case Disk():
            return (
                *_against_use(target),
                *_against_place(target, limits),
                *_against_size(target, need_bytes, limits),
                *_against_kind(target, limits),
            )


def accept(target: Target, need_bytes: int, limits: Limits | None = None) -> AcceptedTarget:
    """The target as one that may be overwritten; raises TargetRefused with every reason."""
    limits = limits or Limits()
    reasons = refusals(target, need_bytes, limits)
    if reasons or isinstance(target, Unsuitable):
        raise refused(target, reasons)
    return AcceptedTarget(target, need_bytes, limits)


def refused(target: Target, reasons: tuple[Refusal, ...]) -> TargetRefused:
    """The error for ``reasons``: one alone is the message, several are listed."""
    if len(reasons) == 1:
        return TargetRefused(reasons[0].message, hint=reasons[0].hint)
    return TargetRefused(
        f"{target.node} must not be overwritten, for {len(reasons)} reasons",
        hint="mend every one of them, or choose another target",
        details=[str(reason) for reason in reasons],
    )


_CODE_OF = {
    UseKind.MOUNT: (RefusalCode.MOUNTED, "unmount it: umount {by}"),
    UseKind.SWAP: (RefusalCode.SWAP, "stop swapping to it: swapoff {node}"),
    UseKind.HOLDER: (RefusalCode.HELD, "close or stop {by} first"),
    UseKind.LOOP: (RefusalCode.LOOP_ON_TOP, "detach it: losetup -d {by}"),
}


def _against_use(disk: Disk) -> Iterator[Refusal]:
    for use in disk.uses:
        code, hint = _CODE_OF[use.kind]
        if Path(use.by) in SYSTEM_FOLDERS:
            hint = "choose another disk"
        yield Refusal(code, str(use), hint.format(by=use.by, node=use.node))


def _against_place(disk: Disk, limits: Limits) -> Iterator[Refusal]:
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
            yield _ours(disk.node, folder)


def _ours(node: str, folder: Path) -> Refusal:
    return Refusal(
        RefusalCode.OURS,
        f"{node} holds this program's own files in {folder}",
        "move them elsewhere (--cache DIR, --rack DIR), or choose another target",
    )


def _against_size(disk: Disk, need_bytes: int, limits: Limits) -> Iterator[Refusal]:
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
    if size > limits.max_size_bytes:
        yield Refusal(
            RefusalCode.TOO_LARGE,
            f"{disk.node} is suspiciously large for a card: {format_size(size)}, "
            f"the limit is {format_size(limits.max_size_bytes)}",
            f"if it is the right one, say --max-size {size}",
        )


def _against_kind(disk: Disk, limits: Limits) -> Iterator[Refusal]:
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
            "if it is the right one, say --allow-fixed-disk and type its name when asked",
        )
    elif disk.is_fixed and limits.typed_name != disk.typed_name:
        yield Refusal(
            RefusalCode.NAME_NOT_TYPED,
            f"{disk.node} is not removable, and its name was not typed",
            f"type {disk.typed_name} when asked",
        )


def _against_file(file: ImageFile, limits: Limits) -> Iterator[Refusal]:
    for folder in limits.ours:
        if file.path.is_relative_to(folder / "golden") or file.path.is_relative_to(
            folder / "releases"
        ):
            yield _ours(file.node, folder)
    for loop in file.loops:
        yield Refusal(
            RefusalCode.LOOP_ON_TOP,
            f"{loop} is attached to {file.path}",
            f"detach it: losetup -d {loop}",
        )
    if not file.folder_writable:
        yield Refusal(
            RefusalCode.READ_ONLY,
            f"the folder {file.path.parent} cannot be written",
            "choose a folder of your own",
        )
