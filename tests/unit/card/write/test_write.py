"""Writing: every mapped byte, in an order that leaves a card blank or whole at any moment."""

from __future__ import annotations

import errno
import itertools
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imager.base.errors import CardIOError, HostStorage, Interrupted
from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.card.claim.blank import blank_unless_done
from imager.card.host.image_file import ImageFile
from imager.card.medium.raw import read_fully, write_fully
from imager.card.stages import WriteOptions
from imager.card.write.write import write_card
from imager.disk.extents import Extent, ExtentMap
from imager.node.image import NodeImage
from tests.support.cards import FaultyCard, Flush, Write, claimed, make_image, press_ctrl_c

SIZE = 12 * MiB
BODY = ExtentMap([Extent(2 * MiB, 3 * MiB), Extent(7 * MiB + 8192, 4096), Extent(9 * MiB, 12288)])
FIRST = Extent(0, MiB)
LAST = Extent(SIZE - MiB, MiB)


@pytest.fixture
def image(tmp_path: Path) -> NodeImage:
    return make_image(tmp_path, SIZE, BODY, pieces=((9 * MiB + 4096, b"pi7" * 100),))


def expected(image: NodeImage, extent: Extent) -> bytes:
    with image.open() as reader:
        return reader.read(extent.offset, extent.length)


def is_whole(card: FaultyCard, image: NodeImage) -> bool:
    """Whether every mapped byte is on the card."""
    return all(card.holds(e) == expected(image, e) for e in image.manifest.extents)


def test_every_mapped_byte_is_on_the_card(image: NodeImage) -> None:
    card = FaultyCard(SIZE)
    write_card(image, claimed(card), Quiet())
    assert is_whole(card, image)
    assert card.holds(Extent(9 * MiB + 4096, 3)) == b"pi7"


def test_bytes_outside_the_map_stay_but_both_ends_are_cleared(image: NodeImage) -> None:
    card = FaultyCard(SIZE)
    written = write_card(image, claimed(card), Quiet())
    outside = ExtentMap([Extent(0, SIZE)]) - written.extents
    assert outside.total_bytes > 0
    assert all(set(card.holds(extent)) == {0xA5} for extent in outside)
    assert not any(card.holds(LAST))
    assert not any(card.holds(Extent(4096, MiB - 4096)))


def test_order_is_blank_body_first_mib_table_with_a_flush_after_each(image: NodeImage) -> None:
    card = FaultyCard(SIZE)
    held = claimed(card)
    written = write_card(image, held, Quiet())
    stages = [
        {(e.offset, e.length) for e in group if isinstance(e, Write)}
        for flushed, group in itertools.groupby(card.log, lambda entry: isinstance(entry, Flush))
        if not flushed
    ]
    assert stages[0] == {(0, MiB), (LAST.offset, MiB)}
    assert min(offset for offset, _ in stages[1]) >= MiB
    assert stages[2:] == [{(4096, MiB - 4096)}, {(0, 4096)}]
    assert isinstance(card.log[-1], Flush)
    body = (written.extents - ExtentMap([FIRST])).total_bytes
    told = [(phase.name, phase.size_bytes) for phase in held.log.phases]
    assert told == [("blank", 2 * MiB), ("write", body), ("table", MiB)]


def test_a_file_that_is_made_anew_needs_no_blanking(image: NodeImage) -> None:
    file = ImageFile(Path("/x/pi7.img"), False, 0, True)
    held = replace(claimed(FaultyCard(SIZE)), target=file)
    write_card(image, held, Quiet())
    assert [phase.name for phase in held.log.phases] == ["write", "table"]
    assert not held.log.touched


def test_an_image_that_is_larger_than_the_card_is_not_begun(image: NodeImage) -> None:
    card = FaultyCard(SIZE - 512)
    with pytest.raises(ValueError, match="larger"):
        write_card(image, claimed(card), Quiet())
    assert card.log == []


def test_at_every_write_the_card_is_blank_or_whole(image: NodeImage) -> None:
    card = FaultyCard(SIZE, short_bytes=256 * 1024)

    def check(write: Write) -> None:
        if write.offset >= 4096 and any(isinstance(entry, Flush) for entry in card.log):
            assert not any(card.holds(Extent(0, 4096)))

    card.on_write = check
    write_card(image, claimed(card), Quiet(), WriteOptions(MiB, 3))
    assert is_whole(card, image)


def test_short_writes_are_normal(image: NodeImage) -> None:
    card = FaultyCard(SIZE, short_bytes=3 * 512)
    write_card(image, claimed(card), Quiet())
    assert is_whole(card, image)


def test_a_card_that_takes_three_bytes_at_a_time() -> None:
    card = FaultyCard(MiB, block_bytes=1, short_bytes=3)
    data = bytearray(range(250))
    write_fully(card, 1000, memoryview(data))
    back = bytearray(250)
    read_fully(card, 1000, memoryview(back))
    assert back == data
    assert card.holds(Extent(999, 1)) == card.holds(Extent(1250, 1)) == b"\xa5"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EIO, "another reader"),
        (errno.ENOSPC, "no room"),
        (errno.EROFS, "locked itself"),
        (errno.ENODEV, "gone"),
        (errno.ENXIO, "gone"),
        (errno.ETIMEDOUT, "another reader"),
    ],
)
def test_an_error_in_the_body_names_the_byte_and_leaves_the_card_blank(
    image: NodeImage, number: int, words: str
) -> None:
    bad = 3 * MiB + 700
    card = FaultyCard(SIZE, write_errors={bad: number})
    with pytest.raises(CardIOError) as caught:
        write_card(image, claimed(card), Quiet(), WriteOptions(MiB, 2))
    assert f"byte {3 * MiB}" in caught.value.what
    assert words in caught.value.hint
    assert "visibly blank" in caught.value.details[-1]
    assert card.is_blank


