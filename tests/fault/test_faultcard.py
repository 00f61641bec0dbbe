"""What a program really sees of each fault through a loop device over FUSE.

This is the page in the dictionary between "the card answers EIO" and what the engine gets; a
kernel that translates otherwise shows up here and not as a riddle in the matrix.
"""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.units import KiB, MiB
from imager.card.medium.raw import aligned_buffer
from imager.disk.extents import Extent
from tests.support.faultcard import Fault, FaultCard, fault_card, why_not

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

SIZE = 16 * MiB
HIT = Extent(5 * MiB + 4 * KiB, 4 * KiB)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultCard]:
    with fault_card(tmp_path_factory.mktemp("card") / "c", SIZE) as card:
        yield card


@pytest.fixture
def card(shared: FaultCard) -> FaultCard:
    shared.arm()
    with shared.store.open("r+b") as file:
        file.write(b"O" * SIZE)
    return shared


class Open:
    """The device, open as the engine opens it."""

    def __init__(self, card: FaultCard) -> None:
        self.fd = os.open(card.node, os.O_RDWR | os.O_DIRECT | os.O_EXCL)

    def __enter__(self) -> Open:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def write(self, offset: int, length: int = 4 * MiB) -> int:
        """Bytes taken, or the negative errno."""
        buffer = aligned_buffer(length)
        buffer[:] = b"N" * length
        return self._number(lambda: os.pwrite(self.fd, buffer, offset))

    def read(self, offset: int, length: int = 4 * MiB) -> tuple[int, bytes]:
        buffer = aligned_buffer(length)
        return self._number(lambda: os.preadv(self.fd, [buffer], offset)), bytes(buffer)

    def flush(self) -> int:
        def flushed() -> int:
            os.fdatasync(self.fd)
            return 0

        return self._number(flushed)

    @staticmethod
    def _number(call: object) -> int:
        assert callable(call)
        try:
            return int(call())
        except OSError as error:
            return -(error.errno or 0)


def armed(card: FaultCard, kind: str, *, on: str = "write", times: int = 1) -> None:
    card.arm([Fault(kind, HIT, ("now",), on, times)])
    card.phase("now")


@pytest.mark.parametrize(
    ("kind", "taken", "later", "flushed"),
    [
        ("eio", -errno.EIO, 4 * KiB, 0),
        ("enospc", -errno.ENOSPC, 4 * KiB, 0),
        ("read-only", -errno.EIO, -errno.EIO, -errno.EIO),
        ("vanish", -errno.ENODEV, -errno.ENODEV, -errno.EIO),
        ("short", 4 * MiB, 4 * KiB, 0),
        ("drop", 4 * MiB, 4 * KiB, 0),
        ("flip", 4 * MiB, 4 * KiB, 0),
        ("zeros", 4 * MiB, 4 * KiB, 0),
        ("stale", 4 * MiB, 4 * KiB, 0),
    ],
)
def test_what_a_writer_is_told(
    card: FaultCard, kind: str, taken: int, later: int, flushed: int
) -> None:
    armed(card, kind)
    with Open(card) as device:
        assert device.write(4 * MiB) == taken
        assert device.flush() == flushed
        assert device.write(0, 4 * KiB) == later
    card.counts()
    assert card.fired == [1]


@pytest.mark.parametrize(
    ("kind", "there"),
    [("short", b"O"), ("drop", b"O"), ("stale", b"O"), ("flip", b"^"), ("zeros", b"\0")],
)
def test_what_is_kept_of_a_write_that_was_called_good(
    card: FaultCard, kind: str, there: bytes
) -> None:
    armed(card, kind)
    with Open(card) as device:
        device.write(4 * MiB)
        device.flush()
    assert card.holds(HIT.offset, 1) == there
    assert card.holds(4 * MiB, 1) == b"N"
    assert card.holds(8 * MiB - 1, 1) == b"N"


