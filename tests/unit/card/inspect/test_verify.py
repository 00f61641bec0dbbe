"""Verify: a card against its receipt, on good, damaged, strange and unreadable cards."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import CardIOError, StampMismatch, TargetRefused
from imager.base.progress import Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.inspect.verification import Verification
from imager.card.inspect.verify import is_image_file, open_target, proof_for, verify_card
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.card.medium.reopen import FreshRead
from imager.card.receipt.receipt import Receipt
from imager.card.receipt.store import save_receipt
from imager.disk.extents import Extent, ExtentMap
from tests.support.cards import DISK_ID, FaultyCard, make_image

SIZE = 12 * MiB
BODY = ExtentMap([Extent(2 * MiB, 3 * MiB), Extent(9 * MiB + 4096, 8192)])


@pytest.fixture
def receipt(tmp_path: Path) -> Receipt:
    image = make_image(tmp_path, SIZE, BODY)
    target = accept(target_at(tmp_path / "pi7.img"), SIZE)
    return make_card(
        CardOrder(image, target, TrustedFolder(tmp_path / ".picloud/receipts")), Quiet()
    ).receipt


def verified(path: Path, receipt: Receipt) -> Verification:
    with open_target(path) as fresh:
        return verify_card(fresh, receipt, Quiet())


def damage(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_an_untouched_image_matches(tmp_path: Path, receipt: Receipt) -> None:
    found = verified(tmp_path / "pi7.img", receipt)
    assert found.matches
    found.require_sound()
    assert found.checked_bytes == BODY.total_bytes + 4096


def test_the_receipt_is_found_by_the_cards_disk_id(tmp_path: Path, receipt: Receipt) -> None:
    with open_target(tmp_path / "pi7.img") as fresh:
        assert proof_for(fresh.raw, tmp_path).held == receipt
        assert (fresh.raw.size_bytes, fresh.raw.block_bytes) == (SIZE, 4096)


@pytest.mark.parametrize(
    ("byte", "place"),
    [(440, "partition table"), (2 * MiB, "boot partition"), (9 * MiB + 5000, "root partition")],
)
def test_one_changed_byte_is_a_mismatch_with_its_place(
    tmp_path: Path, receipt: Receipt, byte: int, place: str
) -> None:
    damage(tmp_path / "pi7.img", byte)
    found = verified(tmp_path / "pi7.img", receipt)
    (mismatch,) = found.mismatches
    assert mismatch.extent.offset <= byte < mismatch.extent.end
    with pytest.raises(StampMismatch, match="not what was written for pi7") as caught:
        found.require_sound()
    assert place in caught.value.details[0]


def test_what_was_never_written_may_hold_anything(tmp_path: Path, receipt: Receipt) -> None:
    damage(tmp_path / "pi7.img", 6 * MiB)
    assert verified(tmp_path / "pi7.img", receipt).matches


def test_a_card_cut_short_is_a_mismatch_at_its_end(tmp_path: Path, receipt: Receipt) -> None:
    with (tmp_path / "pi7.img").open("r+b") as file:
        file.truncate(9 * MiB)
    found = verified(tmp_path / "pi7.img", receipt)
    assert [mismatch.extent for mismatch in found.mismatches] == [Extent(9 * MiB + 4096, 8192)]
    with pytest.raises(StampMismatch) as caught:
        found.require_sound()
    assert f"cut short at byte {9 * MiB} of" in caught.value.details[0]


@pytest.mark.parametrize("missing", [1, 512, 4096])
def test_a_card_cut_short_within_its_last_range_is_a_mismatch_there(
    tmp_path: Path, missing: int
) -> None:
    """Also where the lost bytes were zeros: what is not there is not compared with memory."""
    last = ExtentMap([Extent(SIZE - 8192, 8192)])
    image = make_image(tmp_path, SIZE, last, pieces=((SIZE - 4096, bytes(4096)),))
    accepted = accept(target_at(tmp_path / "pi7.img"), SIZE)
    receipt = make_card(
        CardOrder(image, accepted, TrustedFolder(tmp_path) / "receipts"), Quiet()
    ).receipt
    assert verified(tmp_path / "pi7.img", receipt).matches
    with (tmp_path / "pi7.img").open("r+b") as file:
        file.truncate(SIZE - missing)
    found = verified(tmp_path / "pi7.img", receipt)
    assert [(m.extent, m.unreadable) for m in found.mismatches] == [
        (Extent(SIZE - 8192, 8192), False)
    ]


@pytest.mark.parametrize("byte", [6 * MiB + 4096, 6 * MiB + 50_000])
def test_each_range_of_a_chunk_counts(tmp_path: Path, byte: int) -> None:
    two = ExtentMap([Extent(6 * MiB + 4096, 4096), Extent(6 * MiB + 49_152, 4096)])
    image = make_image(tmp_path, SIZE, two)
    accepted = accept(target_at(tmp_path / "pi7.img"), SIZE)
    receipt = make_card(
        CardOrder(image, accepted, TrustedFolder(tmp_path) / "receipts"), Quiet()
    ).receipt
    card = card_like(tmp_path / "pi7.img")
    assert verify_card(FreshRead(card, cache_bypassed=True), receipt, Quiet()).matches
    assert Extent(6 * MiB + 4096, 49_152) in card.reads, "in one go"
    damage(tmp_path / "pi7.img", byte)
    found = verified(tmp_path / "pi7.img", receipt)
    assert [mismatch.extent for mismatch in found.mismatches] == list(two)
    with (tmp_path / "pi7.img").open("r+b") as file:
        file.truncate(6 * MiB + 16_384)  # between the two
    found = verified(tmp_path / "pi7.img", receipt)
    assert [(m.extent, m.unreadable) for m in found.mismatches] == [(e, False) for e in two]


def test_a_larger_card_is_judged_by_what_was_written(tmp_path: Path, receipt: Receipt) -> None:
    with (tmp_path / "pi7.img").open("ab") as file:
        file.write(b"more" * 1024)
    assert verified(tmp_path / "pi7.img", receipt).matches


class Reading(FaultyCard):
    """Remembers what was asked of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reads: list[Extent] = []

    def pread(self, offset: int, buffer: memoryview) -> int:
        self.reads.append(Extent(offset, len(buffer)))
        return super().pread(offset, buffer)