def test_a_mistake_of_ours_is_not_blamed_on_the_card(image: NodeImage) -> None:
    card = FaultyCard(SIZE, write_errors={3 * MiB: errno.EINVAL})
    with pytest.raises(OSError, match="Invalid argument"):
        write_card(image, claimed(card), Quiet())
    assert card.is_blank


def test_a_card_that_takes_nothing_is_not_said_to_be_blank(image: NodeImage) -> None:
    card = FaultyCard(SIZE, write_errors=dict.fromkeys(range(0, SIZE, 512), errno.EIO))
    with pytest.raises(CardIOError) as caught:
        write_card(image, claimed(card), Quiet())
    assert "no longer takes writes" in caught.value.details[-1]


def test_a_failed_flush_is_an_error(image: NodeImage) -> None:
    card = FaultyCard(SIZE, flush_error=errno.EIO)
    with pytest.raises(CardIOError, match="storing what was written"):
        write_card(image, claimed(card), Quiet())


def test_an_error_while_writing_the_table_blanks_the_card_again(image: NodeImage) -> None:
    card = FaultyCard(SIZE)
    seen = 0

    def refuse_the_table(write: Write) -> None:
        nonlocal seen
        if write == Write(0, 4096):
            seen += 1
            raise OSError(errno.EIO, "lost")

    card.on_write = refuse_the_table
    with pytest.raises(CardIOError):
        write_card(image, claimed(card), Quiet())
    assert seen == 3, "as a block of its own, and once in every smaller size"
    assert card.is_blank


def test_a_card_that_ends_early_says_where(image: NodeImage) -> None:
    card = FaultyCard(SIZE, short_bytes=511)
    with pytest.raises(CardIOError, match="takes no more bytes at byte 0"):
        write_card(image, claimed(card), Quiet())


@pytest.mark.parametrize("at", [0, MiB, 3 * MiB, 9 * MiB, 4096])
def test_ctrl_c_leaves_the_card_blank_and_says_so(image: NodeImage, at: int) -> None:
    card = FaultyCard(SIZE)
    pressed = False

    def press(write: Write) -> None:
        nonlocal pressed
        if not pressed and write.offset >= at:
            pressed = True
            press_ctrl_c()

    card.on_write = press
    with pytest.raises(Interrupted) as caught:
        write_card(image, claimed(card), Quiet(), WriteOptions(MiB, 2))
    assert "visibly blank" in caught.value.hint
    assert card.is_blank


def test_ctrl_c_pressed_again_and_again_still_blanks(image: NodeImage) -> None:
    card = FaultyCard(SIZE)
    presses = 0

    def press(write: Write) -> None:
        nonlocal presses
        if write.offset >= 3 * MiB or presses:
            presses += 1
            if presses <= 4:
                press_ctrl_c()

    card.on_write = press
    with pytest.raises(Interrupted) as caught:
        write_card(image, claimed(card), Quiet(), WriteOptions(MiB, 2))
    assert presses >= 2
    assert "visibly blank" in caught.value.hint
    assert card.is_blank


def test_a_card_that_was_not_touched_keeps_its_content(image: NodeImage) -> None:
    card = FaultyCard(SIZE)
    held = claimed(card)
    with pytest.raises(Interrupted) as caught, blank_unless_done(held):
        raise KeyboardInterrupt
    assert caught.value.hint == "nothing was written to /dev/faulty"
    image.golden.path.unlink()
    with pytest.raises(HostStorage, match="golden") as gone:
        write_card(image, held, Quiet())
    assert gone.value.details == ("nothing was written to /dev/faulty",)
    assert card.log == []


def test_a_golden_image_altered_since_it_was_made_is_not_written(image: NodeImage) -> None:
    card = FaultyCard(SIZE)
    noted = replace(image.golden, mtime_ns=image.golden.path.stat().st_mtime_ns)
    write_card(replace(image, golden=noted), claimed(FaultyCard(SIZE)), Quiet())
    os.utime(image.golden.path, ns=(0, 1))
    with pytest.raises(HostStorage, match="altered"):
        write_card(replace(image, golden=noted), claimed(card), Quiet())
    assert card.log == []


def test_an_image_larger_than_the_card_is_our_mistake(image: NodeImage) -> None:
    with pytest.raises(ValueError, match="larger"):
        write_card(image, claimed(FaultyCard(SIZE - MiB)), Quiet())


@st.composite
def maps(draw: st.DrawFn) -> ExtentMap:
    """Any ranges of 4 KiB blocks on a card of SIZE bytes."""
    pairs = st.tuples(st.integers(0, SIZE // 4096 - 1), st.integers(1, 700))
    return ExtentMap(
        Extent(start * 4096, min(count * 4096, SIZE - start * 4096))
        for start, count in draw(st.lists(pairs, max_size=8))
    )


@settings(deadline=None, max_examples=25)
@given(
    extents=maps(),
    sector=st.sampled_from([512, 4096]),
    block=st.sampled_from([MiB, 2 * MiB, 4 * MiB]),
    depth=st.integers(1, 4),
    short=st.one_of(st.none(), st.integers(8, 256).map(lambda n: n * 4096)),
)
def test_any_map_on_any_card(
    extents: ExtentMap, sector: int, block: int, depth: int, short: int | None
) -> None:
    with TemporaryDirectory() as folder:
        image = make_image(Path(folder), SIZE, extents)
        card = FaultyCard(SIZE, block_bytes=sector, short_bytes=short)
        write_card(image, claimed(card), Quiet(), WriteOptions(block, depth))
        assert is_whole(card, image)
