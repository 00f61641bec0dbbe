"""``rack show``: everything about the rack in 80 columns, and as data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imager.cli.main import run
from imager.rack.history.events import Assigned, CardFinished, CardRestored, CardSaved
from imager.rack.history.ledger import append
from imager.rack.report.report import render_report
from tests.support.rackhistory import rack_with_history
from tests.support.racks import rack_in


def shown(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    assert run(["--rack", str(folder), "rack", "show", *words]) == 0
    return capsys.readouterr().out


def test_every_node_with_its_place_card_and_presence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rack_with_history(tmp_path, 14)
    lines = shown(capsys, tmp_path).splitlines()
    assert max(len(line) for line in lines[1:]) <= 80
    rows = {row.split()[1]: row for row in lines if row.startswith(("A", "B"))}
    assert len(rows) == 14
    assert rows["pi0"].split()[2:4] == ["10.0.0.10", "minion+master"]
    assert rows["pi3"].endswith("faulty 2026-11-23     unknown")
    assert "pi[3,13]: byte 209715217 differs after 2 attempts" in lines


def test_a_rack_without_places_is_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rack_in(tmp_path, '[rack]\nnodes = "pi[0-1]"\n[nodes.pi1]\nmodel = "pi3"\n')
    said = shown(capsys, tmp_path)
    assert "│" not in said
    assert "slot" not in said
    assert [line.split()[:2] for line in said.splitlines()[-2:]] == [["pi0", "pi2"], ["pi1", "pi3"]]


def test_the_same_as_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rack_with_history(tmp_path, 14)
    result = json.loads(shown(capsys, tmp_path, "--json"))
    nodes = {node["node"]: node for node in result["nodes"]}
    assert nodes["pi0"]["joined"] is True
    assert nodes["pi3"]["card"]["standing"] == "failed"
    assert nodes["pi4"]["card"]["standing"] == "stale"
    assert nodes["pi7"]["presence"] == "silent"
    assert nodes["pi13"]["slot"] == "B7"


def test_what_was_saved_and_put_back_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rack = rack_with_history(tmp_path, 7)
    at, then, file = "2026-11-24T07:00:00Z", "2026-11-23T09:08:07Z", "/saves/pi1.img.zst"
    for event in (
        CardSaved(then, "pi0", "/dev/sdb", "", "/saves/pi0.img.zst", "saved", "", "", ""),
        CardSaved(then, "pi1", "/dev/sdb", "", file, "saved", "", "", ""),
        CardSaved(at, "pi1", "/dev/sdb", "", "/other/pi1.img.zst", "io-error", "x", "", ""),
        Assigned(at, "", "pi1", "/dev/sdb", "", 1, "", "", "", 0),
        CardRestored(at, "", "pi1", "/dev/sdb", file, then),
        CardFinished(at, "", "pi1", "/dev/sdb", "", "verified", "", "", "", "ab", "recipe", ""),
    ):
        append(tmp_path, event)
    lines = shown(capsys, tmp_path).splitlines()
    assert "pi[0-1]: saved to /saves on 2026-11-23" in lines
    assert "pi1: restored from /saves, saved on 2026-11-23" in lines
    nodes = {node["node"]: node for node in json.loads(shown(capsys, tmp_path, "--json"))["nodes"]}
    assert (nodes["pi1"]["saved_to"], nodes["pi1"]["saved_at"]) == (file, then)
    assert nodes["pi1"]["card"]["restored_from"] == file
    assert nodes["pi0"]["card"]["restored_from"] is None
    page = render_report(rack, "now")
    assert f"{file}, saved 2026-11-23 09:08 UTC" in page
    assert "/saves/pi0.img.zst, 2026-11-23 09:08 UTC" in page
