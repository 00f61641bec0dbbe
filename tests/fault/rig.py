"""Makes one card under one fault and looks at everything that came of it.

In: a Case. Out: a Seen, with what the program said, what the receipt says, and what is really on
the card and on the healthy card beside it. ``faults_of`` compares it with what must be so.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from imager.base.errors import PicloudError
from imager.base.progress import Phase as ProgressPhase
from imager.base.progress import Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.bootcheck.check import check_boot
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder, SourceOrder
from imager.card.make.pour import make_poured_card
from imager.card.receipt.receipt import Receipt, ReceiptResult
from imager.card.receipt.store import all_receipts
from imager.card.source.opened import WantedImage, opened_source
from imager.node.image import NodeImage
from tests.fault.cases import Case, Outcome, Phase
from tests.support.bootdisk import reading
from tests.support.faultcard import FaultCard, fault_card
from tests.support.loop import Loop, loop_over, sized_file
from tests.support.smallcard import (
    LAYOUT,
    SIZE,
    Position,
    boot_check,
    first_mib,
    is_whole,
    positions,
    small_card,
)

_PHASES = {
    "blank": Phase.ZEROING,
    "write": Phase.BODY,
    "image": Phase.BODY,
    "end": Phase.BODY,
    "table": Phase.TABLE,
}
_RESULTS = {
    0: ReceiptResult.VERIFIED,
    21: ReceiptResult.FAULTY,
    22: ReceiptResult.IO_ERROR,
    24: ReceiptResult.FAKE_CAPACITY,
}
_BYSTANDER = 8 * MiB
UNBLANKABLE = "do not use this card, whatever it seems to hold"


class Herald(Quiet):
    """Tells the card which phase the engine has come to, and keeps what a person would read.

    From the first diagnosis on everything belongs to the repair.
    """

    def __init__(self, card: FaultCard) -> None:
        self.card = card
        self.said: list[str] = []
        self._mending = False

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[ProgressPhase]:
        if not self._mending:
            self.card.phase(_PHASES.get(name, Phase.READ))
        try:
            with super().phase(name, total_bytes) as phase:
                yield phase
        finally:
            if name == "diagnose" and not self._mending:
                self._mending = True
                self.card.phase(Phase.REPAIR)

    def note(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append(message)


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one case. ``struck`` is how often its fault did."""

    case: Case
    position: Position | None
    error: PicloudError | None
    receipt: Receipt | None
    said: tuple[str, ...]
    struck: int
    blank: bool
    whole: bool
    trusted_by: tuple[str, ...]
    bystander_same: bool

    @property
    def exit_code(self) -> int:
        return self.error.exit_code if self.error else 0

    @property
    def outcome(self) -> str:
        """In the words of the table."""
        if self.error is not None:
            found = [o for o in Outcome if o.exit_code == self.exit_code]
            return found[0] if found else f"{self.exit_code}: {self.error.what}"
        trouble = self.receipt.trouble if self.receipt else None
        if trouble is None:
            repeated = any("took it at the second try" in line for line in self.said)
            return Outcome.REPEATED if repeated else Outcome.GOOD
        return Outcome.MENDED if trouble.found else Outcome.LIED


