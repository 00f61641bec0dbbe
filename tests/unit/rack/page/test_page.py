"""What the page says, and that only what has changed is said again."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest

from imager.config.rack import Rack
from imager.rack.batch.card_progress import Moment
from imager.rack.batch.outlook import outlook
from imager.rack.live.snapshot import LiveCard, LiveEnding
from imager.rack.page.lookout import Lookout, RackNow
from imager.rack.page.page import Page, Pages
from imager.rack.page.words import Bar, cell_of, run_line, trouble_of
from tests.support.liverun import moment_at, run_at
from tests.support.rackhistory import rack_with_history
from tests.support.racks import rack_in

HOSTILE = "\"'><script>document.title='caught'</script><img src=x onerror=alert(1)>{{ 7*7 }}"


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Rack:
    return rack_with_history(tmp_path_factory.mktemp("rack"), 14)


@pytest.fixture(scope="module")
def idle(rack: Rack) -> RackNow:
    return Lookout(rack).look()


def words(part: str) -> str:
    """A part as it is read: without its marks, one space between words."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", part)).split())


def of_node(page: Page, name: str) -> str:
    return words(page.parts[f"node-{name}"])


def test_without_a_run_it_shows_what_the_ledger_and_the_master_said(idle: RackNow) -> None:
    page = Pages().page(idle)
    assert page.parts["standing"] == "Nothing is at work."
    assert words(page.parts["now"]) == ""
    counts = words(page.parts["counts"])
    assert counts == "1 no card yet 9 verified 1 out of date 2 failed 1 cut short 8 joined"
    assert of_node(page, "pi1") == "2 pi1 ✓ ● , card verified, joined"
    assert of_node(page, "pi0").startswith("1 pi0 master ✓")
    todo = words(page.parts["todo"])
    assert "pi3 A4 ✗ failed byte 209715217 differs after 2 attempts" in todo
    assert "throw this card away; nothing else is wrong" in todo
    assert "pi7 B1 ✓ verified first boot failed at 30-swap: no room" in todo
    assert "pi1 " not in todo
    assert "last asked 2026-11-23 09:00 UTC" in words(page.parts["legends"])


def test_a_run_is_shown_card_by_card_and_as_a_whole(rack: Rack, idle: RackNow) -> None:
    page = Pages().page(replace(idle, run=run_at(rack, 10)))
    assert page.parts["standing"] == "rack flash: 4 of 14 done, 2 failed"
    now = words(page.parts["now"])
    assert now.startswith("since 2026-11-29 10:40 UTC")
    whole = outlook(run_at(rack, 10).cards)
    assert f'value="{round(whole.share * 1000)}"' in page.parts["now"]
    assert re.search(r"\d+ % \d+\.\d MB/s \d+:\d\d left B5 \(/dev/sdz\): blank → pi8, begins", now)
    assert now.endswith("begins in 4 s")
    assert words(page.parts["said"]) == "Warnings of this run pi2: no flock on /dev/sdd"
    assert words(page.parts["further"]) == "To be looked at: 2 Warnings: 1"
    assert of_node(page, "pi4") == "5 pi4 ▸ ● , card at work, joined write 48 % 20.0 MB/s 0:48 left"
    assert of_node(page, "pi7").endswith("card at work, does not answer check … 0:13")
    assert of_node(page, "pi9") == "3 pi9 … ● , card waiting, joined waiting"
    assert of_node(page, "pi3") == "4 pi3 ✗ ○ , card faulty, not seen yet faulty"
    assert 'value="480"' in page.parts["node-pi4"]
    assert "value" not in page.parts["node-pi7"], "how far it is cannot be told"
    counts = words(page.parts["counts"])
    assert counts == "4 verified 2 failed 1 waiting 7 at work 8 joined"
    todo = words(page.parts["todo"])
    assert todo.count("✗ faulty byte 209715217 differs after 2 attempts throw this card") == 2
    assert "pi4" not in todo, "a card that is out of date is being made anew"


