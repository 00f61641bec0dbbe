"""A probe finds what a card really stores, whatever it does to hide it."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imager.base.errors import (
    CardFaulty,
    CardIOError,
    FakeCapacity,
    Interrupted,
    PicloudError,
)
from imager.base.progress import Quiet
from imager.base.units import GiB, KiB, MiB
from imager.card.probe.pattern import BadStretch, BadStretchKind, Pattern, joined
from imager.card.probe.plan import POINT_BYTES, sampled_plan, short_plan, whole_plan
from imager.card.probe.probe import probe_card, short_probe
from imager.card.probe.report import Honesty, ProbeReport, Speed, Speeds, lost_from, wrap_size
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import FIRST_MIB
from tests.support.cards import FaultyCard, Flush, Write, claimed, press_ctrl_c

SIZE = 16 * MiB


def probed(card: FaultyCard, *, whole: bool = False) -> ProbeReport:
    return probe_card(claimed(card), Quiet(), whole=whole)


def failure_of(report: ProbeReport) -> PicloudError:
    error = report.error()
    assert error is not None
    return error


# ── what a probe says of a card ─────────────────────────────────────────────────────────────


def test_an_honest_card_is_honest_measured_and_blank_afterwards() -> None:
    card = FaultyCard(SIZE)
    report = probed(card)
    assert (report.honesty, report.real_bytes, report.findings) == (Honesty.HONEST, SIZE, ())
    assert report.error() is None
    assert card.is_blank
    assert not any(card.holds(Extent(SIZE - MiB, MiB)))
    assert [speed.block_bytes for speed in report.speeds.writes] == [MiB]
    assert report.speeds.random_read is not None
    assert any("best transfer size" in line for line in report.verdict())


def test_a_whole_probe_reads_every_byte() -> None:
    report = probed(FaultyCard(SIZE + 512), whole=True)
    assert report.whole
    assert report.checked_bytes == SIZE + 512
    assert "all 16.8 MB were written and came back" in next(report.verdict())


@pytest.mark.parametrize("real", [SIZE // 4, SIZE // 2, SIZE * 7 // 8, 7 * MiB + 77 * 512])
def test_a_card_that_wraps_is_named_with_its_real_size(real: int) -> None:
    card = FaultyCard(SIZE, real_bytes=real)
    report = probed(card)
    assert (report.honesty, report.real_bytes) == (Honesty.WRAPS, real)
    error = failure_of(report)
    assert isinstance(error, FakeCapacity)
    assert f"{real} bytes" in error.what
    assert card.is_blank


@pytest.mark.parametrize("gone", [errno.EIO, None])
def test_a_card_that_loses_its_end_is_named_with_its_real_size(gone: int | None) -> None:
    real = 11 * MiB + 5 * POINT_BYTES
    card = FaultyCard(SIZE)
    if gone is None:
        card.dropped = ExtentMap([Extent(real, SIZE)])
    else:
        card.read_errors = dict.fromkeys(range(real, SIZE, POINT_BYTES), gone)
    report = probed(card)
    assert report.honesty is Honesty.LOSES
    assert real - 64 * KiB <= report.real_bytes <= real
    assert isinstance(failure_of(report), FakeCapacity)


def test_flipped_bits_are_a_faulty_card_not_a_fake() -> None:
    report = probed(FaultyCard(SIZE, flips={MiB + 5: 3}))
    assert report.honesty is Honesty.FAULTY
    assert report.findings == (BadStretch(Extent(MiB, 512), BadStretchKind.CHANGED, bits=2),)
    assert isinstance(failure_of(report), CardFaulty)


def test_a_dropped_write_in_the_middle_is_a_faulty_card() -> None:
    report = probed(FaultyCard(SIZE, dropped=ExtentMap([Extent(MiB, 4096)])))
    assert report.findings == (BadStretch(Extent(MiB, 4096), BadStretchKind.LOST),)
    assert isinstance(failure_of(report), CardFaulty)


def test_a_place_that_cannot_be_read_is_an_io_error() -> None:
    report = probed(FaultyCard(SIZE, read_errors={MiB + 9: errno.EIO}))
    assert report.honesty is Honesty.UNREADABLE
    assert isinstance(failure_of(report), CardIOError)


def test_damage_off_the_samples_is_found_by_the_whole_probe() -> None:
    plan = sampled_plan(SIZE)
    written = ExtentMap([FIRST_MIB, *(stretch.extent for stretch in plan.stretches)])
    spot = next(
        place
        for place in range(SIZE // 2, SIZE, 512)
        if place not in written and all(not 0 <= place - p < POINT_BYTES for p in plan.points)
    )
    card = FaultyCard(SIZE, flips={spot: 1})
    assert probed(card).honesty is Honesty.HONEST
    assert probed(card, whole=True).honesty is Honesty.FAULTY


def test_a_card_that_vanishes_ends_the_probe() -> None:
    with pytest.raises(CardIOError, match="reading at byte"):
        probed(FaultyCard(SIZE, read_errors={MiB: errno.ENODEV}))
    with pytest.raises(CardIOError, match="writing at byte"):
        probed(FaultyCard(SIZE, write_errors={MiB: errno.ENODEV}))


def test_nothing_is_read_before_everything_is_written_and_flushed() -> None:
    order: list[str] = []

    class Watched(FaultyCard):
        def pread(self, offset: int, buffer: memoryview) -> int:
            order.append("read")
            return super().pread(offset, buffer)

        def flush(self) -> None:
            super().flush()
            order.append("flush")

    short_probe(claimed(Watched(SIZE, on_write=lambda _: order.append("write"))), Quiet())
    first_read = order.index("read")
    assert order[first_read - 1] == "flush"
    assert "write" not in order[first_read:]


def test_an_earlier_probe_cannot_answer_for_a_card_that_stores_nothing_any_more() -> None:
    card = FaultyCard(SIZE)
    assert probed(card).honesty is Honesty.HONEST
    card.dropped = ExtentMap([Extent(MiB, SIZE)])
    assert probed(card).honesty is not Honesty.HONEST


def test_the_samples_cannot_answer_for_the_whole_probe() -> None:
    class Tiring(FaultyCard):
        """Stores nothing there any more once it was read."""

        def pread(self, offset: int, buffer: memoryview) -> int:
            self.dropped = ExtentMap([Extent(MiB, MiB)])
            return super().pread(offset, buffer)

    card = Tiring(SIZE)
    assert probed(card).honesty is Honesty.HONEST
    card.dropped = ExtentMap()
    report = probed(card, whole=True)
    assert report.findings == (BadStretch(Extent(MiB, MiB), BadStretchKind.LOST),)


def test_ctrl_c_leaves_the_card_blank() -> None:
    def press(write: Write) -> None:
        if write.offset == MiB:
            press_ctrl_c()

    card = FaultyCard(SIZE, on_write=press)
    with pytest.raises(Interrupted) as caught:
        probed(card)
    assert "visibly blank" in caught.value.hint
    assert card.is_blank


def test_the_card_looks_blank_all_the_while() -> None:
    card = FaultyCard(SIZE)
    seen: list[bool] = []
    card.on_write = lambda write: seen.append(write.offset < MiB or not any(card.data[:512]))
    probed(card)
    assert all(seen)
    assert isinstance(card.log[-1], Flush)


# ── the short probe ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("real", [SIZE // 4, SIZE // 2, SIZE * 7 // 8])
def test_the_short_probe_stops_a_fake_before_the_long_write(real: int) -> None:
    card = FaultyCard(SIZE, real_bytes=real)
    with pytest.raises(FakeCapacity, match=f"{real} bytes") as caught:
        short_probe(claimed(card), Quiet())
    assert "visibly blank" in caught.value.details[-1]
    assert card.is_blank


class Heard(Quiet):
    """Keeps what it is warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.mark.parametrize(
    "card",
    [
        FaultyCard(SIZE, flips={MiB: 1}),
        FaultyCard(SIZE, read_errors={MiB: errno.EIO}),
        FaultyCard(SIZE, dropped=ExtentMap([Extent(MiB, 4096)])),
    ],
)
def test_damage_that_is_no_fake_is_left_to_the_write(card: FaultyCard) -> None:
    heard = Heard()
    assert short_probe(claimed(card), heard).error() is not None
    assert "the writing goes on" in heard.warnings[0]