@dataclass
class Rig:
    """A fault card with a healthy card beside it, an image, and a dirty past. Where there is a
    ``source``, a file with the same bytes, the card is made from that."""

    card: FaultCard
    bystander: Loop
    image: NodeImage
    places: tuple[Position, ...]
    past: bytes
    folder: Path
    source: Path | None = None

    def run(self, case: Case, *, seconds: float | None = None) -> Seen:
        """Make the card of ``case``; its faults are gone afterwards."""
        place = next((p for p in self.places if p.name == case.position), None)
        self._make_dirty()
        receipts = Path(mkdtemp(prefix="receipts-", dir=self.folder))  # others have this case too
        beside = self.bystander.backing.read_bytes()
        up, down = case.holds_fraction
        self.card.phase("")
        self.card.arm(
            case.faults(place.extent) if place else (),
            real_bytes=0 if up == down else SIZE * up // down,
            keeps_beyond=case.keeps_beyond,
        )
        herald, error = Herald(self.card), None
        try:
            self._make(TrustedFolder(receipts), herald, probe=case.probe)
        except PicloudError as caught:
            error = caught
        self.card.phase("")
        self.card.counts()
        struck = self.card.fired[-1] if self.card.fired else 0
        self.card.arm()  # what is stored can now be looked at, as in another reader
        found = [receipt for _, receipt in all_receipts(TrustedFolder(receipts))]
        return Seen(
            case=case,
            position=place,
            error=error,
            receipt=found[0] if len(found) == 1 else None,
            said=tuple(herald.said),
            struck=struck,
            blank=not any(first_mib(self.card.store)),
            whole=is_whole(self.card.store, self.image),
            trusted_by=tuple(self._trusted_by()),
            bystander_same=self.bystander.backing.read_bytes() == beside,
        )

    def _make(self, receipts: TrustedFolder, herald: Herald, *, probe: bool) -> None:
        accepted, check = accept(target_at(self.card.node), SIZE), boot_check(self.image)
        if self.source is None:
            order = CardOrder(self.image, accepted, receipts, check=check)
            make_card(order, herald, probe=probe)
            return
        with opened_source(WantedImage(str(self.source))) as opened:
            make_poured_card(
                SourceOrder(opened.source, SIZE, accepted, receipts, check=check),
                herald,
                probe=probe,
            )

    def _make_dirty(self) -> None:
        """The card's former life: noise everywhere, and another card's partition table."""
        with self.card.store.open("r+b") as file:
            for _ in range(SIZE // len(self.past)):
                file.write(self.past)

    def _trusted_by(self) -> Iterator[str]:
        """Who would take the card for one that holds something."""
        yield from trusted_by(self.card.node, self.card.store)


def trusted_by(node: Path, store: Path) -> Iterator[str]:
    """Which of blkid, sfdisk and the boot check see something on a card."""
    if subprocess.run(["blkid", "-p", str(node)], capture_output=True, check=False).returncode == 0:
        yield "blkid"
    if (
        subprocess.run(["sfdisk", "-d", str(node)], capture_output=True, check=False).returncode
        == 0
    ):
        yield "sfdisk"
    with reading(store) as read:
        if check_boot(read, SIZE).models:
            yield "the boot check"


def faults_of(seen: Seen) -> Iterator[str]:
    """Everything about ``seen`` that is not as it must be."""
    case, error = seen.case, seen.error
    if seen.outcome != case.outcome:
        yield f"it came to {seen.outcome!r}: {error.what if error else ''}"
    if case.kind and not seen.struck:
        yield "the fault never struck"
    if not seen.bystander_same:
        yield "the other card was touched"
    if error is None and not seen.whole:
        yield "it was called good and is not"
    yield from _about_receipt(seen)
    yield from _about_state(seen)
    named = case.named(seen.position.words) if seen.position else ""
    if named not in everything_said(seen):
        yield f"{named!r} is not named: {everything_said(seen)}"


def everything_said(seen: Seen) -> str:
    """What a person is told, and what the receipt keeps."""
    words = list(seen.said)
    if seen.error is not None:
        words += [seen.error.what, *seen.error.details]
    if seen.receipt is not None and seen.receipt.trouble is not None:
        words.append(json.dumps(seen.receipt.trouble.to_json(), ensure_ascii=False))
    return "\n".join(words)


def _about_receipt(seen: Seen) -> Iterator[str]:
    if seen.receipt is None:
        yield "there is not exactly one receipt"
        return
    if seen.receipt.result is not _RESULTS.get(seen.exit_code):
        yield f"the receipt says {seen.receipt.result} for exit code {seen.exit_code}"
    if seen.error is not None and seen.receipt.failure != seen.error.what:
        yield f"the receipt tells another story: {seen.receipt.failure}"


def _about_state(seen: Seen) -> Iterator[str]:
    """Blank or whole, or at least honest about being neither."""
    if seen.error is None:
        return
    said = " ".join(seen.error.details)
    if UNBLANKABLE in said:
        return
    if "visibly blank" not in said:
        yield f"the error does not tell the card's state: {said}"
    if not seen.blank:
        yield "the card is not blank"
    if seen.trusted_by:
        yield f"the card still means something to {', '.join(seen.trusted_by)}"


@contextmanager
def rig(folder: Path) -> Iterator[Rig]:
    """Everything for a run of cases; taken down at the end."""
    folder.mkdir(exist_ok=True)
    (folder / "image").mkdir()
    (folder / "past").mkdir()
    image = small_card(folder / "image")
    past = _past(folder / "past")
    beside = sized_file(folder / "beside", _BYSTANDER, b"\x3c\xc3" * 512)
    with fault_card(folder / "card", SIZE) as card, loop_over(beside) as bystander:
        yield Rig(card, bystander, image, positions(image), past, folder)


def _past(folder: Path) -> bytes:
    """A MiB of another card's noise that begins with its partition table."""
    with small_card(folder, seed=2).open() as reader:
        kernel = reader.read(LAYOUT.boot.offset + MiB, MiB)
        return reader.read(0, 512) + kernel[512:]
