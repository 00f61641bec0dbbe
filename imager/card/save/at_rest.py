"""Whether a card may be read as it is: it must be there, and nobody may be writing to it.

In: the path a person gave as TARGET. Out: the Target, or TargetRefused. A card that is mounted for
writing changes while it is read, and the copy would be of no one moment; mounted for reading only,
it may be.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from imager.base.errors import TargetRefused, UsageError
from imager.card.host.refusals import refused
from imager.card.host.sysfs import HostTrees, device_number
from imager.card.host.target import Limits, RefusalCode, Target
from imager.card.host.targets import target_at
from imager.card.host.usage import DiskUse, UseKind, writers_of

Place: TypeAlias = Path | tuple[int, int]
"""A path, or the device and inode of what is there."""
_UNREADABLE = (RefusalCode.NOT_A_TARGET, RefusalCode.NO_MEDIUM)


def at_rest(path: Path, kernel: HostTrees | None = None) -> Target:
    """What is at ``path``, a disk or an image file that nobody writes to. Raises TargetRefused,
    HostStorage where this user may not even look."""
    kernel = kernel or HostTrees()
    target = target_at(path, kernel=kernel)
    reasons = [one for one in target.against(0, Limits()) if one.code in _UNREADABLE]
    if reasons:
        raise refused(target, (reasons[0],))
    if target.is_new:
        raise TargetRefused(
            f"there is no file {path}",
            hint="picloud-image devices lists the disks of this computer",
        )
    uses = [*_writers(path, kernel)]
    if uses:
        raise TargetRefused(
            f"{path} changes while it is read: {uses[0]}",
            hint="unmount it first, or mount it again for reading only (mount -o remount,ro)"
            if uses[0].kind is UseKind.MOUNT
            else f"stop using it first: swapoff {uses[0].node}",
            details=[str(use) for use in uses[1:]],
        )
    return target


def require_different(
    source: Path, targets: Sequence[Target], kernel: HostTrees | None = None
) -> None:
    """Raise UsageError where a target is the source, or another target, by whatever name: what is
    read would be overwritten before it was read."""
    kernel = kernel or HostTrees()
    seen = dict.fromkeys(_places(source, kernel), f"is the source {source}")
    for target in targets:
        places = {*_places(Path(target.node), kernel)}
        if same := places & seen.keys():
            raise UsageError(
                f"{target.node} {seen[same.pop()]}, and nothing can be copied onto itself",
                hint="name each card once; picloud-image devices lists them",
            )
        seen |= dict.fromkeys(places, f"is the target {target.node} too")


def _places(path: Path, kernel: HostTrees) -> Iterator[Place]:
    """What is overwritten when ``path`` is: the thing itself, and what a loop device shows."""
    real = Path(os.path.realpath(path))
    yield from _named(real)
    for loop, backing in kernel.loops():
        if real == kernel.dev / loop:
            yield from _named(Path(backing))


def _named(path: Path) -> Iterator[Place]:
    """A path, and what is there, which may have other names."""
    yield path
    with suppress(OSError):
        status = path.stat()
        yield status.st_dev, status.st_ino


def _writers(path: Path, kernel: HostTrees) -> Iterator[DiskUse]:
    real = path.resolve()
    status = real.stat()
    if stat.S_ISBLK(status.st_mode):
        name = kernel.name_of(device_number(status.st_rdev))
        yield from writers_of(name, kernel) if name else ()
    for loop, backing in kernel.loops():
        if backing == str(real):
            yield from writers_of(loop, kernel)
