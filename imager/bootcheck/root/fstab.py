"""/etc/fstab: does what it mounts at boot lie on this card?

In: the text of the file and the card's partitions. Out: each line that names a partition which is
not there, and what comes of it. Pure. systemd waits 90 seconds for such a partition and then gives
up the whole boot, unless the line says ``nofail``; forms are those of fstab(5). Names are compared
as bytes: systemd makes one the path of a link below /dev/disk, libblkid compares it as a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from imager.bootcheck.root.names import BY_LINK, NamedPartition, linked_name
from imager.disk.signature import Form

_WAITS_NOT = frozenset({"nofail", "noauto", "x-systemd.automount"})
_MOST_LINES = 200
_NODE = re.compile(r"/dev/mmcblk[0-9]p([0-9]+)\Z")
_SYSTEM = re.compile(r"/(?:$|boot(?:/|$)|efi$)")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class LostMount:
    """A line of fstab that names a partition this card has not. ``is_system`` says that it belongs
    on the card the board starts from; any other may lie on a further disk of the node. ``alike``
    is how the card has the same name in other letters, capital or small; empty where it has
    not."""

    line: int
    source: str
    target: str
    is_system: bool
    alike: str = ""


@dataclass(frozen=True, slots=True)
class FstabLine:
    """One line of fstab."""

    line: int
    source: str
    target: str
    kind: str
    options: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Names:
    """The name that is asked for, and those of the same kind that the card has."""

    wanted: str
    own: tuple[str, ...]


def mounts_in(text: str) -> tuple[FstabLine, ...]:
    """The lines of an fstab that mount something; not all of one that ``is_too_long``."""
    return _mounts(text)[:_MOST_LINES]


def _mounts(text: str) -> tuple[FstabLine, ...]:
    found = []
    for number, line in enumerate(text.splitlines()[: 10 * _MOST_LINES], 1):
        words = [_OCTAL.sub(lambda code: chr(int(code[1], 8)), word) for word in line.split()]
        if len(words) >= 2 and not words[0].startswith("#"):
            kind = words[2] if len(words) > 2 else "auto"
            options = frozenset((words[3] if len(words) > 3 else "defaults").split(","))
            found.append(FstabLine(number, words[0], words[1], kind, options))
    return tuple(found)


def is_too_long(text: str) -> bool:
    """Whether an fstab has more lines than are looked at."""
    return len(text.splitlines()) > 10 * _MOST_LINES or len(_mounts(text)) > _MOST_LINES


def lost_mounts(
    mounts: tuple[FstabLine, ...], parts: tuple[NamedPartition, ...]
) -> Iterator[LostMount]:
    """Every one of ``mounts`` for which the boot waits in vain if no other disk has what it
    names."""
    for mount in mounts:
        if mount.options & _WAITS_NOT:
            continue
        names = _names_like(mount.source, parts)
        if names is None or names.wanted in names.own:
            continue
        is_system = bool(_SYSTEM.match(mount.target)) and mount.kind != "swap"
        alike = (name for name in names.own if name.casefold() == names.wanted.casefold())
        yield LostMount(mount.line, mount.source, mount.target, is_system, next(alike, ""))


def _names_like(source: str, parts: tuple[NamedPartition, ...]) -> _Names | None:
    """What ``source`` asks for; None where nobody can tell from here whether the card has it."""
    node = _NODE.match(source)
    if node:
        return _Names(node[1].lstrip("0"), tuple(str(one.part.index) for one in parts))
    link = BY_LINK.match(source)
    scheme, equals, value = source.partition("=")
    if link:
        scheme, equals, value = link[1].upper(), "=", linked_name(link[2])
    value = value.strip("\"'")
    if not equals or scheme not in ("UUID", "LABEL", "PARTUUID", "PARTLABEL"):
        return None
    if scheme == "PARTUUID":
        return _Names(value, tuple(one.part.partuuid for one in parts))
    if scheme == "PARTLABEL":
        return _Names(value, tuple(one.part.partlabel for one in parts))
    own = [_own_name(one, scheme) for one in parts]
    return None if None in own else _Names(value, tuple(filter(None, own)))


def _own_name(one: NamedPartition, scheme: str) -> str | None:
    """The UUID or LABEL of ``one``; None where it may have any."""
    if one.holds is None or one.holds.form is Form.CONTAINER:
        return None
    return one.holds.uuid if scheme == "UUID" else one.holds.label
