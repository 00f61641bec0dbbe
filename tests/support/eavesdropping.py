"""What one who listens could find: in files, in memory, on the wire.

In: needles, pieces of what is secret. Out: where any of them stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path


def places_with(needles: Sequence[bytes], *folders: Path) -> set[Path]:
    """The files in which any of ``needles`` stands."""
    found = set()
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                if found_in(needles, data):
                    found.add(path)
    return found


def found_in(needles: Sequence[bytes], data: bytes) -> bool:
    return any(needle in data for needle in needles)


def memory_of(first: int) -> Iterator[bytes]:
    """What the processes of the computer whose first process is ``first`` have in their memory."""
    theirs = Path(f"/proc/{first}/ns/pid").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "ns/pid").readlink() != theirs:
                continue
            with (process / "mem").open("rb", 0) as memory:
                for line in (process / "maps").read_text().splitlines():
                    area, rights = line.split()[:2]
                    start, end = (int(part, 16) for part in area.split("-"))
                    if rights.startswith("rw"):
                        with suppress(OSError):  # some areas are the kernel's
                            memory.seek(start)
                            yield memory.read(end - start)
