"""Cards that misbehave on command, and small node images to write to them.

A FaultyCard is a RawCard in memory. It insists on alignment as O_DIRECT does, keeps a log of
every write and flush, and tears, drops, flips, wraps, refuses and vanishes where it is told to.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imager.base.units import MiB
from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk
from imager.card.host.target import HeldTarget
from imager.card.medium.reopen import FreshRead
from imager.card.stages import ClaimedCard
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.manifest import build_manifest
from imager.disk.mbr import encode
from imager.image.compose.golden import GoldenImage
from imager.node.image import Delta, NodeImage

DISK_ID = 0x1A2B3C4D
_FLUSHES_AT_MOST = 100
"""Three times what any test needs: a card that is mended without end fails the test at once."""


@dataclass(frozen=True, slots=True)
class Write:
    """One accepted write."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Flush:
    """One flush that succeeded."""


@dataclass
class FaultyCard:
    """A card of ``size_bytes`` full of old bytes.

    ``short_bytes`` is the most it takes or gives at once; ``write_errors``, ``read_errors`` give
    the errno for any transfer that touches the byte; ``flips`` are XORed into what is read;
    writes to ``dropped`` vanish; ``real_bytes`` is where a fake card wraps around; ``on_write``
    sees every write before it happens. What happens once only: ``lies`` are XORed into the first
    read of a byte, ``failing_once`` are bytes whose first read fails, ``lost_once`` are the
    offsets of sectors whose next write vanishes. ``kept_bytes`` is where a card ends that forgets
    what lies beyond and reads zeros there.
    """

    size_bytes: int
    block_bytes: int = 512
    name: str = "/dev/faulty"
    short_bytes: int | None = None
    write_errors: Mapping[int, int] = field(default_factory=dict)
    read_errors: Mapping[int, int] = field(default_factory=dict)
    flush_error: int | None = None
    flips: Mapping[int, int] = field(default_factory=dict)
    dropped: ExtentMap = field(default_factory=ExtentMap)
    real_bytes: int | None = None
    on_write: Callable[[Write], None] | None = None
    lies: dict[int, int] = field(default_factory=dict)
    failing_once: set[int] = field(default_factory=set)
    failing_writes_once: set[int] = field(default_factory=set)
    lost_once: set[int] = field(default_factory=set)
    kept_bytes: int | None = None

    def __post_init__(self) -> None:
        self.data = bytearray(b"\xa5" * (self.real_bytes or self.size_bytes))
        self.log: list[Write | Flush] = []
        self._lock = threading.Lock()

    def pread(self, offset: int, buffer: memoryview) -> int:
        self._insist_on_alignment(offset, buffer)
        count = self._granted(offset, len(buffer))
        self._maybe_fail(self.read_errors, offset, count)
        self._fail_once(self.failing_once, offset, count)
        for index in range(0, count, 512):
            size = min(512, count - index)
            start = (offset + index) % len(self.data)
            buffer[index : index + size] = self.data[start : start + size]
        for byte, mask in [*self.flips.items(), *self.lies.items()]:
            if offset <= byte < offset + count:
                buffer[byte - offset] ^= mask
                self.lies.pop(byte, None)
        return count

    def pwrite(self, offset: int, data: memoryview) -> int:
        self._insist_on_alignment(offset, data)
        count = self._granted(offset, len(data))
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.on_write:
            self.on_write(Write(offset, count))
        self._maybe_fail(self.write_errors, offset, count)
        self._fail_once(self.failing_writes_once, offset, count)
        with self._lock:
            self.log.append(Write(offset, count))
            for index in range(0, count, 512):
                size = min(512, count - index)
                start = (offset + index) % len(self.data)
                if offset + index in self.lost_once:
                    self.lost_once.remove(offset + index)
                elif offset + index not in self.dropped:
                    self.data[start : start + size] = data[index : index + size]
                if self.kept_bytes is not None and offset + index >= self.kept_bytes:
                    self.data[start : start + size] = bytes(size)
        return count

    def flush(self) -> None:
        if self.flush_error is not None:
            raise OSError(self.flush_error, os.strerror(self.flush_error))
        self.log.append(Flush())
        assert self.log.count(Flush()) <= _FLUSHES_AT_MOST, "the work on this card has no end"

    def holds(self, extent: Extent) -> bytes:
        """What really is on the card there."""
        return bytes(self.data[extent.offset : extent.end])

    @property
    def is_blank(self) -> bool:
        """Whether the first MiB is all zeros."""
        return not any(self.holds(Extent(0, MiB)))

    def _granted(self, offset: int, length: int) -> int:
        return max(0, min(length, self.short_bytes or length, self.size_bytes - offset))

    def _insist_on_alignment(self, offset: int, buffer: memoryview) -> None:
        assert offset % self.block_bytes == 0, f"offset {offset} is not aligned"
        assert len(buffer) % self.block_bytes == 0, f"length {len(buffer)} is not aligned"
        if len(buffer):
            address = _address_of(buffer)
            assert address % self.block_bytes == 0, "memory is not aligned"

    def _fail_once(self, bytes_: set[int], offset: int, count: int) -> None:
        hit = {byte for byte in bytes_ if offset <= byte < offset + count}
        bytes_ -= hit
        if hit:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _maybe_fail(self, errors: Mapping[int, int], offset: int, count: int) -> None:
        for byte, number in errors.items():
            if offset <= byte < offset + count:
                raise OSError(number, os.strerror(number))


