"""A line that is not understood: who asked for JSON gets JSON, however they asked."""

from __future__ import annotations

import json

import pytest

from imager.cli.main import run

FAULTS = {
    "no such command": ["nosuch"],
    "no such option": ["--nosuch"],
    "a target is missing": ["write"],
    "a number is no number": ["write", "x.img", "--node", "pi1", "--depth", "many"],
    "a bare group": [],
    "a bare group below": ["rack"],
    "a bare group below that": ["rack", "keys"],
    "no such command in a group": ["rack", "nosuch"],
}


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


@pytest.mark.parametrize("words", FAULTS.values(), ids=FAULTS.keys())
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
    [*FAULTS.values(), ["write", "--", "--json"], ["write", "--jsonx"]],
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
