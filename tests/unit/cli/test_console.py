"""Whatever stands in a line, a cell, an error or a question, a terminal obeys none of it."""

from __future__ import annotations

import io
import json

import pytest

from imager.base.errors import CardIOError
from imager.cli.console import Console

EVIL = "pi7\n    signed by this rack's key\x1b[2J\x9b1m\u202e\ud800\x07"
SHOWN = r"pi7\n    signed by this rack's key\x1b[2J\x9b1m\u202e\ud800\x07"


def test_every_way_to_a_person_shows_text_as_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console()
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\nyes\n"))
    console.lines(EVIL)
    console.table([EVIL], [[EVIL]])
    console.say(EVIL)
    console.note(EVIL)
    console.warn(EVIL)
    console.error(CardIOError(EVIL, hint=EVIL, details=[EVIL]))
    with console.phase(EVIL):
        pass
    assert console.ask(EVIL, EVIL) == "yes"
    assert not console.confirm([EVIL], EVIL)
    said = capsys.readouterr()
    assert said.out.splitlines() == [SHOWN] * 3
    lines = said.err.splitlines()
    assert all(line.isprintable() for line in lines)
    assert sum(line.count(SHOWN) for line in lines) == said.err.count("signed by") == 11


def test_one_letter_is_not_enough_for_what_cannot_be_undone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\nyes\ny\nno\n"))
    assert Console().confirm([], "yes")
    assert "the whole word is wanted" in capsys.readouterr().err
    assert not Console().confirm([], "yes")


def test_json_carries_it_whole_and_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=True)
    console.error(CardIOError(EVIL, hint=EVIL))
    console.result(22, {"cell": EVIL, "number": float("nan")})
    for line in capsys.readouterr().out.splitlines():
        assert line.isprintable()
        told = json.loads(line.encode(), parse_constant=lambda name: pytest.fail(name))
        whole = told.get("what") or told["cell"]
        assert whole == EVIL.replace("\ud800", r"\ud800")


@pytest.mark.parametrize(
    ("typed", "agreed", "asked"),
    [
        ("yes\n", True, 1),
        ("y\nyes\n", True, 2),
        ("YES\nyes\n", True, 2),
        ("y\ny\nyes\n", False, 2),
        ("no\nyes\n", False, 1),
        ("", False, 1),
    ],
)
def test_who_types_y_is_told_that_yes_is_wanted(
    typed: str,
    agreed: bool,
    asked: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert Console().confirm(["all is lost"], "yes") is agreed
    said = capsys.readouterr().err
    assert said.count("ype yes") == asked
    assert said.count("all is lost") == 1


def test_the_name_of_a_fixed_disk_is_asked_for_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\nSAMSUNG\n"))
    assert not Console().confirm([], "SAMSUNG")
    assert capsys.readouterr().err.count("Type ") == 1
