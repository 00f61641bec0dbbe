"""How a bus uses its master: never too many programs there at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from imager.base.errors import PicloudError
from imager.base.json_fields import JsonObject
from imager.rack.master.connection import Door
from imager.stations.salt.hearing import Hearing
from imager.stations.salt.salt_bus import opened_bus

SETTLING_SECONDS = 0.5


def test_twenty_stations_do_not_come_to_the_master_all_at_once(tmp_path: Path) -> None:
    """A sshd turns some of them away then."""
    here, go = tmp_path / "here", tmp_path / "go"
    here.touch()
    waiting = f"cat >/dev/null; echo >>{here}; until [ -e {go} ]; do sleep 0.1; done"
    door = Door("it", ("sh", "-c", waiting), is_local=True)
    with opened_bus(door) as bus, ThreadPoolExecutor(20) as all_at_once:
        done = [all_at_once.submit(bus.take_back, f"desk{n}", "delta") for n in range(20)]
        while here.stat().st_size < 8:
            time.sleep(0.01)
        time.sleep(SETTLING_SECONDS)
        most = here.stat().st_size
        go.touch()
    assert most == 8
    assert [one.result() for one in done] == [None] * 20
    assert here.stat().st_size == 20


def test_one_that_never_falls_silent_holds_up_nobody(tmp_path: Path) -> None:
    endless = SimpleNamespace(next=lambda _: JsonObject({"data": {}}))
    with opened_bus(Door("it", ("true",), is_local=True)) as bus:
        bus._hearing = cast("Hearing", endless)
        before = time.monotonic()
        assert bus.heard(0.1) == []
        assert 0.1 <= time.monotonic() - before < 5
        assert bus.heard(0.0) == []


def test_a_token_counts_as_handed_when_its_script_has_ended_well(tmp_path: Path) -> None:
    heard, fails = tmp_path / "heard", tmp_path / "fails"
    fails.touch()
    door = Door("it", ("sh", "-c", f"cat >>{heard}; [ ! -e {fails} ]"), is_local=True)
    with opened_bus(door) as bus:
        for _ in range(3):  # of a master that prints no answers
            with pytest.raises(PicloudError):
                bus.ask(["desk1"], "survey", {}, seconds=1)
            fails.unlink(missing_ok=True)
    handed = [line for line in heard.read_text().splitlines() if "/token" in line and "cat" in line]
    assert len(handed) == 2, "again after the failure, and not once more"