def card_like(path: Path, **faults: object) -> Reading:
    """A card that holds what the image file holds."""
    card = Reading(SIZE, **faults)  # type: ignore[arg-type]
    card.data[:] = path.read_bytes()
    return card


def test_what_cannot_be_read_is_named_and_the_rest_is_looked_at(
    tmp_path: Path, receipt: Receipt
) -> None:
    damage(tmp_path / "pi7.img", 9 * MiB + 5000)
    card = card_like(
        tmp_path / "pi7.img", read_errors={3 * MiB + 700: errno.EIO, 4 * MiB + 70_000: errno.EIO}
    )
    found = verify_card(FreshRead(card, cache_bypassed=True), receipt, Quiet())
    assert [(m.extent, m.unreadable) for m in found.mismatches] == [
        (Extent(3 * MiB, 4096), True),
        (Extent(4 * MiB + 17 * 4096, 4096), True),
        (Extent(9 * MiB + 4096, 8192), False),
    ]
    assert not [read for read in card.reads if 5 * MiB <= read.offset < 9 * MiB], "nothing is there"
    assert Extent(9 * MiB + 4096, 8192) in card.reads, "what lies around it is not read"
    assert not found.sound
    with pytest.raises(CardIOError, match=f"2 ranges .* first at byte {3 * MiB}: root") as caught:
        found.require_sound()
    assert caught.value.offset == 3 * MiB
    assert f"bytes {3 * MiB} to {3 * MiB + 4095}: cannot be read: " in caught.value.details[0]
    assert len(caught.value.details) == 3


