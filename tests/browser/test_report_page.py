"""The report as a person sees it: in a real browser, on a screen and on paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imager.rack.report.report import render_report
from tests.support.chromium import corner_colour, look, missing_programs, paper, picture
from tests.support.rackhistory import rack_with_history

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing_programs()), reason=missing_programs()),
]

HOSTILE = "\"'><script>document.title='caught'</script><img src=x onerror=alert(1)>{{ 7*7 }}"


@pytest.fixture(scope="module", params=[14, 56])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    rack = rack_with_history(folder / "rack", request.param)
    path = folder / "report.html"
    path.write_text(render_report(rack, "2026-11-25 04:00 UTC"))
    return path


def nodes_of(page: Path) -> list[str]:
    return [f"pi{number}" for number in range(page.read_text().count('<article class="node"'))]


def test_every_node_is_there_and_the_console_is_silent(page: Path) -> None:
    seen = look(page, "--dump-dom")
    nodes = nodes_of(page)
    assert len(nodes) in (14, 56)
    for name in nodes:
        assert seen.printed.count(f'id="node-{name}"') == 1
        assert seen.printed.count(f'href="#node-{name}"') >= 1
    drawn = seen.printed.count("<svg")
    assert drawn == sum(int(name[2:]) % 10 != 6 for name in nodes), "a curve for each card"
    assert seen.console == []


def test_nothing_is_asked_of_anybody(page: Path) -> None:
    assert look(page, "--dump-dom").asked == []


def test_a_page_that_asks_and_complains_would_be_caught(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('no')</script>")
    seen = look(bad, "--dump-dom")
    assert "http://127.0.0.1:9/x.png" in seen.asked
    assert any("no" in line for line in seen.console)


def test_it_is_light_or_dark_as_the_person_likes(page: Path, tmp_path: Path) -> None:
    light = corner_colour(picture(page, tmp_path / "light.png", 1280, 900))
    dark = "--blink-settings=preferredColorScheme=0"
    night = corner_colour(picture(page, tmp_path / "dark.png", 1280, 900, dark))
    assert min(light) > 200
    assert max(night) < 60


def test_it_prints_on_a4_with_every_node_and_label(page: Path, tmp_path: Path) -> None:
    facts, text = paper(page, tmp_path / "report.pdf")
    assert re.search(r"Page size:\s+59[45]\S* x 84[12]\S* pts \(A4\)", facts)
    pages = text.split("\f")
    labels = next(n for n, one in enumerate(pages) if "Labels for the cards" in one)
    articles, sheet = "".join(pages[:labels]), "".join(pages[labels:])
    for name in nodes_of(page):
        assert re.search(rf"\b{name}\b", articles)
        assert re.search(rf"\b{name}\b", sheet)
    assert len(pages) - 1 <= 4 + len(nodes_of(page)) / 4, "paper is not wasted"


def test_what_a_card_says_of_itself_is_text_and_nothing_more(tmp_path: Path) -> None:
    rack = rack_with_history(tmp_path / "rack", 14, hostile=HOSTILE)
    page = tmp_path / "report.html"
    page.write_text(render_report(rack, "2026-11-25 04:00 UTC"))
    seen = look(page, "--dump-dom")
    assert "<script" not in seen.printed
    assert "<img" not in seen.printed
    assert "<title>Rack picloud" in seen.printed
    assert "{{ 7*7 }}" in seen.printed, "shown as it is"
    assert seen.console == []
