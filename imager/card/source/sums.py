"""Which SHA-256 an image should have, by the file of sums beside it.

In: the text of such a file, as sha256sum(1) writes it. Out: the sum of one name in it, or which
file it speaks of. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper

_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(?:[ \t]+[ *]?(.*))?")
_BSD = re.compile(r"SHA256 \((.*)\) = ([0-9a-fA-F]{64})")


def sum_of(text: bytes, name: str, *, alone: bool = False) -> str | None:
    """The SHA-256 (hex) that ``text`` has for the file ``name``; None where it has none. With
    ``alone`` the file is about this one image only, and its one sum counts under any name."""
    own: str | None = None
    last: tuple[str, str] | None = None
    has_one = True
    for said, digest in _sums(text):
        has_one = has_one and (last is None or last[0] == said)
        last = said, digest
        own = digest if said == name else own
    return last[1] if alone and has_one and last else own


def first_name(text: bytes) -> str:
    """The first file of which ``text`` has a sum; empty where it names none."""
    return next((said for said, _ in _sums(text)), "")


def _sums(text: bytes) -> Iterator[tuple[str, str]]:
    """Names and their sums, one after the other: a stranger's file may have millions of lines."""
    for line in TextIOWrapper(BytesIO(text), "utf-8", "replace"):
        if match := _BSD.fullmatch(line.strip()):
            yield match[1].rpartition("/")[2], match[2].lower()
        elif match := _LINE.fullmatch(line.strip()):
            yield (match[2] or "").strip().rpartition("/")[2], match[1].lower()
