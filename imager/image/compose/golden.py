"""The golden image: one disk image per release, from which the cards of all nodes are made.

In: nothing; only ``compose`` makes a GoldenImage. Out: its facts, and its file to be read. The file
is sparse, lies in the cache under the hash of all that it was made of, and is never written again.
It can decay all the same, or be altered: what is read of it is held against its digests first.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imager.base.durable import host_storage
from imager.base.errors import HostStorage
from imager.base.trusted_folder import kept_file
from imager.base.units import align_down
from imager.bootcheck.contents import Heard
from imager.bootcheck.formats.kernel import KernelFile
from imager.disk.ext4.format import Ext4Error
from imager.disk.fat.geometry import FatError
from imager.disk.layout import Layout
from imager.disk.manifest import CHUNK_BYTES, Chunk, Manifest
from imager.image.compose.file_digests import FileDigests
from imager.image.compose.ingredients import Ingredients


@dataclass(frozen=True, slots=True)
class GoldenImage:
    """A composed, checked disk image.

    ``models`` are the boards (``pi2``) whose boot files it was checked to hold;
    ``manifest`` covers every byte that must be written to a card (not the holes); ``boot_files``
    maps each path on the boot partition (``overlays/x.dtbo``, no leading slash) to its SHA-256 in
    hex; ``files`` has the digest of every file of the root partition. ``first_boot`` is what
    packages left for a node's first boot, a line for each thing. ``kernels`` is what the boot check
    learned of each kernel, by its SHA-256 in hex; empty where that was not recorded. ``mtime_ns``
    is when the image file was finished; None where that was not recorded. ``again(why, inode)``
    gives the image as the cache has it now, composed anew where the cache has none that can be used
    or has the file with that inode number, which is set aside; None for whoever may only look.
    """

    path: Path
    key: str
    release_name: str
    release_sha256: str
    models: tuple[str, ...]
    layout: Layout
    manifest: Manifest
    boot_files: Mapping[str, str]
    files: FileDigests = field(default_factory=FileDigests)
    first_boot: tuple[str, ...] = ()
    kernels: Mapping[str, Heard[KernelFile]] = field(default_factory=dict, compare=False)
    mtime_ns: int | None = None
    again: Callable[[str, int], GoldenImage] | None = field(default=None, compare=False, repr=False)
    made_of: Ingredients | None = field(default=None, compare=False, repr=False)

    @contextmanager
    def open(self) -> Iterator[GoldenFile]:
        """The image's file, open until the block ends.

        Raises HostStorage when the file cannot be read, or was changed since it was finished, and
        cannot be composed anew; also when it was changed during the block, or what was read there
        is no filesystem any more.
        """
        file = GoldenFile(self)
        try:
            yield file
            file.require_unchanged()
        except (Ext4Error, FatError) as error:
            # What was composed is sound: these bytes were altered after they had been proven.
            raise _altered(self.path) from error
        finally:
            file.close()


class GoldenFile:
    """An open golden image; safe to share between threads.

    What is not in the image's map is zeros, whatever the file holds there. A file that is not what
    was composed is replaced by one composed anew, once, and reading goes on in that one.
    """

    def __init__(self, image: GoldenImage) -> None:
        """Raises as ``GoldenImage.open`` does."""
        self._image = image
        self._chunks: Mapping[int, tuple[Chunk, bytes]] = {}
        self._proven: set[int] = set()
        self._lock = threading.RLock()
        self._held: list[int] = []
        self._renewed = False
        try:
            with host_storage(image.path):
                self._use(image)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the file back; nothing can be read any more."""
        while self._held:
            os.close(self._held.pop())

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the image's bytes from byte ``offset``, proven by their digests.

        Where ``buffer`` takes all of a chunk, the digest is that of ``buffer`` itself; a chunk
        that is read in parts is proven as a whole, once. Raises HostStorage when the bytes are not
        what was composed and cannot be had anew.
        """
        end = offset + len(buffer)
        for start in range(align_down(offset, CHUNK_BYTES), end, CHUNK_BYTES):
            low, high = max(start, offset), min(start + CHUNK_BYTES, end)
            self._read_piece(start, low, buffer[low - offset : high - offset])

    def peek_into(self, offset: int, buffer: memoryview) -> None:
        """As ``read_into``, but take the file at its word: for comparing with what was proven
        before. Whoever finds a difference must read again with ``read_into``."""
        try:
            _fill(self._descriptor, offset, buffer)
        except OSError:
            self.read_into(offset, buffer)

    def _read_piece(self, start: int, low: int, part: memoryview) -> None:
        if not self._chunks:
            self._chunks = {
                chunk.offset: (chunk, digest) for chunk, digest in self._image.manifest.chunks()
            }
        known = self._chunks.get(start)
        if known is None:
            part[:] = bytes(len(part))
            return
        while True:
            descriptor = self._descriptor
            if self._read_proven(descriptor, *known, low, part):
                return
            wrong = f"bytes {start} to {start + CHUNK_BYTES - 1} changed"
            self._renew(descriptor, wrong, os.fstat(descriptor).st_ino)

    def _read_proven(
        self, descriptor: int, chunk: Chunk, digest: bytes, low: int, part: memoryview
    ) -> bool:
        """Whether ``part`` now has the bytes from ``low`` on, which lie in ``chunk``."""
        whole = part
        first, last = chunk.extents[0].offset, chunk.extents[-1].end
        covered = low <= first and last <= low + len(part)
        if not covered and chunk.offset not in self._proven:
            whole = memoryview(bytearray(CHUNK_BYTES))
        start = low if whole is part else chunk.offset
        try:
            _fill(descriptor, start, whole)
        except OSError:
            return False
        _zero_gaps(chunk, start, whole)
        if whole is part and not covered:
            return True
        sha256 = hashlib.sha256()
        for extent in chunk.extents:
            sha256.update(whole[extent.offset - start : extent.end - start])
        if sha256.digest() != digest:
            return False
        if whole is not part:
            part[:] = whole[low - start : low - start + len(part)]
            with self._lock:
                if descriptor == self._descriptor:
                    self._proven.add(chunk.offset)
        return True

    def _use(self, image: GoldenImage) -> None:
        try:
            with kept_file(image.path) as file:
                descriptor = os.dup(file.fileno())
        except FileNotFoundError:
            # Another run may have set it aside a moment ago.
            self._descriptor = -1
            self._renew(-1, "it is gone")
            return
        self._held.append(descriptor)
        self._descriptor, self._state = descriptor, _state_of(descriptor)
        if image.mtime_ns not in (None, self._state[1]):
            # Mostly it was composed anew by another run, or for another card.
            self._renew(descriptor, "it was changed after it was made")

    def _renew(self, descriptor: int, why: str, inode: int = 0) -> None:
        """Go on with the image composed anew in place of ``descriptor``'s, whose ``inode`` is given
        where its bytes are wrong; raises HostStorage where that cannot be had."""
        with self._lock:
            if descriptor != self._descriptor:
                return  # another thread has done it
            image = self._image
            if image.again is None or self._renewed:
                raise HostStorage(
                    f"{image.path}: the golden image was altered: {why}",
                    hint="run the command that writes cards: it composes the image anew",
                )
            self._renewed = True
            fresh = image.again(why, inode)
            if fresh.manifest != image.manifest:
                raise _altered(image.path)
            self._image = fresh
            self._proven.clear()
            with host_storage(fresh.path):
                self._use(fresh)

    def require_unchanged(self) -> None:
        """Raise HostStorage when the file was changed since it was opened: what was compared with
        it may have been compared with something else."""
        if _state_of(self._descriptor) != self._state:
            raise _altered(self._image.path)


def _fill(descriptor: int, offset: int, buffer: memoryview) -> None:
    """Read a whole buffer; zeros past the file's end."""
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done:]], offset + done)
        if count == 0:
            buffer[done:] = bytes(len(buffer) - done)
            return
        done += count


def _zero_gaps(chunk: Chunk, start: int, part: memoryview) -> None:
    """Zero what of ``part``, which begins at byte ``start``, is in no range of ``chunk``."""
    end = start + len(part)
    position = start
    for extent in chunk.extents:
        if (stop := min(extent.offset, end)) > position:
            part[position - start : stop - start] = bytes(stop - position)
        position = max(position, extent.end)
    if end > position:
        part[position - start :] = bytes(end - position)


def _state_of(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


def _altered(path: Path) -> HostStorage:
    return HostStorage(
        f"{path}: the golden image was altered while it was in use",
        hint="run the same command again: the image is then composed anew",
    )