def test_a_write_that_failed_may_have_been_kept_in_part(card: FaultCard) -> None:
    """The kernel cuts 4 MiB into pieces; those beside the bad one arrive."""
    armed(card, "eio")
    with Open(card) as device:
        assert device.write(4 * MiB) == -errno.EIO
    assert card.holds(HIT.offset, HIT.length) == b"O" * HIT.length
    assert b"N" in card.holds(4 * MiB, 4 * MiB)


@pytest.mark.parametrize(
    ("kind", "got", "byte"),
    [
        ("eio", -errno.EIO, None),
        ("vanish", -errno.ENODEV, None),
        ("flip", 4 * MiB, b"_"),
        ("zeros", 4 * MiB, b"\0"),
    ],
)
def test_what_a_reader_is_told(card: FaultCard, kind: str, got: int, byte: bytes | None) -> None:
    armed(card, kind, on="read")
    at = HIT.offset - 4 * MiB
    with Open(card) as device:
        count, data = device.read(4 * MiB)
        assert count == got
        if byte is not None:
            assert data[at : at + 1] == byte
            assert data[at - 1 : at] == b"O"
            assert device.read(4 * MiB)[1] == b"O" * 4 * MiB, "it lies once"


def test_nothing_is_cached_between_the_program_and_the_card(card: FaultCard) -> None:
    with Open(card) as device:
        device.write(0)
        device.flush()
        device.read(0)
        device.read(0)
    counts = card.counts()
    # udevd may have looked, too, at what was written: some sectors, and never as much as was read.
    assert counts["write"] == 4 * MiB
    assert 8 * MiB <= counts["read"] < 12 * MiB
    assert counts["flush"] >= 1


def test_addresses_wrap_around(card: FaultCard) -> None:
    card.arm(real_bytes=SIZE // 2)
    with Open(card) as device:
        device.write(SIZE // 2 + MiB, MiB)
        assert device.read(MiB, MiB)[1] == b"N" * MiB
    card.arm(real_bytes=SIZE // 2, keeps_beyond=False)
    with Open(card) as device:
        device.write(SIZE // 2 + 2 * MiB, MiB)
        assert device.read(2 * MiB, MiB)[1] == b"O" * MiB
        assert device.read(SIZE // 2 + 2 * MiB, MiB)[1] == bytes(MiB)


def test_a_pulled_card_loses_what_was_not_flushed(card: FaultCard) -> None:
    card.forget_unflushed(True)
    with Open(card) as device:
        device.write(0)
        device.flush()
        device.write(4 * MiB)
        card.pull(1)
    card.forget_unflushed(False)
    assert card.holds(0, 4 * MiB) == b"N" * 4 * MiB
    kept = card.holds(4 * MiB, 4 * MiB)
    assert 0 < kept.count(b"O") < len(kept)


def test_a_card_has_the_speed_it_was_given(card: FaultCard) -> None:
    card.set_speed(write_bps=20e6, read_bps=40e6, scatter_seconds=0.05)
    try:
        with Open(card) as device:
            began = time.monotonic()
            device.write(0)
            device.write(4 * MiB)
            straight = time.monotonic() - began
            device.write(12 * MiB)
            device.write(0)
            scattered = time.monotonic() - began - straight
            began = time.monotonic()
            device.read(0)
            read = time.monotonic() - began
    finally:
        card.set_speed()
    assert straight >= 8 * MiB / 20e6
    assert scattered >= 8 * MiB / 20e6 + 0.1
    assert read >= 4 * MiB / 40e6


def test_everything_is_taken_down_when_the_process_dies(tmp_path: Path) -> None:
    with fault_card(tmp_path / "c", SIZE) as card, Open(card) as device:
        card.end_abruptly()
        assert device.write(0, 4 * KiB) == -errno.EIO
        backing, loop = card.loop.backing, card.loop.name
    shown = Path(f"/sys/block/{loop}/loop/backing_file")
    assert not shown.exists() or shown.read_text().strip() != str(backing)
    assert not os.path.ismount(backing.parent)


def test_everything_is_taken_down_when_a_test_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), fault_card(tmp_path / "c", SIZE) as card:
        raise RuntimeError
    mounts = subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in mounts
    assert card.process.poll() is not None
