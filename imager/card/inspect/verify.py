"""Check a card or an image file against its own stamp or a receipt, with no image at hand.

In: something readable and what it is held against. Out: every chunk that no longer holds what was
written, with partition and files, as data; and for a card that a node has used, what is damaged
and what the node's own work. Which card it is, the card itself says.
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

from imager.base.below import NotUsed, named
from imager.base.durable import how_to_be_allowed
from imager.base.errors import (
    CardIOError,
    PicloudError,
    StampMismatch,
    TargetRefused,
)
from imager.base.progress import Progress
from imager.base.units import SECTOR_BYTES, align_down, align_up, format_size
from imager.bootcheck.instead import no_card
from imager.card.diagnosis.places import Places
from imager.card.inspect.card_files import CardFiles
from imager.card.inspect.record import CardRecord
from imager.card.inspect.stamp import read_stamp
from imager.card.inspect.use import CardUse, damaged_boot_files, judge_use, was_used
from imager.card.inspect.verification import Mismatch, Verification
from imager.card.medium.in_flight import in_flight
from imager.card.medium.meter import metered
from imager.card.medium.raw import (
    BLKGETSIZE64,
    BLKSSZGET,
    RawCard,
    aligned_buffer,
    ask,
    is_gone,
    read_fully,
)
from imager.card.medium.reopen import FreshRead, fresh_read, reader_of, remembering
from imager.card.medium.salvage import Piecewise
from imager.card.receipt.store import by_disk_id, find_receipt
from imager.card.stages import Log
from imager.config.rack import receipts_folder
from imager.disk.budget import Budget
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import CHUNK_BYTES, Chunk, Reader
from imager.disk.mbr import MbrError, parse
from imager.node.stamp.facts import StampError
from imager.node.stamp.stamp import NoStamp

_DEPTH = 2


@contextmanager
def open_target(path: Path) -> Iterator[FreshRead]:
    """A disk, or any file, to be read around the cache; mounted ones too, for nothing is changed.

    Raises TargetRefused when there is nothing readable there, CardIOError when it does not answer.
    """
    try:
        fd = named(path, stat.S_ISREG, stat.S_ISBLK)
    except NotUsed:
        raise TargetRefused(
            f"{path} is neither a disk nor a file", hint="give a card or an image file"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        about = os.fstat(fd)
        if stat.S_ISBLK(about.st_mode):
            size, block = ask(fd, BLKGETSIZE64, "Q"), ask(fd, BLKSSZGET)
        else:
            size, block = about.st_size, 4096
        with fresh_read(f"/proc/self/fd/{fd}", str(path), size, block) as fresh:
            yield fresh
    finally:
        os.close(fd)


def is_image_file(path: Path) -> bool:
    """Whether the target ``path`` is a file, which is not repaired but made anew."""
    return path.is_file()


def _unreadable(path: Path, error: OSError) -> PicloudError:
    what = f"{path}: {os.strerror(error.errno or 0)}"
    if isinstance(error, FileNotFoundError):
        return TargetRefused(what, hint="picloud-image devices lists the disks of this computer")
    if isinstance(error, PermissionError):
        return TargetRefused(what, hint=how_to_be_allowed())
    return CardIOError(what, hint="put the card in again, or try another reader")


def disk_id_of(raw: RawCard) -> int:
    """The disk id in the partition table; raises StampMismatch when the card has none."""
    read = reader_of(raw)
    first = read(0, min(SECTOR_BYTES, raw.size_bytes))
    try:
        return parse(first).disk_id
    except MbrError as error:
        told = no_card(read, raw.size_bytes)
        blank = "a card whose writing was cut short is blank on purpose: write it again"
        raise StampMismatch(
            f"{raw.name} holds no image of ours: {told.what if told else error}",
            hint=(told.mend if told and (any(first) or not first) else None) or blank,
        ) from error


@dataclass(frozen=True, slots=True)
class Proof:
    """What a card is held against: its stamp, or a receipt. ``fault`` says what is wrong with a
    stamp that could not be used."""

    held: CardRecord
    receipt_path: Path | None = None
    fault: str = ""


def proof_for(raw: RawCard, rack: Path | None) -> Proof:
    """The card's own stamp, else the newest receipt for it in the folder of the rack at hand.

    Raises StampMismatch when there is neither: then nobody knows what the card should hold.
    """
    try:
        return Proof(read_stamp(reader_of(raw), raw.size_bytes))
    except NoStamp as error:
        fault = str(error)
    except StampError as error:
        fault = f"the stamp is unusable: {error}"
    disk_id = disk_id_of(raw)
    found = find_receipt(receipts_folder(rack), by_disk_id(disk_id)) if rack is not None else None
    if found is not None:
        path, receipt = found
        return Proof(receipt, path, fault)
    raise StampMismatch(
        f"{raw.name}: {fault}, and no receipt for its disk id {disk_id:08x} is at hand",
        hint="name the rack it was written for with --rack DIR, give --receipt FILE, or write "
        "it again",
    )


def verify_card(fresh: FreshRead, held: CardRecord, progress: Progress) -> Verification:
    """Digest every chunk and compare; where a node has used the card, look at every file.

    What cannot be read is noted and the rest is looked at all the same. A card larger than the
    one written for is judged by what was written; of a smaller one the missing part counts as
    different. Raises CardIOError only when the card is gone.
    """
    raw, log = fresh.raw, Log()
    pieces = Piecewise(raw)
    read = remembering(
        _up_to_the_end(pieces.reader(), raw), max(raw.size_bytes, held.manifest.size_bytes)
    )
    wrong = _wrong_chunks(pieces, held, progress, log)
    unreadable = pieces.unreadable & held.manifest.extents
    budget = Budget.of_disk(raw.size_bytes)
    files = CardFiles(read, held.layout, budget) if held.layout else None
    use = None
    if files is not None and held.stamp is not None and wrong:
        with metered(progress, "files", wrong.total_bytes, log.phases) as meter:
            use = judge_use(held.stamp, files, wrong, meter, unreadable)
    places = Places(held.layout, read, raw.size_bytes, budget)
    return Verification(
        node=held.node,
        target=raw.name,
        size_bytes=raw.size_bytes,
        receipt_size_bytes=held.manifest.size_bytes,
        checked_bytes=held.manifest.extents.total_bytes,
        cache_bypassed=fresh.cache_bypassed,
        mismatches=tuple(_mismatches(wrong, unreadable, places)),
        boot_files=_boot_files(held, files, use) if files is not None and wrong else (),
        figures=log.phases[0],
        proof=held.kind,
        used=files is not None and use is not None and was_used(files),
        use=use,
    )


def _mismatches(wrong: ExtentMap, unreadable: ExtentMap, places: Places) -> Iterator[Mismatch]:
    """What cannot be read, by itself; of a chunk around it nobody can say if the rest is right,
    so only other chunks are called different."""
    differing = wrong - unreadable.aligned(CHUNK_BYTES)
    kinds = [(extent, True) for extent in unreadable] + [(extent, False) for extent in differing]
    for extent, refused in sorted(kinds):
        yield Mismatch(extent, places.of(extent), unreadable=refused)


def _wrong_chunks(pieces: Piecewise, held: CardRecord, progress: Progress, log: Log) -> ExtentMap:
    """Every chunk whose digest is another one; a chunk that cannot be read whole, also when it is
    read a second time, is one of them."""
    wrong: list[Extent] = []
    late: list[Extent] = []
    lock = threading.Lock()

    def work(job: tuple[Chunk, bytes], buffer: memoryview) -> None:
        chunk, digest = job
        asked_again = False
        try:
            found = _digest_on_card(pieces.raw, chunk, buffer, held)
        except CardIOError as error:
            if is_gone(error):
                raise
            progress.warn(f"{error.what}; going on")
            found, asked_again = _digest_in_pieces(pieces, chunk, buffer, held), True
        with lock:
            if found != digest:
                wrong.extend(chunk.extents)
            if found is not None and asked_again:
                late.extend(chunk.extents)
        meter.advance(sum(extent.length for extent in chunk.extents))

    with metered(progress, "verify", held.manifest.extents.total_bytes, log.phases) as meter:
        in_flight(
            held.manifest.chunks(), work, depth=_DEPTH, tools=lambda: aligned_buffer(CHUNK_BYTES)
        )
    if late:
        size, first = format_size(ExtentMap(late).total_bytes), min(late).offset
        progress.warn(
            f"{pieces.raw.name}: it refused {size} from byte {first} on, and gave them when it was "
            "asked again: the reader, its cable or its port is not reliable"
        )
    return ExtentMap(wrong)


def _around(chunk: Chunk, raw: RawCard) -> tuple[int, int]:
    """The whole blocks of the card in which the chunk lies: first byte, and the one after."""
    low = align_down(chunk.extents[0].offset, raw.block_bytes)
    return low, min(align_up(chunk.extents[-1].end, raw.block_bytes), raw.size_bytes)


def _digest_on_card(
    raw: RawCard, chunk: Chunk, buffer: memoryview, held: CardRecord
) -> bytes | None:
    """SHA-256 of the chunk's bytes on the card, read in one go, without what ``held`` leaves
    out; None when the card ends before."""
    if chunk.extents[-1].end > raw.size_bytes:
        return None
    low, high = _around(chunk, raw)
    read_fully(raw, low, buffer[: high - low])
    return _digest(chunk, low, buffer, held)


def _digest_in_pieces(
    pieces: Piecewise, chunk: Chunk, buffer: memoryview, held: CardRecord
) -> bytes | None:
    """The same of a chunk that was not read in one go; None when some of its bytes cannot be read
    now either."""
    low, high = _around(chunk, pieces.raw)
    data, counts = bytearray(), ExtentMap(chunk.extents)
    whole = True
    for part, read in pieces.parts(Extent(low, high - low), buffer):
        data += bytes(part.length) if read is None else read
        if read is None and next(counts.within(part.offset, part.length), None) is not None:
            whole = False
    return _digest(chunk, low, memoryview(data), held) if whole else None


def _digest(chunk: Chunk, low: int, data: memoryview, held: CardRecord) -> bytes:
    """The digest of the chunk in ``data``, which begins at byte ``low`` of the card."""
    if low == chunk.offset:
        held.without_itself(chunk, data)
    sha256 = hashlib.sha256()
    for extent in chunk.extents:
        sha256.update(data[extent.offset - low : extent.end - low])
    return sha256.digest()


def _up_to_the_end(read: Reader, raw: RawCard) -> Reader:
    """``read`` with zeros past the card's end, for a receipt of a larger card."""

    def bounded(offset: int, length: int) -> bytes:
        there = max(0, min(length, raw.size_bytes - offset))
        return (read(offset, there) if there else b"") + bytes(length - there)

    return bounded


def _boot_files(held: CardRecord, files: CardFiles, use: CardUse | None) -> tuple[str, ...]:
    """Boot files that are missing or differ; none when p1 cannot be read at all, for then the
    ranges say more."""
    damaged = damaged_boot_files(held, files)[1] if use is None else use.damaged
    return tuple(d.path.removeprefix("/boot/") for d in damaged if d.path.startswith("/boot/"))
