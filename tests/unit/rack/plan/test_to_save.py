"""Whose cards are in the readers, and which of them can be saved under their node's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imager.card.host.image_file import ImageFile
from imager.card.host.sysfs import HostTrees
from imager.config.rack import Rack
from imager.rack.plan.candidates import Candidate, Holds
from imager.rack.plan.to_save import SavePlan, plan_saving
from tests.support.racks import rack_in
from tests.support.stamps import FACTS

TOML = '[rack]\nnodes = "pi[0-3]"\nslots = "A[1-4]"\n'


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return rack_in(tmp_path / "rack", TOML)


def card(folder: Path, name: str, node: str | None = None, **more: object) -> Candidate:
    """A card in a file of its own, stamped for ``node``."""
    path = folder / name
    path.write_bytes(bytes(4096))
    stamp = replace(FACTS, node=node) if node else None
    holds = Holds.OURS if node else Holds.FOREIGN
    found = Candidate(ImageFile(path, True, 4096, True), holds, "something", stamp=stamp)
    return replace(found, **more)  # type: ignore[arg-type]


def planned(rack: Rack, folder: Path, *cards: Candidate, nodes: str = "0123") -> SavePlan:
    wanted = [rack.node(f"pi{n}") for n in nodes]
    return plan_saving(cards, wanted, rack, folder / "saves", HostTrees())


def test_the_stamp_says_whose_it_is_and_not_the_slot(rack: Rack, tmp_path: Path) -> None:
    plan = planned(rack, tmp_path, card(tmp_path, "b.img", "pi2", slot="A1"))
    (one,) = plan.cards
    assert (one.node.name, one.against) == ("pi2", None)
    assert one.files.path == tmp_path / "saves/pi2.img.zst"
    assert [node.name for node in plan.without] == ["pi0", "pi1", "pi3"]


def test_a_card_that_cannot_be_read_is_its_slots(rack: Rack, tmp_path: Path) -> None:
    dying = card(tmp_path, "b.img", slot="A2", refuses=True)
    (one,) = planned(rack, tmp_path, dying).cards
    assert one.node.name == "pi1"
    assert not planned(rack, tmp_path, replace(dying, slot=None)).cards
    assert not planned(rack, tmp_path, replace(dying, refuses=False)).cards, "a stranger's"


@pytest.mark.parametrize(
    ("node", "more", "because"),
    [
        ("pi3", {}, "it is pi3's, which was not asked for"),
        ("pi9", {}, "pi9 is no node of this rack; to save it all the same: picloud-image read "),
        (None, {}, "it is no card of this rack; to save it all the same: picloud-image read "),
        (None, {"holds": Holds.BLANK}, "there is nothing to save"),
    ],
)
def test_what_is_left_alone_is_told_why(
    rack: Rack, tmp_path: Path, node: str | None, more: dict[str, object], because: str
) -> None:
    plan = planned(rack, tmp_path, card(tmp_path, "b.img", node, **more), nodes="01")
    assert not plan.cards
    assert plan.left[0].because.startswith(because)


def test_two_cards_of_one_node_are_both_refused(rack: Rack, tmp_path: Path) -> None:
    plan = planned(rack, tmp_path, card(tmp_path, "b.img", "pi1"), card(tmp_path, "c.img", "pi1"))
    first, second = (str(one.against) for one in plan.cards)
    assert first == f"{tmp_path}/b.img is pi1's card, and so is {tmp_path}/c.img"
    assert second == f"{tmp_path}/c.img is pi1's card, and so is {tmp_path}/b.img"


@pytest.mark.parametrize("name", ["pi1.img.zst", "pi1.img", "pi1.img.xz"])
def test_what_was_saved_before_is_not_overwritten(rack: Rack, tmp_path: Path, name: str) -> None:
    (tmp_path / "saves").mkdir()
    (tmp_path / "saves" / name).symlink_to("nowhere")
    (one,) = planned(rack, tmp_path, card(tmp_path, "b.img", "pi1")).cards
    assert one.against is not None
    assert one.against.what.startswith(f"{tmp_path}/saves/{name} exists")
