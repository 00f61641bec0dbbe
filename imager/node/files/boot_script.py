"""boot.scr, U-Boot's script: where U-Boot starts the kernel, the kernel's words stand in it.

In: the release's boot.scr, or boot.txt of which it was made. Out: the same script with more words.
Source: U-Boot's include/image.h: a header of 64 bytes with two checksums, the length of the one
script in it, four zeros, and its text.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

from imager.bootcheck.formats.kernel import boot_script_fault
from imager.node.files.cmdline import with_words

_HEADER = 64
_HEADER_SUM_AT, _LENGTH_AT, _CONTENT_SUM_AT = 4, 12, 24
_TEXT = _HEADER + 8
_BOOTARGS = b"setenv bootargs "


def script_with_words(script: bytes, words: Iterable[str]) -> bytes:
    """``script`` with ``words`` at the end of its bootargs; its time and name stay.

    Raises ValueError, with a message that can be shown, for one in which that is not possible.
    """
    fault = boot_script_fault(script)
    if fault is not None:
        raise ValueError(fault)
    sizes = struct.unpack_from(">II", script, _HEADER) if len(script) >= _TEXT else (0, 0)
    if sizes[1] or len(script) < _TEXT + sizes[0]:
        raise ValueError("it holds something else than one script")
    text = text_with_words(script[_TEXT : _TEXT + sizes[0]], words)
    payload = struct.pack(">II", len(text), 0) + text
    head = bytearray(script[:_HEADER])
    struct.pack_into(">I", head, _LENGTH_AT, len(payload))
    struct.pack_into(">I", head, _CONTENT_SUM_AT, zlib.crc32(payload))
    struct.pack_into(">I", head, _HEADER_SUM_AT, 0)
    struct.pack_into(">I", head, _HEADER_SUM_AT, zlib.crc32(head))
    return bytes(head) + payload


def text_with_words(text: bytes, words: Iterable[str]) -> bytes:
    """The script ``text`` with ``words`` at the end of its bootargs; raises ValueError."""
    lines = text.split(b"\n")
    places = [number for number, line in enumerate(lines) if line.startswith(_BOOTARGS)]
    if len(places) != 1:
        raise ValueError(f"{len(places)} of its lines begin with 'setenv bootargs', not one")
    lines[places[0]] = with_words(lines[places[0]], words)
    return b"\n".join(lines)
