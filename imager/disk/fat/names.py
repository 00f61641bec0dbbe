"""Which file names a FAT filesystem can hold so that every system reads them alike.

In: a name or a path. Out: why it cannot be used. Pure. The rules are
Microsoft's "FAT32 File System Specification" (long names) and "Naming Files", and three of mtools,
which write our names: they keep a name that fits DOS's 8.3 without a long one, make a damaged short
name for some that have a ``~``, and take a ``[`` for a pattern that may be another file's name.
"""

from __future__ import annotations

import re

from imager.base.units import GiB

LARGEST_FILE = 4 * GiB - 1
_FORBIDDEN = frozenset('"*:<>?\\|/')
_SHORT_ALIAS = re.compile(r"(?=[^.]{1,8}(\.|\Z))[^.]{1,6}~[0-9]{1,6}(\.[^.]{0,3})?\Z")
_LONGEST_NAME = 255  # UTF-16 units
_STEM, _EXTENSION = 8, 3
"""How long the two parts of a DOS name may be."""
_DOS_NAME = re.compile(r"[A-Za-z0-9_~-]{1,8}(\.[A-Za-z0-9_~-]{1,3})?\Z")
"""Names that surely need no short name beside them."""
_TILDES = re.compile("[~\u02dc\u223c\uff5e]")
"""What becomes a ``~`` in a short name."""
_CUT_SHORT = re.compile(r"~[0 .]*\Z")
"""A short name that would end in a ``~``, or in one with a number that is 0."""
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
    if "[" in name:
        return "has '[' in it, which mtools take for the beginning of a pattern"
    if name.endswith((".", " ")):
        return "ends in a dot or a space"
    if name.startswith(" "):
        return "begins with a space"
    if name.split(".")[0].upper() in _DEVICES:
        return "is the name of a DOS device"
    if _SHORT_ALIAS.match(name):
        return "looks like the short name that FAT makes up for a longer one, and may be one here"
    return _short_name_fault(name)


def _short_name_fault(name: str) -> str | None:
    """Why mtools would not write ``name`` as it is, or None."""
    stem, extension = _parts(name)
    other = next((character for character in name if not character.isascii()), None)
    # The code page of whoever reads a DOS name decides what its other letters are, and mtools
    # put an E for a euro sign first. Only a longer name is kept beside it as it was given.
    if other is not None and len(stem) <= _STEM and len(extension) <= _EXTENSION:
        return f"has {other!r} in it and is so short that it is kept in a DOS code page"
    # mtools take a ~ at the end of a short name for their own, and write bytes of zero behind
    # it. How many letters another letter becomes is not known here.
    damaged = _TILDES.search(stem) if other else _CUT_SHORT.search(stem[:_STEM])
    if damaged and not _DOS_NAME.match(name):
        return "has a '~' in a place where its short name would be damaged"
    return None


def _parts(name: str) -> tuple[str, str]:
    """``name`` without its extension, and the extension; dots and spaces in front are left out."""
    bare = name.lstrip(". ")
    stem, dot, extension = bare.rpartition(".")
    return (stem, extension) if dot else (bare, "")


def same_on_fat(path: str) -> str:
    """A text that is equal for two paths that FAT takes for one: FAT ignores case."""
    return path.upper().casefold()
