"""The plan of ``write``, as a person reads it before saying yes and as JSON.

In: what was asked for, and what is pinned, archived and composed already. Out: lines and fields.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.base.units import format_chosen, format_size
from imager.card.host.target import Target
from imager.card.stages import WriteOptions
from imager.config.rack import Node


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """A release or a Salt: its name, the hash rack.lock pins, if any, and whether it is here."""

    name: str
    sha256: str | None
    is_archived: bool

    def line(self, fetched: str) -> str:
        """In one line; ``fetched`` says where it comes from if it is not archived."""
        pinned = f"pinned to {self.sha256[:16]}…, " if self.sha256 else ""
        return f"{self.name}, {pinned}{'archived' if self.is_archived else fetched}"


@dataclass(frozen=True, slots=True)
class PlannedPackages:
    """What the node has beyond the release: the names that rack.lock pins, those that were
    asked for first, those that go, and whether rack.lock says so already; else they are what was
    asked for."""

    names: tuple[str, ...]
    remove: tuple[str, ...]
    is_locked: bool

    def line(self) -> str:
        """In one line."""
        if not self.is_locked:
            return f"{self._few()}: to be resolved, fetched, proven and pinned"
        without = f", without {', '.join(self.remove)}" if self.remove else ""
        return f"{len(self.names)} beyond the release, pinned: {self._few()}{without}"

    def _few(self) -> str:
        few = ", ".join(self.names[:4])
        return f"{few} and {len(self.names) - 4} more" if len(self.names) > 4 else few or "none"


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """How much of the golden image would be written, and the smallest card it fits on, in bytes.
    Both are None while the image is not composed."""

    written_bytes: int | None = None
    needs_bytes: int | None = None

    def line(self) -> str:
        """In one line."""
        if self.written_bytes is None or self.needs_bytes is None:
            return "to be composed: how much is written is known only then"
        written, needs = format_size(self.written_bytes), format_size(self.needs_bytes)
        return f"composed: {written} to write, on a card of {needs} or more"

    def to_json(self) -> dict[str, object]:
        """The same for a program."""
        return {
            "image_composed": self.needs_bytes is not None,
            "image_bytes": self.written_bytes,
            "needs_bytes": self.needs_bytes,
        }


@dataclass(frozen=True, slots=True)
class WritePlan:
    """What ``write`` would do.

    ``size_bytes`` is None for an image file as small as the release allows, ``salt`` None where
    rack.toml names no version, ``packages`` None where it is not known whether there are any beyond
    the release. ``image`` is None where nobody looked for it: only a dry run does.
    """

    rack: str
    node: Node
    target: Target
    size_bytes: int | None
    options: WriteOptions
    release: PlannedSource
    salt: PlannedSource | None
    salt_packages: tuple[str, ...]
    packages: PlannedPackages | None = None
    image: PlannedImage | None = None

    def lines(self) -> list[str]:
        """For a person."""
        node, options = self.node, self.options
        size = format_chosen(self.size_bytes) if self.size_bytes else None
        lines = [
            f"node      {node.name} ({node.model}, {', '.join(node.roles)}), rack {self.rack}",
            f"target    {self.target.title}",
            f"release   {self.release.line('to be fetched and proven')}",
            f"salt      {self._salt_line()}",
            *([f"packages  {self.packages.line()}"] if self.packages else []),
            f"size      {size or 'as small as the release allows'}",
            f"transfers {format_chosen(options.block_bytes)} each, {options.depth} in flight "
            f"({options.why}); every byte is read back",
        ]
        return [*lines, f"image     {self.image.line()}"] if self.image else lines

    def to_json(self) -> dict[str, object]:
        """For a program."""
        salt = self.salt
        return {
            "node": self.node.name,
            "rack": self.rack,
            "target": self.target.node,
            "target_is": self.target.title,
            "holds": list(self.target.holds),
            "size_bytes": self.size_bytes,
            "release": self.release.name,
            "release_sha256": self.release.sha256,
            "release_archived": self.release.is_archived,
            "salt": salt.name if salt else None,
            "salt_sha256": salt.sha256 if salt else None,
            "salt_archived": salt is not None and salt.is_archived,
            "salt_packages": self.salt_packages,
            **self._packages_fields(),
            "block_bytes": self.options.block_bytes,
            "depth": self.options.depth,
            "transfers_chosen": self.options.why,
            **(self.image.to_json() if self.image else {}),
        }

    def _packages_fields(self) -> dict[str, object]:
        if self.packages is None:
            return {}
        return {
            "packages": self.packages.names,
            "packages_removed": self.packages.remove,
            "packages_locked": self.packages.is_locked,
        }

    def _salt_line(self) -> str:
        if self.salt is None:
            return "the release's own, if it has one: rack.toml names no version"
        needs = ", what it needs in packages" if self.salt_packages else ""
        return f"{self.salt.line('to be fetched from PyPI')}{needs}"
