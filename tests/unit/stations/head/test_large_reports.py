"""A report that is larger than Salt's answers comes to the head in pieces."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.trusted_folder import TrustedFolder
from imager.node.keys.signing import rack_key
from imager.rack.history.events import Assigned, Standing
from imager.rack.history.ledger import append, read_ledger
from imager.rack.history.outcome import Outcome
from imager.stations.desk.records import Records, report_on
from imager.stations.head.collect import collect
from imager.stations.wire.bus import Document, StationAnswer
from tests.support.racks import rack_in
from tests.support.scriptbus import ScriptBus
from tests.support.starter import run_command
from tests.unit.stations.wire.test_documents import ORDER, WORK, report_of

LONG_AGO = "2026-01-01T00:00:00.000Z"


@pytest.mark.skipif(os.geteuid() != 0, reason="a station's key is root's")
def test_a_report_that_is_too_large_for_an_answer_is_collected_too(tmp_path: Path) -> None:
    rack = rack_in(tmp_path / "rack", '[rack]\nnodes = "pi[0-2]"\n')
    key = rack_key(rack).public.hex()
    works = [replace(WORK, node=f"pi{n}", path=f"/dev/sd{n}", secret=f"s{n}") for n in range(2)]
    order = replace(ORDER, rack=key, at=time.time(), cards=tuple(works))
    records = Records(TrustedFolder(tmp_path / "station"))
    with records.doing(order):
        for work, mib in zip(works, (10, 8000), strict=True):
            begun = Assigned(LONG_AGO, "b", work.node, "desk1:x", "", 0, "", "", "", 0, "desk1")
            append(rack.folder, begun)
            written = report_of(mib).receipt
            assert written is not None
            receipt = replace(written, node=work.node)
            report = report_on(order, work, Outcome.VERIFIED, None, receipt=receipt)
            records.ended(order, work, report)

    def answer(arguments: Document) -> StationAnswer:
        code, out, err = run_command(
            ["--json", "station", "reports"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PICLOUD_STATION": str(tmp_path / "station")},
            stdin=json.dumps(dict(arguments)) + "\n\n",
            seconds=60,
        )
        assert code == 0, out + err
        return StationAnswer(json.loads(out.splitlines()[-1]))

    desk = ScriptBus({"desk1": answer})
    found = collect(rack, desk, ["desk1"], ended={"desk1": ["b"]})["desk1"]
    assert not found.fault
    assert found.closed == ("b",)
    assert (tmp_path / "station/work/b.closed").exists()
    assert [one.report.node for one in found.settled] == ["pi0", "pi1"]
    ledger = read_ledger(rack.folder)
    assert all(ledger.state_of(node).standing() is Standing.VERIFIED for node in ("pi0", "pi1"))
    assert [asked.get("large") for _, _, asked in desk.asked] == [None, "b.1+pi1", None]
    assert not list((tmp_path / "station/work").glob("*.json")), "the station may forget both"
