"""An image that is none of ours on a real block device, with sectors of 512 and of 4096 bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from imager.base.progress import Quiet
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.inspect.verify import open_target, verify_card
from imager.card.make.order import SourceOrder
from imager.card.make.pour import make_poured_card
from imager.card.source.opened import WantedImage, opened_source
from tests.support.loop import loop_over, missing_abilities, sized_file
from tests.support.smallcard import LAYOUT, SIZE, small_card

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]
RAID = b"\xfc\x4e\x2b\xa9\x01\x00\x00\x00"


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_a_card_with_a_past(tmp_path: Path, sector_bytes: int) -> None:
    """It is proven, and nothing of its past shows through at the end of a partition."""
    (tmp_path / "image").mkdir()
    source = tmp_path / "any.img"
    with small_card(tmp_path / "image").open() as reader:
        source.write_bytes(reader.read(0, SIZE))
    card = sized_file(tmp_path / "card", SIZE + 16 * MiB, b"\xa5\x5a" * 256)
    labels = [where.end - 8192 for where in (LAYOUT.boot, LAYOUT.root)]
    with card.open("r+b") as file:
        for label in labels:
            file.seek(label)
            file.write(RAID)
    receipts = TrustedFolder(tmp_path / "receipts")
    with (
        loop_over(card, sector_bytes=sector_bytes) as loop,
        opened_source(WantedImage(str(source))) as opened,
    ):
        order = SourceOrder(opened.source, SIZE, accept(target_at(loop.node), SIZE), receipts)
        made = make_poured_card(order, Quiet(), probe=True)
        with open_target(loop.node) as fresh:
            assert verify_card(fresh, made.receipt, Quiet()).matches
            assert [fresh.reader()(label, len(RAID)) for label in labels] == [bytes(len(RAID))] * 2
    assert made.receipt.cache_bypassed
    assert made.receipt.manifest.extents.total_bytes < 48 * MiB