def test_a_reading_that_is_right_the_second_time_is_told_and_forgiven() -> None:
    card, heard = FaultyCard(SIZE, lies={MiB: 1}, failing_once={2 * MiB}), Heard()
    report = short_probe(claimed(card), heard)
    assert (report.honesty, report.lies) == (Honesty.HONEST, 2)
    assert "not reliable" in heard.warnings[0]
    assert any("2 times" in line for line in report.verdict())


def test_a_write_refused_once_is_tried_again() -> None:
    card = FaultyCard(SIZE, failing_writes_once={2 * MiB})
    assert short_probe(claimed(card), Quiet()).honesty is Honesty.HONEST


class Timed(FaultyCard):
    """A card of ``rate`` bytes a second and ``access`` seconds for each transfer, on a clock."""

    now = 0.0
    rate = 20e6
    access = 0.0

    def pread(self, offset: int, buffer: memoryview) -> int:
        self.now += len(buffer) / self.rate + self.access
        return super().pread(offset, buffer)

    def pwrite(self, offset: int, data: memoryview) -> int:
        self.now += len(data) / self.rate + self.access
        return super().pwrite(offset, data)


@pytest.mark.parametrize("access", [0.0, 0.01, 0.1])
def test_the_short_probe_takes_three_seconds_at_most_at_20_mb_per_second(access: float) -> None:
    card = Timed(SIZE)
    card.access = access
    report = short_probe(claimed(card), Quiet(), clock=lambda: card.now)
    assert card.now <= 3.0
    assert report.places >= 8
    assert report.error() is None


