"""Reads a card into a file: first what it gives at once, then the rest in ever smaller pieces.

In: an open card, a file as large, the ranges that count, the map of what was saved before. Out: the
bytes in the file, the map, and a digest of each piece that was read whole. What the card refuses is
passed by, so that what is sound is safe before anything is tried again; each failed read may take a
minute, and may be the last that the card answers.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from imager.base.errors import CardIOError, HostStorage
from imager.base.progress import Progress
from imager.base.units import SECTOR_BYTES, KiB, MiB
from imager.card.medium.in_flight import in_flight
from imager.card.medium.meter import Meter, PhaseFigures, metered
from imager.card.medium.raw import (
    RawCard,
    aligned_buffer,
    flush,
    is_gone,
    read_fully,
    read_stubbornly,
    write_fully,
)
from imager.disk.extents import Extent, ExtentMap
from imager.disk.rescue_map import BlockState, RescueMap

PIECE_BYTES = 4 * MiB
_DEPTH = 2
_KEPT_EVERY_SECONDS = 2.0
_PASSES = (
    ("read", BlockState.NOT_TRIED, PIECE_BYTES, BlockState.NOT_TRIMMED),
    ("read around", BlockState.NOT_TRIMMED, 64 * KiB, BlockState.NOT_SCRAPED),
    ("narrow down", BlockState.NOT_SCRAPED, 4 * KiB, BlockState.BAD),
    ("try again", BlockState.BAD, SECTOR_BYTES, BlockState.BAD),
)
"""Name, what is tried, in pieces of how many bytes, and what becomes of a piece that fails."""


@dataclass(slots=True)
class CardCopy:
    """A card (``raw``) and its copy (``file``); ``state`` says what of it is saved.

    ``keep`` stores the text of the state for a later run; it is called every few seconds, when what
    that calls saved is surely in the file.
    """

    raw: RawCard
    file: RawCard
    state: RescueMap
    keep: Callable[[bytes], None]
    digests: dict[Extent, bytes] = field(default_factory=dict)
    phases: list[PhaseFigures] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, extents: ExtentMap, progress: Progress) -> ExtentMap:
        """Read what of ``extents`` is not saved yet; returns what could not be read.

        Raises CardIOError when the card is gone, HostStorage when the file takes no more; a later
        run goes on from there.
        """
        with self._kept_now_and_then():
            for name, state, step, failed in _PASSES:
                self._pass(extents, progress, (name, state, step, failed))
        return extents - self.state.having(BlockState.SAVED)

    def _pass(
        self, extents: ExtentMap, progress: Progress, what: tuple[str, BlockState, int, BlockState]
    ) -> None:
        name, state, step, failed = what
        todo = (self.state.having(state) & extents).aligned(
            self.raw.block_bytes, limit=self.raw.size_bytes
        )
        if not todo:
            return
        pieces = todo.split(max(step, self.raw.block_bytes))
        with metered(progress, name, todo.total_bytes, self.phases) as meter:
            in_flight(
                pieces,
                lambda piece, buffer: self._one(piece, buffer, failed, meter),
                depth=_DEPTH,
                tools=lambda: aligned_buffer(PIECE_BYTES),
            )

    def _one(self, piece: Extent, buffer: memoryview, failed: BlockState, meter: Meter) -> None:
        data, digest = buffer[: piece.length], None
        try:
            read_fully(self.raw, piece.offset, data)
        except CardIOError as error:
            if is_gone(error):
                raise
        else:
            digest = hashlib.sha256(data).digest()
            with _on_this_computer():
                write_fully(self.file, piece.offset, data)
        with self._lock:
            self.state.put(piece, BlockState.SAVED if digest else failed)
            if digest:
                self.digests[piece] = digest
        meter.advance(piece.length)

    @contextmanager
    def _kept_now_and_then(self) -> Iterator[None]:
        """Keep the state while the block lasts, in a thread of its own, because the card should not
        wait for this computer's disk; and at its end, however it ends."""
        ended = threading.Event()

        def keeping() -> None:
            while not ended.wait(_KEPT_EVERY_SECONDS):
                with suppress(HostStorage):  # the last time tells of it
                    self._keep()

        keeper = threading.Thread(target=keeping, name="keeper", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            ended.set()
            keeper.join()
            self._keep()

    def _keep(self) -> None:
        with self._lock:
            text = self.state.encode()
        with _on_this_computer():
            flush(self.file)
        self.keep(text)


@contextmanager
def _on_this_computer() -> Iterator[None]:
    """What the file does not take is no fault of the card."""
    try:
        yield
    except CardIOError as error:
        raise HostStorage(error.what, hint=error.hint) from error


def differing(
    raw: RawCard, digests: dict[Extent, bytes], progress: Progress, phases: list[PhaseFigures]
) -> ExtentMap:
    """The pieces that are not read a second time as they were the first time, or not at all; what
    is refused is tried once more. Raises CardIOError when the card is gone."""
    wrong: list[Extent] = []

    def work(piece: Extent, buffer: memoryview) -> None:
        data = buffer[: piece.length]
        try:
            read_stubbornly(raw, piece.offset, data)
        except CardIOError as error:
            if is_gone(error):
                raise
            wrong.append(piece)
        else:
            if hashlib.sha256(data).digest() != digests[piece]:
                wrong.append(piece)
        meter.advance(piece.length)

    total = sum(piece.length for piece in digests)
    with metered(progress, "read again", total, phases) as meter:
        in_flight(sorted(digests), work, depth=_DEPTH, tools=lambda: aligned_buffer(PIECE_BYTES))
    return ExtentMap(wrong)
