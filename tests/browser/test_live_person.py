"""Somebody looks at the page of ``rack serve`` for a while: without scripts, and while the
connection goes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.chromium import missing_programs
from tests.support.devtools import browser
from tests.support.liverun import at_work, run_at, show_run
from tests.support.rackhistory import rack_with_history
from tests.support.served import served, serving

pytestmark = [
    pytest.mark.browser,
    pytest.mark.long(minutes=7),
    pytest.mark.skipif(bool(missing_programs()), reason=missing_programs()),
]
SHOWN = "document.getElementById('node-pi4').textContent.includes('write {} %')"
SHIFTS = """
shifts = []; new PerformanceObserver((all) => shifts.push(
  ...all.getEntries().map((one) => one.sources.map((it) => it.node?.id || it.node?.className))
)).observe({type: "layout-shift"})
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_loaded_anew_by_itself_where_scripts_are_off(tmp_path: Path, width: int) -> None:
    rack = rack_with_history(tmp_path, 56)
    desks = ("desk1", "desk2", "desk3", "desk4")
    with at_work(rack.folder), served(rack) as port, browser() as its:
        show_run(rack, run_at(rack, stations=desks))
        its.ask("Emulation.setScriptExecutionDisabled", value=True)
        its.open(f"http://127.0.0.1:{port}/", width)
        assert its.value(SHOWN.format(28))
        assert its.value("document.body.innerText.includes('loaded anew every 5 seconds')")
        its.value("scrollTo(0, 700)")
        show_run(rack, run_at(rack, 10, stations=desks))
        its.loaded()
        assert its.value(SHOWN.format(48))
        assert its.value("document.getElementById('todo').textContent.includes('throw this card')")
        its.until("scrollY === 700")


def test_a_connection_that_goes_is_told_and_comes_back(tmp_path: Path) -> None:
    rack = rack_with_history(tmp_path, 14)
    with at_work(rack.folder), browser() as its:
        show_run(rack, run_at(rack, stations=("desk1",)))
        with serving(rack.folder, "--listen", "127.0.0.1:0") as (server, address):
            its.open(address.strip(), 390)
            its.until("link.textContent === 'This page keeps itself up to date.'")
            its.value(SHIFTS)
            its.value("document.querySelector('#node-pi3 a').focus()")
            show_run(rack, run_at(rack, 10, stations=("desk1",)))
            its.until(SHOWN.format(48))
            assert its.value("document.activeElement.hash") == "#todo-pi3"
            assert its.value("shifts") == []
            server.send_signal(signal.SIGINT)
        its.until("link.textContent.startsWith('The connection is lost: what is shown is of ')")
        assert its.value("link.getBoundingClientRect().bottom === innerHeight"), "is seen at once"
        show_run(rack, run_at(rack, 20, stations=("desk1",)))
        with serving(rack.folder, "--listen", address.split("/")[2]):
            its.until(SHOWN.format(68))
            its.until("document.body.className === ''")
