"""Reading back: nothing that differs is missed, nothing that is equal is blamed."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imager.base.errors import CardFaulty, CardIOError
from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.card.diagnosis.damage import DamageKind, differing_sectors
from imager.card.diagnosis.trouble import Trouble
from imager.card.stages import UnprovenCard, WriteOptions, WrittenCard
from imager.card.write.compare import BufferPair, Comparison, compare
from imager.card.write.read_back import read_back
from imager.card.write.write import write_card
from imager.disk.extents import Extent, ExtentMap
from imager.node.image import NodeImage
from tests.support.cards import FaultyCard, claimed, make_image
from tests.support.goldens import Composer, alter

SIZE = 12 * MiB
BODY = ExtentMap([Extent(2 * MiB, 3 * MiB), Extent(9 * MiB, 12288)])


@pytest.fixture
def image(tmp_path: Path) -> NodeImage:
    return make_image(tmp_path, SIZE, BODY, pieces=((9 * MiB, b"pi7"),))


def written(image: NodeImage, card: FaultyCard, block: int = 4 * MiB) -> WrittenCard:
    return write_card(image, claimed(card), Quiet(), WriteOptions(block, 2))


def test_a_good_card_is_verified(image: NodeImage) -> None:
    card = FaultyCard(SIZE)
    verified = read_back(written(image, card), Quiet())
    assert verified.cache_bypassed
    assert [phase.name for phase in verified.proven.card.log.phases] == [
        "blank",
        "write",
        "table",
        "read back",
    ]
    assert verified.proven.card.log.phases[-1].size_bytes == verified.proven.extents.total_bytes


def test_a_golden_image_altered_after_the_writing_does_not_condemn_the_card(
    image: NodeImage,
) -> None:
    card = FaultyCard(SIZE)
    composer = Composer(image.golden, image.golden.path.read_bytes())
    done = written(replace(image, golden=replace(image.golden, again=composer)), card)
    alter(image.golden, 3 * MiB + 100)
    log = len(card.log)
    verified = read_back(done, Quiet())
    assert len(composer.asked) == 1
    assert len(card.log) == log, "nothing was written again"
    assert verified.proven.card.log.trouble is None


def test_what_was_proven_while_it_was_written_is_not_proven_again(image: NodeImage) -> None:
    """The image is taken at its word until something differs, which halves the work."""
    card = FaultyCard(SIZE)
    composer = Composer(image.golden, image.golden.path.read_bytes())
    done = written(replace(image, golden=replace(image.golden, again=composer)), card)
    alter(image.golden, 3 * MiB + 100)
    card.data[3 * MiB : 4 * MiB] = image.golden.path.read_bytes()[3 * MiB : 4 * MiB]
    read_back(done, Quiet())
    assert composer.asked == []


def test_a_card_as_wrong_as_the_golden_image_is_not_called_right(image: NodeImage) -> None:
    """As one written by a run that did not look; the card was not written now."""
    card = FaultyCard(SIZE)
    composer = Composer(image.golden, image.golden.path.read_bytes())
    proven = replace(image, golden=replace(image.golden, again=composer))
    done = written(proven, card)
    alter(image.golden, 3 * MiB + 100)
    wrong = image.golden.path.read_bytes()[3 * MiB : 4 * MiB]
    right, card.data[3 * MiB : 4 * MiB] = card.holds(Extent(3 * MiB, MiB)), wrong
    old = UnprovenCard(done.card, proven, done.extents, done.options)
    verified = read_back(old, Quiet())
    assert card.holds(Extent(3 * MiB, MiB)) == right
    assert verified.proven.card.log.trouble is not None


def trouble_of(done: WrittenCard) -> Trouble:
    trouble = done.card.log.trouble
    assert trouble is not None
    return trouble


@pytest.mark.parametrize(
    ("byte", "place"),
    [
        (0, "partition table"),
        (511, "partition table"),
        (MiB - 1, "first MiB"),
        (2 * MiB, "boot partition"),
        (3 * MiB - 1, "boot partition"),
        (5 * MiB - 1, "root partition"),
        (9 * MiB + 2, "root partition"),
        (SIZE - 1, "root partition"),
    ],
)
def test_one_flipped_bit_is_found_and_named(image: NodeImage, byte: int, place: str) -> None:
    done = written(image, FaultyCard(SIZE, flips={byte: 0x10}))
    with pytest.raises(CardFaulty) as caught:
        read_back(done, Quiet())
    assert f"first at byte {byte}," in caught.value.what
    assert place in caught.value.what
    (damage,) = trouble_of(done).left
    assert damage.first_byte == byte
    assert damage.extent == Extent(byte // 512 * 512, 512)
    assert (damage.kind, damage.bits) == (DamageKind.FLIPPED, 1)


def test_a_rejected_card_is_blanked(image: NodeImage) -> None:
    card = FaultyCard(SIZE, flips={2 * MiB: 1})
    with pytest.raises(CardFaulty) as caught:
        read_back(written(image, card), Quiet())
    assert card.is_blank
    assert "visibly blank" in caught.value.details[-1]


def test_a_dropped_write_is_found(image: NodeImage) -> None:
    lost = Extent(3 * MiB + 4096, 4096)
    card = FaultyCard(SIZE, dropped=ExtentMap([lost]))
    done = written(image, card, MiB)
    with pytest.raises(CardFaulty):
        read_back(done, Quiet())
    (damage,) = trouble_of(done).left
    assert (damage.extent, damage.kind) == (lost, DamageKind.FOREIGN)


def test_ranges_that_touch_across_blocks_are_told_once(image: NodeImage) -> None:
    lost = Extent(4 * MiB - 8192, 16384)
    card = FaultyCard(SIZE, dropped=ExtentMap([lost]))
    with pytest.raises(CardFaulty) as caught:
        read_back(written(image, card), Quiet())
    assert caught.value.details[0].startswith(f"bytes {lost.offset} to {lost.end - 1}: root")


def test_an_unreadable_byte_is_an_io_error_at_its_block(image: NodeImage) -> None:
    card = FaultyCard(SIZE, read_errors={4 * MiB + 9000: errno.EIO})
    done = written(image, card)
    with pytest.raises(CardIOError, match=f"first at byte {4 * MiB + 8192}, root partition"):
        read_back(done, Quiet())
    assert card.is_blank
    assert [damage.extent for damage in trouble_of(done).left] == [Extent(4 * MiB + 8192, 4096)]


def test_short_reads_are_normal(image: NodeImage) -> None:
    read_back(written(image, FaultyCard(SIZE, short_bytes=1536)), Quiet())


@pytest.mark.parametrize(("refusals", "complete"), [(8, True), (9, False)])
def test_a_card_that_refuses_too_often_is_not_read_to_its_end(
    tmp_path: Path, refusals: int, complete: bool
) -> None:
    image = make_image(tmp_path, SIZE, ExtentMap([Extent(0, SIZE)]))
    card = FaultyCard(SIZE)
    done = written(image, card, MiB)
    card.read_errors = {number * MiB + 5: errno.EIO for number in range(1, refusals + 1)}
    reading = compare(done, done.extents, Quiet())
    assert reading.complete is complete
    assert not reading.is_right
    assert len(reading.diagnosis.damages) == (8 if complete else 9)


def test_a_dead_card_is_bad_all_over(image: NodeImage) -> None:
    done = written(image, FaultyCard(SIZE, dropped=ExtentMap([Extent(0, SIZE)])))
    with pytest.raises(CardFaulty):
        read_back(done, Quiet())
    assert ExtentMap(damage.extent for damage in trouble_of(done).found) == done.extents


def test_a_card_bad_all_over_does_not_fill_the_memory(tmp_path: Path) -> None:
    image = make_image(tmp_path, SIZE, ExtentMap([Extent(0, SIZE)]))
    flips = dict.fromkeys(range(0, SIZE, 1024), 1)
    done = written(image, FaultyCard(SIZE, flips=flips), MiB)
    with pytest.raises(CardFaulty):
        read_back(done, Quiet())
    left = trouble_of(done).found
    assert len(left) <= 1000
    found = ExtentMap(damage.extent for damage in left)
    assert all(byte in found for byte in flips)


@pytest.mark.parametrize(("first", "noted"), [(500, 21 * 500 + 3), (501, 20 * 500 + 1 + 4)])
def test_past_ten_thousand_ranges_each_piece_is_noted_as_one(
    tmp_path: Path, first: int, noted: int
) -> None:
    """Every other sector of 24 pieces of 512 KiB; the first piece has one more or not."""
    image = make_image(tmp_path, SIZE, ExtentMap([Extent(0, SIZE)]))
    card = FaultyCard(SIZE)
    card.data[:] = image.golden.path.read_bytes()
    for piece in range(24):
        for sector in range(first if piece == 0 else 500):
            card.data[piece * MiB // 2 + sector * 1024] ^= 1
    with image.open() as reader:
        comparison = Comparison(reader, card)
        for number in range(12):
            comparison.compare(Extent(number * MiB, MiB), BufferPair(MiB))
    assert len(comparison.suspects.found) == noted


@given(st.binary(max_size=3000), st.lists(st.tuples(st.integers(0, 2999), st.integers(1, 255))))
def test_differing_sectors_are_exactly_those_that_differ(
    data: bytes, changes: list[tuple[int, int]]
) -> None:
    other = bytearray(data)
    for position, mask in changes:
        if position < len(other):
            other[position] ^= mask
    found = differing_sectors(data, bytes(other))
    for position, (one, two) in enumerate(zip(data, other, strict=True)):
        assert (position in found) or one == two
    assert all(data[e.offset : e.offset + 512] != other[e.offset : e.offset + 512] for e in found)


@settings(deadline=None, max_examples=20)
@given(
    byte=st.integers(0, SIZE - 1),
    mask=st.integers(1, 255),
    sector=st.sampled_from([512, 4096]),
    depth=st.integers(1, 4),
)
def test_any_changed_byte_is_found_if_and_only_if_it_was_written(
    byte: int, mask: int, sector: int, depth: int
) -> None:
    with TemporaryDirectory() as folder:
        image = make_image(Path(folder), SIZE, BODY)
        card = FaultyCard(SIZE, block_bytes=sector, flips={byte: mask})
        done = write_card(image, claimed(card), Quiet(), WriteOptions(MiB, depth))
        if byte in done.extents:
            with pytest.raises(CardFaulty):
                read_back(done, Quiet())
            assert trouble_of(done).found[0].first_byte == byte
        else:
            read_back(done, Quiet())
