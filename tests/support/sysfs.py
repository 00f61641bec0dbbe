"""A made-up /sys, /proc and /dev, so that tests meet LUKS, LVM, md, btrfs and ZFS without them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from imager.card.host.sysfs import HostTrees, Properties


@dataclass
class FakeHost:
    """A computer made of files; ``kernel`` is how the program sees it."""

    root: Path
    udev: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("sys/class/block", "proc/self", "dev/disk"):
            (self.root / name).mkdir(parents=True)
        self.write("proc/self/mountinfo", "")
        self.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")

    @property
    def kernel(self) -> HostTrees:
        def known(number: str) -> Properties:
            return self.udev.get(number, {})

        return HostTrees(
            sysfs=self.root / "sys",
            proc=self.root / "proc",
            dev=self.root / "dev",
            udev=known,
            blkid=lambda node: {},
        )

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def add(self, line: str, to: str) -> None:
        with (self.root / to).open("a") as file:
            file.write(line + "\n")

    def disk(self, name: str, number: str, *, gib: float = 32, **attributes: str) -> None:
        """A disk; ``attributes`` use ``__`` for a slash: ``device__model="STORAGE"``."""
        folder = f"sys/class/block/{name}"
        defaults = {"dev": number, "size": str(int(gib * 2**21)), "removable": "1", "ro": "0"}
        for key, value in (defaults | attributes).items():
            self.write(f"{folder}/{key.replace('__', '/')}", value + "\n")
        (self.root / folder / "holders").mkdir()
        self.write(f"dev/{name}", "")

    def partition(self, disk: str, name: str, number: str, index: int = 1) -> None:
        folder = f"sys/class/block/{disk}/{name}"
        values = {"dev": number, "partition": str(index), "start": "16384", "size": "524288"}
        for key, value in values.items():
            self.write(f"{folder}/{key}", value + "\n")
        (self.root / folder / "holders").mkdir()
        (self.root / f"sys/class/block/{name}").symlink_to(f"{disk}/{name}")
        self.write(f"dev/{name}", "")

    def holder(self, above: str, below: str) -> None:
        """``above`` (already a disk here) is built upon ``below``."""
        self.write(f"sys/class/block/{below}/holders/{above}", "")

    def mount(self, number: str, where: str, filesystem: str = "ext4", source: str = "x") -> None:
        self.add(f"30 1 {number} / {where} rw - {filesystem} {source} rw", "proc/self/mountinfo")
