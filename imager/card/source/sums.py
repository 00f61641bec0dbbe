"""Which sum an image should have, by the file of sums beside it.

In: the text of such a file: as sha256sum(1) or openssl(1) writes it, or any other program, if name
and sum stand in one line. Out: the sum of one name in it, or which file it speaks of. Pure.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper

ALGORITHMS = {"sha256": "SHA-256", "sha512": "SHA-512"}
"""Sums that are taken: what hashlib calls them, and a person."""
_DIGITS = {"sha256": 64, "sha512": 128}
_LINE = {
    name: re.compile(rf"\\?([0-9a-fA-F]{{{digits}}})(?:[ \t]+[ *]?(.*))?")
    for name, digits in _DIGITS.items()
}
_TAGGED = {
    name: re.compile(rf"\\?SHA(?:2-)?{name[3:]} ?\((.*)\) ?= ([0-9a-fA-F]{{{digits}}})")
    for name, digits in _DIGITS.items()
}
_LOOSE = {
    name: re.compile(rf"(?<![0-9A-Za-z])[0-9a-fA-F]{{{digits}}}(?![0-9A-Za-z])")
    for name, digits in _DIGITS.items()
}
_ESCAPED = re.compile(r"\\([\\nr])")
_MEANT = {"\\": "\\", "n": "\n", "r": "\r"}
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class UnclearSums(ValueError):
    """The file is about the image, and nobody can tell which sum it gives it; the message goes on
    where a sentence about the file begins."""


def sum_of(text: bytes, name: str, algorithm: str = "sha256", *, alone: bool = False) -> str | None:
    """The sum (hex) that ``text`` has for the file ``name``; None where it does not speak of it.
    With ``alone`` the file is about this one image only, and its one sum counts under any name.

    Raises UnclearSums where there are two, or none although the file is about this image.
    """
    here, elsewhere, others = set[str](), set[str](), set[str]()
    is_named = False
    for path, digest in _read(text, algorithm, name):
        is_its_own = _last(path) == name
        is_named |= is_its_own
        kind = here if path == name else elsewhere if is_its_own else others
        if digest and len(kind) < 2:
            kind.add(digest)
    found = here or elsewhere or (others if alone else set())
    if len(found) > 1:
        raise UnclearSums(f"has more than one {ALGORITHMS[algorithm]} that may be of {name}")
    if not found and (alone or is_named):
        raise UnclearSums(f"has no {ALGORITHMS[algorithm]} of {name} that is understood here")
    return next(iter(found), None)


def first_name(text: bytes, algorithm: str = "sha256") -> str:
    """The first file of which ``text`` has a sum; empty where it names none."""
    return next((_last(path) for path, digest in _read(text, algorithm) if digest), "")


def _read(text: bytes, algorithm: str, name: str = "") -> Iterator[tuple[str, str]]:
    """Paths and their sums, one after the other: a stranger's file may have millions of lines. A
    line in a form of its own has the path ``name`` if that stands in it; a path or a sum that it
    does not give is empty. One that names ``name`` and is of another path comes twice, as who wrote
    it may have meant both."""
    line_form, tagged, loose = _LINE[algorithm], _TAGGED[algorithm], _LOOSE[algorithm]
    mention = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])") if name else None
    encoding = "utf-16" if text.startswith(_UTF_16) else "utf-8-sig"
    for raw in TextIOWrapper(BytesIO(text), encoding, "replace"):
        line = raw.strip()
        if match := tagged.fullmatch(line):
            path, digest = _path(match[1], line), match[2].lower()
        elif match := line_form.fullmatch(line):
            path, digest = _path((match[2] or "").strip(), line), match[1].lower()
        elif line.startswith("#"):
            continue
        else:
            said = name if mention and mention.search(line) else ""
            digests = [match[0].lower() for match in loose.finditer(line)]
            for digest in digests or [""] * bool(said):
                yield said, digest
            continue
        yield path, digest
        # "any.img 12345" is hardly a name; a backslash that is left in a path belongs to one.
        if mention and _last(path) != name and mention.search(path.replace("\\", "-")):
            yield name, ""


def _path(said: str, line: str) -> str:
    """The path that ``line`` means by ``said``: one that begins with a backslash has others in
    front of what no line can hold, and in all others they lead to a folder, as in Windows."""
    if line.startswith("\\"):
        said = _ESCAPED.sub(lambda match: _MEANT[match[1]], said)
    else:
        said = said.replace("\\", "/")
    return said.removeprefix("./")


def _last(path: str) -> str:
    return path.rpartition("/")[2]
