"""What is done to the copy of a card, never to the card: its journals replayed, its end cut off.

In: the unfinished image, open for reading and writing. Out: the same, changed, and its new size.
e2fsck and resize2fs do the work on the file; nothing is mounted, so nobody need be root.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from imager.base.durable import host_storage
from imager.base.errors import CardIOError, ToolFailed, UsageError
from imager.base.run import run
from imager.base.units import MiB, align_up
from imager.card.save.card_map import CardMap
from imager.card.save.saved_file import HeldFile
from imager.disk.ext4.volume import Volume
from imager.disk.extents import Extent
from imager.disk.in_use import Area
from imager.disk.rescue_map import RescueMap
from imager.disk.table import ending_at, read_table

_MENDED = (0, 1)
"""e2fsck(8): there was nothing to do, or it is done."""
_GPT_ROOM = MiB
_LAST_PRIMARY = 4


def replay(held: HeldFile, areas: Sequence[Area]) -> tuple[str, ...]:
    """Replay the journals of the ``areas`` that have something in them; returns their names."""
    dirty = [area for area in areas if area.dirty]
    for area in dirty:
        with _taken_out(held, area.extent) as taken:
            # e2fsck can work behind an offset, but not open what it has replayed there again.
            place = f"/dev/fd/{taken}"
            run(["e2fsck", "-y", "-E", "journal_only", place], ok=_MENDED, inherit=[taken])
            _make_void(held)
            with host_storage(held.names.partial):
                _copy(taken, held.fd, Extent(0, area.extent.length), area.extent.offset)
    return tuple(area.name for area in dirty)


def require_shrinkable(card: CardMap) -> Area:
    """The partition that can be made smaller: the last one. Raises UsageError where it is none."""
    last = max(card.areas, key=lambda area: area.extent)
    number = int(last.name.removeprefix("p")) if last.name[1:].isdecimal() else 0
    is_logical = number > _LAST_PRIMARY and not card.has_gpt
    why = ""
    if not last.kind.startswith("ext"):
        why = f"it holds {last.kind}, not an ext4"
    elif last.note:
        why = last.note
    elif not number:
        why = "it is not one partition of a table"
    elif last.extent.end < card.end_bytes and (card.note or not is_logical):
        why = "what lies behind it counts too"
    if why:
        raise UsageError(
            f"--shrink: the last partition ({last.name}) cannot be made smaller: {why}",
            hint="read it without --shrink",
        )
    return last


def shrink(held: HeldFile, last: Area) -> int:
    """Make the ext4 in ``last`` as small as it can be, and the image end behind it; returns the
    image's new size."""
    start, old = last.extent.offset, held.state.size_bytes
    with _taken_out(held, last.extent) as small:
        _make_small(small, last.name)
        volume = Volume(lambda offset, length: os.pread(small, length, offset), 0)
        length = volume.superblock.blocks_count * volume.superblock.block_size
        end = align_up(start + length, MiB)
        if end >= last.extent.end:
            return old
        number = int(last.name.removeprefix("p"))
        size = end if read_table(held.read, old).gpt is None else end + _GPT_ROOM
        pieces = ending_at(held.read, old, size, number, end)
        _make_void(held)
        with host_storage(held.names.partial):
            os.ftruncate(held.fd, start)
            os.ftruncate(held.fd, size)
            _copy(small, held.fd, Extent(0, length), start)
            for offset, data in pieces:
                os.pwrite(held.fd, data, offset)
        return size


def _make_small(small: int, name: str) -> None:
    place = f"/dev/fd/{small}"
    try:
        run(["e2fsck", "-f", "-p", place], ok=_MENDED, inherit=[small])
    except ToolFailed as error:
        raise CardIOError(
            f"{name} cannot be made smaller: {error.what}",
            hint="leave it as large as it is; e2fsck -fn on the card says what is wrong with it",
            details=error.details,
        ) from error
    # What is moved the first time leaves room for more.
    for _ in range(2):
        run(["resize2fs", "-M", place], inherit=[small])
        run(["e2fsck", "-f", "-p", place], ok=_MENDED, inherit=[small])


def _make_void(held: HeldFile) -> None:
    """Keep in the folder that nothing is saved: from here on the file is not what was read, and
    after a run that is killed the next one begins anew."""
    held.keep_state(RescueMap(held.state.size_bytes, held.state.notes).encode())


@contextmanager
def _taken_out(held: HeldFile, extent: Extent) -> Iterator[int]:
    """``extent`` of the image in a file of its own, which has no name and is gone afterwards."""
    with host_storage(held.names.partial):
        taken = os.open(held.names.path.parent, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    try:
        with host_storage(held.names.partial):
            os.ftruncate(taken, extent.length)
            _copy(held.fd, taken, extent, 0)
        yield taken
    finally:
        os.close(taken)


def _copy(source: int, target: int, extent: Extent, at: int) -> None:
    """Copy what is no hole in ``extent`` of ``source`` to byte ``at`` of ``target``."""
    for part in _data(source, extent.offset, extent.end):
        done = 0
        while done < part.length:
            from_, to = part.offset + done, at + part.offset - extent.offset + done
            count = os.copy_file_range(source, target, part.length - done, from_, to)
            if not count:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            done += count


def _data(fd: int, low: int, end: int) -> list[Extent]:
    found, position = [], low
    while position < end:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left
            break
        stop = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        if start < stop:
            found.append(Extent(start, stop - start))
        position = stop
    return found
