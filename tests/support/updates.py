"""Node images of one golden image, stamped as real ones are, and receipts of their writing."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from imager.base.units import KiB, MiB
from imager.card.host.refusals import accept
from imager.card.host.target import TargetFacts
from imager.card.host.targets import target_at
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.card.receipt.receipt import ImageFacts, Receipt, ReceiptResult
from imager.card.stages import WriteOptions
from imager.disk.extents import Extent, ExtentMap
from imager.node.image import NodeImage
from imager.node.stamp.stamp import STAMP_AREA
from tests.support.cards import DISK_ID, make_image, small_layout
from tests.support.cardwriter import Loud
from tests.support.stamps import DOCUMENT, by_hand

SIZE = 24 * MiB
GOLDEN_KEY = "k" * 64
BODY = ExtentMap([Extent(2 * MiB, MiB), Extent(9 * MiB, 3 * MiB), Extent(SIZE - MiB, MiB)])
OWN = (2 * MiB + 8 * KiB, 9 * MiB + 64 * KiB, 10 * MiB, 11 * MiB + 100 * KiB)
"""Where a node differs from the golden image, 4 KiB each."""


def node_image(folder: Path, node: str, *, size: int = SIZE, key: str = GOLDEN_KEY) -> NodeImage:
    """``node``'s image in ``folder``; the golden part is the same for every node."""
    folder.mkdir(exist_ok=True)
    layout = small_layout(size)
    facts = {
        **DOCUMENT,
        "node": node,
        "golden_key": key,
        "size_bytes": size,
        "boot": [layout.boot.offset, layout.boot.length],
        "root": [layout.root.offset, layout.root.length],
    }
    own = random.Random(node)
    pieces = [(offset, own.randbytes(4 * KiB)) for offset in OWN]
    stamp = (STAMP_AREA.offset, by_hand(facts))
    image = make_image(folder, size, BODY, pieces=(stamp, *pieces), layout=layout, node=node)
    if key != GOLDEN_KEY:
        object.__setattr__(image.golden, "key", key)
    return image


def receipt_of(image: NodeImage, size_bytes: int, *, cid: str = "") -> Receipt:
    """A receipt that says ``image`` was proven on a card of ``size_bytes``."""
    return Receipt(
        node=image.node,
        result=ReceiptResult.VERIFIED,
        failure="",
        finished_at="2026-11-23T07:00:00.000Z",
        tool_version="0",
        target=TargetFacts("/dev/faulty", size_bytes, "usb", cid=cid),
        image=ImageFacts(
            image.image_id, image.golden.key, "hand-made", "0" * 64, DISK_ID, image.layout
        ),
        options=WriteOptions(4 * MiB, 2),
        cache_bypassed=True,
        fallbacks=(),
        phases=(),
        boot_files={},
        manifest=image.manifest,
    )


def main() -> None:
    """``python -m tests.support.updates FOLDER TARGET``: update a card to pi8, slowly, naming each
    phase as it begins, to be killed at any of them."""
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    image = node_image(folder / "pi8", "pi8")
    accepted = accept(target_at(target), SIZE)
    options = WriteOptions(MiB, 2)
    make_card(CardOrder(image, accepted, folder / "receipts", options=options), Loud(), update=True)


if __name__ == "__main__":
    main()
