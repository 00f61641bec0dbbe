"""A gzip file is read to its end by a thread that can be left alone, and ended."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from imager.base.errors import HostStorage
from imager.base.run import run
from imager.base.units import KiB, MiB
from imager.image.unpack.inflate import Inflater, PackingError, gunzipped

LONG = bytes(20 * MiB)
"""More than is decompressed ahead of whoever reads."""


class Counted:
    """A phase that adds up what it is told."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def advance(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes


def started(path: Path, phase: Counted | None = None) -> Inflater:
    inflater = Inflater(path, phase or Counted())
    inflater.daemon = True  # a test that fails ends all the same
    inflater.start()
    return inflater


def content(inflater: Inflater) -> bytes:
    return b"".join(iter(inflater.next_chunk, b""))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(LONG, compresslevel=1))
    return path


def test_all_of_it_comes_and_is_hashed_and_counted(packed: Path) -> None:
    phase = Counted()
    inflater = started(packed, phase)
    assert content(inflater) == LONG
    assert inflater.next_chunk() == b""
    assert inflater.digest() == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert phase.size_bytes == packed.stat().st_size


def test_the_digest_is_of_the_whole_file_though_nobody_wants_the_content(packed: Path) -> None:
    packed.write_bytes(packed.read_bytes() + b"x" * MiB)
    inflater = started(packed)
    inflater.abandon()
    assert inflater.digest() == hashlib.sha256(packed.read_bytes()).hexdigest()


def test_what_is_not_needed_is_not_read(tmp_path: Path) -> None:
    """Nobody takes any of it: the thread reads a little ahead and waits, until it is ended."""
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(os.urandom(6 * MiB), compresslevel=0))
    phase, before = Counted(), threading.active_count()
    inflater = started(path, phase)
    while phase.size_bytes < 2 * MiB:
        time.sleep(0.01)
    time.sleep(0.1)
    inflater.cancel()
    assert threading.active_count() == before
    assert phase.size_bytes < 4 * MiB


class Slow(Counted):
    """A phase that keeps whoever reports waiting."""

    def advance(self, size_bytes: int) -> None:
        time.sleep(1.5)


class Late(Inflater):
    """One that this computer has no time for yet."""

    def run(self) -> None:
        time.sleep(0.3)
        super().run()


@pytest.mark.parametrize(
    "inflater", [partial(Inflater, phase=Slow()), partial(Late, phase=Counted())]
)
def test_a_cancelled_thread_has_ended(packed: Path, inflater: Callable[[Path], Inflater]) -> None:
    one = inflater(packed)
    one.daemon = True
    one.start()
    one.cancel()
    assert not one.is_alive()


def test_a_thread_that_never_ran_is_not_waited_for_without_end(packed: Path) -> None:
    Inflater(packed, Counted()).cancel()


def test_a_file_that_cannot_be_read_is_an_error_of_this_computer(tmp_path: Path) -> None:
    inflater = started(tmp_path / "gone.gz")
    for ask in (inflater.next_chunk, inflater.next_chunk, inflater.digest):
        with pytest.raises(HostStorage, match=r"gone\.gz"):
            ask()


@pytest.mark.parametrize("zeros", [1, 511, 3 * MiB])
@pytest.mark.parametrize("block", [1000, MiB])
def test_zeros_behind_a_gzip_file_are_passed_by(tmp_path: Path, zeros: int, block: int) -> None:
    """As gzip(1) does, which says so and ends with 0."""
    data = FIRST + FIRST + bytes(zeros)
    blocks = (data[at : at + block] for at in range(0, len(data), block))
    unpacked = b"".join(gunzipped(blocks))
    (tmp_path / "x.gz").write_bytes(data)
    assert unpacked == run(["gzip", "-dc", tmp_path / "x.gz"]).stdout


FIRST = gzip.compress(os.urandom(300 * KiB), compresslevel=0)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (FIRST + b"x", f"trailing garbage at its byte {len(FIRST)}$"),
        (FIRST + bytes(9) + b"x", f"trailing garbage at its byte {len(FIRST) + 9}$"),
        (FIRST + bytes(9) + FIRST, f"trailing garbage at its byte {len(FIRST) + 9}$"),
        (FIRST + bytes(MiB) + b"x", f"trailing garbage at its byte {len(FIRST) + MiB}$"),
        (bytes(20), "before its byte 20$"),
        (FIRST + b"\x1f", f"in the middle, at its byte {len(FIRST) + 1}$"),
        (FIRST + b"\x1fx", f"trailing garbage at its byte {len(FIRST)}$"),
        (FIRST[:-1], f"in the middle, at its byte {len(FIRST) - 1}$"),
        (FIRST[:-8] + bytes(8), f"before its byte {len(FIRST)}$"),
    ],
)
def test_what_is_no_whole_gzip_file_is_named_with_its_byte(
    data: bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(data)
    inflater = started(path)
    for _ in range(2):
        with pytest.raises(PackingError, match=says):
            content(inflater)
    assert inflater.digest() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("spare", [0, 1])
def test_a_member_may_begin_anywhere(spare: int, tmp_path: Path) -> None:
    """Also where a read of 256 KiB ends, or in the last byte of one."""
    size = 256 * KiB - 1000
    size += 256 * KiB - spare - len(gzip.compress(os.urandom(size), compresslevel=0))
    head = os.urandom(size)
    first = gzip.compress(head, compresslevel=0)
    assert len(first) == 256 * KiB - spare
    path = tmp_path / "x.gz"
    path.write_bytes(first + gzip.compress(b"second"))
    assert content(started(path)) == head + b"second"
