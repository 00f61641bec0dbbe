"""cmdline.txt: the one line the firmware hands to the kernel, and what its root= names.

In: the bytes of the file, and what is known of the card. Out: the words of the line, and whether
root= is this card's second partition. Pure. Sources: Raspberry Pi documentation, "Kernel command
line"; the kernel's init/do_mounts.c for the forms of root=.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_BYTES = 1024
"""COMMAND_LINE_SIZE of 32-bit ARM; the firmware adds some words of its own."""
_WORD = re.compile(r'(?:"[^"]*"|[^\s"])+')


@dataclass(frozen=True, slots=True)
class Cmdline:
    """The words of the first line; ``extra`` is the first line after it that is not empty
    (its number and text), which no kernel sees as meant."""

    words: tuple[str, ...]
    length: int
    extra: tuple[int, str] | None
    has_control: bool

    def value(self, key: str) -> str | None:
        """The last value of ``key=``, as the kernel takes it; None when absent."""
        found = [word for word in self.words if word.startswith(f"{key}=")]
        return found[-1].removeprefix(f"{key}=").strip('"') if found else None


def parse_cmdline(data: bytes) -> Cmdline:
    """The command line in ``data``."""
    lines = data.decode("utf-8", errors="replace").split("\n")
    extra = next(((n, text) for n, text in enumerate(lines[1:], 2) if text.strip()), None)
    first = lines[0]  # and of that what stands before a zero byte, the end of a text
    return Cmdline(
        words=tuple(_WORD.findall(first.partition("\0")[0])),
        length=len(first.encode()),
        extra=extra,
        has_control=bool(re.search(r"[\x00-\x08\x0b-\x1f]", first)),
    )


@dataclass(frozen=True, slots=True)
class RootNames:
    """Every name by which the kernel or an initramfs can find this card's root partition.

    ``filesystem_uuid`` and ``label`` are None where the filesystem could not be read.
    """

    partuuid: str
    filesystem_uuid: str | None
    label: str | None


def root_fault(root: str, names: RootNames, *, initramfs: bool) -> str | None:
    """Why ``root`` (the value of root=) is not this card's p2; None when it is."""
    scheme, equals, value = root.partition("=")
    value = value.strip('"')
    if root.startswith("/dev/"):
        if re.fullmatch(r"/dev/mmcblk[01]p2", root):
            return None
        return f"root={root} is not this card's second partition, /dev/mmcblk0p2"
    if not equals:
        return f"root={root} is no name of a partition"
    if scheme == "PARTUUID":
        if value.casefold() == names.partuuid.casefold():
            return None
        return f"root=PARTUUID={value} is another partition; this card's p2 is {names.partuuid}"
    if scheme in ("UUID", "LABEL"):
        if not initramfs:
            return f"root={root} needs an initramfs to find it, and none is loaded"
        own = names.filesystem_uuid if scheme == "UUID" else names.label
        if own is None or own.casefold() == value.casefold():
            return None
        return f"root={root} is another filesystem; the {scheme} on this card's p2 is {own}"
    return f"root={root} is no name of a partition"
