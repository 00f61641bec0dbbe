"""Given up: a card that lost its end is asked whether it is a fake; one in use is left as it is."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import CardFaulty, CardIOError, FakeCapacity, PicloudError
from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.card.host.image_file import ImageFile
from imager.card.stages import ClaimedCard, UnprovenCard, WriteOptions
from imager.card.write.read_back import read_back
from imager.card.write.repair import mend_in_place
from imager.card.write.write import write_card
from imager.disk.extents import Extent, ExtentMap
from imager.node.image import NodeImage
from tests.support.cards import FaultyCard, Write, claimed, make_image
from tests.support.proving import Heard

SIZE = 12 * MiB
END = Extent(9 * MiB, 12288)
BODY = ExtentMap([Extent(2 * MiB, 3 * MiB), END])
OPTIONS = WriteOptions(MiB, 1)


@pytest.fixture
def image(tmp_path: Path) -> NodeImage:
    return make_image(tmp_path, SIZE, BODY)


def given_up(
    image: NodeImage, held: ClaimedCard, extents: ExtentMap | None = None
) -> tuple[PicloudError, Heard]:
    """The error for a card that stays wrong, and what was said meanwhile."""
    heard = Heard()
    write_card(image, held, heard, OPTIONS)
    whole = UnprovenCard(held, image, extents or image.manifest.extents, OPTIONS)
    with pytest.raises(PicloudError) as caught:
        read_back(whole, heard)
    return caught.value, heard


def asked(heard: Heard) -> bool:
    """Whether the card was probed, and that was said."""
    probed = any("probe" in name for name in heard.begun)
    assert probed is any("lost its end" in note for note in heard.notes)
    return probed


def test_a_card_that_keeps_nothing_of_its_end_is_found_out(image: NodeImage) -> None:
    """One range is lost, which alone proves no fake; the probe finds more."""
    error, heard = given_up(image, claimed(FaultyCard(SIZE, kept_bytes=6 * MiB)))
    assert isinstance(error, FakeCapacity)
    assert asked(heard)
    assert any(str(END.offset) in line for line in error.details), "what was lost is still said"
    assert len(error.details) > 3


def test_a_card_that_lost_its_end_and_is_no_fake_is_faulty(image: NodeImage) -> None:
    error, heard = given_up(image, claimed(FaultyCard(SIZE, dropped=ExtentMap([END]))))
    assert isinstance(error, CardFaulty)
    assert asked(heard)


@pytest.mark.parametrize(
    "faults",
    [
        {"flips": {3 * MiB: 1}},
        {"read_errors": {END.offset: errno.EIO}},
        {"dropped": ExtentMap([Extent(3 * MiB, 4096)])},
        {"real_bytes": SIZE // 2},
    ],
    ids=["flip", "unreadable", "in the middle", "fake"],
)
def test_a_card_that_kept_its_end_or_is_known_is_not_asked(
    image: NodeImage, faults: dict[str, object]
) -> None:
    _, heard = given_up(image, claimed(FaultyCard(SIZE, **faults)))  # type: ignore[arg-type]
    assert not asked(heard)


def test_a_file_is_not_asked_nor_written_again(image: NodeImage) -> None:
    card = FaultyCard(SIZE, dropped=ExtentMap([END]))
    file = ImageFile(Path("/x/pi7.img"), False, 0, True)
    error, heard = given_up(image, replace(claimed(card), target=file))
    assert isinstance(error, CardFaulty)
    assert "rewritten" not in error.what
    assert not asked(heard)
    assert "repair" not in heard.begun


def in_use(image: NodeImage, card: FaultyCard) -> UnprovenCard:
    """The card as it was written, with its log empty."""
    held = claimed(card)
    write_card(image, held, Quiet(), OPTIONS)
    card.log.clear()
    return UnprovenCard(held, image, image.manifest.extents, OPTIONS)


def test_a_card_in_use_that_stays_wrong_keeps_what_it_has(image: NodeImage) -> None:
    card = FaultyCard(SIZE, flips={3 * MiB + 5: 4})
    whole, heard = in_use(image, card), Heard()
    with pytest.raises(CardFaulty, match="rewritten 2 times"):
        mend_in_place(whole, heard)
    written = [step.offset for step in card.log if isinstance(step, Write)]
    assert written == [3 * MiB, 3 * MiB]
    assert not card.is_blank
    assert len(heard.findings) == 1
    trouble = whole.card.log.trouble
    assert trouble is not None
    assert trouble.attempts == 2


def test_a_card_in_use_that_hardly_answers_is_not_written_to(tmp_path: Path) -> None:
    image = make_image(tmp_path, SIZE, ExtentMap([Extent(0, SIZE)]))
    card = FaultyCard(SIZE)
    whole = in_use(image, card)
    card.read_errors = dict.fromkeys(range(MiB, SIZE, 4096), errno.EIO)
    with pytest.raises(CardIOError):
        mend_in_place(whole, Quiet())
    assert card.log == []
