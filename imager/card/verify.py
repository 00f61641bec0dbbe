"""Check a card or an image file against its receipt, with no image at hand.

In: something readable and a receipt. Out: every chunk that no longer holds what was written, with
partition and files, as data. The receipt is found by the disk id in the card's own partition
table, so the person need not know which card this is.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import (
    CardIOError,
    ConfigurationError,
    PicloudError,
    StampMismatch,
    TargetRefused,
)
from imager.base.progress import Progress
from imager.base.units import SECTOR_BYTES, align_down, align_up
from imager.card.cards import FreshRead
from imager.card.flight import in_flight
from imager.card.fresh import fresh_read, reader_of
from imager.card.meter import Log, PhaseFigures, metered
from imager.card.places import Place, Places
from imager.card.raw import BLKGETSIZE64, BLKSSZGET, RawCard, aligned_buffer, ask, read_fully
from imager.card.receipt import Receipt
from imager.card.receipts import by_disk_id, find_receipt
from imager.image.extents import Extent, ExtentMap
from imager.image.fat import FatVolume
from imager.image.manifest import CHUNK_BYTES, Chunk, Reader
from imager.image.mbr import MbrError, parse

_DEPTH = 2
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A chunk whose digest is not the receipt's: where it lies and what lies there."""

    extent: Extent
    places: tuple[Place, ...]

    def __str__(self) -> str:
        where = " | ".join(map(str, self.places))
        return f"bytes {self.extent.offset} to {self.extent.end - 1}: {where}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of it; ``boot_files`` are the boot files that are missing or differ."""

    node: str
    target: str
    size_bytes: int
    receipt_size_bytes: int
    checked_bytes: int
    cache_bypassed: bool
    mismatches: tuple[Mismatch, ...]
    boot_files: tuple[str, ...]
    figures: PhaseFigures

    @property
    def matches(self) -> bool:
        """Whether every byte is as it was written."""
        return not self.mismatches

    def require_match(self) -> None:
        """Raise StampMismatch, with every place named, unless everything matches."""
        if self.matches:
            return
        lines = [f"boot file {path} is not what was written" for path in self.boot_files]
        lines += [str(mismatch) for mismatch in self.mismatches[:_LISTED]]
        if len(self.mismatches) > _LISTED:
            lines.append(f"and {len(self.mismatches) - _LISTED} more ranges")
        if self.size_bytes < self.receipt_size_bytes:
            lines.append(
                f"this card has {self.size_bytes} bytes; {self.receipt_size_bytes} were expected"
            )
        ranges = "one range" if len(self.mismatches) == 1 else f"{len(self.mismatches)} ranges"
        raise StampMismatch(
            f"{self.target}: this is not what was written for {self.node}: {ranges} differ",
            hint="if a Pi has run from it since, that is its own work; if not, write it again",
            details=lines,
        )


