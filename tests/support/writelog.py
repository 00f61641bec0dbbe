"""The writes of a machine to its card, one by one, and what the card held between any two of them.

In: a recording of ``scripts/boot-in-qemu --record``, in the form of the kernel's dm-log-writes
(Documentation/admin-guide/device-mapper/log-writes.rst): after one sector with the superblock, each
write is a sector that says where and how long, then its data. Out: a card that lost its power
after a chosen number of writes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
_SUPERBLOCK = struct.Struct("<QQQI")
_MAGIC = 0x6A736677736872
_ENTRY = struct.Struct("<QQQQ")
_DISCARD = 4


class Write(NamedTuple):
    """``sector`` of the card gets ``sectors`` sectors, which begin at byte ``data`` of the log."""

    sector: int
    sectors: int
    data: int


def writes(log: Path) -> Iterator[Write]:
    """The writes recorded so far, in their order; flushes are none."""
    with log.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        magic, _, _, sector_bytes = _SUPERBLOCK.unpack(file.read(_SUPERBLOCK.size))
        assert (magic, sector_bytes) == (_MAGIC, SECTOR)
        at = SECTOR
        while at + SECTOR <= size:
            sector, sectors, flags, _ = _ENTRY.unpack(os.pread(file.fileno(), _ENTRY.size, at))
            at += SECTOR
            assert not flags & _DISCARD, "a card in QEMU has no discard"
            if at + sectors * SECTOR > size:
                return
            if sectors:
                yield Write(sector, sectors, at)
            at += sectors * SECTOR


def replay(log: Path, count: int, card: Path) -> None:
    """Do the first ``count`` writes to ``card``, which is as it was when the recording began."""
    with log.open("rb") as source, card.open("r+b") as target:
        for number, write in enumerate(writes(log)):
            if number == count:
                return
            data = os.pread(source.fileno(), write.sectors * SECTOR, write.data)
            os.pwrite(target.fileno(), data, write.sector * SECTOR)
