"""Who uses a disk: mounts, swap, holders, loop devices, and whatever is built on top of those.

In: what the kernel says and a disk's name. Out: its uses, each with the device that is used, and
which folders of this computer lie on the disk. Devices are compared by number, and sysfs' holders
are followed upwards, so a LUKS volume on a RAID on a partition counts as a use of the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from imager.card.host.sysfs import HostTrees

SYSTEM_FOLDERS = tuple(Path(text) for text in ("/", "/boot", "/home", "/usr", "/var"))


class UseKind(StrEnum):
    """Why a disk is busy."""

    MOUNT = "mount"
    SWAP = "swap"
    HOLDER = "holder"
    LOOP = "loop"


@dataclass(frozen=True, slots=True)
class DiskUse:
    """Somebody uses ``node`` (the disk, a partition, or something built on one).

    ``by`` is a mount point, the name of a holder, or a loop device.
    """

    kind: UseKind
    node: str
    by: str

    def __str__(self) -> str:
        match self.kind:
            case UseKind.MOUNT:
                return f"{self.node} is mounted on {self.by}"
            case UseKind.SWAP:
                return f"{self.node} is swap space in use"
            case UseKind.LOOP:
                return f"{self.by} is attached to {self.node}"
            case _:
                return f"{self.node} is held by {self.by}"


def uses_of(name: str, kernel: HostTrees) -> Iterator[DiskUse]:
    """Every use of the disk, its partitions, and of whatever is built upon them."""
    above = tuple(_stack([name], kernel))
    node_of = _nodes(above, kernel)
    for mount in kernel.mounts():
        if mount.number in node_of:
            yield DiskUse(UseKind.MOUNT, node_of[mount.number], str(mount.where))
    yield from _swaps(node_of, kernel)
    for device in above:
        for holder in kernel.listed(device, "holders"):
            yield DiskUse(UseKind.HOLDER, str(kernel.dev / device), _holder_title(holder, kernel))
        known = kernel.properties(device)
        pool = known.get("ID_FS_LABEL", "")
        if known.get("ID_FS_TYPE") == "zfs_member" and kernel.zfs_pool_imported(pool):
            yield DiskUse(UseKind.HOLDER, str(kernel.dev / device), f"the ZFS pool {pool}")
    for member, filesystem in kernel.btrfs_members():
        if member in above:
            yield DiskUse(UseKind.HOLDER, str(kernel.dev / member), f"the btrfs {filesystem}")
    own_file = dict(kernel.loops()).get(name)
    for loop, backing in kernel.loops():
        if loop != name and (kernel.number_at(backing) in node_of or backing == own_file):
            yield DiskUse(UseKind.LOOP, backing, str(kernel.dev / loop))


def writers_of(name: str, kernel: HostTrees) -> Iterator[DiskUse]:
    """Those uses of the disk by which it may change at any moment: filesystems on it, or on
    anything built upon it, that are mounted for writing, and swap."""
    node_of = _nodes(_stack([name], kernel), kernel)
    for mount in kernel.mounts():
        if mount.number in node_of and mount.writable:
            yield DiskUse(UseKind.MOUNT, node_of[mount.number], str(mount.where))
    yield from _swaps(node_of, kernel)


def _nodes(devices: Iterable[str], kernel: HostTrees) -> dict[str, str]:
    return {kernel.number(device): str(kernel.dev / device) for device in devices}


def _swaps(node_of: dict[str, str], kernel: HostTrees) -> Iterator[DiskUse]:
    for number in kernel.swaps():
        if number in node_of:
            yield DiskUse(UseKind.SWAP, node_of[number], "swap")


def _stack(names: Iterable[str], kernel: HostTrees) -> Iterator[str]:
    """``names``, their partitions, everything that holds those, its partitions, and so on."""
    todo, seen = list(names), set[str]()
    while todo:
        device = todo.pop(0)
        if device not in seen:
            seen.add(device)
            todo += [*kernel.partitions(device), *kernel.listed(device, "holders")]
            yield device


def _holder_title(holder: str, kernel: HostTrees) -> str:
    """``dm-0 (LUKS, vg-home)``: what kind of thing a holder is, in words."""
    uuid, title = kernel.attribute(holder, "dm/uuid"), kernel.attribute(holder, "dm/name")
    kind = {"CRYPT": "LUKS", "LVM": "LVM", "mpath": "multipath"}.get(uuid.partition("-")[0], "dm")
    if holder.startswith("md"):
        return f"{holder} (RAID {kernel.attribute(holder, 'md/level') or 'array'})"
    return f"{holder} ({kind}, {title})" if title else holder


def backs_of(name: str, folders: Iterable[Path], kernel: HostTrees) -> tuple[Path, ...]:
    """Those of ``folders`` whose filesystem lies on the disk, through any holder."""
    numbers = {kernel.number(device) for device in _stack([name], kernel)}
    mounts = list(kernel.mounts())
    found = []
    for folder in dict.fromkeys(folders):
        if not folder.is_absolute():
            continue
        covering = [mount for mount in mounts if folder.is_relative_to(mount.where)]
        # The last of equal mount points hides the earlier ones.
        nearest = max(reversed(covering), key=lambda mount: len(mount.where.parts), default=None)
        if nearest is not None and nearest.number in numbers:
            found.append(folder)
    return tuple(found)