@pytest.mark.parametrize("size", [16 * MiB, 8 * GiB, 256 * GiB])
def test_the_short_probe_moves_at_most_30_megabytes(size: int) -> None:
    ends = 2 * MiB
    assert ends + FIRST_MIB.length + 2 * short_plan(size).total_bytes <= 30e6
    assert len(short_plan(size).points) > 20 or size < GiB


# ── the plan ────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=30, deadline=None)
@given(st.integers(8 * MiB // 512, 512 * GiB // 512), st.floats(0.0, 1.0))
def test_wherever_a_card_wraps_a_sample_lands_where_it_is_seen(sectors: int, share: float) -> None:
    size = sectors * 512
    plan = sampled_plan(size)
    end = max(stretch.extent.end for stretch in plan.stretches)
    real = min(size - 512, end + int((size - end) * share) // 512 * 512)
    lands = any(-POINT_BYTES < point - real < end for point in plan.points)
    assert lands or size - real < POINT_BYTES, "only the last part of a 4 KiB block is left out"


@settings(max_examples=30, deadline=None)
@given(st.integers(8 * MiB // 512, 512 * GiB // 512))
def test_the_last_4_kib_are_always_probed(sectors: int) -> None:
    """A card that is only a little smaller than it says loses nothing else."""
    size = sectors * 512
    last = size // POINT_BYTES * POINT_BYTES - POINT_BYTES
    for plan in (short_plan(size), sampled_plan(size)):
        assert plan.points[0] == last, "and first, where the time is short"
    (stretch,) = whole_plan(size, MiB).stretches
    assert (stretch.extent.offset, stretch.extent.end) == (FIRST_MIB.end, size)


@settings(max_examples=30, deadline=None)
@given(st.integers(8 * MiB // 512, 512 * GiB // 512))
def test_every_sample_lies_on_the_card_past_its_first_mib(sectors: int) -> None:
    size = sectors * 512
    for plan in (short_plan(size), sampled_plan(size)):
        places = [Extent(point, POINT_BYTES) for point in plan.points]
        places += [stretch.extent for stretch in plan.stretches]
        assert min(place.offset for place in places) >= FIRST_MIB.end
        assert max(place.end for place in places) <= size
        assert ExtentMap(places).total_bytes == sum(place.length for place in places)


# ── sectors and conclusions ─────────────────────────────────────────────────────────────────


def test_a_sector_differs_with_its_place_and_with_the_run() -> None:
    pattern = Pattern()
    assert len(pattern.sector(512)) == 512
    assert len({pattern.sector(0), pattern.sector(512), Pattern().sector(0)}) == 3


@given(st.binary(min_size=512, max_size=512))
def test_strange_bytes_are_judged_and_never_taken_for_good(strange: bytes) -> None:
    pattern = Pattern()
    place = Extent(MiB, 512)
    (finding,) = pattern.findings(place, strange, pattern.sector(MiB))
    assert (finding.extent, finding.kind) == (place, BadStretchKind.LOST)


def test_sectors_of_another_address_are_one_finding() -> None:
    pattern = Pattern()
    here, there = Extent(0, 4096), Extent(8 * MiB, 4096)
    found = tuple(pattern.findings(here, pattern.data(there), pattern.data(here)))
    assert found == (BadStretch(here, BadStretchKind.OVERWRITTEN, source=8 * MiB),)
    assert "hold what was written to byte 8388608" in str(found[0])


def test_different_damage_is_not_joined() -> None:
    one = BadStretch(Extent(0, 512), BadStretchKind.OVERWRITTEN, source=MiB)
    two = BadStretch(Extent(512, 512), BadStretchKind.OVERWRITTEN, source=2 * MiB)
    three = BadStretch(Extent(1024, 512), BadStretchKind.LOST)
    assert tuple(joined(iter([one, two, three]))) == (one, two, three)


def test_a_wrap_is_the_greatest_size_that_explains_all() -> None:
    def at(offset: int, source: int) -> BadStretch:
        return BadStretch(Extent(offset, 512), BadStretchKind.OVERWRITTEN, source=source)

    found = (at(0, 24 * MiB), at(MiB, 17 * MiB))
    assert wrap_size(found, 64 * MiB) == 8 * MiB
    assert wrap_size((at(0, 512), at(4096, 8192)), 64 * MiB) is None, "nonsense is no rule"
    assert wrap_size((BadStretch(Extent(0, 512), BadStretchKind.LOST),), 64 * MiB) is None


def test_loss_among_good_places_is_no_end() -> None:
    lost = (BadStretch(Extent(8 * MiB, 4096), BadStretchKind.LOST),)
    assert lost_from(lost, (2 * MiB, 4 * MiB), SIZE) == (4 * MiB, 8 * MiB)
    assert lost_from(lost, (2 * MiB, 16 * MiB), SIZE) is None
    assert lost_from(lost, (), SIZE) is None
    assert lost_from(lost, (8 * MiB,), SIZE) == (8 * MiB, 8 * MiB), "the very end is known"
    assert lost_from(lost, (4 * MiB,), 10 * MiB) is None, "two MiB at the end are damage"
    mixed = (*lost, BadStretch(Extent(9 * MiB, 512), BadStretchKind.CHANGED, bits=1))
    assert lost_from(mixed, (2 * MiB, 4 * MiB), SIZE) is None


def report_with(reads: float, writes: float) -> ProbeReport:
    speeds = Speeds(
        writes=[Speed(MiB, 19 * MiB, 1.0), Speed(4 * MiB, 20 * MiB, 1.0)],
        random_write=Speed(4096, int(4096 * writes), 1.0),
        random_read=Speed(4096, int(4096 * reads), 1.0),
    )
    return ProbeReport("/dev/x", GiB, GiB, Honesty.HONEST, 1, 1, False, True, (), 0, speeds)


@pytest.mark.parametrize(
    ("reads", "writes", "words"),
    [
        (4000, 2000, "class A2"),
        (4000, 1999, "class A1"),
        (1500, 400, "below class A1"),
        (5000, 99, "poor"),
    ],
)
def test_random_speed_is_told_in_words(reads: float, writes: float, words: str) -> None:
    assert words in report_with(reads, writes).fitness()


def test_the_best_block_is_the_smallest_that_is_nearly_the_fastest() -> None:
    assert report_with(1, 1).speeds.best_block_bytes == MiB
