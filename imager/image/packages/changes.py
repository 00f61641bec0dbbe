"""What became of the packages of a release, one by one.

In: nothing. Out: the type that the steps after installing look at. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from imager.image.packages.database import Installed


class PackageOperation(StrEnum):
    """What became of a package or a file, in the words of alpm-hooks(5)."""

    INSTALL = "Install"
    UPGRADE = "Upgrade"
    REMOVE = "Remove"


@dataclass(frozen=True, slots=True)
class PackageChange:
    """``package`` was added, or taken out, or came in the place of ``before``, which is None for
    the other two."""

    operation: PackageOperation
    package: Installed
    before: Installed | None = None


def changed_files(changes: tuple[PackageChange, ...]) -> dict[str, PackageOperation]:
    """Every file of the packages, and what became of it."""
    old, new = set[str](), set[str]()
    for change in changes:
        gone = change.operation is PackageOperation.REMOVE
        (old if gone else new).update(change.package.files)
        old.update(change.before.files if change.before else ())
    return {
        **dict.fromkeys(new - old, PackageOperation.INSTALL),
        **dict.fromkeys(new & old, PackageOperation.UPGRADE),
        **dict.fromkeys(old - new, PackageOperation.REMOVE),
    }
