"""Card readers on a USB bus: which share a wire, and being let go of.

The bus, its hub and the readers are QEMU's, the kernel's drivers and udev are the real ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from imager.rack.batch.limiter import FIRST, WINDOW_SECONDS
from tests.support.bootrack import SLOT_BYTES, BootRack, boot_rack
from tests.support.pc import HUB, Reader, pc, picloud_image
from tests.support.standin import StandIn
from tests.support.workplace import workplace

pytestmark = [
    pytest.mark.usb,
    pytest.mark.long(minutes=2),
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a PC all files"),
]

RACK = '[rack]\nnodes = "pi[0-13]"\nmodel = "pi2"\n'
BEHIND_HUB = FIRST + 1
PATIENCE_SECONDS = 900
"""On two idle cores six cards take 90."""


@pytest.fixture
def rack(stand_in: StandIn, boot_cache: Path, tmp_path: Path) -> BootRack:
    """One whose image is made, so that the PC needs no network."""
    rack = boot_rack(tmp_path, boot_cache, stand_in, RACK)
    rack.command("compose")
    return rack


@pytest.fixture
def small_rack(tmp_path: Path) -> BootRack:
    """The same with a small release: an emulated PC copies a hundred times slower."""
    (tmp_path / "place").mkdir()
    with workplace(tmp_path / "place") as place:
        made = place.run("compose")
        assert made.code == 0, made.err
    return BootRack(place.rack, place.cache)


def reader(port: str, folder: Path) -> Reader:
    """A reader with a blank card in it."""
    card = folder / f"reader{port.replace('.', '-')}.img"
    card.touch()
    os.truncate(card, SLOT_BYTES)
    return Reader(port, card)


def flashing(rack: BootRack, nodes: str) -> str:
    """A script that writes the cards of ``nodes``; it leaves flash, errors and code."""
    words = ("rack", "flash", nodes, "--yes", "--offline", "--no-probe", "--json")
    flash = picloud_image(*words, "--rack", rack.folder, "--cache", rack.cache)
    return f"{flash} >flash 2>errors\necho $? >code"


def serials_of(devices: Path) -> dict[str, str]:
    """Which reader is which disk, all of them on the bus, as ``devices`` tells."""
    disks = last_line(devices)["devices"]
    assert {disk["bus"] for disk in disks} == {"usb"}
    return {disk["device"]: disk["serial"] for disk in disks}


def last_line(path: Path) -> dict[str, Any]:
    """The result of a command that printed ``--json``."""
    result: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])
    return result


def is_writing(flash: Path, node: str) -> bool:
    """Whether bytes go to the card of ``node``, as was told so far."""
    lines = flash.read_text().splitlines() if flash.exists() else []
    running = '"phase": "write", "state": "running"'
    return any(f'"node": "{node}"' in line and running in line for line in lines)


@dataclass(frozen=True)
class Written:
    """When the card in ``device`` was at work, by the PC's clock."""

    device: str
    began: datetime
    ended: datetime


def written(rack: BootRack, path: Path) -> Iterator[Written]:
    """The cards of a batch, all proven; ``path`` is what it printed."""
    for node in last_line(path)["nodes"]:
        assert node["outcome"] == "verified", node
        receipt = json.loads((rack.folder / ".picloud/receipts" / node["receipt"]).read_text())
        ended = datetime.fromisoformat(receipt["finished_at"])
        yield Written(node["target"], ended - timedelta(seconds=node["seconds"]), ended)


