"""A card that holds the golden image already is read whole and given only what differs."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import CardIOError, FakeCapacity, Interrupted
from imager.base.progress import Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import KiB, MiB
from imager.card.host.disks import Disk
from imager.card.host.refusals import accept
from imager.card.make.begin import lay_down, names_golden, seen_before
from imager.card.make.order import CardOrder
from imager.card.receipt.store import save_receipt
from imager.card.write import update
from imager.card.write.read_back import read_back
from imager.card.write.update import update_card
from imager.card.write.write import write_card
from imager.disk.extents import Extent, ExtentMap
from imager.node.image import NodeImage
from tests.support.cards import FaultyCard, Flush, Write, claimed, make_image, press_ctrl_c
from tests.support.goldens import Composer, alter
from tests.support.updates import GOLDEN_KEY, SIZE, node_image, receipt_of


@pytest.fixture
def image(tmp_path: Path) -> NodeImage:
    return node_image(tmp_path, "pi7")


@pytest.fixture
def card(image: NodeImage) -> FaultyCard:
    """A card that pi7 was written to."""
    made = FaultyCard(SIZE)
    write_card(image, claimed(made), Quiet())
    made.log.clear()
    return made


def written_bytes(card: FaultyCard) -> int:
    return sum(entry.length for entry in card.log if isinstance(entry, Write))


def is_whole(card: FaultyCard, image: NodeImage) -> bool:
    with image.open() as reader:
        return all(card.holds(e) == reader.read(e.offset, e.length) for e in image.manifest.extents)


def test_a_card_as_wrong_as_the_golden_image_is_mended(card: FaultyCard, image: NodeImage) -> None:
    extent = next(iter(image.golden.manifest.extents - ExtentMap([Extent(0, MiB)])))
    composer = Composer(image.golden, image.golden.path.read_bytes())
    alter(image.golden, extent.offset + 100)
    wrong = image.golden.path.read_bytes()
    card.data[extent.offset + 100 : extent.offset + 108] = wrong[extent.offset + 100 :][:8]
    mended = update_card(
        replace(image, golden=replace(image.golden, again=composer)), claimed(card), Quiet()
    )
    assert Extent(extent.offset, 512) in mended.extents.split(512)
    assert is_whole(card, image)


def test_a_card_that_is_as_it_should_be_is_read_once_and_not_touched(
    card: FaultyCard, image: NodeImage
) -> None:
    held = claimed(card)
    written = update_card(image, held, Quiet())
    assert card.log == []
    assert written.extents == ExtentMap()
    (figures,) = held.log.phases
    assert figures.name == "compare"
    assert figures.size_bytes >= image.manifest.extents.total_bytes
    read_back(written, Quiet())


def test_another_node_of_the_same_golden_image_costs_its_own_blocks(
    card: FaultyCard, tmp_path: Path
) -> None:
    other = node_image(tmp_path / "other", "pi8")
    held = claimed(card)
    written = update_card(other, held, Quiet())
    assert is_whole(card, other)
    assert written_bytes(card) <= other.delta.extents.total_bytes + MiB
    assert written_bytes(card) < image_bytes(other) / 4
    read_back(written, Quiet())
    assert [phase.name for phase in held.log.phases] == [
        "compare",
        "blank",
        "write",
        "table",
        "read back",
    ]


def image_bytes(image: NodeImage) -> int:
    return image.manifest.extents.total_bytes


def test_one_changed_byte_anywhere_is_mended_and_read_back(
    card: FaultyCard, image: NodeImage
) -> None:
    for extent in image.manifest.extents:
        for byte in (extent.offset, extent.end - 1):
            card.data[byte] ^= 0x10
            written = update_card(image, claimed(card), Quiet())
            assert is_whole(card, image), f"byte {byte}"
            assert byte in written.extents


def test_the_card_looks_blank_before_the_first_change_and_until_the_last(
    card: FaultyCard, image: NodeImage
) -> None:
    card.data[9 * MiB] ^= 1
    states: list[bool] = []

    def look(write: Write) -> None:
        states.append(write.offset >= MiB and not card.is_blank)

    card.on_write = look
    update_card(image, claimed(card), Quiet())
    assert not any(states), "the body was written while the table stood"
    kinds = ["flush" if isinstance(entry, Flush) else entry.offset >= MiB for entry in card.log]
    assert kinds[kinds.index(True) - 1] == "flush"
    *_, table, last = card.log
    assert isinstance(table, Write)
    assert table.offset == 0
    assert isinstance(last, Flush)


@pytest.mark.parametrize("moment", ["blank", "body", "table"])
def test_a_cut_leaves_the_card_blank_or_whole(
    card: FaultyCard, image: NodeImage, moment: str
) -> None:
    card.data[9 * MiB] ^= 1
    places = {"blank": 0, "body": 9 * MiB, "table": 4096}
    pressed: list[Write] = []

    def press(write: Write) -> None:
        body = any(isinstance(entry, Write) and entry.offset >= MiB for entry in card.log)
        if not pressed and write.offset == places[moment] and body == (moment == "table"):
            pressed.append(write)
            press_ctrl_c()

    card.on_write = press
    with pytest.raises(Interrupted) as caught:
        update_card(image, claimed(card), Quiet())
    assert "visibly blank" in caught.value.hint
    assert card.is_blank


def test_an_interrupted_comparison_leaves_the_card_as_it_was(
    card: FaultyCard, image: NodeImage
) -> None:
    class Pressing(FaultyCard):
        def pread(self, offset: int, buffer: memoryview) -> int:
            if offset == 0:
                press_ctrl_c()
            return super().pread(offset, buffer)

    pressing = Pressing(SIZE)
    pressing.data = card.data
    with pytest.raises(Interrupted) as caught:
        update_card(image, claimed(pressing), Quiet())
    assert "nothing was written" in caught.value.hint
    assert is_whole(pressing, image)


def test_what_cannot_be_read_is_written_anew(card: FaultyCard, image: NodeImage) -> None:
    class Healing(FaultyCard):
        def pwrite(self, offset: int, data: memoryview) -> int:
            self.read_errors = {
                byte: number
                for byte, number in self.read_errors.items()
                if not offset <= byte < offset + len(data)
            }
            return super().pwrite(offset, data)

    healing = Healing(SIZE, read_errors={9 * MiB: errno.EIO})
    healing.data = card.data
    written = update_card(image, claimed(healing), Quiet())
    assert 9 * MiB in written.extents
    read_back(written, Quiet())


def test_a_card_that_vanishes_while_it_is_compared_was_not_changed(
    card: FaultyCard, image: NodeImage
) -> None:
    card.read_errors = {9 * MiB: errno.ENODEV}
    with pytest.raises(CardIOError) as caught:
        update_card(image, claimed(card), Quiet())
    assert "nothing was written" in caught.value.details[-1]
    assert card.log == []


# ── how to begin ────────────────────────────────────────────────────────────────────────────


def phases_of(
    card: FaultyCard, image: NodeImage, receipts: Path, *, update: bool = True, probe: bool = True
) -> list[str]:
    held = claimed(card)
    order = CardOrder(image, accept(held.target, 0), TrustedFolder(receipts))
    lay_down(order, held, Quiet(), update=update, probe=probe)
    return [phase.name for phase in held.log.phases]


WHOLE = ["blank", "write", "table"]
PROBED = ["blank", "probe write", "probe read"]


def test_a_card_whose_stamp_names_the_golden_image_is_updated(
    card: FaultyCard, image: NodeImage, tmp_path: Path
) -> None:
    assert phases_of(card, image, tmp_path) == ["compare"]
    assert phases_of(card, image, tmp_path, update=False, probe=False) == WHOLE


def test_a_stamp_that_was_tampered_with_names_nothing(card: FaultyCard, image: NodeImage) -> None:
    assert names_golden(card.holds(Extent(0, MiB)), image)
    card.data[4096 + 60] ^= 1
    assert not names_golden(card.holds(Extent(0, MiB)), image)


def test_another_golden_image_or_layout_is_not_an_update(card: FaultyCard, tmp_path: Path) -> None:
    first_mib = card.holds(Extent(0, MiB))
    assert not names_golden(first_mib, node_image(tmp_path / "a", "pi7", key="q" * 64))
    larger = make_image(tmp_path, SIZE + MiB, ExtentMap([Extent(9 * MiB, MiB)]))
    assert larger.golden.key == GOLDEN_KEY
    assert not names_golden(first_mib, larger)


def test_a_card_never_seen_before_is_probed_once(image: NodeImage, tmp_path: Path) -> None:
    card, receipts = FaultyCard(SIZE), tmp_path / "receipts"
    assert phases_of(card, image, receipts, update=False) == [*PROBED, *WHOLE]
    save_receipt(receipt_of(image, SIZE), TrustedFolder(receipts))
    assert phases_of(card, image, receipts, update=False) == WHOLE


def test_no_probe_writes_at_once(image: NodeImage, tmp_path: Path) -> None:
    assert phases_of(FaultyCard(SIZE), image, tmp_path, probe=False) == WHOLE


def test_a_fake_is_stopped_before_the_long_write(image: NodeImage, tmp_path: Path) -> None:
    card = FaultyCard(SIZE, real_bytes=SIZE // 2)
    with pytest.raises(FakeCapacity):
        phases_of(card, image, tmp_path)
    assert card.is_blank


def test_a_receipt_of_another_size_is_of_another_card(
    card: FaultyCard, image: NodeImage, tmp_path: Path
) -> None:
    save_receipt(receipt_of(image, SIZE + MiB), TrustedFolder(tmp_path))
    assert not seen_before(claimed(card), card.holds(Extent(0, MiB)), TrustedFolder(tmp_path))


def test_a_card_known_by_its_own_number_needs_no_table(image: NodeImage, tmp_path: Path) -> None:
    save_receipt(receipt_of(image, SIZE, cid="1b534d30"), TrustedFolder(tmp_path))
    blank = bytes(MiB)
    card = FaultyCard(SIZE)
    held = claimed(card)
    assert isinstance(held.target, Disk)
    for cid, known in (("1b534d30", True), ("1b534d31", False), ("", False)):
        numbered = replace(held, target=replace(held.target, cid=cid))
        assert seen_before(numbered, blank, TrustedFolder(tmp_path)) == known


KEPT = 4096


@pytest.mark.parametrize(("low", "high"), [(8, 16), (16, 32), (32, 64), (64, 70)])
@pytest.mark.parametrize("short", [512, 0])
def test_gaps_are_filled_from_the_largest_that_costs_little_enough(
    low: int, high: int, short: int
) -> None:
    """One gap a little below ``low`` KiB, or of just as much, and one that would cost too much."""
    first, second = low * KiB - short, high * KiB - 512
    extents = ExtentMap([Extent(0, KEPT), Extent(KEPT + first, KEPT)])
    extents |= ExtentMap([Extent(extents.end + second, KEPT)])
    filled = ExtentMap([Extent(0, 2 * KEPT + first)]) | extents
    assert update._joined(extents, first) == (filled if short else extents)
    assert update._joined(extents, first - 1) == extents


@pytest.mark.parametrize(("old_kib", "pieces"), [(0, 1), (496, 1), (500, 2)])
def test_what_must_be_zeroed_at_the_start_leaves_less_for_gaps(
    card: FaultyCard, image: NodeImage, old_kib: int, pieces: int
) -> None:
    """512 KiB for both; the table and the stamp, 4 KiB each, are to be zeroed in any case, and to
    fill the gap costs 8 KiB."""
    card.data[16 * KiB : (16 + old_kib) * KiB] = b"x" * (old_kib * KiB)
    for byte in (9 * MiB, 9 * MiB + 12 * KiB):
        card.data[byte] ^= 1
    written = update_card(image, claimed(card), Quiet())
    body = written.extents - ExtentMap([Extent(0, MiB)])
    changed = [Extent(9 * MiB, 4 * KiB), Extent(9 * MiB + 12 * KiB, 4 * KiB)]
    assert list(body) == ([Extent(9 * MiB, 16 * KiB)] if pieces == 1 else changed)


def test_the_last_byte_of_what_was_in_the_first_mib_is_zeroed(
    card: FaultyCard, image: NodeImage
) -> None:
    """One byte each at the start and at the end of a block, and a change elsewhere."""
    for byte in (16 * KiB, 24 * KiB - 1, 9 * MiB):
        card.data[byte] ^= 1
    update_card(image, claimed(card), Quiet())
    assert not any(card.holds(Extent(12 * KiB, 16 * KiB)))


def test_an_image_that_is_larger_than_the_card_is_not_begun(image: NodeImage) -> None:
    card = FaultyCard(SIZE - 512)
    with pytest.raises(ValueError, match="larger"):
        update_card(image, claimed(card), Quiet())
    assert card.log == []


def test_a_block_of_the_first_mib_with_one_byte_in_it_is_written_again(tmp_path: Path) -> None:
    body = ExtentMap([Extent(2 * MiB, MiB)])
    image = make_image(tmp_path, SIZE, body, pieces=((8192, b"x"),))
    card = FaultyCard(SIZE)
    write_card(image, claimed(card), Quiet())
    card.data[2 * MiB] ^= 1
    update_card(image, claimed(card), Quiet())
    assert is_whole(card, image)
    assert card.holds(Extent(8192, 1)) == b"x"
