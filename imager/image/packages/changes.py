"""What became of the packages of a release, one by one.

In: nothing. Out: the type that the steps after installing look at. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.image.packages.database import Installed


@dataclass(frozen=True, slots=True)
class PackageChange:
    """A package that was added (``old`` is None), taken out (``new`` is None) or replaced by
    another version of it."""

    old: Installed | None
    new: Installed | None

    @property
    def name(self) -> str:
        package = self.new or self.old
        return package.name if package else ""

    @property
    def operation(self) -> str:
        """Its name in a hook of pacman."""
        if self.old and self.new:
            return "Upgrade"
        return "Install" if self.new else "Remove"


def changed_files(changes: tuple[PackageChange, ...]) -> dict[str, str]:
    """Every file of the packages, and its operation."""
    old = {path for change in changes if change.old for path in change.old.files}
    new = {path for change in changes if change.new for path in change.new.files}
    return {
        **dict.fromkeys(new - old, "Install"),
        **dict.fromkeys(new & old, "Upgrade"),
        **dict.fromkeys(old - new, "Remove"),
    }
