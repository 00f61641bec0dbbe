"""A rack as it stands: what ledger, receipts, lock and master know, taken together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.trusted_folder import TrustedFolder
from imager.card.receipt.receipt import ReceiptResult
from imager.card.receipt.store import newest_by_node, save_receipt
from imager.cli.views.rack_drawing import drawing
from imager.rack.history.events import Assigned, Standing
from imager.rack.history.ledger import append
from imager.rack.report.overview import NodeView, overview, towers
from tests.support.rackhistory import rack_with_history, receipt_of
from tests.support.racks import rack_in


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NodeView]:
    rack = rack_with_history(tmp_path_factory.mktemp("rack"), 14)
    return {view.node.name: view for view in overview(rack)}


@pytest.mark.parametrize(
    ("node", "standing", "reason"),
    [
        ("pi0", Standing.VERIFIED, ""),
        ("pi3", Standing.FAILED, "byte 209715217 differs after 2 attempts"),
        ("pi4", Standing.STALE, "made of release 0d0d0d0d0d0d…, and rack.lock pins efefefefefef…"),
        ("pi5", Standing.CUT_SHORT, "work on /dev/sdg was begun and did not end"),
        ("pi6", Standing.NEVER, ""),
    ],
)
def test_each_card_is_what_was_last_heard_of_it(
    views: dict[str, NodeView], node: str, standing: Standing, reason: str
) -> None:
    card = views[node].card
    assert (card.standing, card.reason) == (standing, reason)
    assert (card.receipt is None) == (node == "pi6")


def test_who_joined_is_what_the_master_said(views: dict[str, NodeView]) -> None:
    joined = {name for name, view in views.items() if view.is_joined}
    assert joined == {"pi0", "pi1", "pi2", "pi4", "pi9", "pi10", "pi11", "pi12"}


def test_a_receipt_of_write_counts_though_the_ledger_knows_nothing_of_it(tmp_path: Path) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-1]"\n')
    save_receipt(receipt_of("pi0", 1, result=ReceiptResult.FAULTY, failure="byte 7"), rack.receipts)
    save_receipt(receipt_of("pi0", 2), rack.receipts)
    first, second = overview(rack)
    assert (first.card.standing, first.card.outcome) == (Standing.VERIFIED, "verified")
    assert second.card.standing is Standing.NEVER


def test_work_begun_after_the_last_receipt_is_cut_short_and_work_before_it_is_not(
    tmp_path: Path,
) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi0"\n')
    receipt = receipt_of("pi0", 1)
    before = Assigned("2026-11-23T05:00:00Z", "", "pi0", "/dev/sdb", "", 1, "", "", "", 0)
    append(rack.folder, before)
    assert overview(rack)[0].card.standing is Standing.CUT_SHORT
    save_receipt(receipt, rack.receipts)
    assert overview(rack)[0].card.standing is Standing.VERIFIED
    append(rack.folder, replace(before, at="2026-11-23T07:00:00Z"))
    assert overview(rack)[0].card.standing is Standing.CUT_SHORT


def test_a_recipe_tells_a_current_card_from_one_of_an_older_rack_toml(tmp_path: Path) -> None:
    rack = rack_with_history(tmp_path, 7)
    recipes = {"pi0": "recipe", "pi1": "another", "pi3": "recipe", "pi4": "recipe"}
    cards = {view.node.name: view.card for view in overview(rack, recipes)}
    assert cards["pi0"].standing is Standing.CURRENT
    assert cards["pi1"].standing is Standing.STALE
    assert cards["pi1"].reason.startswith("rack.toml, an overlay, a key")
    assert cards["pi2"].standing is Standing.VERIFIED, "what is not known is not claimed"
    assert cards["pi3"].standing is Standing.FAILED
    assert "made of release" in cards["pi4"].reason


def test_only_the_newest_receipt_of_each_node_is_read(tmp_path: Path) -> None:
    for number in (1, 3, 2):
        path = save_receipt(receipt_of("pi0", number), TrustedFolder(tmp_path))
        if number != 3:
            path.write_text("{")  # reading it would not do
    save_receipt(receipt_of("pi0-3", 1), TrustedFolder(tmp_path))
    newest = newest_by_node(TrustedFolder(tmp_path))
    assert set(newest) == {"pi0", "pi0-3"}
    assert newest["pi0"][1].finished_at == receipt_of("pi0", 3).finished_at


def test_an_unreadable_newest_receipt_gives_way_to_the_one_before(tmp_path: Path) -> None:
    save_receipt(receipt_of("pi0", 1), TrustedFolder(tmp_path))
    save_receipt(receipt_of("pi0", 2), TrustedFolder(tmp_path)).write_text("{")
    assert (
        newest_by_node(TrustedFolder(tmp_path))["pi0"][1].finished_at
        == receipt_of("pi0", 1).finished_at
    )


def test_towers_stand_by_name_and_places_by_number(tmp_path: Path) -> None:
    rack = rack_in(
        tmp_path,
        '[rack]\nnodes = "n[1-5]"\n[nodes.n1]\nslot = "B10"\n[nodes.n2]\nslot = "B9"\n'
        '[nodes.n3]\nslot = "A1"\n[nodes.n4]\nslot = "top"\n',
    )
    found = towers(overview(rack))
    assert [(tower.name, [view.node.name for view in tower.views]) for tower in found] == [
        ("A", ["n3"]),
        ("B", ["n2", "n1"]),
        ("top", ["n4"]),
        ("", ["n5"]),
    ]


def test_the_drawing_keeps_to_the_width_and_leaves_nobody_out(tmp_path: Path) -> None:
    rack = rack_with_history(tmp_path, 56)
    stands = towers(overview(rack))
    for width in (40, 80, 200):
        lines = drawing(stands, width)
        assert max(len(line) for line in lines) <= width
        text = "\n".join(lines)
        assert all(f" {node.name} " in text or f" {node.name}*" in text for node in rack.nodes)


def test_marks_say_card_and_presence(tmp_path: Path) -> None:
    lines = drawing(towers(overview(rack_with_history(tmp_path, 14))), 80)
    assert lines[1].startswith("│  1 pi0* ✓● │")
    assert lines[4].startswith("│  4 pi3  ✗○ │")
    assert "✗ failed" in lines[-2] + lines[-1]
