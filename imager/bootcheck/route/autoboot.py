"""autoboot.txt on the first partition: does it send the board to another one?

In: the first partition's files. Out: the number of the partition that the boot goes on from.
Source: Raspberry Pi documentation, "autoboot.txt": at most 512 bytes, three filters, and 0 stands
for the first partition that can be booted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from imager.base.boards import Board
from imager.bootcheck.contents import Contents
from imager.bootcheck.findings import Code, Finding
from imager.bootcheck.formats.config import Config, NoteKind, Program, read_config
from imager.bootcheck.meanings import finding

AUTOBOOT = "autoboot.txt"
_MAX_BYTES = 512
_PROGRAM = Program(includes=False, known=frozenset({"none", "tryboot"}))


@dataclass(frozen=True, slots=True)
class Autoboot:
    """What autoboot.txt says to a board that is switched on: ``partition`` counts from 1."""

    partition: int
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, first: Contents, model: Board) -> Autoboot:
        """The partition that ``first``, the card's first one, sends the board to; 1 without an
        autoboot.txt."""
        entry = first.entry(AUTOBOOT)
        if entry is None:
            return cls(1)
        read = read_config(
            lambda path: first.beginning(path, _MAX_BYTES), model, _PROGRAM, path=AUTOBOOT
        )
        return cls(max(1, read.number("boot_partition") or 1), tuple(_odd(read, entry.size_bytes)))


def _odd(read: Config, size_bytes: int) -> Iterator[Finding]:
    for note in read.notes:
        if note.kind is NoteKind.NO_TEXT:
            yield finding(Code.TEXT_FORM, note.what, path=AUTOBOOT)
    if size_bytes > _MAX_BYTES:
        what = f"{AUTOBOOT} has {size_bytes} bytes; what stands after byte {_MAX_BYTES} is not read"
        yield finding(Code.CONFIG_LINE, what, path=AUTOBOOT)
