"""Diagnosis: every kind of damage is told from every other, from the bytes alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imager.base.json_fields import JsonObject
from imager.base.units import MiB
from imager.card.diagnosis.damage import (
    GRANULE_BYTES,
    Damage,
    DamageKind,
    Diagnosis,
    classify,
    merged,
)
from imager.card.diagnosis.places import CardPlace
from imager.card.diagnosis.trouble import Trouble
from imager.card.diagnosis.wraparound import distances, real_size
from imager.disk.extents import Extent, ExtentMap

IMAGE = random.Random(7).randbytes(MiB)
OTHER = random.Random(8).randbytes(MiB)

granules = st.integers(20, MiB // GRANULE_BYTES - 20).map(lambda number: number * GRANULE_BYTES)
sector_runs = st.tuples(st.integers(0, 7), st.integers(1, 8)).map(
    lambda run: slice(run[0] * 512, min(GRANULE_BYTES, (run[0] + run[1]) * 512))
)


def read(offset: int, length: int) -> bytes:
    """The image, zeros beyond it."""
    there = IMAGE[offset : offset + length]
    return there + bytes(length - len(there))


def judged(offset: int, actual: bytes) -> Damage:
    return classify(offset, IMAGE[offset : offset + len(actual)], actual, read)


def with_part(offset: int, part: slice, content: bytes) -> bytes:
    """The granule at ``offset`` with one part of it replaced."""
    whole = bytearray(IMAGE[offset : offset + GRANULE_BYTES])
    whole[part] = content
    return bytes(whole)


@given(granules, sector_runs, st.sampled_from([(0x00, DamageKind.ZEROS), (0xFF, DamageKind.ONES)]))
def test_zeros_and_ones_of_any_length(
    offset: int, part: slice, fill: tuple[int, DamageKind]
) -> None:
    value, kind = fill
    damage = judged(offset, with_part(offset, part, bytes([value]) * (part.stop - part.start)))
    assert damage.kind is kind
    assert damage.extent == Extent(offset + part.start, part.stop - part.start)
    assert part.start <= damage.first_byte - offset < part.start + 16


@given(granules, st.sets(st.integers(0, GRANULE_BYTES * 8 - 1), min_size=1, max_size=32))
def test_flipped_bits_are_counted(offset: int, bits: set[int]) -> None:
    actual = bytearray(IMAGE[offset : offset + GRANULE_BYTES])
    for bit in bits:
        actual[bit // 8] ^= 1 << bit % 8
    damage = judged(offset, bytes(actual))
    assert (damage.kind, damage.bits) == (DamageKind.FLIPPED, len(bits))
    assert damage.first_byte == offset + min(bits) // 8
    assert all(offset + bit // 8 in ExtentMap([damage.extent]) for bit in bits)


@pytest.mark.parametrize(
    ("bits", "kind"), [(1, DamageKind.FLIPPED), (8, DamageKind.FLIPPED), (9, DamageKind.ZEROS)]
)
def test_a_sparse_sector_that_comes_back_empty_lost_bits_or_all(
    bits: int, kind: DamageKind
) -> None:
    expected = bytes([1] * bits) + bytes(512 - bits)
    found = classify(0, expected, bytes(512), lambda offset, length: bytes(length))
    assert found.kind is kind


@given(granules, st.integers(0, 7))
def test_a_data_line_that_sticks_is_flipped_bits(offset: int, line: int) -> None:
    expected = IMAGE[offset : offset + GRANULE_BYTES]
    actual = bytes(byte | 1 << line for byte in expected)
    damage = judged(offset, actual)
    assert damage.kind is DamageKind.FLIPPED
    assert damage.bits == sum(not byte >> line & 1 for byte in expected)


@given(granules, st.integers(-1500, 1500).filter(bool), st.binary(min_size=1, max_size=8))
def test_a_shift_is_found_with_its_distance(offset: int, by: int, filler: bytes) -> None:
    """``by`` bytes too many (or too few) before this granule, or at its very beginning."""
    whole = IMAGE[offset - by : offset - by + GRANULE_BYTES]
    assert judged(offset, whole).kind is DamageKind.SHIFTED
    if by > 0:
        begins_here = (filler * by)[:by] + IMAGE[offset : offset + GRANULE_BYTES - by]
        found = judged(offset, begins_here)
    else:
        found = judged(offset, whole)
    assert (found.kind, found.shift) == (DamageKind.SHIFTED, by)


@given(granules, st.integers(-16, 16).filter(bool))
def test_a_neighbouring_block_is_another_block(offset: int, blocks: int) -> None:
    source = offset + blocks * GRANULE_BYTES
    damage = judged(offset, IMAGE[source : source + GRANULE_BYTES])
    assert (damage.kind, damage.distance) == (DamageKind.OTHER_BLOCK, blocks * GRANULE_BYTES)


@given(granules, sector_runs)
def test_what_is_nowhere_near_is_older_or_foreign(offset: int, part: slice) -> None:
    damage = judged(
        offset, with_part(offset, part, OTHER[offset + part.start : offset + part.stop])
    )
    assert damage.kind is DamageKind.FOREIGN


@given(st.binary(min_size=1, max_size=GRANULE_BYTES), st.binary(max_size=GRANULE_BYTES))
def test_any_two_pieces_that_differ_have_a_kind(expected: bytes, other: bytes) -> None:
    actual = (other + expected)[: len(expected)]
    if actual != expected:
        damage = classify(0, expected, actual, lambda offset, length: bytes(length))
        assert damage.extent.end <= len(expected)
        assert expected[damage.first_byte] != actual[damage.first_byte]


def damage(
    offset: int,
    length: int,
    kind: DamageKind = DamageKind.ZEROS,
    *,
    bits: int = 0,
    distance: int = 0,
) -> Damage:
    return Damage(Extent(offset, length), kind, offset, bits=bits, distance=distance)


def test_neighbours_of_one_kind_are_told_as_one() -> None:
    found = merged([damage(8192, 4096), damage(0, 4096), damage(4096, 4096)])
    assert found == (damage(0, 12288),)


def test_a_sector_that_is_right_by_chance_does_not_part_a_range() -> None:
    assert merged([damage(0, 3584), damage(4096, 4096)]) == (damage(0, 8192),)
    assert len(merged([damage(0, 4096), damage(8192, 4096)])) == 2


def test_different_kinds_and_distances_stay_apart() -> None:
    blocks = [
        damage(n * 4096, 4096, DamageKind.OTHER_BLOCK, distance=4096 * n) for n in range(1, 3)
    ]
    assert len(merged([damage(0, 4096), *blocks])) == 3


def test_flipped_bits_in_touching_sectors_are_added_up_and_others_told_apart() -> None:
    flips = [damage(at, 512, DamageKind.FLIPPED, bits=1) for at in (0, 512, 2048)]
    assert [(found.extent, found.bits) for found in merged(flips)] == [
        (Extent(0, 1024), 2),
        (Extent(2048, 512), 1),
    ]


def test_a_card_bad_all_over_gives_a_list_somebody_can_keep() -> None:
    flips = [damage(at * 65536, 512, DamageKind.FLIPPED, bits=1) for at in range(5000)]
    found = merged(flips)
    assert len(found) <= 1000
    assert sum(one.bits for one in found) == 5000
    assert all(flip.extent.offset in ExtentMap(f.extent for f in found) for flip in flips)


MAP = ExtentMap([Extent(0, 3 * MiB), Extent(6 * MiB, 5 * MiB)])
BIG = random.Random(9).randbytes(12 * MiB)


def read_big(offset: int, length: int) -> bytes:
    return BIG[offset : offset + length]


def wrapped(real: int) -> tuple[dict[int, int], ExtentMap]:
    """The strangers and the bad ranges of a card of ``real`` bytes that was written upward."""
    memory: dict[int, int] = {}
    mapped = [part.offset for part in MAP.split(GRANULE_BYTES)]
    for offset in mapped:
        memory[offset % real] = offset
    strangers = {
        offset: hash(read_big(memory[offset % real], GRANULE_BYTES))
        for offset in mapped
        if memory[offset % real] != offset
    }
    return strangers, ExtentMap(Extent(offset, GRANULE_BYTES) for offset in strangers)


@pytest.mark.parametrize("real_mib", [3, 5, 6, 8, 9])
def test_an_address_wrap_names_the_real_size(real_mib: int) -> None:
    strangers, bad = wrapped(real_mib * MiB)
    found = distances(strangers, MAP, read_big)
    assert all(far % (real_mib * MiB) == 0 for far in found.values())
    assert found.keys() == strangers.keys()
    assert real_size(found, bad, MAP, read_big) == real_mib * MiB


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2 * 256 - 1), st.integers(6 * 256, 10 * 256 - 1))
def test_one_write_gone_astray_is_no_fake(here: int, there: int) -> None:
    offset, source = here * GRANULE_BYTES, there * GRANULE_BYTES
    strangers = {offset: hash(read_big(source, GRANULE_BYTES))}
    found = distances(strangers, MAP, read_big)
    assert found == {offset: source - offset}
    bad = ExtentMap([Extent(offset, GRANULE_BYTES)])
    assert real_size(found, bad, MAP, read_big) is None


def test_foreign_content_has_no_source_and_makes_no_fake() -> None:
    assert distances({0: hash(OTHER[:GRANULE_BYTES])}, MAP, read_big) == {}
    assert real_size({}, ExtentMap([Extent(0, 4096)]), MAP, read_big) is None


def test_nobody_makes_a_card_of_less_than_a_mib() -> None:
    assert real_size({0: 4096}, MAP, MAP, read_big) is None


damages = st.builds(
    Damage,
    extent=st.builds(Extent, st.integers(0, 1 << 40), st.integers(1, 1 << 32)),
    kind=st.sampled_from(list(DamageKind)),
    first_byte=st.integers(0, 1 << 40),
    bits=st.integers(0, 1 << 20),
    distance=st.integers(-(1 << 40), 1 << 40),
    shift=st.integers(-4096, 4096),
    places=st.lists(st.builds(CardPlace, st.text(min_size=1)), max_size=2).map(tuple),
)


@settings(max_examples=40)
@given(st.lists(damages, min_size=1, max_size=30))
def test_every_damage_has_words_and_a_meaning(found: list[Damage]) -> None:
    diagnosis = Diagnosis(tuple(found))
    assert all(line.startswith("bytes ") for line in diagnosis.lines[:20])
    assert len(diagnosis.lines) <= 21
    assert diagnosis.meaning().endswith(".")
    assert all("\n" not in one.what for one in found)


@settings(max_examples=40)
@given(st.lists(damages, max_size=5), st.lists(damages, max_size=5), st.integers(0, 2), st.text())
def test_trouble_survives_its_receipt(
    found: list[Damage], left: list[Damage], attempts: int, meaning: str
) -> None:
    trouble = Trouble(tuple(found), tuple(left), (Extent(1, 2),), attempts, meaning)
    assert Trouble.from_json(JsonObject(trouble.to_json())) == trouble


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(
    json_values,
    st.sampled_from(["found", "left", "lies", "attempts", "meaning"]),
    st.sampled_from([None, "kind", "offset", "places", "shift"]),
)
def test_malformed_trouble_is_an_error_or_trouble(
    value: object, key: str, inner: str | None
) -> None:
    """Never another exception, whatever a file holds."""
    whole = Trouble((damage(0, 1),), (damage(0, 1),), (), 0, "").to_json()
    target = whole
    if inner is not None and key in ("found", "left"):
        target = damage(0, 1).to_json()
        whole[key] = [target]
        key = inner
    target[key] = value
    try:
        Trouble.from_json(JsonObject(whole))
    except ValueError as error:
        assert str(error)