@pytest.mark.parametrize(
    ("moment", "bar"),
    [
        (Moment("", 0, None, 0.0, 0, 0), Bar("begins", None, "begins …")),
        (Moment("", 0, None, 5.0, 9, 90), Bar("goes on", None, "goes on …")),
        (Moment("check pi1", 0, None, 0.9, 9, 90), Bar("check", None, "check …")),
        (Moment("check pi1", 0, 0, 1.0, 9, 90), Bar("check", None, "check … 0:01")),
        (Moment("write", 0, 10**6, 1.0, 0, 90), Bar("write", 0, "write 0 %")),
        (
            Moment("write", 10**6, 10**6, 1.0, 10**6, 3 * 10**6),
            Bar("write", 1000, "write 100 %", "1.0 MB/s", "0:02"),
        ),
        (
            Moment("write", 2 * 10**6, 10**6, 1.0, 0, 0),
            Bar("write", 1000, "write 100 %", "2.0 MB/s", "0:00"),
        ),
    ],
)
def test_how_far_a_card_is(idle: RackNow, moment: Moment, bar: Bar) -> None:
    card = LiveCard("pi1", "/dev/sdb", "A2", moment=moment)
    assert cell_of(idle.views[1], card).bar == bar
    assert cell_of(idle.views[1], replace(card, ending=LiveEnding("faulty", 3))).bar is None


def test_what_a_node_says_of_itself_is_told_whatever_its_new_card(idle: RackNow) -> None:
    good = LiveCard("pi7", "/dev/sdb", "B1", ending=LiveEnding("verified", 80))
    trouble = trouble_of(idle.views[7], good)
    assert trouble is not None
    assert trouble.found == "first boot failed at 30-swap: no room"


def test_how_far_all_cards_are(rack: Rack) -> None:
    good = LiveCard("pi0", "/dev/sdb", ending=LiveEnding("verified", 80))
    run = replace(run_at(rack), cards=(good,))
    assert run_line(run).bar == Bar("all cards", 1000, "100 %")
    line = run_line(replace(run, cardless=3))
    assert (line.bar.done, line.bar.words) == (250, "25 %")
    assert line.standing == "rack flash: 1 of 4 done"


def test_what_a_node_had_before_is_forgotten_once_its_new_card_is_good(
    rack: Rack, idle: RackNow
) -> None:
    card = LiveCard("pi3", "/dev/sdx", "A4", ending=LiveEnding("verified", 80))
    page = Pages().page(replace(idle, run=replace(run_at(rack), cards=(card,))))
    assert "pi3" not in words(page.parts["todo"])
    assert "10 verified" in words(page.parts["counts"])


def test_to_save_a_card_makes_it_no_better(rack: Rack, idle: RackNow) -> None:
    card = LiveCard("pi3", "/dev/sdx", "A4", ending=LiveEnding("saved", 80))
    page = Pages().page(replace(idle, run=replace(run_at(rack), cards=(card,))))
    assert of_node(page, "pi3").startswith("4 pi3 ✓ ○ , card saved")
    assert "9 verified" in words(page.parts["counts"])
    assert "2 failed" in words(page.parts["counts"])


def test_a_card_whose_end_nobody_knows_has_not_failed(rack: Rack, idle: RackNow) -> None:
    """Its station does not answer: it may be as good as any."""
    hint = "look at the card in desk2's slot A4"
    ending = LiveEnding("unknown", 0, "desk2 cannot be asked what became of it", hint)
    card = LiveCard("pi3", "desk2:/dev/sdx", "A4", "desk2", ending=ending)
    page = Pages().page(replace(idle, run=replace(run_at(rack), cards=(card,))))
    assert of_node(page, "pi3").startswith("4 pi3 desk2 ? ○ , card unknown")
    assert "1 unknown" in words(page.parts["counts"])
    assert f"pi3 A4 ? unknown {ending.reason} {hint}" in words(page.parts["todo"])


def test_a_card_in_another_reader_says_where(rack: Rack, idle: RackNow) -> None:
    run = run_at(rack)
    cards = (
        LiveCard("pi0", "/dev/sdb", "A1"),
        LiveCard("pi1", "/dev/sdc", "B5", "desk2", moment_at(0.5)),
        LiveCard("pi2", "/dev/sdd", ending=LiveEnding("faulty", 3, "it lies", "throw it away")),
        LiveCard("pi4", "/srv/cards/pi4.img"),
    )
    page = Pages().page(replace(idle, run=replace(run, cards=cards, cardless=3)))
    assert of_node(page, "pi0") == "1 pi0 master … ● , card waiting, joined waiting"
    assert of_node(page, "pi1").startswith("2 pi1 desk2 B5 ▸")
    assert of_node(page, "pi2").startswith("3 pi2 /dev/sdd ✗")
    assert of_node(page, "pi4").startswith("5 pi4 pi4.img …")
    assert page.parts["standing"] == "rack flash: 0 of 7 done, 1 failed"
    assert "desk2: 0 of 1 done, 0:47 left" in words(page.parts["now"])


