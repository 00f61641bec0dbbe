"""Many cards at once, and the command that flashes a rack onto them.

In: a workplace and how many cards. Out: loop devices over sparse files, ``rack flash`` with each of
them named, and a look at what is really on a card afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.card.inspect.verify import open_target, verify_card
from imager.card.receipt.store import load_receipt
from tests.support.loop import Loop, loop_over, sized_file
from tests.support.workplace import Workplace

SIZE = 1400 * MiB
"""A little more than the golden image of the workplace's release."""


@contextmanager
def blank_cards(folder: Path, count: int, size_bytes: int = SIZE) -> Iterator[tuple[Loop, ...]]:
    """``count`` cards that hold nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as attached:
        files = [sized_file(folder / f"card{n}.raw", size_bytes) for n in range(count)]
        yield tuple(attached.enter_context(loop_over(file)) for file in files)


def flash_words(nodes: str, targets: Sequence[Path], *words: str) -> list[str | Path]:
    """The words of ``rack flash`` for ``nodes`` onto ``targets``, nobody asked."""
    named = [word for target in targets for word in ("--target", target)]
    return ["rack", "flash", nodes, "--yes", *words, *named]


def is_whole(store: Path, place: Workplace, receipt_name: str) -> bool:
    """Whether every byte of the receipt's map is on the medium itself."""
    receipt = load_receipt(place.rack / ".picloud/receipts" / receipt_name)
    with open_target(store) as fresh:
        return verify_card(fresh, receipt, Quiet()).matches


def first_mib(store: Path) -> bytes:
    """The first MiB of what is really stored."""
    with store.open("rb") as file:
        return file.read(MiB)


def forget(place: Workplace) -> None:
    """Make the rack one that never wrote a card."""
    for path in (place.rack / ".picloud/receipts").glob("*"):
        path.unlink()
    (place.rack / ".picloud/ledger.jsonl").unlink(missing_ok=True)
