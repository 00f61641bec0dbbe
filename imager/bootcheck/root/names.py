"""Which partition root= means, among all that a card has.

In: the value of root=, the partitions with what begins on each, and whether an initramfs is there
to look for names the kernel does not know. Out: a partition, or why there is none. Pure. The forms
are those of the kernel's block/early-lookup.c; UUID= and LABEL= are read by an initramfs only, and
so may any other word be. It compares names as bytes (util-linux issue 1014) and takes quotes off;
the kernel itself keeps quotes, and reads a PARTUUID in letters of either case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from imager.disk.signature import Form, Recognised
from imager.disk.table import TablePartition


@dataclass(frozen=True, slots=True)
class NamedPartition:
    """A partition and what begins on it; None where no mark tells."""

    part: TablePartition
    holds: Recognised | None

    @property
    def may_hold_more(self) -> bool:
        """Whether there may be filesystems on it that are not seen from here."""
        return self.holds is None or self.holds.form is Form.CONTAINER


class RootFault(ValueError):
    """root= leads to no partition of the card, and the boot ends there."""


class RootUnproven(ValueError):
    """Where root= leads can be known on the node only."""


class RootOffCard(RootUnproven):
    """root= leads to another disk of the node, or to a server."""


_CARD_NODE = re.compile(r"/dev/mmcblk[01](?:p([0-9]+))?\Z")
_CARD_MAJOR = 179
_MINORS = 8  # numbers of one card and its partitions, unless the kernel was told otherwise
BY_LINK = re.compile(r"/dev/disk/by-(uuid|label|partuuid|partlabel)/(.+)\Z")
_OFFSET = re.compile(r"(.+)/PARTNROFF=(-?[0-9]+)\Z")
_BUILT = ("/dev/mapper/", "/dev/dm-", "/dev/md", "/dev/vg", "/dev/ram", "/dev/loop", "/dev/zvol/")
_OTHER_DISK = re.compile(
    r"/dev/(?:(?:sd|vd|hd|xvd|nvme|nbd|mtdblock|ubi)[a-z0-9]*|mmcblk[2-9][p0-9]*|nfs|cifs)\Z"
)
_NUMBERS = re.compile(r"([0-9]+):([0-9]+)\Z")
_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")


def linked_name(value: str) -> str:
    """The name that udev writes as ``value`` in /dev/disk/by-label, where a space is \\x20."""
    raw = _ESCAPED.sub(lambda code: chr(int(code[1], 16)), value)
    try:
        return raw.encode("latin-1").decode()
    except UnicodeError:
        return value


def named_root(root: str, parts: tuple[NamedPartition, ...], *, initramfs: bool) -> NamedPartition:
    """The partition that ``root`` (the value of root=) means. Raises RootFault, RootUnproven where
    only an initramfs can tell, RootOffCard."""
    link = BY_LINK.match(root)
    if link:
        if not initramfs:
            raise RootFault(f"root={root} needs an initramfs to find it, and none is loaded")
        root = f"{link[1].upper()}={linked_name(link[2])}"
    scheme, equals, value = root.partition("=")
    if root.startswith("/dev/") or not equals:
        return _by_device(root, parts, initramfs=initramfs)
    if initramfs:
        value = value.strip("\"'")
    if scheme == "PARTUUID":
        return _by_partuuid(root, value, parts, initramfs=initramfs)
    if scheme == "PARTLABEL":
        named = [one for one in parts if one.part.partlabel == value]
        return _first(named, f"root={root} is no partition of this card{_listed_labels(parts)}")
    if scheme in ("UUID", "LABEL"):
        if not initramfs:
            raise RootFault(f"root={root} needs an initramfs to find it, and none is loaded")
        return _by_filesystem(root, scheme, value, parts)
    if initramfs:
        raise RootUnproven(f"root={root} is read by the initramfs only")
    raise RootFault(f"root={root} is no name of a partition")


def _by_device(root: str, parts: tuple[NamedPartition, ...], *, initramfs: bool) -> NamedPartition:
    number = _number_of_node(root)
    if number is not None:
        if number == 0:
            raise RootFault(f"root={root} is the whole card, not a partition")
        named = [one for one in parts if one.part.index == number]
        return _first(named, f"root={root} is no partition of this card{_listed(parts)}")
    if _OTHER_DISK.match(root) or _NUMBERS.match(root):
        what = f"root={root} is another disk or a server, which is not seen from here"
        raise RootOffCard(f"{what}{_listed(parts)}")
    if initramfs and not root.startswith("/dev/mmcblk"):
        raise RootUnproven(f"root={root} is read by the initramfs only")
    if root.startswith(_BUILT):
        raise RootFault(f"root={root} needs an initramfs to put it together, and none is loaded")
    raise RootFault(f"root={root} is no name of a partition")


def _number_of_node(root: str) -> int | None:
    """The partition's number where ``root`` is a node of a card: its name, or its numbers as
    ``179:2`` or ``b302``."""
    node = _CARD_NODE.match(root)
    if node:
        return int(node[1] or 0)
    pair = _NUMBERS.match(root)
    if pair:
        major, minor = int(pair[1]), int(pair[2])
    elif re.match(r"(?:0x)?[0-9a-fA-F]{3,4}\Z", root):
        major, minor = divmod(int(root, 16), 256)
    else:
        return None
    return minor % _MINORS if major == _CARD_MAJOR and minor < 2 * _MINORS else None


def _by_partuuid(
    root: str, value: str, parts: tuple[NamedPartition, ...], *, initramfs: bool
) -> NamedPartition:
    moved = _OFFSET.match(value)
    wanted, by = (moved[1], int(moved[2])) if moved else (value, 0)
    found = [one for one in parts if one.part.partuuid == wanted.casefold()]
    if found and initramfs and wanted != wanted.casefold():
        raise RootUnproven(_in_other_letters(root, found[0]))
    if found and by:
        found = [one for one in parts if one.part.index == found[0].part.index + by]
    return _first(found, f"root={root} is another partition{_listed(parts)}")


def _by_filesystem(
    root: str, scheme: str, value: str, parts: tuple[NamedPartition, ...]
) -> NamedPartition:
    for one in parts:
        if one.holds and value == (one.holds.uuid if scheme == "UUID" else one.holds.label):
            return one
    for one in parts:
        if scheme == "UUID" and one.holds and (one.holds.uuid or "").casefold() == value.casefold():
            raise RootUnproven(_in_other_letters(root, one))
        if one.may_hold_more:
            raise RootUnproven(f"root={root} may be on partition {one.part.index}")
    own = ", ".join(
        f"{name} on partition {one.part.index}"
        for one in parts
        if one.holds and (name := one.holds.uuid if scheme == "UUID" else one.holds.label)
    )
    names = f"; the {scheme}s on this card are {own}" if own else ""
    raise RootFault(f"root={root} is another filesystem{names}")


def _in_other_letters(root: str, one: NamedPartition) -> str:
    return (
        f"root={root} is the name of partition {one.part.index} in other letters, capital or "
        "small, by which not every initramfs finds it"
    )


def _first(found: list[NamedPartition], fault: str) -> NamedPartition:
    if not found:
        raise RootFault(fault)
    return found[0]


def _listed(parts: tuple[NamedPartition, ...]) -> str:
    """What root= could say, for the end of a sentence."""
    names = [f"{one.part.index} ({one.part.partuuid})" for one in parts[:8]]
    return f"; its partitions are {', '.join(names)}" if names else ""


def _listed_labels(parts: tuple[NamedPartition, ...]) -> str:
    names = [one.part.partlabel for one in parts if one.part.partlabel][:8]
    return f"; its labels are {', '.join(names)}" if names else ", which has no such labels"
