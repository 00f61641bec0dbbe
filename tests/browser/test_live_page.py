"""The page of ``rack serve`` as a person sees it, in a real browser, while a run is at work."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from imager.config.rack import Rack
from imager.rack.live.snapshot import LiveEnding, LiveRun
from imager.rack.page.feed import Feed
from imager.rack.page.lookout import Lookout
from imager.rack.page.page import STYLE, Pages
from tests.support.chromium import Look, fits, look, missing_programs
from tests.support.liverun import at_work, moment_at, run_at, show_run
from tests.support.rackhistory import rack_with_history
from tests.support.racks import rack_in
from tests.support.served import served

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing_programs()), reason=missing_programs()),
]

HOSTILE = "\"'><script>document.title='caught'</script><img src=x onerror=alert(1)>{{ 7*7 }}"
LONG = "/srv/" + "images" * 30 + "/pi.img"
PHONE, SCREEN = 390, 1280
STAYS = "--virtual-time-budget=2000"
"""Chromium's clock stands still while it waits for a server, and that is always with this page: so
it looks until the server ends, and not so much longer that it would try again."""


def seen_live(
    rack: Rack, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None], until: str
) -> Look:
    """What the page has become when ``meanwhile`` is done, an event with ``until`` in it was sent,
    and the server ends."""
    listens, sent = threading.Event(), threading.Event()
    changes = Feed.changes

    async def heard(self: Feed, number: str) -> AsyncIterator[str]:
        listens.set()
        async for event in changes(self, number):
            yield event
            if until in event:
                sent.set()

    monkeypatch.setattr(Feed, "changes", heard)
    found: list[Look] = []
    with served(rack) as port:
        url = f"http://127.0.0.1:{port}/"
        looking = threading.Thread(target=lambda: found.append(look(url, STAYS, "--dump-dom")))
        looking.start()
        assert listens.wait(60)
        meanwhile()
        assert sent.wait(60)
    looking.join()
    for address in found[0].asked:
        assert address.startswith(url)
    return found[0]


@pytest.mark.parametrize("count", [14, pytest.param(56, marks=pytest.mark.long(minutes=7))])
def test_it_keeps_itself_up_to_date_and_what_others_say_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    rack = rack_with_history(tmp_path, count)
    last = run_at(rack, 10, hostile=HOSTILE, stations=(HOSTILE,), command=HOSTILE)
    with at_work(rack.folder):
        show_run(rack, run_at(rack, stations=(HOSTILE,)))  # so that only parts are sent later
        seen = seen_live(rack, monkeypatch, lambda: show_run(rack, last), "write 48 %")
    its = re.search(r'<li id="node-pi4">.*?</li>', seen.printed, re.DOTALL)
    assert its is not None
    now = '<span>write 48 %</span><span class="rate">20.0 MB/s</span><span class="left">0:48'
    assert now in its[0], "at first: 28 %"
    moving = sum(card.moment is not None for card in last.cards)
    assert seen.printed.count("<progress") == 1 + 2 * moving, "in its tower, and at its station"
    assert "The connection is lost: what is shown is of " in seen.printed
    assert "<title>Rack picloud, now</title>" in seen.printed
    assert "<img" not in seen.printed
    assert seen.printed.count("<script") == 1
    assert "{{ 7*7 }}" in seen.printed, "shown as it is"
    assert not [line for line in seen.console if "ERR_" not in line], "nothing was refused"


def alone(rack: Rack, out: Path, run: LiveRun | None) -> Path:
    """The page of ``rack`` as one file, for a browser that is to measure it."""
    page = Pages().page(replace(Lookout(rack).look(), run=run))
    text = page.whole().replace('<script src="page.js" defer></script>', "")
    out.write_text(
        text.replace('<link rel="stylesheet" href="page.css">', f"<style>{STYLE}</style>")
    )
    return out


def test_nothing_moves_while_cards_wait_are_made_and_end(tmp_path: Path) -> None:
    rack = rack_with_history(tmp_path / "rack", 14)
    run = replace(run_at(rack, stations=("desk1", "desk2")), offers=(), said=())
    faulty = LiveEnding("faulty", 95, "byte 209715217 differs after 2 attempts", "throw it away")
    states = (
        (None, None),
        (moment_at(0.0, "check"), None),
        (moment_at(0.04), None),
        (moment_at(1.0, "read back", 1230e6), None),
        (None, LiveEnding("verified", 81)),
        (None, faulty),
    )
    pages = []
    for number, (moment, ending) in enumerate(states):
        cards = tuple(replace(card, moment=moment, ending=ending) for card in run.cards)
        said = ("pi2: no flock on /dev/sdd",) * number
        now = replace(run, cards=cards, said=said)
        pages.append(alone(rack, tmp_path / f"{number}.html", now))
    found = fits(pages, tmp_path, [PHONE, SCREEN])
    for width in (0, 1):
        first, *others = (fit.tops for fit in found[width::2])
        below = {"todo", "said", "link", *(name for name in first if name.startswith("todo-"))}
        assert len(first.keys() - below) > 14, "what is below may grow"
        for tops in others:
            assert [name for name in first.keys() - below if tops[name] != first[name]] == []


LONG_NAMES = f"""
[rack]
name = "{"r" * 60}"
nodes = "raspberry-of-the-third-laboratory-on-the-second-floor-number-[0-9]"
master = "salt.{"m" * 50}.example.org"
"""
TALL = """
[rack]
name = "tall"
nodes = "pi[0-27]"
slots = "A[1-14],B[1-14]"
master = "pi0"
"""


def test_nothing_is_lost_on_a_phone_and_on_a_screen(tmp_path: Path) -> None:
    large = rack_with_history(tmp_path / "large", 56)
    long = rack_in(tmp_path / "long", LONG_NAMES)
    told = rack_with_history(tmp_path / "told", 14, hostile=LONG)
    tall = rack_in(tmp_path / "tall", TALL)
    desks = ("desk1", "desk2", "desk3", "desk-" + "x" * 50)
    pages = [
        alone(large, tmp_path / "1.html", run_at(large, 7, stations=desks)),
        alone(large, tmp_path / "2.html", None),
        alone(long, tmp_path / "3.html", run_at(long, 7, stations=desks)),
        alone(told, tmp_path / "4.html", run_at(told, 7, hostile=LONG)),
        alone(tall, tmp_path / "5.html", run_at(tall, 7, stations=desks)),
    ]
    bad = tmp_path / "bad.html"
    bad.write_text(f"<p>{LONG}</p>")
    *good, caught = fits([*pages, bad], tmp_path, [PHONE, SCREEN])[:-1]
    assert [fit.columns for fit in good] == [PHONE, SCREEN] * 5
    for fit in good:
        assert fit.loses_nothing, fit
    assert not caught.loses_nothing, "what stands out would be seen"
