"""A card that is copied to other cards: open for reading, and in nobody else's hands meanwhile.

In: the path a person gave as SOURCE. Out: an Original, which is an ImageSource: what the card's
filesystems use, read in order, around the cache, several large transfers at a time, so that it is
read as fast as it can be. What lies behind the last partition is left out: a copy may be smaller
than the card, as long as its partitions fit.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imager.base.below import read_named
from imager.base.errors import CardIOError, HostStorage, TargetRefused
from imager.base.text import command_line
from imager.base.units import SECTOR_BYTES, KiB, MiB, align_up, format_size
from imager.card.host.exclusive import openers
from imager.card.host.sysfs import HostTrees, device_number
from imager.card.host.target import Target
from imager.card.host.usage import uses_of
from imager.card.inspect.verify import open_target
from imager.card.medium.raw import RawCard, aligned_buffer, read_stubbornly
from imager.card.save.at_rest import at_rest
from imager.card.save.card_map import BLOCK_BYTES, CardMap, map_card, marks_of
from imager.card.save.saved_file import map_beside
from imager.card.source.source import Piece
from imager.disk.extents import Extent, ExtentMap
from imager.disk.gpt import BACKUP_BYTES
from imager.disk.manifest import Reader
from imager.disk.rescue_map import LOST, MAX_MAP_BYTES, RescueMap, RescueMapError
from imager.node.image import Delta

_PIECE_BYTES = 4 * MiB
_DEPTH = 3
_NO_DELTA = Delta(())


@dataclass(frozen=True, slots=True)
class Original:
    """An open card, and what of it is copied. ``size_bytes`` is where its last partition ends, and
    with a GPT the second copy of that: what a copy needs. ``read_at`` gives any bytes of it.
    ``lost_bytes`` of a saved card were not read when it was saved; None where the map that says it
    cannot be read.

    ``delta`` is what a copy has in the place of the card's own bytes, and ``called`` what the
    card is called then; empty for its path.
    """

    target: Target
    raw: RawCard
    card: CardMap
    read_at: Reader
    lost_bytes: int | None = 0
    delta: Delta = _NO_DELTA
    called: str = ""

    @property
    def name(self) -> str:
        """See ImageSource."""
        return self.called or self.target.node

    @property
    def address(self) -> str:
        """See ImageSource."""
        return self.name

    @property
    def title(self) -> str:
        """One line by which a person knows it."""
        size = format_size(self.card.size_bytes)
        made = self.target.made_anew
        return f"{self.name}: {self.target.noun} of {size}" if made else self.target.title

    @property
    def size_bytes(self) -> int:
        """See ImageSource."""
        behind = BACKUP_BYTES if self.card.has_gpt else 0
        return min(align_up(self.card.end_bytes + behind, 4 * KiB), self.card.size_bytes)

    @property
    def least_bytes(self) -> int:
        """See ImageSource."""
        return self.size_bytes

    @property
    def is_slow(self) -> bool:
        """See ImageSource: what does not count is not read."""
        return False

    @property
    def extents(self) -> ExtentMap:
        """What is copied: also the end of each partition, where the target may have the label of a
        RAID from its past."""
        ends = ExtentMap(
            Extent(max(part.offset, part.end - MiB), min(part.length, MiB))
            for part in (area.extent for area in self.card.areas)
        )
        whole = ExtentMap([Extent(0, self.size_bytes)])
        copied = (self.card.extents | ends) & whole | self.delta.extents
        return copied.aligned(BLOCK_BYTES, limit=self.card.size_bytes)

    @contextmanager
    def read(self, limit_bytes: int) -> Iterator[OriginalReading]:
        """See ImageSource."""
        del limit_bytes  # a card that is too small was refused before
        yield OriginalReading(self)


class OriginalReading:
    """See SourceReading. A card is never packed, so it has no digest of its own."""

    sha256 = ""

    def __init__(self, original: Original) -> None:
        self.size_bytes = 0
        self._original = original

    def pieces(self) -> Iterator[Piece]:
        """See SourceReading. Raises HostStorage where the card cannot be read, or was changed."""
        original = self._original
        buffers = [aligned_buffer(_PIECE_BYTES) for _ in range(_DEPTH)]
        ahead: deque[tuple[int, memoryview, Future[None]]] = deque()
        with ThreadPoolExecutor(_DEPTH, thread_name_prefix="source") as pool:
            for count, extent in enumerate(original.extents.split(_PIECE_BYTES)):
                # Whoever asks for the next piece is done with the one before, whose buffer it is.
                buffer = buffers[count % len(buffers)][: extent.length]
                reading = pool.submit(read_stubbornly, original.raw, extent.offset, buffer)
                ahead.append((extent.offset, buffer, reading))
                if len(ahead) == _DEPTH:
                    yield self._filled(*ahead.popleft())
            while ahead:
                yield self._filled(*ahead.popleft())
        self._require_unchanged()
        self.size_bytes = original.size_bytes

    def _filled(self, offset: int, buffer: memoryview, done: Future[None]) -> Piece:
        """The piece in ``buffer`` when it has been read."""
        original = self._original
        try:
            done.result()
        except CardIOError as error:
            save = command_line("read", original.target.node, "saved.img")
            write = command_line("write", "TARGET", "--image", "saved.img")
            raise HostStorage(
                f"the card to be copied cannot be read: {error.what}",
                hint=f"save what it still gives with {save}, then {write}",
            ) from error
        original.delta.overlay(offset, buffer)
        return offset, buffer

    def _require_unchanged(self) -> None:
        original = self._original
        try:
            same = original.card.is_of(marks_of(original.raw, original.card.areas))
        except CardIOError:
            same = False
        if not same:
            raise HostStorage(
                f"{original.name} is not what it was when copying began: somebody wrote to it, or "
                "took it out",
                hint="see that nobody uses it, and run the same command again",
            )


@contextmanager
def opened_original(path: Path, kernel: HostTrees | None = None) -> Iterator[Original]:
    """Open the card at ``path`` and read what of it is in use.

    Raises TargetRefused for one that is not there, that somebody writes to, or may not be read;
    CardIOError when it does not answer.
    """
    kernel = kernel or HostTrees()
    target = at_rest(path, kernel)
    with _kept_from_others(path, kernel), open_target(path) as fresh:
        sector = target.facts.logical_bytes or SECTOR_BYTES
        card = map_card(fresh.raw, sector_bytes=sector)
        lost = _lost_of(path) if target.made_anew else 0
        yield Original(target, fresh.raw, card, fresh.reader(), lost)


def _lost_of(image: Path) -> int | None:
    """How many bytes the map beside a saved card calls lost; None where it cannot be read."""
    try:
        text = read_named(map_beside(image), MAX_MAP_BYTES)
        return RescueMap.parse(text).having(*LOST).total_bytes
    except FileNotFoundError:
        return 0
    except (OSError, RescueMapError):
        return None


@contextmanager
def _kept_from_others(path: Path, kernel: HostTrees) -> Iterator[None]:
    """Let nobody mount the disk or write a card on it meanwhile. One that is mounted for reading
    only stays so."""
    fd = None
    try:
        status = path.stat()
        if stat.S_ISBLK(status.st_mode):
            fd = _opened_alone(path, device_number(status.st_rdev), kernel)
        yield
    finally:
        if fd is not None:
            os.close(fd)


def _opened_alone(path: Path, number: str, kernel: HostTrees) -> int | None:
    with suppress(PermissionError):  # whoever reads it says so
        try:
            return os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            name = kernel.name_of(number)
            if error.errno == errno.EBUSY and not (name and [*uses_of(name, kernel)]):
                raise TargetRefused(
                    f"{path} is in use by another program",
                    hint="end what uses it, then try again",
                    details=openers(number),
                ) from error
    return None
