"""What a person reads before and after a batch: what it is made from, how it ended, what next."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import CardFaulty, Interrupted, PicloudError
from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk
from imager.card.host.image_file import ImageFile
from imager.card.medium.meter import PhaseFigures
from imager.cli.console import Console
from imager.cli.main import run
from imager.cli.rack.batch import show_results
from imager.cli.session import Session
from imager.cli.settings import Settings
from imager.cli.views.plan import closing_lines, result_lines
from imager.config.rack import Node
from imager.rack.batch.crew import CardJob
from imager.rack.batch.workers import CardResult
from imager.rack.history.outcome import Outcome, outcome_of
from tests.support.rackhistory import receipt_of
from tests.support.racks import rack_in

FAULTY = CardFaulty("/dev/sdc: byte 4096 differs", hint="take another card")
CUT = Interrupted("/dev/sdd: interrupted", hint="run it again")


def result(name: str, error: PicloudError | None = None, *, file: bool = False) -> CardResult:
    disk = Disk("/dev/sdb", "8:16", 1 << 30, Bus.USB, removable=True)
    target = ImageFile(Path(f"/img/{name}.img"), False, 0, True) if file else disk
    outcome = outcome_of(error) if error else Outcome.VERIFIED
    return CardResult(
        CardJob(Node(name, "pi2", (), None, ()), target, 1 << 30), outcome, 9.0, error=error
    )


def test_a_good_end_says_what_comes_next() -> None:
    count, then = closing_lines([result("pi0"), result("pi1")], [])
    assert count == "2 of 2 cards verified; 0 failed"
    assert "switch on" in then
    assert "rack status --wait" in then


def test_image_files_are_not_put_into_a_pi() -> None:
    _, then = closing_lines([result("pi0", file=True)], [])
    assert "switch on" not in then
    assert "copy it" in then


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ([None, FAULTY, None], "2 of 3 cards verified; 1 failed"),
        ([None, FAULTY, CUT], "1 of 3 cards verified; 1 failed, 1 interrupted"),
        ([CUT], "0 of 1 cards verified; 0 failed, 1 interrupted"),
    ],
)
def test_a_bad_end_is_counted(errors: list[PicloudError | None], words: str) -> None:
    results = [result(f"pi{number}", error) for number, error in enumerate(errors)]
    assert closing_lines(results, []) == [words]


def test_a_card_whose_end_nobody_knows_has_not_failed() -> None:
    away = replace(result("pi1", CUT), outcome=Outcome.UNKNOWN)
    words = "1 of 2 cards verified; 0 failed, 1 unknown"
    assert closing_lines([result("pi0"), away], []) == [words]


@pytest.mark.parametrize("file", [False, True])
def test_no_line_of_it_is_broken_in_two(file: bool) -> None:
    lines = closing_lines([result(f"pi{number}", file=file) for number in range(56)], [])
    assert max(map(len, lines)) <= 79


def test_the_table_fits_a_narrow_terminal() -> None:
    phases = (PhaseFigures("write", 10**9, 1.0, ()), PhaseFigures("read back", 10**9, 1.0, ()))
    receipt = replace(receipt_of("pi0", 0), phases=phases)
    results = [replace(result(f"pi{number}"), receipt=receipt) for number in (0, 13)]
    lines = result_lines(results, 60)
    assert max(map(len, lines)) <= 60
    assert "slot" not in lines[0], "none of them has one"


def test_nodes_without_a_card_are_named_and_what_to_do() -> None:
    lines = closing_lines([result("pi0")], ["pi1", "pi2"])
    assert lines[1] == "no card yet for: pi[1-2]"
    assert "run the same command" in lines[2]
    assert not any("switch on" in line for line in lines)


def test_what_is_the_same_is_said_once() -> None:
    cut = Interrupted("interrupted", hint="/dev/sdb is visibly blank")
    lines = result_lines([result("pi0", cut), result("pi1", FAULTY)], 80)
    assert "pi0: interrupted" in lines
    assert "pi1: faulty: /dev/sdc: byte 4096 differs" in lines


def test_nothing_done_is_no_table() -> None:
    assert result_lines([], 80) == []
    assert closing_lines([], []) == []


def test_the_failed_node_stands_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(Settings(), Console())
    fields = show_results(session, [result("pi0"), result("pi1", FAULTY)], [])
    assert fields["exit_code"] == 30
    assert (fields["verified"], fields["failed"]) == (["pi0"], ["pi1"])
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "1 of 2 cards verified; 1 failed"
    assert "pi1: faulty: /dev/sdc: byte 4096 differs" in said.out
    assert "1 of 2 cards failed: pi1 (faulty)" in said.err


def test_the_plan_says_what_the_cards_are_made_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rack_in(tmp_path, '[rack]\nnodes = "pi[0-1]"\n[salt]\nversion = "3006.9"\n')
    words = ["--rack", str(tmp_path), "--cache", str(tmp_path / "cache"), "rack", "plan"]
    words += ["--images", str(tmp_path)]
    assert run(words) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "release alarm-rpi-armv7 · Salt 3006.9"
    assert run([*words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (plan["event"], plan["release"], plan["salt"]) == ("plan", "alarm-rpi-armv7", "3006.9")
