"""Probing real block devices that lie about their size, and at the speed of real cards."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.errors import FakeCapacity
from imager.base.progress import Quiet
from imager.base.units import KiB, MiB
from imager.card.claim.claim import claim
from imager.card.host.refusals import AcceptedTarget, accept
from imager.card.host.targets import target_at
from imager.card.probe.probe import probe_card, short_probe
from imager.card.probe.report import Honesty
from imager.disk.extents import Extent
from tests.support.faultcard import Fault, FaultCard, fault_card, why_not

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

ROOT = Path(__file__).resolve().parents[2]
SIZE = 64 * MiB
TRIES = 20
"""As many as a busy computer may spoil; an idle one needs the first."""
SHARES = [(1, 4), (1, 2), (7, 8)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultCard]:
    with fault_card(tmp_path_factory.mktemp("fakes") / "c", SIZE) as card:
        yield card


@pytest.fixture
def card(shared: FaultCard) -> Iterator[FaultCard]:
    shared.arm()
    yield shared
    shared.set_speed()


def accepted(card: FaultCard) -> AcceptedTarget:
    return accept(target_at(card.node), 0)


@pytest.mark.parametrize("keeps_beyond", [True, False])
@pytest.mark.parametrize(("part", "whole"), SHARES)
def test_a_fake_is_named_with_its_real_size(
    card: FaultCard, part: int, whole: int, keeps_beyond: bool
) -> None:
    real = SIZE * part // whole
    card.arm(real_bytes=real, keeps_beyond=keeps_beyond)
    with claim(accepted(card), 0) as held:
        report = probe_card(held, Quiet())
    assert report.honesty is (Honesty.WRAPS if keeps_beyond else Honesty.LOSES)
    assert real - 64 * KiB <= report.real_bytes <= real
    assert not any(card.holds(0, MiB))


@pytest.mark.parametrize("keeps_beyond", [True, False])
@pytest.mark.parametrize(("part", "whole"), SHARES)
def test_the_short_probe_stops_it_too(
    card: FaultCard, part: int, whole: int, keeps_beyond: bool
) -> None:
    card.arm(real_bytes=SIZE * part // whole, keeps_beyond=keeps_beyond)
    with claim(accepted(card), 0) as held, pytest.raises(FakeCapacity):
        short_probe(held, Quiet())
    assert not any(card.holds(0, MiB))


@pytest.mark.parametrize("scatter_seconds", [0.0, 0.02, 0.2])
def test_the_short_probe_takes_three_seconds_at_most(
    card: FaultCard, scatter_seconds: float
) -> None:
    card.set_speed(write_bps=20e6, read_bps=20e6, scatter_seconds=scatter_seconds)
    took: list[float] = []
    for _ in range(TRIES):
        with claim(accepted(card), 0) as held:
            began = time.monotonic()
            report = short_probe(held, Quiet())
            took.append(time.monotonic() - began)
        assert report.error() is None
        # What a busy computer adds is not the card's.
        if took[-1] <= 3.0 + 2.0:
            return
    pytest.fail(f"seconds it took: {took}")


def test_speeds_are_those_of_the_card(card: FaultCard) -> None:
    """A busy computer makes a card slower, never faster: so the best of some tries is looked at."""
    card.set_speed(write_bps=20e6, read_bps=40e6)
    writes: dict[int, float] = {}
    reads: dict[int, float] = {}
    for _ in range(TRIES):
        with claim(accepted(card), 0) as held:
            speeds = probe_card(held, Quiet()).speeds
        for best, measured in ((writes, speeds.writes), (reads, speeds.reads)):
            for speed in measured:
                best[speed.block_bytes] = max(
                    speed.bytes_per_second, best.get(speed.block_bytes, 0)
                )
        assert max(writes.values()) < 21e6
        assert max(reads.values()) < 42e6
        if min(writes.values()) > 12e6 and min(reads.values()) > 21e6:
            return
    pytest.fail(f"bytes per second by block, written: {writes}, read: {reads}")


def probe(card: FaultCard) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "imager", "probe", str(card.node), "--yes"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.long(minutes=1)
def test_the_command_ends_with_the_code_for_what_it_found(card: FaultCard) -> None:
    card.arm(real_bytes=SIZE // 2)
    said = probe(card)
    assert said.returncode == 24, said.stderr
    assert f"stores 33.6 MB ({SIZE // 2} bytes)" in said.stderr
    first = Extent(MiB, 4 * KiB)
    everywhere = ("all",)
    for kind, on, code in (("flip", "read", 21), ("drop", "write", 21), ("eio", "read", 22)):
        card.arm([Fault(kind, first, everywhere, on=on)])
        card.phase("all")
        said = probe(card)
        assert said.returncode == code, said.stderr
        assert "bytes 1048576 to" in said.stderr
    card.arm([Fault("eio", first, everywhere)])
    card.phase("all")
    said = probe(card)
    assert said.returncode == 22
    assert "writing at byte 1048576" in said.stderr
