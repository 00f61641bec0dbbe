"""The page of ``rack serve`` while 56 cards are made at four stations: the Salt, the cards and the
browser are real, on a phone and on a screen. Its pictures are kept in ``build/page``."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from imager.rack.history.events import Standing
from imager.rack.history.ledger import read_ledger
from imager.rack.report.badges import CARD_BADGES
from tests.support.chromium import MEASURE, Fit, missing_programs
from tests.support.deskrack import DeskRack, desk_rack
from tests.support.devtools import Browser, browser
from tests.support.rackcards import is_whole
from tests.support.salt import ROOT, SaltPrograms
from tests.support.served import serving
from tests.support.slowcard import all_throttled, no_throttle
from tests.support.telling import Tell

WHY_NOT = missing_programs() or no_throttle()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.salt,
    pytest.mark.long(minutes=10),
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]
DESKS, CARDS = 4, 14
ALL = DESKS * CARDS
NODES = [f"pi{number}" for number in range(ALL)]
EACH = [f"desk{number // CARDS + 1}" for number in range(ALL)]
SLOTS = {f"D{desk + 1}S{slot}" for desk in range(DESKS) for slot in range(CARDS)}
WRITE_BPS, READ_BPS = 500_000, 1_000_000
"""A card of the tests' small release, 33 MB, then takes more than a minute: all are at work at
once, also where the last station begins half a minute after the first."""
PHONE, SCREEN = 390, 1280
SECONDS = 900.0
PICTURES = ROOT / "build" / "page"
REMEMBERS = """
shown = {}, longest = {task: 0, pause: 0};
let last = 0;
new PerformanceObserver((all) => all.getEntries().forEach((one) => {
  longest.task = Math.max(longest.task, one.duration);
})).observe({type: "longtask"});
new MutationObserver(() => {
  const cells = document.querySelectorAll(".desk .cell:has(.rate:not(:empty))");
  if (last) longest.pause = Math.max(longest.pause, performance.now() - last);
  last = cells.length && performance.now();
  for (const cell of cells)
    (shown[cell.querySelector(".place").textContent] ??= []).push(
      cell.querySelector(".under span").textContent);
}).observe(document.querySelector("main"), {subtree: true, childList: true});
"""
"""Keeps what each slot has shown beside a rate; gone with a reload, as every variable is."""
MOVING = "document.querySelectorAll('.desk .under:has(progress[value]) .rate:not(:empty)').length"
CARDS_SHOWN = """
Object.fromEntries([...document.querySelectorAll(".towers [id^=node-]")].map((each) =>
  [each.id.slice(5), each.querySelector(".said").textContent.split(", ")[1].replace("card ", "")]))
"""


@contextmanager
def flashing(desks: DeskRack) -> Iterator[subprocess.Popen[bytes]]:
    """All cards are being made, by the command on the head."""
    words = desks.command("rack", "flash", f"pi[0-{ALL - 1}]", "--stations", "desk[1-4]", "--yes")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as head:
        try:
            yield head
        finally:
            head.kill()


def fit(its: Browser) -> Fit:
    """How the page that is open fits its screen."""
    return Fit(**its.value(f"({MEASURE})(window)"))


def test_56_cards_at_four_stations_on_a_phone_and_on_a_screen(
    tmp_path: Path, salt_programs: SaltPrograms, tell: Tell
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        desks = held.enter_context(desk_rack(tmp_path, salt_programs, desks=DESKS, cards=CARDS))
        held.enter_context(all_throttled(desks.cards, write_bps=WRITE_BPS, read_bps=READ_BPS))
        said = desks.run("rack", "stations", "install", f"desk[1-{DESKS}]")
        assert said.code == 0, said.err + said.out
        rack = desks.place.rack
        _, address = held.enter_context(serving(rack, "--listen", "127.0.0.1:0"))
        screens = {width: held.enter_context(browser()) for width in (PHONE, SCREEN)}
        for width, its in screens.items():
            its.open(address.strip(), width)
            its.until("link.textContent === 'This page keeps itself up to date.'")
            its.value(REMEMBERS)
        head = held.enter_context(flashing(desks))
        for width, its in screens.items():
            its.until(f"{MOVING} === {ALL}", SECONDS)
            its.picture(PICTURES / f"at-work-{width}.png")
            found = fit(its)
            assert found.columns == width
            assert found.loses_nothing, found
        assert head.wait(SECONDS) == 0
        is_said = desks.place.json("rack", "show").result["nodes"]
        ledger = read_ledger(rack)
        ends = {node: ledger.state_of(node) for node in NODES}
        on = {f"{desk}:{loop.node}": loop for desk, loop in zip(EACH, desks.cards, strict=True)}
        for end in ends.values():
            assert end.standing() is Standing.VERIFIED
            assert end.last is not None
            assert is_whole(on.pop(end.last.target).backing, desks.place, end.last.receipt)
        assert not on, "each card is of one node"
        for width, its in screens.items():
            its.until("standing.textContent === 'Nothing is at work.'", SECONDS)
            its.picture(PICTURES / f"done-{width}.png")
            found = fit(its)
            assert found.loses_nothing, found
            told = {
                one["node"]: CARD_BADGES[Standing(one["card"]["standing"])].word for one in is_said
            }
            assert its.value(CARDS_SHOWN) == told == dict.fromkeys(NODES, "verified")
            seen = its.value("shown")
            assert seen.keys() == SLOTS
            for slot, words in seen.items():
                assert len({*words}) > 5, f"{slot} does not move: {words}"
                phases = {re.sub(r" \d+ %$", "", each) for each in words}
                assert phases >= {"write", "read back"}, f"{slot}: {phases}"
            tell(f"{width} px: longest {its.value('longest')} ms")
