"""Loop devices as slow cards: a limit on bytes per second, and a count of bytes written.

In: a loop device made here. Out: the same device, slow for as long as the ``with`` lasts. The
limit is a rule of cgroup v1's blkio controller in its root group, where it holds for direct I/O
and for the kernel's own writeback alike, and for no device but ours. A benchmark killed with -9
leaves its rule behind, which the next one on that device replaces and removes.
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

_BLKIO = Path("/sys/fs/cgroup/blkio")
_RULES = {
    "write": _BLKIO / "blkio.throttle.write_bps_device",
    "read": _BLKIO / "blkio.throttle.read_bps_device",
}


def no_throttle() -> str:
    """Why cards cannot be made slow here; empty when they can."""
    if missing := missing_abilities():
        return missing
    if not all(os.access(rule, os.W_OK) for rule in _RULES.values()):
        return f"needs the blkio controller of cgroup v1 at {_BLKIO}"
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    if not any(line.endswith(":blkio:/") for line in groups):
        return "needs to run in the root group of cgroup v1's blkio controller"
    return ""


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


@contextmanager
def throttled(loop: Loop, *, write_bps: int, read_bps: int) -> Iterator[None]:
    """Limit ``loop`` to so many bytes per second."""
    loop.require_ours()
    number = Path(f"/sys/block/{loop.name}/dev").read_text().strip()
    try:
        _RULES["write"].write_text(f"{number} {write_bps}\n")
        _RULES["read"].write_text(f"{number} {read_bps}\n")
        yield
    finally:
        for rule in _RULES.values():
            rule.write_text(f"{number} 0\n")


def written_bytes(loop: Loop) -> int:
    """Bytes ever written to this number of loop device, whatever file it showed: only a difference
    tells something (Documentation/block/stat.rst in the kernel's source)."""
    fields = Path(f"/sys/block/{loop.name}/stat").read_text().split()
    return int(fields[6]) * SECTOR_BYTES