def test_each_station_shows_its_own_readers(rack: Rack, idle: RackNow) -> None:
    cards = (
        LiveCard("pi0", "/dev/sdc", "B10", "desk2", moment_at(0.5)),
        LiveCard("pi1", "/dev/sdb", "B2", "desk2", ending=LiveEnding("verified", 80)),
        LiveCard("pi2", "desk1:/dev/sdd", "", "desk1"),
        LiveCard("pi3", "/dev/sde", "A4"),
    )
    pages = Pages()
    run = replace(run_at(rack), cards=cards)
    page = pages.page(replace(idle, run=run))
    assert page.desks == ("desk1", "desk2")
    assert words(page.parts["desk-1"]) == "pi2 /dev/sdd … , card waiting waiting"
    assert words(page.parts["desk-2"]) == (
        "B2 pi1 ✓ , card verified verified B10 pi0 ▸ , card at work write 50 % 20.0 MB/s 0:47 left"
    )
    assert "The stations" in page.main()
    farther = replace(cards[0], moment=moment_at(0.6))
    later = pages.page(replace(idle, run=replace(run, cards=(farther, *cards[1:]))))
    assert set(later.since(page)) == {"node-pi0", "desk-2", "now"}
    gone = pages.page(idle)
    assert set(gone.since(later)) == {"main"}
    assert "The stations" not in gone.main()


def test_only_what_has_changed_is_said_again(rack: Rack, idle: RackNow) -> None:
    pages = Pages()
    run = run_at(rack)
    first = pages.page(replace(idle, run=run))
    assert pages.page(replace(idle, run=run_at(rack))) is first
    farther = replace(run.cards[4], moment=moment_at(0.9))
    cards = (*run.cards[:4], farther, *run.cards[5:])
    second = pages.page(replace(idle, run=replace(run, cards=cards)))
    assert second.number != first.number
    assert set(second.since(first)) == {"node-pi4", "now"}
    third = pages.page(replace(idle, run=None, trouble="rack.toml: is gone: put it back"))
    assert {"standing", "fault", "counts"} <= set(third.since(second))
    assert "rack.toml: is gone: put it back" in third.parts["fault"]


def test_other_towers_are_another_page(tmp_path: Path, rack: Rack, idle: RackNow) -> None:
    pages = Pages()
    first = pages.page(idle)
    other = Lookout(rack_in(tmp_path, '[rack]\nnodes = "pi[0-4]"\n')).look()
    second = pages.page(other)
    assert set(second.since(first)) == {"main"}
    assert set(first.since(None)) == {"main"}
    assert "Without a place" in second.since(first)["main"]


def test_a_whole_page_has_every_part_and_no_script_of_its_own(rack: Rack, idle: RackNow) -> None:
    page = Pages().page(replace(idle, run=run_at(rack)))
    text = page.whole()
    for name, part in page.parts.items():
        assert text.count(f'id="{name}"') == 1, name
        assert part in text
    assert re.findall(r"<script[^>]*>", text) == ['<script src="page.js" defer>']
    assert "style=" not in text
    assert "<style" not in text
    assert f'data-number="{page.number}"' in text
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in text


def test_what_others_say_is_text_and_nothing_more(tmp_path: Path) -> None:
    rack = rack_with_history(tmp_path, 14, hostile=HOSTILE)
    now = Lookout(rack).look()
    for run in (None, run_at(rack, hostile=HOSTILE, stations=(HOSTILE,), command=HOSTILE)):
        page = Pages().page(replace(now, run=run, trouble=HOSTILE))
        text = page.whole()
        assert "<img" not in text
        assert text.count("<script") == 1
        assert HOSTILE in html.unescape(text), "shown as it is"


def test_a_thousand_nodes_are_put_into_words_once(tmp_path: Path) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "n[0-999]"\n')
    pages, now = Pages(), Lookout(rack).look()
    run = run_at(rack)
    first = pages.page(replace(now, run=run))
    second = pages.page(replace(now, run=run_at(rack, 1)))
    assert len(first.parts) == 1008
    same = [name for name, text in second.parts.items() if text is first.parts[name]]
    moving = sum(card.moment is not None for card in run.cards)
    assert len(same) >= 1000 - moving
    assert len(first.whole()) < 600_000
