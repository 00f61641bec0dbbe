"""Packages beyond the release as a person reads them, and as JSON.

In: what rack.lock pins or is to pin. Out: lines, rows and fields. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from imager.base.units import format_size
from imager.packages.plan import LockChange, LockPlan
from imager.packages.verified import PackageSet

HEAD = ("package", "version", "size", "because of")


def package_rows(
    packages: PackageSet, needed_by: Mapping[str, Sequence[str]], salt: Collection[str]
) -> list[tuple[str, str, str, str]]:
    """A row under HEAD for each package of a set, in the order in which they are installed.
    ``salt`` are the names that nobody but Salt asked for."""
    return [
        (
            package.name,
            package.version,
            format_size(package.size_bytes),
            "Salt"
            if package.name in packages.explicit and package.name in salt
            else _reason(package.name in packages.explicit, needed_by.get(package.name, ())),
        )
        for package in packages.install
    ]


def package_fields(packages: PackageSet) -> dict[str, object]:
    """A set for a program."""
    return {
        "install": [
            {
                "name": package.name,
                "version": package.version,
                "arch": package.arch,
                "sha256": package.sha256,
                "size_bytes": package.size_bytes,
                "signer": package.signer,
                "explicit": package.name in packages.explicit,
                "file": str(package.path),
            }
            for package in packages.install
        ],
        "remove": list(packages.remove),
        "enable": list(packages.enable),
    }


def plan_lines(plan: LockPlan) -> list[str]:
    """What would change in rack.lock, a line for each package."""
    if not plan.changes:
        return ["Nothing would change: rack.lock has what the mirrors offer now."]
    lines = [_change_line(change) for change in plan.changes]
    fetched = f", {format_size(plan.size_bytes)} to fetch" if plan.size_bytes else ""
    back = f", {len(plan.older)} of them to an OLDER version" if plan.older else ""
    return [*lines, f"{count_of(plan)} would change{back}{fetched}"]


def count_of(plan: LockPlan) -> str:
    """How many packages would change."""
    count = len(plan.changes)
    return f"{count} package{'s' if count > 1 else ''}"


def change_lines(changes: Sequence[LockChange]) -> list[str]:
    """What differs between two locks, a line for each package."""
    return [_moved(change) for change in changes]


def change_fields(changes: Sequence[LockChange]) -> list[dict[str, object]]:
    """The same for a program."""
    return [{"name": each.name, "old": each.old, "new": each.new} for each in changes]


def plan_fields(plan: LockPlan) -> dict[str, object]:
    """The same for a program."""
    return {
        "changes": [
            {
                "name": change.name,
                "old": change.old,
                "new": change.new,
                "size_bytes": change.size_bytes,
                "asked_by": list(change.asked_by),
                "release_has": change.base,
                "older": change.older_than is not None,
            }
            for change in plan.changes
        ],
        "fetch_bytes": plan.size_bytes,
    }


def _reason(explicit: bool, needed_by: Sequence[str]) -> str:
    """Why a package is there."""
    if explicit:
        return "[packages]"
    few = ", ".join(needed_by[:3])
    return f"{few} and {len(needed_by) - 3} more" if len(needed_by) > 3 else few or "-"


def _moved(change: LockChange) -> str:
    if change.new is None:
        return f"- {change.name} {change.old}: nobody needs it any more"
    if change.older_than:
        return f"~ {change.name} {change.older_than} -> {change.new} OLDER!"
    if change.old is None:
        return f"+ {change.name} {change.new}"
    if change.old == change.new:
        return f"~ {change.name} {change.new}, built anew"
    return f"~ {change.name} {change.old} -> {change.new}"


def _change_line(change: LockChange) -> str:
    if change.new is None:
        return _moved(change)
    release = f"; the release has {change.base}" if change.base else ""
    size = format_size(change.size_bytes) if change.size_bytes else "archived"
    why = _reason(False, change.asked_by) if change.asked_by else "asked for"
    return f"{_moved(change)} ({size}; {why}{release})"