class Heard(Quiet):
    """Remembers the warnings."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, message: str) -> None:
        self.warned.append(message)


@pytest.mark.parametrize("damaged", [(), (9 * MiB + 5000,)])
def test_what_is_read_when_it_is_asked_for_again_counts(
    tmp_path: Path, receipt: Receipt, damaged: tuple[int, ...]
) -> None:
    """A reader that failed once: what came is held against the receipt as any other."""
    for byte in damaged:
        damage(tmp_path / "pi7.img", byte)
    once = {3 * MiB + 700, 4 * MiB + 70_000, 9 * MiB + 4096}
    card, heard = card_like(tmp_path / "pi7.img", failing_once=once), Heard()
    found = verify_card(FreshRead(card, cache_bypassed=True), receipt, heard)
    different = [Extent(9 * MiB + 4096, 8192)] if damaged else []
    assert [(m.extent, m.unreadable) for m in found.mismatches] == [(e, False) for e in different]
    assert heard.warned[-1] == (
        f"/dev/faulty: it refused 2.1 MB from byte {3 * MiB} on, and gave them when it was asked "
        "again: the reader, its cable or its port is not reliable"
    )
    assert len(heard.warned) == 4, "one for each refusal, and that one"


def test_what_cannot_be_read_beside_what_was_written_is_nothing(tmp_path: Path) -> None:
    two = ExtentMap([Extent(6 * MiB + 4096, 4096), Extent(7 * MiB - 4096, 4096)])
    image = make_image(tmp_path, SIZE, two)
    accepted = accept(target_at(tmp_path / "pi7.img"), SIZE)
    receipt = make_card(
        CardOrder(image, accepted, TrustedFolder(tmp_path) / "receipts"), Quiet()
    ).receipt
    card = card_like(tmp_path / "pi7.img", read_errors={6 * MiB + 300_000: errno.EIO})
    assert verify_card(FreshRead(card, cache_bypassed=True), receipt, Quiet()).sound


def test_a_card_that_refuses_everything_is_told_of_in_the_end(
    tmp_path: Path, receipt: Receipt
) -> None:
    """Narrowing down ends after so many refusals; the verdict does not wait for hours."""
    everywhere = {offset: errno.EIO for offset in range(0, SIZE, 512)}
    card = card_like(tmp_path / "pi7.img", read_errors=everywhere)
    found = verify_card(FreshRead(card, cache_bypassed=True), receipt, Quiet())
    assert ExtentMap(m.extent for m in found.unreadable) == receipt.manifest.extents


def test_a_card_that_is_gone_ends_it(tmp_path: Path, receipt: Receipt) -> None:
    card = card_like(tmp_path / "pi7.img", read_errors={3 * MiB: errno.ENODEV})
    with pytest.raises(CardIOError, match="reading at byte") as caught:
        verify_card(FreshRead(card, cache_bypassed=True), receipt, Quiet())
    assert "gone" in caught.value.hint


def test_a_card_that_is_pulled_is_not_read_on(tmp_path: Path, receipt: Receipt) -> None:
    """Each further read would wait for the reader's time-out, for every block of the card."""
    card = card_like(tmp_path / "pi7.img", read_errors={3 * MiB + 70_000: errno.ENODEV})
    with pytest.raises(CardIOError, match="reading at byte"):
        verify_card(FreshRead(card, cache_bypassed=True), receipt, Quiet())
    in_chunk = [extent for extent in card.reads if 3 * MiB <= extent.offset < 4 * MiB]
    assert in_chunk == [Extent(3 * MiB, MiB)]


def test_a_blank_card_and_an_empty_file_hold_no_image_of_ours(tmp_path: Path) -> None:
    for content in (bytes(SIZE), b"", b"short"):
        (tmp_path / "x.img").write_bytes(content)
        with open_target(tmp_path / "x.img") as fresh, pytest.raises(StampMismatch):
            proof_for(fresh.raw, tmp_path)


def test_a_card_nobody_has_a_receipt_for(tmp_path: Path, receipt: Receipt) -> None:
    with (
        open_target(tmp_path / "pi7.img") as fresh,
        pytest.raises(StampMismatch, match=f"no receipt for its disk id {DISK_ID:08x}"),
    ):
        proof_for(fresh.raw, tmp_path / "elsewhere")


def test_the_newest_receipt_counts(tmp_path: Path, receipt: Receipt) -> None:
    newer = replace(receipt, finished_at="2999-01-01T00:00:00.000Z")
    save_receipt(newer, TrustedFolder(tmp_path / ".picloud/receipts"))
    with open_target(tmp_path / "pi7.img") as fresh:
        assert proof_for(fresh.raw, tmp_path).held == newer


@pytest.mark.parametrize("name", ["none.img", ".", "/dev/null"])
def test_what_cannot_be_verified_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TargetRefused), open_target(tmp_path / name):
        pass


def test_what_may_not_be_read_or_does_not_answer_is_told_apart(tmp_path: Path) -> None:
    card, circle = tmp_path / "locked" / "x.img", tmp_path / "circle"
    card.parent.mkdir(mode=0o700)
    card.write_bytes(b"")
    circle.symlink_to(circle)
    with pytest.raises(CardIOError, match="symbolic links") as caught, open_target(circle):
        pass
    assert "another reader" in caught.value.hint
    root = os.geteuid() == 0
    card.parent.chmod(0)
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(TargetRefused, match="denied") as refused, open_target(card):
            pass
    finally:
        if root:
            os.seteuid(0)
        card.parent.chmod(0o700)
    assert "with sudo" in refused.value.hint


def test_a_target_is_closed_again_whatever_comes_of_it(tmp_path: Path) -> None:
    (tmp_path / "x.img").write_bytes(bytes(4096))
    before = os.listdir("/proc/self/fd")
    with open_target(tmp_path / "x.img"):
        pass
    with pytest.raises(TargetRefused), open_target(tmp_path):
        pass
    assert os.listdir("/proc/self/fd") == before


def test_a_file_is_not_repaired(tmp_path: Path) -> None:
    (tmp_path / "x.img").write_bytes(b"")
    assert is_image_file(tmp_path / "x.img")
    assert not is_image_file(Path("/dev/null"))
