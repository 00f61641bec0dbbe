"""Text that is not text: what an editor or a shell left in a file that the firmware reads.

In: the bytes of config.txt, cmdline.txt or autoboot.txt. Out: what in them is no plain text, and
the text that a person meant. Pure. The firmware compares bytes: it knows no byte order mark, no
character of two bytes, and takes a zero byte for the end.
"""

from __future__ import annotations

import re

_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_LONE_RETURN = re.compile(rb"\r(?!\n)")
_SHOWN_WIDE = 64


def text_faults(data: bytes) -> tuple[str, ...]:
    """What in ``data`` is no plain text, each as the end of a sentence that begins with the
    file's name."""
    if is_wide(data):
        return ("is written in UTF-16, two bytes for each character",)
    found = []
    if data.startswith(_MARK):
        found.append("begins with a byte order mark (bytes ef bb bf)")
    if b"\0" in data:
        found.append(f"has a zero byte (NUL) at byte {data.index(0)}, where the text ends")
    if match := _LONE_RETURN.search(data):
        found.append(f"has a carriage return (CR) at byte {match.start()} that ends no line")
    return tuple(found)


def meant(data: bytes) -> bytes:
    """``data`` as the plain text that its writer meant."""
    encoding = _wide(data)
    if encoding:
        body = data[2:] if data[:2] in _WIDE_MARKS else data
        return body.decode(encoding, errors="replace").encode()
    return data.removeprefix(_MARK).replace(b"\0", b" ")


def is_wide(data: bytes) -> bool:
    """Whether it is UTF-16, in which the firmware finds no setting at all."""
    return bool(_wide(data))


def _wide(data: bytes) -> str:
    """Which UTF-16 it is: by its mark, or because every other byte of its beginning is zero."""
    if data[:2] in _WIDE_MARKS:
        return _WIDE_MARKS[data[:2]]
    head = data[:_SHOWN_WIDE]
    if len(head) >= 4:
        for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            others = head[1 - first :: 2]
            if not any(head[first::2]) and 0 not in others:
                return encoding
    return ""
