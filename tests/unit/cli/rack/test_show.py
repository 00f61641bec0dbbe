"""``rack show``: everything about the rack in 80 columns, and as data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imager.cli.main import run
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
