"""Which card teaches which slot."""

from __future__ import annotations

from pathlib import Path

from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk
from imager.rack.plan.learn_slots import labels_to_learn, learn_slots
from imager.rack.plan.slots import load_slots, name_slot


def card(socket: int) -> Disk:
    links = (f"/dev/disk/by-path/pci-usb-0:{socket}", f"/dev/disk/by-path/pci-usbv2-0:{socket}")
    return Disk(f"/dev/sd{socket}", f"8:{socket}", 32 << 30, Bus.USB, removable=True, by_path=links)


def lessons(
    folder: Path, labels: list[str], *cards: Disk, replace: bool = False
) -> list[tuple[str | None, bool]]:
    taught = learn_slots(folder, labels, cards, replace=replace)
    return [(lesson.label, lesson.already) for lesson in taught]


def test_each_slot_gets_the_next_label_and_the_rest_of_the_cards_teaches_nothing(
    tmp_path: Path,
) -> None:
    assert lessons(tmp_path, ["A1", "A2"], card(4), card(2), card(3)) == [
        ("A1", False),
        ("A2", False),
    ]
    assert load_slots(tmp_path).names == {"A1": "pci-usb-0:4", "A2": "pci-usb-0:2"}


def test_a_slot_that_has_its_label_is_said_to_and_the_turn_stays(tmp_path: Path) -> None:
    name_slot(tmp_path, "B7", card(1).by_path[1])
    assert lessons(tmp_path, ["A1", "A2"], card(1), card(2), card(2), card(3)) == [
        ("B7", True),
        ("A1", False),
        ("A1", True),
        ("A2", False),
    ]
    assert load_slots(tmp_path).names["B7"] == "pci-usbv2-0:1"


def test_replace_learns_anew_but_not_twice_in_one_run(tmp_path: Path) -> None:
    name_slot(tmp_path, "A1", card(1).by_path[0])
    name_slot(tmp_path, "A2", card(2).by_path[0])
    taught = lessons(tmp_path, ["A1", "A2"], card(2), card(2), card(1), replace=True)
    assert taught == [("A1", False), ("A1", True), ("A2", False)]
    assert load_slots(tmp_path).names == {"A1": "pci-usb-0:2", "A2": "pci-usb-0:1"}


def test_what_is_no_card_in_a_slot_teaches_nothing_and_says_why(tmp_path: Path) -> None:
    fixed = Disk("/dev/sda", "8:0", 1 << 40, Bus.ATA, by_path=("/dev/disk/by-path/pci-ata-1",))
    nameless = Disk("/dev/sdb", "8:16", 1 << 35, Bus.USB, removable=True)
    taught = list(learn_slots(tmp_path, ["A1"], [fixed, nameless], replace=False))
    assert [lesson.label for lesson in taught] == [None, None]
    assert "not removable" in taught[0].why
    assert "no slot" in taught[1].why
    assert load_slots(tmp_path).names == {}


def test_only_labels_without_a_slot_are_asked_for(tmp_path: Path) -> None:
    slots = name_slot(tmp_path, "A2", card(2).by_path[0])
    assert labels_to_learn(slots, ["A1", "A2", "A3"], replace=False) == ("A1", "A3")
    assert labels_to_learn(slots, ["A1", "A2"], replace=True) == ("A1", "A2")
