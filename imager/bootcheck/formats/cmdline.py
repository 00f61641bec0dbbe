"""cmdline.txt: the one line the firmware hands to the kernel, and what its root= names.

In: the bytes of the file, and what is known of the card. Out: the words of the line, and whether
root= is this card's second partition. Pure. Sources: Raspberry Pi documentation, "Kernel command
line"; the kernel's init/do_mounts.c for the forms of root=, lib/cmdline.c and kernel/params.c for
what a word is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_BYTES = 1024
"""COMMAND_LINE_SIZE of 32-bit ARM; the firmware adds some words of its own."""
_WORD = re.compile(r'(?:"[^"]*(?:"|\Z)|[^\s"])+')


@dataclass(frozen=True, slots=True)
class Cmdline:
    """The words of the first line that are the kernel's, without the quotes that hold one together;
    what stands behind ``--`` is for its first program. ``extra`` is the first line after it that is
    not empty (its number and text), which no kernel sees as meant."""

    words: tuple[str, ...]
    length: int
    extra: tuple[int, str] | None
    has_control: bool

    def value(self, key: str) -> str | None:
        """The last value of ``key=``, as the kernel takes it; None when absent."""
        found = [word for word in self.words if word.startswith(f"{key}=")]
        return found[-1].removeprefix(f"{key}=") if found else None

    @property
    def waits_for_root(self) -> bool:
        """Whether the kernel waits for its root; since 6.6 also for so many seconds only."""
        return any(word.partition("=")[0] == "rootwait" for word in self.words)


def parse_cmdline(data: bytes) -> Cmdline:
    """The command line in ``data``."""
    lines = data.decode("utf-8", errors="replace").split("\n")
    extra = next(((n, text) for n, text in enumerate(lines[1:], 2) if text.strip()), None)
    first = lines[0]  # and of that what stands before a zero byte, the end of a text
    return Cmdline(
        words=_words(first.partition("\0")[0]),
        length=len(first.encode()),
        extra=extra,
        has_control=bool(re.search(r"[\x00-\x08\x0b-\x1f]", first)),
    )


def _words(line: str) -> tuple[str, ...]:
    found = [_unquoted(word) for word in _WORD.findall(line)]
    own = found[: found.index("--")] if "--" in found else found
    return tuple(word for word in own if word.strip())


def _unquoted(word: str) -> str:
    """A word without the quotes around it, or around its value."""
    if word.startswith('"'):
        word = word[1:].removesuffix('"')
    key, equals, value = word.partition("=")
    if value.startswith('"'):
        value = value[1:].removesuffix('"')
    return f"{key}{equals}{value}"
