"""One card made by a desk, in this process: what was ordered is on it, and reported."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.trusted_folder import TrustedFolder
from imager.card.host.disks import disk_named
from imager.rack.batch.workers import CardResult
from imager.rack.history.outcome import Outcome
from imager.stations.desk.desk import Desk
from imager.stations.desk.records import Records
from imager.stations.desk.work import work
from imager.stations.wire.golden import lay_out_pieces
from imager.stations.wire.report import StationProgress
from tests.support.deskcard import ordered_card
from tests.support.loop import loop_over, missing_abilities, sized_file
from tests.support.smallcard import SIZE, first_mib, is_whole

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]


def test_a_card_is_made_and_reported(tmp_path: Path) -> None:
    ordered = ordered_card(tmp_path / "head")
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    lay_out_pieces(ordered.golden, pieces)
    said: list[StationProgress] = []

    def bring(name: str) -> Path:
        return shutil.copyfile(pieces / name, tmp_path / name)

    records = Records(TrustedFolder(tmp_path / "station"))
    desk = Desk(records, Cache(tmp_path / "cache"), bring, said.append)
    with loop_over(sized_file(tmp_path / "card", SIZE)) as loop:
        disk = disk_named(loop.name)
        card = replace(ordered.card, path=str(loop.node), diskseq=disk.diskseq or 0)
        order = replace(ordered.order, cards=(card,))
        secrets = {card.secret: ordered.packed}
        (result,) = work(desk, order, secrets)
        assert result.outcome is Outcome.VERIFIED, result.error
        assert is_whole(loop.backing, ordered.image)
        (report,) = records.hand_over(order.rack, ()).reports
        digest = hashlib.sha256(first_mib(loop.backing)).hexdigest()
        again = replace(order, job="b.2", probe=False, cards=(replace(card, first_mib=digest),))
        (second,) = work(desk, again, {card.secret: ordered.packed})
        blank = replace(order, job="b.3", cards=(replace(card, first_mib="0" * 64),))
        (refused,) = work(desk, blank, {card.secret: ordered.packed})
        assert is_whole(loop.backing, ordered.image)
    assert secrets == {}
    assert report.receipt == result.receipt
    assert phases(result) >= {"probe read", "write", "read back"}
    assert records.receipt(result.receipt_name) == report.receipt
    assert second.outcome is Outcome.VERIFIED, second.error
    assert not any(phase.startswith("probe") for phase in phases(second))
    assert refused.outcome is Outcome.REFUSED, "somebody wrote on it after the survey"
    expected = {one.moment.expected_bytes for progress in said for one in progress.moments}
    # Progress is told once a second, which a card as small as this may not last.
    assert expected <= {0, 2 * ordered.image.manifest.extents.total_bytes}
    assert [progress.ended for progress in said if progress.ended] == [("pi7",)] * 3


def phases(result: CardResult) -> set[str]:
    assert result.receipt is not None
    return {phase.name for phase in result.receipt.phases}
