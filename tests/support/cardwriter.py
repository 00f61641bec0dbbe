"""Writes a card slowly in a process of its own, to be killed at any phase.

``python -m tests.support.cardwriter FOLDER TARGET [PHASE]`` prints the name of each phase as it
begins and ``done`` at the end; every block takes a moment, so that there is time to hit it, and of
PHASE a long one, so that nothing else is hit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imager.base.errors import Interrupted
from imager.base.progress import Phase, Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.card.stages import WriteOptions
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.node.image import NodeImage
from tests.support.cards import make_image

SIZE = 64 * MiB
LAYOUT = Layout(SIZE, Extent(8 * MiB, 16 * MiB), Extent(24 * MiB, 40 * MiB))
BODY = ExtentMap(
    [Extent(8 * MiB, 5 * MiB), Extent(24 * MiB + 4096, 4096), Extent(40 * MiB, 9 * MiB)]
)


def card_image(folder: Path) -> NodeImage:
    """The same image every time, its golden file in ``folder``."""
    return make_image(folder, SIZE, BODY, layout=LAYOUT)


def say(line: str) -> None:
    """One line at once to whoever started us."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class SlowPhase:
    def __init__(self, block_seconds: float) -> None:
        self.block_seconds = block_seconds

    def advance(self, size_bytes: int) -> None:
        time.sleep(self.block_seconds)


class Loud(Quiet):
    """Says which phase begins and holds the work up a little, or in one of them long."""

    def __init__(self, waits_in: str = "") -> None:
        super().__init__()
        self.waits_in = waits_in

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        say(name)
        yield SlowPhase(0.5 if name == self.waits_in else 0.01)


def main() -> None:
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    (folder / "writer").mkdir(exist_ok=True)
    accepted = accept(target_at(target), SIZE)
    image = card_image(folder / "writer")
    try:
        make_card(
            CardOrder(
                image, accepted, TrustedFolder(folder / "receipts"), options=WriteOptions(MiB, 2)
            ),
            Loud(*sys.argv[3:]),
        )
    except Interrupted as error:
        say(error.hint)
        sys.exit(error.exit_code)
    say("done")


if __name__ == "__main__":
    main()
