"""Image files: sparse, private, and there under their name only when proven."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import CardFaulty, CardIOError, HostStorage, TargetRefused, WouldNotBoot
from imager.base.progress import Phase, Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import KiB, MiB
from imager.card.claim.claim import claim
from imager.card.host.image_file import SparseFile
from imager.card.host.refusals import AcceptedTarget, accept
from imager.card.host.targets import target_at
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.card.medium.raw import Descriptor, write_fully
from imager.card.receipt.receipt import ReceiptResult
from imager.card.receipt.store import all_receipts
from imager.card.stages import ClaimedCard
from imager.card.write.read_back import read_back
from imager.card.write.write import write_card
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Reader
from imager.node.image import NodeImage
from imager.rack.history.outcome import Outcome, outcome_of
from tests.support.cards import make_image
from tests.support.syncing import Sync, fsyncs

SIZE = 12 * MiB


@pytest.fixture
def image(tmp_path: Path) -> NodeImage:
    return make_image(tmp_path, SIZE, ExtentMap([Extent(2 * MiB, 3 * MiB)]))


def accepted(tmp_path: Path) -> AcceptedTarget:
    return accept(target_at(tmp_path / "pi7.img"), SIZE)


def left_behind(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.iterdir()} - {"golden.raw", "receipts"}


def test_the_file_holds_the_image_and_zeros_elsewhere(image: NodeImage, tmp_path: Path) -> None:
    made = make_card(
        CardOrder(image, accepted(tmp_path), TrustedFolder(tmp_path / "receipts")), Quiet()
    )
    data = (tmp_path / "pi7.img").read_bytes()
    assert len(data) == SIZE
    with image.open() as reader:
        assert data == reader.read(0, SIZE)
    assert made.receipt.target.bus == "file"
    assert left_behind(tmp_path) == {"pi7.img"}


def test_holes_stay_holes(image: NodeImage, tmp_path: Path) -> None:
    make_card(CardOrder(image, accepted(tmp_path), TrustedFolder(tmp_path / "receipts")), Quiet())
    assert (tmp_path / "pi7.img").stat().st_blocks * 512 <= 4 * MiB


def test_the_file_is_private_from_birth(image: NodeImage, tmp_path: Path) -> None:
    def look(read: Reader, size_bytes: int) -> None:
        partial = tmp_path / ".pi7.img.partial"
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600

    make_card(
        CardOrder(image, accepted(tmp_path), TrustedFolder(tmp_path / "receipts"), check=look),
        Quiet(),
    )
    assert stat.S_IMODE((tmp_path / "pi7.img").stat().st_mode) == 0o600


def test_the_old_file_stays_until_the_new_one_is_proven(image: NodeImage, tmp_path: Path) -> None:
    (tmp_path / "pi7.img").write_bytes(b"the old one")
    with claim(accepted(tmp_path), SIZE) as card:
        verified = read_back(write_card(image, card, Quiet()), Quiet())
        assert (tmp_path / "pi7.img").read_bytes() == b"the old one"
        verified.keep()
    assert (tmp_path / "pi7.img").stat().st_size == SIZE


def test_what_is_not_kept_vanishes(image: NodeImage, tmp_path: Path) -> None:
    with claim(accepted(tmp_path), SIZE) as card:
        write_card(image, card, Quiet())
    assert left_behind(tmp_path) == set()


def test_nobody_else_can_lock_a_file_that_is_being_made(tmp_path: Path) -> None:
    with claim(accepted(tmp_path), SIZE):
        (partial,) = (path for path in tmp_path.iterdir() if path.name.endswith(".partial"))
        with partial.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_file_has_its_name_when_all_of_it_is_on_the_disk(
    image: NodeImage, tmp_path: Path
) -> None:
    with fsyncs() as done:
        make_card(
            CardOrder(image, accepted(tmp_path), TrustedFolder(tmp_path) / "receipts"), Quiet()
        )
    partial = Sync(tmp_path / ".pi7.img.partial", SIZE)
    assert partial in done
    assert tmp_path in [sync.path for sync in done[done.index(partial) :]]


def test_an_exception_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), claim(accepted(tmp_path), SIZE):
        raise RuntimeError
    assert left_behind(tmp_path) == set()


def test_a_file_damaged_between_writing_and_reading_is_not_kept(
    image: NodeImage, tmp_path: Path
) -> None:
    with (
        pytest.raises(CardFaulty, match="no unfinished") as caught,
        claim(accepted(tmp_path), SIZE) as card,
    ):
        written = write_card(image, card, Quiet())
        with (tmp_path / ".pi7.img.partial").open("r+b") as file:
            file.seek(2 * MiB + 5)
            file.write(b"!!")
        try:
            read_back(written, Quiet())
        except CardFaulty as error:
            raise CardFaulty(error.details[-1], hint=error.what) from error
    assert f"byte {2 * MiB + 5}" in caught.value.hint
    assert left_behind(tmp_path) == set()


def test_a_check_that_fails_leaves_no_file_but_a_receipt(image: NodeImage, tmp_path: Path) -> None:
    def refuse(read: Reader, size_bytes: int) -> None:
        assert (size_bytes, read(510, 2)) == (SIZE, b"\x55\xaa")
        raise WouldNotBoot("no kernel", hint="add one")

    with pytest.raises(WouldNotBoot):
        make_card(
            CardOrder(
                image, accepted(tmp_path), TrustedFolder(tmp_path / "receipts"), check=refuse
            ),
            Quiet(),
        )
    assert left_behind(tmp_path) == set()
    ((_, receipt),) = all_receipts(TrustedFolder(tmp_path / "receipts"))
    assert (receipt.result, receipt.failure) == (ReceiptResult.WOULD_NOT_BOOT, "no kernel")


class Meddler(Quiet):
    """Alters a file as soon as the writing begins."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        if name == "write":
            with self._path.open("r+b") as file:
                file.write(b"!")
            os.utime(self._path, (1, 1))
        with super().phase(name, total_bytes) as phase:
            yield phase


