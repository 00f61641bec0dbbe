"""Which file names a FAT filesystem can hold so that every system reads them alike.

In: a name or a path. Out: why it cannot be used. Pure. The rules are
Microsoft's "FAT32 File System Specification" (long names) and "Naming Files".
"""

from __future__ import annotations

import re

from imager.base.units import GiB

LARGEST_FILE = 4 * GiB - 1
_FORBIDDEN = frozenset('"*:<>?\\|/')
_SHORT_ALIAS = re.compile(r"(?=[^.]{1,8}(\.|\Z))[^.]{1,6}~[0-9]{1,6}(\.[^.]{0,3})?\Z")
_LONGEST_NAME = 255  # UTF-16 units
_DEVICES = frozenset(
    (
        "CON",
        "PRN",
        "AUX",
        "NUL",
        "CLOCK$",
        *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10)),
    )
)


def name_fault(name: str) -> str | None:
    """Why ``name`` cannot be a file's name on FAT, or None when it can."""
    try:
        units = len(name.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        return "is not UTF-8"
    if units > len(name):
        return "has a character FAT's 16-bit names cannot spell"
    if units > _LONGEST_NAME:
        return f"is {units} characters long and FAT allows {_LONGEST_NAME}"
    for character in name:
        if character in _FORBIDDEN or ord(character) < 0x20 or ord(character) == 0x7F:
            return f"has {character!r} in it"
    if name.endswith((".", " ")):
        return "ends in a dot or a space"
    if name.startswith(" "):
        return "begins with a space"
    if name.split(".")[0].upper() in _DEVICES:
        return "is the name of a DOS device"
    if _SHORT_ALIAS.match(name):
        return "looks like the short name that FAT makes up for a longer one, and may be one here"
    return None


def same_on_fat(path: str) -> str:
    """A text that is equal for two paths that FAT takes for one: FAT ignores case."""
    return path.upper().casefold()
