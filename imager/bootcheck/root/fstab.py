"""/etc/fstab: does what it mounts at boot lie on this card?

In: the text of the file and the card's partitions. Out: each line that names a partition which is
not there, and what comes of it. Pure. systemd waits 90 seconds for such a partition and then gives
up the whole boot, unless the line says ``nofail``; forms are those of fstab(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from imager.bootcheck.root.names import BY_LINK, NamedPartition
from imager.disk.signature import Form

_WAITS_NOT = frozenset({"nofail", "noauto", "x-systemd.automount"})
_MOST_LINES = 200
_NODE = re.compile(r"/dev/mmcblk[0-9]p([0-9]+)\Z")
_SYSTEM = re.compile(r"/(?:$|boot(?:/|$)|efi$)")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class LostMount:
    """A line of fstab that names a partition this card has not. ``is_system`` says that it belongs
    on the card the board starts from; any other may lie on a further disk of the node."""

    line: int
    source: str
    target: str
    is_system: bool


@dataclass(frozen=True, slots=True)
class FstabLine:
    """One line of fstab."""

    line: int
    source: str
    target: str
    kind: str
    options: frozenset[str]


def mounts_in(text: str) -> tuple[FstabLine, ...]:
    """The lines of an fstab that mount something."""
    found = []
    for number, line in enumerate(text.splitlines()[: 10 * _MOST_LINES], 1):
        words = [_OCTAL.sub(lambda code: chr(int(code[1], 8)), word) for word in line.split()]
        if len(words) >= 2 and not words[0].startswith("#"):
            kind = words[2] if len(words) > 2 else "auto"
            options = frozenset((words[3] if len(words) > 3 else "defaults").split(","))
            found.append(FstabLine(number, words[0], words[1], kind, options))
    return tuple(found[:_MOST_LINES])


def lost_mounts(
    mounts: tuple[FstabLine, ...], parts: tuple[NamedPartition, ...]
) -> Iterator[LostMount]:
    """Every one of ``mounts`` for which the boot waits in vain if no other disk has what it
    names."""
    for mount in mounts:
        if mount.options & _WAITS_NOT or _is_there(mount.source, parts):
            continue
        is_system = bool(_SYSTEM.match(mount.target)) and mount.kind != "swap"
        yield LostMount(mount.line, mount.source, mount.target, is_system)


def _is_there(source: str, parts: tuple[NamedPartition, ...]) -> bool:
    """Whether the card has it, or nobody can tell from here."""
    node = _NODE.match(source)
    if node:
        return any(one.part.index == int(node[1]) for one in parts)
    link = BY_LINK.match(source)
    scheme, equals, value = (link[1].upper(), "=", link[2]) if link else source.partition("=")
    value = value.strip("\"'")
    if not equals or scheme not in ("UUID", "LABEL", "PARTUUID", "PARTLABEL"):
        return True
    if scheme == "PARTUUID":
        return any(one.part.partuuid == value.casefold() for one in parts)
    if scheme == "PARTLABEL":
        return any(one.part.partlabel == value for one in parts)
    return any(_may_be(one, scheme, value) for one in parts)


def _may_be(one: NamedPartition, scheme: str, value: str) -> bool:
    if one.holds is None or one.holds.form is Form.CONTAINER:
        return True
    own = one.holds.uuid if scheme == "UUID" else one.holds.label
    return own is None or own.casefold() == value.casefold()
