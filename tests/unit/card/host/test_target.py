"""A new kind of target is one class: one that only this test knows goes all the way."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.errors import CardFaulty, TargetRefused
from imager.base.progress import Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.card.claim.claim import claim
from imager.card.host.refusals import accept, refusals
from imager.card.host.swap_room import swap_refusals
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Limits, RefusalCode
from imager.card.inspect.verify import open_target, verify_card
from imager.card.make.finish import MadeCard
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder, Check
from imager.card.receipt.receipt import Receipt, ReceiptResult
from imager.card.receipt.store import all_receipts
from imager.card.write.options import DEFAULT_OPTIONS, options_for
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Reader
from imager.node.image import NodeImage
from imager.rack.history.events import Assigned
from imager.rack.history.ledger import read_ledger
from imager.rack.history.recorded import Work, recorded
from imager.rack.plan.candidates import Holds, look_at, reasons_against
from imager.rack.plan.slots import Slots
from tests.support.cards import make_image
from tests.support.memorycard import MemoryCard, memory_card
from tests.support.racks import rack_in

PACKAGE = Path(__file__).resolve().parents[4] / "imager"
SIZE = 12 * MiB


@pytest.fixture
def card() -> Iterator[MemoryCard]:
    with memory_card(SIZE) as card:
        yield card


@pytest.fixture
def image(tmp_path: Path) -> NodeImage:
    return make_image(tmp_path, SIZE, ExtentMap([Extent(2 * MiB, 3 * MiB)]))


def made_on(
    card: MemoryCard,
    image: NodeImage,
    folder: Path,
    check: Check | None = None,
    *,
    probe: bool = False,
) -> MadeCard:
    accepted = accept(card, SIZE)
    return make_card(
        CardOrder(image, accepted, TrustedFolder(folder), check=check),
        Quiet(),
        update=True,
        probe=probe,
    )


def test_its_own_reasons_stand_against_it(card: MemoryCard) -> None:
    assert refusals(card, SIZE) == ()
    assert [reason.code for reason in refusals(card, SIZE + 1)] == [RefusalCode.TOO_SMALL]
    both = Limits(max_size_bytes=1)
    with pytest.raises(TargetRefused, match="2 reasons") as caught:
        accept(card, SIZE + 1, both)
    assert len(caught.value.details) == 2


@pytest.mark.parametrize("probe", [False, True])
def test_a_card_is_made_on_it(
    card: MemoryCard, image: NodeImage, tmp_path: Path, probe: bool
) -> None:
    made = made_on(card, image, tmp_path / "receipts", probe=probe)
    with image.open() as reader:
        for extent in image.manifest.extents:
            expected = reader.read(extent.offset, extent.length)
            assert os.pread(card.fd, extent.length, extent.offset) == expected
    assert made.receipt.result is ReceiptResult.VERIFIED
    assert made.receipt.target == card.facts
    assert made.receipt.fallbacks == ("memory forgets",)
    names = [phase.name for phase in made.receipt.phases]
    assert "blank" in names, "a medium that was there before is made blank first"
    assert ("probe write" in names) == probe


def test_it_proves_itself_against_its_receipt(
    card: MemoryCard, image: NodeImage, tmp_path: Path
) -> None:
    receipt = made_on(card, image, tmp_path / "receipts").receipt
    assert is_whole(card, receipt)
    os.pwrite(card.fd, b"?", 3 * MiB)
    assert not is_whole(card, receipt)


def is_whole(card: MemoryCard, receipt: Receipt) -> bool:
    with open_target(Path(card.node)) as fresh:
        return verify_card(fresh, receipt, Quiet()).matches


def test_one_that_fails_is_blank_and_its_receipt_says_so(
    card: MemoryCard, image: NodeImage, tmp_path: Path
) -> None:
    def refuse(read: Reader, size_bytes: int) -> None:
        raise CardFaulty("it smells", hint="air it")

    with pytest.raises(CardFaulty) as caught:
        made_on(card, image, tmp_path / "receipts", refuse)
    assert "visibly blank" in caught.value.details[-1]
    assert not any(os.pread(card.fd, MiB, 0))
    ((_, receipt),) = all_receipts(TrustedFolder(tmp_path / "receipts"))
    assert receipt.result is ReceiptResult.FAULTY
    assert receipt.target.model == "DIMM"


def test_it_says_itself_that_it_cannot_be_held(card: MemoryCard) -> None:
    locked = MemoryCard(card.fd, write_protected=True)
    with pytest.raises(TargetRefused, match="write-protected"), claim(accept(locked, 0), 0):
        pytest.fail("it was held")


def test_a_batch_can_take_it(card: MemoryCard, image: NodeImage, tmp_path: Path) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-1]"\n')
    assert reasons_against(card, [], rack, Limits()) == ()
    (no_room,) = swap_refusals(card, [image.golden], rack)
    assert no_room.code is RefusalCode.NO_SWAP_ROOM
    blank = look_at(card, Slots({}), rack.folder)
    assert (blank.holds, blank.slot, blank.size_bytes) == (Holds.BLANK, None, SIZE)
    recorded(rack, Work("pi1", card, "", ""), lambda: made_on(card, image, rack.receipts.path))
    begun, ended = read_ledger(rack.folder).events
    assert isinstance(begun, Assigned)
    assert (begun.model, begun.serial, begun.card_size_bytes) == ("DIMM", "007", SIZE)
    assert read_ledger(rack.folder).state_of("pi1").verified == ended
    assert look_at(card, Slots({}), rack.folder).holds is Holds.FOREIGN


def test_what_most_kinds_answer(card: MemoryCard) -> None:
    assert options_for(card).block_bytes == DEFAULT_OPTIONS.block_bytes
    assert options_for(card).depth == DEFAULT_OPTIONS.depth
    assert card.root_port(HostTrees()) is None
    assert not card.eject()
    assert not (card.is_new or card.is_fixed or card.made_anew)
    assert card.losses == (f"{card.node} is replaced.",)


def kinds() -> set[str]:
    """Every class of ours that is a target, and the interface itself."""
    found = {"Target", "DiskFacts"}
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "Target" in text else ():
            if isinstance(node, ast.ClassDef) and "Target" in map(ast.unparse, node.bases):
                found.add(node.name)
    return found


def asked(node: ast.AST) -> list[ast.expr]:
    """The types that ``node`` tells apart, if it does such a thing."""
    if isinstance(node, ast.MatchClass):
        return [node.cls]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
        return node.args[1:]
    if isinstance(node, ast.Compare) and ast.unparse(node.left).startswith("type("):
        return node.comparators
    return []


def test_nobody_asks_which_kind_a_target_is() -> None:
    names = kinds()
    assert {"Disk", "ImageFile", "Unsuitable"} < names
    found = [
        f"{path.relative_to(PACKAGE)}:{word.lineno}: {ast.unparse(word)}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if any(name in (text := path.read_text()) for name in names)
        for node in ast.walk(ast.parse(text))
        for kind in asked(node)
        for word in ast.walk(kind)
        if isinstance(word, ast.Name) and word.id in names
    ]
    assert not found, "say it in the class of the target (imager/card/host/target.py)"