def test_a_golden_image_altered_meanwhile_leaves_a_receipt_that_says_so(
    image: NodeImage, tmp_path: Path
) -> None:
    meddler = Meddler(image.golden.path)
    with pytest.raises(HostStorage) as caught:
        make_card(
            CardOrder(image, accepted(tmp_path), TrustedFolder(tmp_path / "receipts")), meddler
        )
    assert left_behind(tmp_path) == set()
    ((path, receipt),) = all_receipts(TrustedFolder(tmp_path / "receipts"))
    assert receipt.result is ReceiptResult.FAILED
    assert "the golden image was altered" in receipt.failure
    assert caught.value.receipt == path.name
    assert outcome_of(caught.value) is Outcome.FAILED


def test_where_no_receipt_can_be_written_the_card_s_own_fault_is_still_told(
    image: NodeImage, tmp_path: Path
) -> None:
    def refuse(read: Reader, size_bytes: int) -> None:
        raise WouldNotBoot("no kernel", hint="add one")

    nowhere = image.golden.path / "receipts"
    with pytest.raises(WouldNotBoot) as caught:
        make_card(
            CardOrder(image, accepted(tmp_path), TrustedFolder(nowhere), check=refuse), Quiet()
        )
    assert caught.value.details[-1].startswith("no receipt could be written: ")
    assert caught.value.receipt == ""


def test_a_good_card_without_a_receipt_is_called_good(image: NodeImage, tmp_path: Path) -> None:
    with pytest.raises(HostStorage) as caught:
        make_card(
            CardOrder(image, accepted(tmp_path), TrustedFolder(image.golden.path / "receipts")),
            Quiet(),
        )
    assert caught.value.details[-1].endswith("proven; only its receipt is missing")
    assert (tmp_path / "pi7.img").stat().st_size == SIZE