@pytest.mark.long(minutes=8)  # of processor time
def test_cards_on_one_wire_begin_a_few_at_a_time_and_those_on_another_do_not_wait(
    rack: BootRack, tmp_path: Path
) -> None:
    readers = [reader(f"1.{n}", tmp_path) for n in range(1, BEHIND_HUB + 1)]
    readers.append(reader("2", tmp_path))
    devices = picloud_image("devices", "--json", "--rack", rack.folder)
    script = f"{devices} >devices\n{flashing(rack, f'pi[1-{len(readers)}]')}"
    options = (option for each in readers for option in each.plugged_in)
    with pc(tmp_path, script, *HUB, *options) as machine:
        machine.wait_for_end(seconds=PATIENCE_SECONDS)
    assert (tmp_path / "code").read_text() == "0\n", (tmp_path / "errors").read_text()

    serials = serials_of(tmp_path / "devices")
    cards = {serials[card.device]: card for card in written(rack, tmp_path / "flash")}
    apart = cards.pop("reader2")
    room = min(card.ended for card in cards.values())
    *at_once, waited = sorted(card.began for card in cards.values())
    assert len(at_once) == FIRST
    assert max(*at_once, apart.began) < room, "the others waited as well"
    # One more is let in when one has ended, or when four were seen to leave the wire room.
    seen = max(at_once) + timedelta(seconds=WINDOW_SECONDS)
    assert waited > min(room, seen) - timedelta(seconds=1), "there was no room on the wire yet"
    for each in readers:
        rack.command("verify", each.card)


def test_a_reader_that_is_pulled_out_costs_its_own_card_and_no_other(
    small_rack: BootRack, tmp_path: Path
) -> None:
    rack = small_rack
    pulled = replace(reader("2", tmp_path), most=f"bps-total={2_000_000}")
    stays = reader("3", tmp_path)
    options = (*pulled.plugged_in, *stays.plugged_in)
    with pc(tmp_path, flashing(rack, "pi[1-2]"), *options) as machine:
        # pi1 gets the first disk, which is the reader that was plugged in first.
        machine.wait_until(lambda: is_writing(tmp_path / "flash", "pi1"), seconds=PATIENCE_SECONDS)
        machine.ask_qemu("device_del", id=pulled.device["id"])
        machine.wait_for_end(seconds=PATIENCE_SECONDS)
    assert (tmp_path / "code").read_text() == "30\n", (tmp_path / "errors").read_text()

    nodes = {one["node"]: one for one in last_line(tmp_path / "flash")["nodes"]}
    lost, kept = nodes["pi1"], nodes["pi2"]
    assert kept["outcome"] == "verified"
    target = json.loads((rack.folder / ".picloud/receipts" / kept["receipt"]).read_text())["target"]
    assert (target["bus"], target["serial"]) == ("usb", stays.name)
    assert (lost["outcome"], lost["exit_code"]) == ("io-error", 22)
    assert "No such device" in lost["reason"], "the kernel calls it a want of room"
    assert lost["hint"].startswith("the card or reader is gone")
    assert "is unfinished, write it again" in lost["details"][-1]
    rack.command("verify", stays.card)
    with pulled.card.open("rb") as card:
        assert not any(card.read(1 << 20)), "nobody takes it for a card of the rack"


@pytest.mark.long(minutes=8)  # not really: one emulated PC is enough below --all
def test_a_reader_is_asked_to_let_go_of_a_finished_card(rack: BootRack, tmp_path: Path) -> None:
    late = reader("3", tmp_path)
    watch = picloud_image(
        *("rack", "watch", "pi7", "--eject", "--countdown", "0", "--offline", "--json"),
        *("--rack", rack.folder, "--cache", rack.cache),
    )
    script = (
        f": >begun\n{watch} >watch 2>errors\necho $? >code\nuntil [ -e seen ]; do sleep 1; done"
    )
    with pc(tmp_path, script, *late.drive) as machine:
        machine.wait_until((tmp_path / "begun").exists, seconds=PATIENCE_SECONDS)
        machine.ask_qemu("device_add", **late.device)
        machine.wait_until((tmp_path / "code").exists, seconds=PATIENCE_SECONDS)
        (card,) = (one for one in machine.ask_qemu("query-block") if one["device"] == late.name)
        assert card["tray_open"]
        (tmp_path / "seen").touch()
        machine.wait_for_end(seconds=60)
    assert (tmp_path / "code").read_text() == "0\n", (tmp_path / "errors").read_text()
    rack.command("verify", late.card)
