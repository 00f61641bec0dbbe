"""A line that is not understood: who asked for JSON gets JSON, however they asked. A line that
stops too early: who asked for nothing sees what there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from imager.cli.main import run
from tests.support.workplace import ROOT

FAULTS = {
    "no such command": ["nosuch"],
    "no such option": ["--nosuch"],
    "a target is missing": ["write"],
    "a number is no number": ["write", "x.img", "--node", "pi1", "--depth", "many"],
    "no such command in a group": ["rack", "nosuch"],
}
BARE = {"all": [], "a group": ["rack"], "a group below that": ["rack", "keys"]}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PICLOUD_JSON", raising=False)


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    said = capsys.readouterr()
    assert said.err == ""
    events = [json.loads(line) for line in said.out.splitlines()]
    assert [event["event"] for event in events] == ["error", "result"]
    last: dict[str, object] = events[-1]
    return last


@pytest.mark.parametrize(
    "words", [*FAULTS.values(), *BARE.values()], ids=[*FAULTS.keys(), *BARE.keys()]
)
@pytest.mark.parametrize("way", ["environment", "before", "after"])
def test_a_usage_error_is_json_for_whoever_asked_for_it(
    words: list[str], way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if way == "environment":
        monkeypatch.setenv("PICLOUD_JSON", "1")
    line = {"environment": words, "before": ["--json", *words], "after": [*words, "--json"]}[way]
    assert run(line) == 2
    assert last_line(capsys) == {"event": "result", "ok": False, "exit_code": 2}


@pytest.mark.parametrize(
    "words",
    [*FAULTS.values(), ["write", "--", "--json", "x"], ["write", "--jsonx"]],
    ids=" ".join,
)
@pytest.mark.parametrize("said", [None, "0"])
def test_and_two_lines_for_everybody_else(
    words: list[str],
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if said is not None:
        monkeypatch.setenv("PICLOUD_JSON", said)
    assert run(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("picloud-image: ")
    assert shown.err.splitlines()[-1].startswith("  → picloud-image")


@pytest.mark.parametrize("words", BARE.values(), ids=BARE.keys())
def test_a_bare_group_shows_its_help_and_is_no_success(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--help"]) == 0
    page = capsys.readouterr().out
    assert run(words) == 2
    assert capsys.readouterr() == ("", page)


@pytest.mark.parametrize("words", [*BARE.values(), ["write"], ["rack", "flash"]], ids=" ".join)
def test_help_before_a_command_is_the_help_after_it(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--help"]) == 0
    page = capsys.readouterr().out
    assert run(["help", *words]) == 0
    assert capsys.readouterr() == (page, "")
    assert run(["help", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == page.rstrip("\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["wrte"], "No such command 'wrte' (did you mean write?)"),
        (["rack", "flsh"], "No such command 'flsh' (did you mean flash?)"),
        (["write", "x.img"], "picloud-image write has no commands below it"),
    ],
    ids=" ".join,
)
def test_help_of_what_is_no_command_is_a_usage_error(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["help", *words]) == 2
    assert capsys.readouterr().err.startswith(f"picloud-image: {said}\n")


def test_the_version_is_the_same_however_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["--version"]) == 0
    said = capsys.readouterr().out
    assert run(["rack", "show", "--version"]) == 0
    assert capsys.readouterr().out == said
    assert run(["version"]) == 0
    assert capsys.readouterr().out == said
    assert run(["version", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["version"] in said
    for words in (["--json", "--version"], ["rack", "show", "--version", "--json"]):
        assert run(words) == 0
        assert json.loads(capsys.readouterr().out) == found
    monkeypatch.setenv("PICLOUD_JSON", "1")
    assert run(["--version"]) == 0
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.parametrize("before", [[], ["rack", "flash"]], ids=str)
def test_an_option_that_is_not_there_is_told_from_what_may_be_meant(
    before: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*before, "--relese", "x"]) == 2
    assert "--release" in capsys.readouterr().err.partition("--relese")[2]


_TELL = """
import os, sys
from imager.cli import main
def tell(words):
    print(oct(os.umask(0)))
    return 0
main.run = tell
main.main()
"""


@pytest.mark.parametrize(
    ("given", "ours"), [(0o000, 0o022), (0o002, 0o022), (0o022, 0o022), (0o077, 0o077)]
)
def test_nothing_is_made_that_others_could_write(given: int, ours: int) -> None:
    """It would not be used again by the next run."""
    words = [sys.executable, "-c", _TELL]
    done = subprocess.run(words, cwd=ROOT, umask=given, capture_output=True, text=True, check=True)
    assert done.stdout == f"{oct(ours)}\n"


@pytest.mark.parametrize(
    "line",
    [
        "rack show",
        "inspect a.img",
        "archive list",
        "doctor",
        "rack init",
        "rack plan",
        "write a.img --node pi1",
        "write a.img --image b.img",
        "clone a.img b.img",
        "probe a.img",
        "rack report --out a.html",
    ],
)
def test_a_folder_that_is_gone_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
) -> None:
    """Another window removed it. What the hint says is followed in the last line."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("PICLOUD_RACK", "PICLOUD_CACHE"):
        monkeypatch.delenv(name, raising=False)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run(line.split()) == 10
    told = capsys.readouterr()
    assert told.err.startswith("picloud-image: the folder you are in is gone")
    assert "(cd)" in told.err
    assert run(["version"]) == 0, "it needs no folder"
    monkeypatch.chdir(tmp_path)
    run(line.split())
    assert "is gone" not in capsys.readouterr().err


def test_a_file_that_we_forgot_to_look_for_is_a_mistake_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forgets(*_: object, **__: object) -> None:
        raise FileNotFoundError("nothing there")

    monkeypatch.setattr("imager.cli.rack.show.open_rack", forgets)
    assert run(["rack", "show"]) == 70
    assert "Traceback" in capsys.readouterr().err