def test_what_a_killed_run_left_is_written_over(image: NodeImage, tmp_path: Path) -> None:
    (tmp_path / ".pi7.img.partial").write_bytes(b"\xff" * (SIZE + 4096))
    make_card(CardOrder(image, accepted(tmp_path), TrustedFolder(tmp_path / "receipts")), Quiet())
    with image.open() as reader:
        assert (tmp_path / "pi7.img").read_bytes() == reader.read(0, SIZE)


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    with (
        claim(accepted(tmp_path), SIZE),
        pytest.raises(TargetRefused, match="another run"),
        claim(accepted(tmp_path), SIZE),
    ):
        pass


@pytest.mark.parametrize("was_there", [False, True])
def test_a_file_another_run_wrote_since_it_was_shown_is_kept(
    image: NodeImage, tmp_path: Path, was_there: bool
) -> None:
    if was_there:
        (tmp_path / "pi7.img").write_bytes(b"old")
    shown = accepted(tmp_path)
    order = CardOrder(image, accepted(tmp_path), TrustedFolder(tmp_path) / "receipts")
    make_card(order, Quiet())
    before = (tmp_path / "pi7.img").stat().st_mtime_ns
    with pytest.raises(TargetRefused, match="another run wrote it"):
        make_card(replace(order, accepted=shown), Quiet())
    assert (tmp_path / "pi7.img").stat().st_mtime_ns == before
    assert left_behind(tmp_path) == {"pi7.img"}


def test_a_full_disk_is_named_and_leaves_nothing(image: NodeImage, tmp_path: Path) -> None:
    """/dev/full refuses every byte as a full disk does; the real one is in the device tests."""
    with open("/dev/full", "wb") as full:
        raw = Descriptor(full.fileno(), str(tmp_path / "pi7.img"), SIZE, 4096)
        with claim(accepted(tmp_path), SIZE) as card, pytest.raises(CardIOError) as caught:
            write_card(image, replace(card, held=replace(card.held, raw=SparseFile(raw))), Quiet())
    assert "pi7.img: writing at byte" in caught.value.what
    assert "No space left" in caught.value.what
    assert "free some" in caught.value.hint
    assert left_behind(tmp_path) == set()


def test_a_size_that_is_no_whole_block(tmp_path: Path) -> None:
    odd = SIZE - 1000
    image = make_image(tmp_path, odd, ExtentMap([Extent(3 * MiB, 4096), Extent(odd - 700, 700)]))
    target = accept(target_at(tmp_path / "pi7.img"), odd)
    made = make_card(CardOrder(image, target, TrustedFolder(tmp_path / "receipts")), Quiet())
    assert not made.receipt.cache_bypassed
    with image.open() as reader:
        assert (tmp_path / "pi7.img").read_bytes() == reader.read(0, odd)


def test_a_claimed_file_says_that_it_is_one(tmp_path: Path) -> None:
    with claim(accepted(tmp_path), SIZE) as card:
        assert isinstance(card, ClaimedCard)
        assert card.target.made_anew


Pieces = list[tuple[bool, int]]
PIECES = st.lists(st.tuples(st.booleans(), st.integers(1, 200 * KiB)), max_size=8)


@given(PIECES, PIECES)
def test_skipping_zeros_changes_no_byte(before: Pieces, pieces: Pieces) -> None:
    """Neither in a file of holes nor over what an earlier run wrote to it."""
    first, data = (
        b"".join((letter if full else b"\0") * length for full, length in listed)
        for letter, listed in ((b"y", before), (b"x", pieces))
    )
    with TemporaryFile() as file:
        size = max(len(first), len(data))
        os.ftruncate(file.fileno(), size)
        raw = SparseFile(Descriptor(file.fileno(), "the file", size, 1))
        for written in (first, data):
            write_fully(raw, 0, memoryview(written))
        assert os.pread(file.fileno(), size, 0) == data + first[len(data) :]