@contextmanager
def open_target(path: Path) -> Iterator[FreshRead]:
    """A disk, or any file, to be read around the cache; mounted ones too, for nothing is changed.

    Raises TargetRefused when there is nothing readable there, CardIOError when it does not answer.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISBLK(mode):
            size, block = ask(fd, BLKGETSIZE64, "Q"), ask(fd, BLKSSZGET)
        elif stat.S_ISREG(mode):
            size, block = os.fstat(fd).st_size, 4096
        else:
            raise TargetRefused(
                f"{path} is neither a disk nor a file", hint="give a card or an image file"
            )
        with fresh_read(f"/proc/self/fd/{fd}", str(path), size, block) as fresh:
            yield fresh
    finally:
        os.close(fd)


def _unreadable(path: Path, error: OSError) -> PicloudError:
    what = f"{path}: {os.strerror(error.errno or 0)}"
    if isinstance(error, FileNotFoundError):
        return TargetRefused(what, hint="picloud-image devices lists the disks of this computer")
    if isinstance(error, PermissionError):
        return TargetRefused(what, hint="run the command with sudo, or as the file's owner")
    return CardIOError(what, hint="put the card in again, or try another reader")


def disk_id_of(raw: RawCard) -> int:
    """The disk id in the partition table; raises StampMismatch when the card has none."""
    if raw.size_bytes < SECTOR_BYTES:
        raise StampMismatch(f"{raw.name} is empty", hint="write it again")
    try:
        return parse(reader_of(raw)(0, SECTOR_BYTES)).disk_id
    except MbrError as error:
        raise StampMismatch(
            f"{raw.name} holds no image of ours: {error}",
            hint="a card whose writing was cut short is blank on purpose: write it again",
        ) from error


def receipt_for(raw: RawCard, folder: Path) -> tuple[Path, Receipt]:
    """The newest proven receipt in ``folder`` for the card; raises ConfigurationError if none."""
    disk_id = disk_id_of(raw)
    found = find_receipt(folder, by_disk_id(disk_id))
    if found is None:
        raise ConfigurationError(
            f"no receipt in {folder} is for the disk id {disk_id:08x} of {raw.name}",
            hint="name the rack it was written for with --rack DIR, or give --receipt FILE",
        )
    return found


def verify_card(fresh: FreshRead, receipt: Receipt, progress: Progress) -> Verification:
    """Digest every chunk the receipt lists and compare.

    A card larger than the receipt's is judged by what the receipt lists; of a smaller one the
    missing part counts as different. Raises CardIOError where the card cannot be read.
    """
    raw, log, lock = fresh.raw, Log(), threading.Lock()
    wrong: list[Extent] = []
    total = receipt.manifest.extents.total_bytes

    def work(job: tuple[Chunk, bytes], buffer: memoryview) -> None:
        chunk, digest = job
        if digest_on_card(raw, chunk, buffer) != digest:
            with lock:
                wrong.extend(chunk.extents)
        meter.advance(sum(extent.length for extent in chunk.extents))

    with metered(progress, "verify", total, log) as meter:
        in_flight(
            receipt.manifest.chunks(), work, depth=_DEPTH, tools=lambda: aligned_buffer(CHUNK_BYTES)
        )
    read = _up_to_the_end(raw)
    places = Places(receipt.image.layout, read)
    return Verification(
        node=receipt.node,
        target=raw.name,
        size_bytes=raw.size_bytes,
        receipt_size_bytes=receipt.manifest.size_bytes,
        checked_bytes=total,
        cache_bypassed=fresh.cache_bypassed,
        mismatches=tuple(Mismatch(extent, places.of(extent)) for extent in ExtentMap(wrong)),
        boot_files=_boot_files(receipt, read) if wrong else (),
        figures=log.phases[0],
    )


def digest_on_card(raw: RawCard, chunk: Chunk, buffer: memoryview) -> bytes | None:
    """SHA-256 of the chunk's bytes on the card, read in one go; None when the card ends before."""
    low = align_down(chunk.extents[0].offset, raw.block_bytes)
    end = chunk.extents[-1].end
    if end > raw.size_bytes:
        return None
    high = min(align_up(end, raw.block_bytes), raw.size_bytes)
    read_fully(raw, low, buffer[: high - low])
    sha256 = hashlib.sha256()
    for extent in chunk.extents:
        sha256.update(buffer[extent.offset - low : extent.end - low])
    return sha256.digest()


def _up_to_the_end(raw: RawCard) -> Reader:
    """A reader that says zeros past the card's end, for a receipt of a larger card."""
    read = reader_of(raw)

    def bounded(offset: int, length: int) -> bytes:
        there = max(0, min(length, raw.size_bytes - offset))
        return (read(offset, there) if there else b"") + bytes(length - there)

    return bounded


def _boot_files(receipt: Receipt, read: Reader) -> tuple[str, ...]:
    """Boot files of the receipt that are missing or differ; none when p1 cannot be read at all,
    for then the ranges say more."""
    boot = receipt.image.layout.boot
    try:
        volume = FatVolume.parse(read, boot.offset, boot.length)
    except ValueError:
        return ()
    return tuple(
        path
        for path, expected in sorted(receipt.boot_files.items())
        if volume.find(path) is None
        or hashlib.sha256(volume.read_file(path)).hexdigest() != expected
    )