def press_ctrl_c() -> None:
    """What a terminal does: a signal for the main thread, which wakes it from waiting."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def claimed(card: FaultyCard) -> ClaimedCard:
    """``card`` as if it had been claimed; reading back goes to the same memory."""

    @contextmanager
    def reopen() -> Iterator[FreshRead]:
        yield FreshRead(card, cache_bypassed=True)

    disk = Disk(card.name, "8:16", card.size_bytes, Bus.USB, removable=True)
    return ClaimedCard(disk, HeldTarget(card, reopen, lambda: None))


def small_layout(size_bytes: int) -> Layout:
    """Both partitions on a card of ``size_bytes`` (4 MiB at least), nowhere near real sizes."""
    boot = Extent(2 * MiB, MiB)
    return Layout(size_bytes, boot, Extent(3 * MiB, size_bytes - 3 * MiB))


def make_image(
    folder: Path,
    size_bytes: int,
    extents: ExtentMap,
    *,
    pieces: tuple[tuple[int, bytes], ...] = (),
    layout: Layout | None = None,
    node: str = "pi7",
) -> NodeImage:
    """A node image with random bytes in ``extents`` and a real partition table.

    The golden file ends where the map ends, as a real one is smaller than its card; ``pieces``
    become the node's delta.
    """
    path = folder / "golden.raw"
    where = layout or small_layout(size_bytes)
    extents |= ExtentMap([Extent(0, 4096)])
    noise = random.Random(size_bytes)
    with path.open("wb") as file:
        for extent in extents:
            file.seek(extent.offset)
            file.write(noise.randbytes(extent.length))
        file.seek(0)
        file.write(encode(where, DISK_ID))
    delta = Delta(pieces)

    def golden_bytes(offset: int, length: int) -> bytes:
        with path.open("rb") as file:
            return os.pread(file.fileno(), length, offset).ljust(length, b"\0")

    def read(offset: int, length: int) -> bytes:
        buffer = bytearray(golden_bytes(offset, length))
        delta.overlay(offset, memoryview(buffer))
        return bytes(buffer)

    base = build_manifest(where.size_bytes, extents, golden_bytes)
    manifest = build_manifest(size_bytes, extents | delta.extents, read)
    golden = GoldenImage(
        path=path,
        key="k" * 64,
        release_name="hand-made",
        release_sha256="0" * 64,
        models=("pi2",),
        layout=where,
        manifest=base,
        boot_files={},
    )
    return NodeImage(golden, node, "1" * 64, where, delta, manifest, {})


class _PyBuffer(ctypes.Structure):
    """Py_buffer of CPython's C API (Include/cpython/object.h, pybuffer.h)."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def _address_of(buffer: memoryview) -> int:
    """Where in memory ``buffer`` begins, read-only ones too."""
    view = _PyBuffer()
    api = ctypes.pythonapi
    assert api.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(view), 0) == 0
    try:
        return int(view.buf or 0)
    finally:
        api.PyBuffer_Release(ctypes.byref(view))
