"""slots.toml: which reader slot carries which label; every fault named, none of it lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import ConfigurationError
from imager.rack.plan.slots import (
    Slots,
    encode_slots,
    forget_slots,
    load_slots,
    name_slot,
    parse_slots,
)

HUB = "/dev/disk/by-path/pci-0000:00:14.0-usb-0:2.{}:1.0-scsi-0:0:0:0"


def test_a_rack_without_the_file_has_no_slots(tmp_path: Path) -> None:
    slots = load_slots(tmp_path)
    assert slots == Slots({})
    assert slots.label_of([HUB.format(1)]) is None
    assert slots.path_of("A1") is None


def test_what_is_learned_is_found_both_ways(tmp_path: Path) -> None:
    name_slot(tmp_path, "A10", HUB.format(3))
    name_slot(tmp_path, "A2", HUB.format(2))
    slots = load_slots(tmp_path)
    assert list(slots.names) == ["A2", "A10"], "in the order of the places"
    assert slots.path_of("A2") == HUB.format(2)
    assert slots.label_of(["/dev/disk/by-path/other-0", HUB.format(3)]) == "A10"
    assert slots.label_of(["/made/up/disk/by-path/" + HUB.format(3).rpartition("/")[2]]) == "A10"


def test_a_label_and_a_slot_have_one_partner(tmp_path: Path) -> None:
    name_slot(tmp_path, "A1", HUB.format(1))
    name_slot(tmp_path, "A2", HUB.format(1))
    assert list(load_slots(tmp_path).names) == ["A2"]
    assert name_slot(tmp_path, "A2", HUB.format(9)).path_of("A2") == HUB.format(9)


def test_a_slot_can_be_forgotten_and_all_or_none_are(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        name_slot(tmp_path, f"A{number}", HUB.format(number))
    with pytest.raises(ConfigurationError, match="no slot is called 'A9'"):
        forget_slots(tmp_path, ["A1", "A9"])
    assert len(load_slots(tmp_path).names) == 3
    assert list(forget_slots(tmp_path, ["A1", "A3"]).names) == ["A2"]
    assert list(load_slots(tmp_path).names) == ["A2"]


def test_two_that_learn_at_once_lose_nothing(tmp_path: Path) -> None:
    def learn(tower: str) -> None:
        for number in range(8):
            name_slot(tmp_path, f"{tower}{number}", f"{HUB.format(number)}-{tower}")

    threads = [threading.Thread(target=learn, args=(tower,)) for tower in "ABC"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load_slots(tmp_path).names) == 24


FAULTS = [
    ("[slots\n", "slots.toml:1: not TOML: Expected ']'"),
    ("[slots]\nA1 = 3\n", "slots.toml:2: slots.A1: 3 is not text; write it like"),
    ('[slots]\nA1 = ""\n', "slots.toml:2: slots.A1: is empty"),
    (
        '[slots]\nA_1 = "usb-0"\n',
        'slots.toml:2: slots.A_1: "A_1" is not a label; write a letter, then letters, digits and '
        "hyphens, like A1",
    ),
    (
        '[slots]\nA1 = "/dev/sdb"\n',
        'slots.toml:2: slots.A1: "/dev/sdb" is not a name in /dev/disk/by-path; write it like',
    ),
    ('[slots]\nA1 = "sdb"\n', 'slots.toml:2: slots.A1: "sdb" is not a name in /dev/disk/by-path'),
    (
        '[slots]\nA1 = "usb-0-part1"\n',
        'slots.toml:2: slots.A1: "usb-0-part1" is a partition; write the disk\'s own name, "usb-0"',
    ),
    (
        '[slots]\nA1 = "usb-0"\nA2 = "/dev/disk/by-path/usb-0"\n',
        'slots.toml:3: slots.A2: "/dev/disk/by-path/usb-0" is the slot of A1 already; a slot has '
        "one label",
    ),
    ("[slot]\n", "slots.toml:1: slot: no such key; did you mean slots?"),
]


@pytest.mark.parametrize(("text", "fault"), FAULTS, ids=[fault for _, fault in FAULTS])
def test_a_fault_names_line_label_and_value(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "slots.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_slots(tmp_path)
    assert caught.value.exit_code == 10
    (line,) = caught.value.details
    assert line.startswith(fault)


def test_a_file_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "slots.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        load_slots(tmp_path)


labels = st.from_regex(r"[A-Z][a-z]{0,2}[0-9]{1,3}", fullmatch=True)
paths = st.from_regex(r"[a-z0-9]{1,6}-[!-.0-~]{1,30}[a-z]", fullmatch=True)


@given(st.dictionaries(labels, paths))
def test_what_is_written_is_read_back(names: dict[str, str]) -> None:
    given_once = {name: label for label, name in names.items()}
    slots = Slots({label: name for name, label in given_once.items()})
    read, faults = parse_slots(encode_slots(slots))
    assert (read, faults.lines) == (slots, ())


@given(st.text(max_size=200) | st.text(alphabet='[slots]A1="- \n', max_size=60))
def test_any_text_is_slots_or_faults(text: str) -> None:
    slots, faults = parse_slots(text)
    assert slots.names is not None
    assert all("\n" not in fault for fault in faults.lines)
