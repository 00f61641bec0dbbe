"""Which SHA-256 an image should have, by the file of sums beside it.

In: the text of such a file, as sha256sum(1) writes it. Out: the sum of one name in it. Pure.
"""

from __future__ import annotations

import re

_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(?:[ \t]+[ *]?(.*))?")
_BSD = re.compile(r"SHA256 \((.*)\) = ([0-9a-fA-F]{64})")


def sum_of(text: bytes, name: str, *, alone: bool = False) -> str | None:
    """The SHA-256 (hex) that ``text`` has for the file ``name``; None where it has none. With
    ``alone`` the file is about this one image only, and its one sum counts under any name."""
    found: dict[str, str] = {}
    for line in text.decode(errors="replace").splitlines():
        if match := _BSD.fullmatch(line.strip()):
            found[match[1].rpartition("/")[2]] = match[2].lower()
        elif match := _LINE.fullmatch(line.strip()):
            found[(match[2] or "").strip().rpartition("/")[2]] = match[1].lower()
    if alone and len(found) == 1:
        return next(iter(found.values()))
    return found.get(name)
