"""What is said of a card: a fake only where all beyond its end is lost, and in plain words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import CardFaulty, CardIOError, FakeCapacity, PicloudError
from imager.base.units import MiB
from imager.card.diagnosis.damage import Damage, DamageKind, Diagnosis
from imager.card.diagnosis.places import CardPlace
from imager.card.stages import UnprovenCard, WriteOptions
from imager.card.write.compare import Reading
from imager.card.write.verdict import condemned, lost_its_end, tell, with_lost_end
from imager.disk.extents import Extent, ExtentMap
from tests.support.cards import FaultyCard, claimed, make_image
from tests.support.proving import Heard

ZEROS, FLIPPED = DamageKind.ZEROS, DamageKind.FLIPPED
SIZE = 12 * MiB
BODY = ExtentMap([Extent(2 * MiB, 3 * MiB), Extent(9 * MiB, 12288)])


def damage(offset: int, kind: DamageKind = ZEROS, sectors: int = 8) -> Damage:
    return Damage(Extent(offset, sectors * 512), kind, offset, places=(CardPlace("root"),))


def holds(
    kept_mib: int,
    *kinds: DamageKind,
    size_mib: int = 128,
    sectors: tuple[int, ...] = (8, 8),
    zeros_from: int | None = None,
    more: tuple[Damage, ...] = (),
) -> int | None:
    """In MiB, what a card holds that kept what lies below ``kept_mib`` and spoilt what follows."""
    spoilt = [
        damage((kept_mib + 2 * number) * MiB, kind, count)
        for number, (kind, count) in enumerate(zip(kinds, sectors, strict=False))
    ]
    kept = Extent(2 * MiB, (kept_mib - 2) * MiB)
    extents = ExtentMap([Extent(0, MiB), kept, *(one.extent for one in spoilt)])

    def read(offset: int, length: int) -> bytes:
        return bytes(length) if zeros_from is not None and offset >= zeros_from else b"x" * length

    found = with_lost_end(Diagnosis((*more, *spoilt)), extents, size_mib * MiB, read)
    assert found.damages == (*more, *spoilt)
    return None if found.holds_bytes is None else found.holds_bytes // MiB


@pytest.mark.parametrize(
    ("kept", "size", "found"),
    [
        *((120, 128, 120), (121, 128, None), (28, 32, 28), (29, 32, None)),
        *((256, 272, None), (3, 128, 3), (2, 128, None)),
    ],
)
def test_what_loses_its_last_sixteenth_and_4_mib_is_a_fake(
    kept: int, size: int, found: int | None
) -> None:
    """Where nothing but the first MiB was kept, there is nothing to tell its end by."""
    assert holds(kept, ZEROS, ZEROS, size_mib=size) == found


@pytest.mark.parametrize("kind", list(DamageKind))
def test_only_what_left_no_trace_is_lost(kind: DamageKind) -> None:
    silent = kind in (ZEROS, DamageKind.ONES, DamageKind.FOREIGN)
    assert holds(64, kind, kind) == (64 if silent else None)


@pytest.mark.parametrize(("silent", "found"), [(9, 64), (8, None)])
def test_a_tenth_may_look_like_flipped_bits(silent: int, found: int | None) -> None:
    assert holds(64, ZEROS, FLIPPED, sectors=(silent, 1)) == found


def test_what_left_another_trace_is_not_lost() -> None:
    assert holds(64, ZEROS, DamageKind.OTHER_BLOCK, sectors=(99, 1)) is None


def test_one_lost_range_proves_no_fake() -> None:
    assert holds(64, ZEROS) is None


def test_zeros_that_come_back_prove_nothing() -> None:
    assert holds(64, ZEROS, ZEROS, zeros_from=40 * MiB) == 40


def test_damage_below_what_was_kept_is_another_matter() -> None:
    below = damage(5 * MiB, DamageKind.SHIFTED)
    assert holds(64, ZEROS, ZEROS, more=(below,)) == 64
    assert holds(64, ZEROS, more=(below,)) is None


def test_what_is_known_already_is_not_guessed() -> None:
    two = (damage(64 * MiB), damage(66 * MiB))
    extents = ExtentMap([Extent(2 * MiB, 62 * MiB), *(one.extent for one in two)])
    for known in (
        Diagnosis(two, holds_bytes=7),
        Diagnosis((*two, damage(68 * MiB, DamageKind.UNREADABLE))),
    ):
        assert with_lost_end(known, extents, 128 * MiB, lambda _, n: b"x" * n) is known


@pytest.fixture
def unproven(tmp_path: Path) -> UnprovenCard:
    image = make_image(tmp_path, SIZE, BODY)
    held = claimed(FaultyCard(SIZE))
    return UnprovenCard(held, image, image.manifest.extents, WriteOptions(MiB, 1))


@pytest.mark.parametrize(
    ("damages", "lost"),
    [
        ((damage(9 * MiB, sectors=24),), True),
        ((damage(9 * MiB + 4096, sectors=16),), True),
        ((damage(9 * MiB, DamageKind.SHIFTED, sectors=24),), False),
        ((damage(3 * MiB),), False),
        ((), False),
    ],
)
def test_the_end_is_lost_when_the_last_range_is(
    unproven: UnprovenCard, damages: tuple[Damage, ...], lost: bool
) -> None:
    assert lost_its_end(unproven, Diagnosis(damages)) is lost


@pytest.mark.parametrize(
    ("kind", "attempts", "kinds", "words"),
    [
        (ZEROS, 0, CardFaulty, "not give back what was written: 2 ranges, first at byte 3145728,"),
        (ZEROS, 1, CardFaulty, "what was written, rewritten once: 2 ranges"),
        (ZEROS, 2, CardFaulty, "what was written, rewritten 2 times: 2 ranges"),
        (DamageKind.UNREADABLE, 1, CardIOError, "cannot be read back, rewritten once: 2 ranges"),
    ],
)
def test_a_condemned_card_is_told_by_its_first_byte(
    unproven: UnprovenCard, kind: DamageKind, attempts: int, kinds: type[PicloudError], words: str
) -> None:
    found = Diagnosis((damage(3 * MiB, kind), damage(4 * MiB, kind)))
    error = condemned(unproven, Reading(found, True), attempts)
    assert isinstance(error, kinds)
    assert words in error.what
    assert error.details == (*found.lines, found.meaning())


def test_a_fake_and_a_card_that_fails_here_and_there(unproven: UnprovenCard) -> None:
    fake = Diagnosis((damage(3 * MiB),), holds_bytes=3 * MiB)
    error = condemned(unproven, Reading(fake, True), 0)
    assert isinstance(error, FakeCapacity)
    assert "says it holds 12.6 MB and holds 3.1 MB at most (one range, first at" in error.what
    error = condemned(unproven, Reading(Diagnosis(), True, complete=False), 0)
    assert isinstance(error, CardIOError)
    assert "not always at the same place" in error.what


def test_what_was_told_is_not_told_again(unproven: UnprovenCard) -> None:
    first, second, heard = damage(3 * MiB), damage(9 * MiB), Heard()
    lie = ExtentMap([Extent(4 * MiB, 512)])
    tell(unproven, Diagnosis((first,), lie), heard, 0)
    tell(unproven, Diagnosis((first, second)), heard, 1)
    tell(unproven, Diagnosis(), heard, 2)
    assert [found["offset"] for found in heard.findings] == [3 * MiB, 9 * MiB]
    assert len(heard.notes) == 3
    assert heard.notes[2] == "/dev/faulty: 2 ranges still wrong after rewriting"
    assert len(heard.warnings) == 1
    assert f"from byte {4 * MiB} on, 512 B" in heard.warnings[0]
    trouble = unproven.card.log.trouble
    assert trouble is not None
    assert (trouble.found, trouble.left, trouble.attempts) == ((first, second), (), 2)
    assert trouble.lies == tuple(lie)
    assert "written again and is right now" in trouble.meaning


def test_a_good_card_has_no_trouble(unproven: UnprovenCard) -> None:
    tell(unproven, Diagnosis(), Heard(), 0)
    assert unproven.card.log.trouble is None


def test_a_receipt_keeps_the_first_thousand(unproven: UnprovenCard) -> None:
    many = tuple(damage(MiB + 8192 * number) for number in range(1001))
    lies = ExtentMap(replace(one.extent, length=512) for one in many)
    tell(unproven, Diagnosis(many, lies), Heard(), 0)
    trouble = unproven.card.log.trouble
    assert trouble is not None
    assert (len(trouble.found), len(trouble.lies), len(trouble.left)) == (1000, 1000, 1001)
