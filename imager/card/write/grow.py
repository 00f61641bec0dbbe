"""The last partition of an image, and the ext4 in it, made to reach to the end of a larger card.

In: a way to read what the card is to hold, and its size. Out: a Growth: the bytes in which the
larger card differs; nothing is written here. Only metadata are changed, in a copy that lies in
memory, by resize2fs; where it would move the content of files, nothing grows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from imager.base.errors import ToolFailed
from imager.base.run import run
from imager.base.units import SECTOR_BYTES, MiB, align_down, format_size
from imager.disk.budget import OverBudget
from imager.disk.ext4.filesystem import Ext4
from imager.disk.ext4.format import Ext4Error
from imager.disk.extents import Extent, ExtentMap
from imager.disk.gpt import BACKUP_BYTES, GptError
from imager.disk.manifest import Reader
from imager.disk.mbr import MbrError
from imager.disk.table import EXTENDED, PartitionTable, TablePartition, ending_at, read_table
from imager.node.edit.working_copy import WorkingPartition, part_of
from imager.node.image import Delta

_LARGEST_MBR = 0xFFFF_FFFF * SECTOR_BYTES
_LAST_PRIMARY = 4
_MENDED = (0, 1)
_MOST_COPIED = 512 * MiB
"""So much metadata is held in memory; a stranger's image may be little else."""
_MOST_BYTES = 64 * MiB
"""So much may differ; on a card of 256 GB these are some MiB."""


class CannotGrow(ValueError):
    """The last partition stays as large as it is; the text says why."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Partition ``index`` ends at byte ``end_bytes`` from now on; ``delta`` is all that changes,
    the table included."""

    index: int
    end_bytes: int
    delta: Delta


def growth(read: Reader, card_bytes: int) -> Growth:
    """What makes the last partition behind ``read`` fill a card of ``card_bytes``.

    Raises CannotGrow where there is no partition, nothing to gain, or something in the way.
    """
    try:
        table = read_table(read, card_bytes)
        last = _last(table)
        end = _end(table, last, card_bytes)
        if end <= last.extent.end:
            raise CannotGrow("it reaches to the end of the card already")
        root = Ext4.open(read, last.extent.offset)
        if root.needs_recovery:
            raise CannotGrow("its filesystem was not unmounted")
        where = Extent(last.extent.offset, end - last.extent.offset)
        metadata = root.metadata
        if metadata.total_bytes > _MOST_COPIED:
            raise CannotGrow(f"{format_size(metadata.total_bytes)} of it are its structures")
        with part_of(where, metadata, read) as work:
            _resize(work, root.block_size)
            pieces = [*_pieces(work, root, read)]
        pieces += ending_at(read, card_bytes, card_bytes, last.index, end)
        return Growth(last.index, end, Delta(pieces))
    except (MbrError, GptError, Ext4Error, OverBudget, struct.error) as error:
        raise CannotGrow(str(error)) from error
    except ToolFailed as error:
        raise CannotGrow(error.what) from error


def _last(table: PartitionTable) -> TablePartition:
    last = max(table.partitions, key=lambda part: part.extent.end, default=None)
    if last is None:
        raise CannotGrow(table.gpt_fault or "there is no partition")
    extended = [part for part in table.mbr.partitions if part.type_id in EXTENDED]
    if table.gpt is None and (last.index > _LAST_PRIMARY or extended):
        raise CannotGrow("the disk has an extended partition")
    return last


def _end(table: PartitionTable, last: TablePartition, card_bytes: int) -> int:
    if table.gpt is None:
        return align_down(min(card_bytes, last.extent.offset + _LARGEST_MBR), MiB)
    return align_down(card_bytes - BACKUP_BYTES, MiB)


def _resize(work: WorkingPartition, block_bytes: int) -> None:
    # Else it depends on this computer's kernel whether new inode tables are zeroed here: hundreds
    # of MB on a large card. The node's kernel does it after the first mount.
    env = {"RESIZE2FS_FORCE_LAZY_ITABLE_INIT": "1"}
    inherit = [work.work.descriptor]
    run(["e2fsck", "-f", "-p", work.work.path], ok=_MENDED, inherit=inherit)
    blocks = str(work.where.length // block_bytes)
    run(["resize2fs", "-f", work.work.path, blocks], env=env, inherit=inherit)
    run(["e2fsck", "-fn", work.work.path], inherit=inherit)


def _pieces(work: WorkingPartition, old: Ext4, read: Reader) -> Iterator[tuple[int, bytes]]:
    """What differs; of places that were free before all of it, since nobody knows what is there."""
    new = Ext4.open(work.read, work.where.offset)
    if moved := new.used - new.metadata - old.used:
        raise CannotGrow(f"the content of files would move to byte {next(iter(moved)).offset}")
    end = ExtentMap([Extent(work.where.end - MiB, MiB)])
    fresh = (new.metadata | end) - old.used  # a label of RAID may be left at the end
    if fresh.total_bytes > _MOST_BYTES:
        raise CannotGrow(f"{format_size(fresh.total_bytes)} of it would be new structures")
    yield from work.changes(new.metadata & old.used, read)
    for extent in fresh:
        yield extent.offset, work.read(extent.offset, extent.length)
