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
