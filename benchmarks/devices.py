"""Loop devices as cards: blank or full, slow (``tests.support.slowcard``), their bytes counted.

In: a folder. Out: a loop device for as long as the ``with`` lasts, and how much was written to it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imager.base.run import run
from imager.base.units import SECTOR_BYTES, KiB, MiB
from tests.support.loop import Loop, call, loop_over, missing_abilities, mounted, sized_file
from tests.support.slowcard import no_throttle, throttled

__all__ = [
    "Loop",
    "call",
    "card_of",
    "fill_card",
    "missing_abilities",
    "mounted",
    "no_throttle",
    "throttled",
    "written_bytes",
]


@contextmanager
def card_of(folder: Path, size_bytes: int) -> Iterator[Loop]:
    """A card of ``size_bytes`` that holds nothing; its file is gone afterwards."""
    backing = sized_file(folder / f"card-{size_bytes}", size_bytes)
    try:
        with loop_over(backing) as loop:
            yield loop
    finally:
        backing.unlink()


FILLED_FROM = 8 * MiB
"""Where the only partition of a filled card begins, in bytes."""


def fill_card(store: Path, size_bytes: int, files_bytes: int) -> None:
    """Put a partition table, and an ext4 with ``files_bytes`` in eight files, on a disk."""
    table = f"label: dos\nstart={FILLED_FROM // SECTOR_BYTES}, type=83\n"
    with tempfile.TemporaryDirectory() as tree:
        for number in range(8):
            Path(tree, f"file-{number}").write_bytes(os.urandom(files_bytes // 8))
        run(["sfdisk", "--quiet", store], stdin=table.encode())
        size, where = f"{(size_bytes - FILLED_FROM) // KiB}k", f"offset={FILLED_FROM}"
        run(["mke2fs", "-q", "-t", "ext4", "-d", tree, "-E", where, store, size])


def written_bytes(loop: Loop) -> int:
    """Bytes ever written to this number of loop device, whatever file it showed: only a difference
    tells something (Documentation/block/stat.rst in the kernel's source)."""
    fields = Path(f"/sys/block/{loop.name}/stat").read_text().split()
    return int(fields[6]) * SECTOR_BYTES
