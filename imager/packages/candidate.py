"""Packages that moved and are tried on a few nodes first: canary.lock, beside rack.lock.

In: both locks. Out: what differs between them; canary.lock made rack.lock, or dropped. canary.lock
has the packages of all nodes, so promoting it resolves and fetches nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from imager.base.errors import ConfigurationError
from imager.base.trusted_folder import TrustedFolder
from imager.packages.plan import LockChange
from imager.release.lock import RackLock


def candidate_in(path: Path) -> RackLock | None:
    """The canary.lock at ``path``; None where there is none. Raises as ``RackLock.load``."""
    found = RackLock.load(path)
    return found if found.sets or found.pacman else None


def changes_between(promoted: RackLock, candidate: RackLock) -> tuple[LockChange, ...]:
    """What promoting ``candidate`` would change, by name."""
    old, new = promoted.pacman, candidate.pacman
    return tuple(
        LockChange(
            name,
            old[name].version if name in old else None,
            new[name].version if name in new else None,
        )
        for name in sorted({*old, *new})
        if name not in old or name not in new or old[name].sha256 != new[name].sha256
    )


def not_tried(
    changes: Collection[LockChange], candidate: RackLock, keys: Collection[str]
) -> tuple[str, ...]:
    """The packages that would change and that no node has whose wish has one of ``keys``."""
    tried = {name for key in keys if key in candidate.sets for name in candidate.sets[key].packages}
    return tuple(each.name for each in changes if each.new is not None and each.name not in tried)


def promote(candidate: RackLock, lock_file: Path) -> None:
    """Make what ``candidate`` pins the packages of ``lock_file``, and remove the candidate. Cut
    short, it can be done again. Raises ConfigurationError when the file of the candidate is another
    one by now."""
    _require_same(candidate)
    RackLock.load(lock_file).with_packages(candidate.pacman, candidate.sets)
    drop(candidate.path)


def undo(candidate: RackLock) -> None:
    """Remove ``candidate`` alone; raises as ``promote``."""
    _require_same(candidate)
    drop(candidate.path)


def _require_same(candidate: RackLock) -> None:
    now = RackLock.load(candidate.path)
    if (now.sets, now.pacman) != (candidate.sets, candidate.pacman):
        raise ConfigurationError(
            f"{candidate.path} was changed meanwhile",
            hint="run the same command again; it goes by what is there now",
        )


def drop(path: Path) -> None:
    """Remove the canary.lock at ``path``, if it is still there; its packages stay archived."""
    beside = TrustedFolder(path.parent)
    with beside.held(), suppress(FileNotFoundError):
        beside.remove(path.name)
