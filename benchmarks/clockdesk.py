"""``python -m benchmarks.clockdesk CARDS SECONDS WORD…``: a station whose cards are a clock.

In: how many blank cards there are, how long one takes, and the words of ``picloud-image``. Out:
what a station says of such cards. Only readers and engine are replaced: orders, records, reports
and what is said meanwhile are the program's own.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from imager.base.cache import Cache
from imager.base.errors import NotAuthentic
from imager.base.json_fields import JsonObject
from imager.base.programs import tool_version
from imager.base.progress import Progress
from imager.base.units import GiB, MiB
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import TargetFacts
from imager.card.make.finish import MadeCard
from imager.card.receipt.store import save_receipt
from imager.card.stages import WriteOptions
from imager.cli.main import main
from imager.cli.stations import station
from imager.disk.extents import ExtentMap
from imager.disk.manifest import Manifest
from imager.image.compose.golden import GoldenImage
from imager.rack.batch.card_progress import CardBoard
from imager.rack.plan.candidates import Holds
from imager.stations.desk import work
from imager.stations.desk.records import Records
from imager.stations.desk.work import DeskCrew, DeskJob
from imager.stations.wire.golden import Bring
from imager.stations.wire.order import GoldenWanted, golden_from
from imager.stations.wire.survey import Survey, SurveyedCard
from tests.support.cards import small_layout
from tests.support.rackhistory import receipt_of

SIZE = 2 * GiB
_MOVED = 600 * MiB


def _survey(cards: int, asked: JsonObject, _: Records, __: Cache, ___: HostTrees) -> Survey:
    wanted = [golden_from(child) for child in asked.children("goldens")]
    found = (
        SurveyedCard(
            TargetFacts(f"/dev/clock{number}", SIZE, "usb", diskseq=number + 1),
            f"clock {number}",
            Holds.BLANK,
            "blank",
            None,
            None,
            None,
        )
        for number in range(cards)
    )
    goldens = {golden.key: golden.digest for golden in wanted}
    return Survey(tool_version(), time.time(), SIZE, goldens, tuple(found), ())


def _golden(wanted: GoldenWanted, _: Cache, __: Bring, ___: Progress) -> GoldenImage:
    nothing = Manifest(SIZE, ExtentMap([]), ())
    layout = small_layout(SIZE)
    release = wanted.release_sha256
    return GoldenImage(Path("/"), wanted.key, "clock", release, ("pi2",), layout, nothing, {})


class _ClockCrew(DeskCrew):
    seconds = 0

    def _port(self, job: DeskJob) -> str | None:
        del job
        return None

    def _make(self, job: DeskJob, board: CardBoard, options: WriteOptions) -> MadeCard:
        del options
        if self._deltas.pop(job.card.secret, None) is None:
            raise NotAuthentic(f"nothing was handed over for {job.name}", hint="look why")
        board.expect(2 * _MOVED)
        for name in ("write", "read back"):
            with board.phase(name, _MOVED) as phase:
                for _ in range(self.seconds // 2):
                    time.sleep(1)
                    phase.advance(_MOVED // (self.seconds // 2))
                    board.require_going_on()
        receipt = receipt_of(job.name, 0)
        image = replace(receipt.image, image_id=job.card.image_id)
        receipt = replace(receipt, image=image)
        return MadeCard(receipt, save_receipt(receipt, self._desk.records.receipts))


if __name__ == "__main__":
    cards, _ClockCrew.seconds = map(int, sys.argv[1:3])
    del sys.argv[1:3]
    vars(station)["survey_of"] = partial(_survey, cards)
    vars(work)["take_golden"] = _golden
    vars(work)["DeskCrew"] = _ClockCrew
    main()
