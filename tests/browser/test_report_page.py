"""The report as a person sees it: in a real browser, on a screen and on paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imager.rack.report.report import render_report
from tests.support.chromium import (
    corner_colour,
    fits,
    look,
    missing_programs,
    paper,
    picture,
    words_on_paper,
)
from tests.support.rackhistory import rack_with_history
from tests.support.racks import rack_in

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
    assert seen.asked == [], "nothing is asked of anybody"


def test_a_page_that_asks_and_complains_would_be_caught(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('no')</script>")
    seen = look(bad, "--dump-dom")
    assert "http://127.0.0.1:9/x.png" in seen.asked
    assert any("no" in line for line in seen.console)


@pytest.mark.parametrize("page", [14], indirect=True)
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


LONG_PATH = "/srv/" + "images" * 30 + "/pi.img"
LONG_NAMES = f"""
[rack]
name = "{"r" * 60}"
nodes = "raspberry-of-the-third-laboratory-on-the-second-floor-number-[0-3]"
master = "salt.{"m" * 50}.example.org"
slots = "lefthand-tower[1-4]"
[release]
url = "https://mirror.example.org/{"deep/" * 20}ArchLinuxARM.tar.gz"
signing_key = "{"AB" * 20}"
"""
PHONE, SCREEN, A4_POINTS = 390, 1280, 596


def test_nothing_is_lost_on_a_phone_on_a_screen_and_on_paper(tmp_path: Path) -> None:
    history, names, bad = (tmp_path / f"{name}.html" for name in ("history", "names", "bad"))
    told = rack_with_history(tmp_path / "told", 14, hostile=LONG_PATH)
    history.write_text(render_report(told, "2026-11-25 04:00 UTC"))
    named = rack_in(tmp_path / "named", LONG_NAMES)
    names.write_text(render_report(named, "2026-11-25 04:00 UTC"))
    bad.write_text(f"<p>{LONG_PATH}</p><p style='overflow: hidden'>{LONG_PATH}</p>")
    *good, small, large = fits([history, names, bad], tmp_path, [PHONE, SCREEN])
    assert [fit.columns for fit in good] == [PHONE, SCREEN] * 2
    for fit in good:
        assert fit.loses_nothing, fit
    for fit in (small, large):
        assert fit.wide > fit.columns, "what stands out would be seen"
        assert len(fit.lost) == 1, "what is cut off would be seen"
    paper(names, tmp_path / "names.pdf")
    words = words_on_paper(tmp_path / "names.pdf")
    assert all(word.left >= 0 and word.right <= A4_POINTS for word in words)
    printed = "".join(word.text for word in words)
    for node in named.nodes:
        assert node.name in printed
    assert named.release.source in printed


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
