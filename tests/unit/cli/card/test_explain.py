"""``explain``: from what is seen to what it means and what to check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imager.bootcheck.findings import Code
from imager.bootcheck.lights import BLANK, BLINKS, RAINBOW
from imager.bootcheck.meanings import finding
from imager.cli.main import run


@pytest.mark.parametrize("blinks", BLINKS)
def test_every_code_of_the_documentation_is_explained(
    blinks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", "--blinks", blinks]) == 0
    said = capsys.readouterr().out
    assert BLINKS[blinks].means in said
    assert "  1. " in said


@pytest.mark.parametrize("word", ["--rainbow", "--blank"])
def test_a_screen_is_explained(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", word]) == 0
    sign = RAINBOW if word == "--rainbow" else BLANK
    assert capsys.readouterr().out.count("\n") == 1 + len(sign.checks)


@pytest.mark.parametrize(("model", "old"), [("pi2", True), ("pi4", False)])
def test_what_older_firmware_meant_is_told_only_where_the_card_has_it(
    model: str, old: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", "--blinks", "4", "--model", model]) == 0
    assert ("before 2020" in capsys.readouterr().out) is old


@pytest.mark.parametrize("code", Code)
def test_a_finding_that_shows_in_a_light_or_on_the_screen_is_a_cause_of_it(code: Code) -> None:
    symptom = finding(code, "").symptom
    signs = {
        "ACT blinks 3 times": BLINKS["3"],
        "ACT blinks 4 times": BLINKS["4"],
        "ACT blinks 7 times": BLINKS["7"],
        "red power light only": BLANK,
        "rainbow screen stays": RAINBOW,
    }
    for words, sign in signs.items():
        assert words not in symptom or code in sign.codes, words


def test_what_on_the_card_can_cause_it_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "card.img"
    card.write_bytes(bytes(1 << 20))
    assert run(["explain", str(card), "--blank", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [finding["code"] for finding in result["findings"]] == ["mbr-missing"]
    assert run(["explain", str(card), "--blinks", "7"]) == 0
    assert "nothing on" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [[], ["--rainbow", "--blank"], ["--blinks", "5"], ["--blinks", "4", "--model", "pi9"]]
)
def test_anything_else_is_a_usage_error(words: list[str]) -> None:
    assert run(["explain", *words]) == 2
