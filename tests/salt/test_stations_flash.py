"""The whole: a head, two desks with readers, a real master and real minions between them.

What happens when something fails is tried without Salt in tests/device/test_stations_device.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from subprocess import PIPE
from typing import Any

import pytest

from imager.rack.history.events import Assigned, Standing
from imager.rack.history.ledger import read_ledger
from imager.stations.salt.scripts import PILLAR_FOLDER
from tests.support.eavesdropping import found_in, memory_of
from tests.support.laboratory import ROOT, Laboratory, laboratory
from tests.support.loop import Loop, call, missing_abilities
from tests.support.rackcards import blank_cards, forget, is_whole
from tests.support.salt import SaltPrograms
from tests.support.workplace import Said, Workplace, workplace

pytestmark = [
    pytest.mark.salt,
    pytest.mark.long(minutes=7),
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]
DESKS = ("desk1", "desk2")
WAY = ("--stations", "desk[1-2]", "--local", "--offline")
EVE = "eve"
"""A minion like the others, and no station: she sees what a master gives to everybody."""
NODES = [f"pi{number}" for number in range(8)]


@dataclass
class Room:
    """A laboratory, and a rack on its head."""

    lab: Laboratory
    place: Workplace
    programs: SaltPrograms
    loops: dict[str, tuple[Loop, ...]]

    def command(self, *words: str) -> list[str]:
        """The command on the head."""
        path = f"{self.programs.folder}:{os.environ['PATH']}"
        env = {**self.place.environment, "PATH": path}
        assigned = [f"{name}={value}" for name, value in env.items()]
        entering = [*self.lab.head.entering, "env", "--chdir", os.fspath(self.place.folder)]
        return [*entering, *assigned, sys.executable, "-m", "imager", "--json", *words]

    def run(self, *words: str) -> Said:
        done = subprocess.run(
            self.command(*words, *WAY),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def room(salt_programs: SaltPrograms, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("room")
    with ExitStack() as held:
        place = held.enter_context(workplace(folder))
        assert place.run("compose").code == 0
        program = folder / "bin/picloud-image"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m imager "$@"\n')
        program.chmod(0o755)
        made = held.enter_context(
            laboratory(folder / "lab", salt_programs, (*DESKS, EVE), path=str(program.parent))
        )
        modules = made.folder / "head/srv/salt/_modules"
        modules.mkdir(parents=True)
        shutil.copy(ROOT / "imager/stations/salt/on_minion.py", modules / "picloud_image.py")
        (made.folder / f"head{PILLAR_FOLDER}").mkdir(parents=True)
        made.head.run("salt", "--static", "*", "saltutil.sync_modules")
        loops = {}
        for letter, desk in zip("YZ", DESKS, strict=True):
            loops[desk] = held.enter_context(blank_cards(folder / desk, 4))
            slots = made.folder / desk / "lib/station/slots.toml"
            slots.parent.mkdir(parents=True)
            lines = (f'{letter}{n} = "pci-{desk}-{n}"\n' for n in range(4))
            slots.write_text("[slots]\n" + "".join(lines))
            for number, loop in enumerate(loops[desk]):
                made.desks[desk].put(f"pci-{desk}-{number}", loop.node)
        yield Room(made, place, salt_programs, loops)


@pytest.fixture(autouse=True)
def forgetful(room: Room) -> Iterator[None]:
    """Each begins with a rack that never wrote a card, and with blank ones."""
    for loop in (loop for loops in room.loops.values() for loop in loops):
        loop.require_ours()
        call("blkdiscard", str(loop.node))
    yield
    forget(room.place)


@contextmanager
def begun(room: Room, nodes: str) -> Iterator[tuple[subprocess.Popen[str], Iterator[Any]]]:
    """``rack flash`` of ``nodes`` on the head, and what it says as it comes."""
    words = room.command("rack", "flash", nodes, "--yes", *WAY)
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=PIPE, text=True) as head:
        assert head.stdout is not None
        try:
            yield head, map(json.loads, head.stdout)
        finally:
            head.kill()


def until(lines: Iterator[Any], phase: str) -> None:
    """Read until cards of both desks are in that phase."""
    seen: set[str] = set()
    while seen < {"pi0", "pi4"}:
        event = next(lines)
        if event.get("phase") == phase:
            seen |= {event["node"]} & {"pi0", "pi4"}


def last_of(lines: Iterator[Any]) -> Any:
    """Read to the end."""
    (last,) = deque(lines, 1)
    return last


def test_eight_cards_at_two_desks(room: Room) -> None:
    planned = room.run("rack", "plan", "pi[0-7]")
    assert planned.code == 0, planned.out
    assert planned.result["left_out"] == {}
    targets = [step["target"] for step in planned.result["steps"]]
    assert targets == [f"{desk}:{loop.node}" for desk in DESKS for loop in room.loops[desk]]

    with room.lab.wiretapped() as wire:
        said = room.run("rack", "flash", "pi[0-7]", "--yes")
        eves = [*memory_of(room.lab.desks[EVE].box.pid)]
    assert said.code == 0, said.out[-3000:] + said.err
    assert said.result["verified"] == NODES
    for node in said.result["nodes"]:
        desk, _, device = node["target"].partition(":")
        loop = next(loop for loop in room.loops[desk] if str(loop.node) == device)
        assert is_whole(loop.backing, room.place, node["receipt"])
    phases = {event["phase"] for event in said.events if event["event"] == "progress"}
    assert phases >= {"write", "read back"}
    ledger = read_ledger(room.place.rack)
    assert {ledger.state_of(node).standing() for node in NODES} == {Standing.VERIFIED}
    assigned = [event for event in ledger.events if isinstance(event, Assigned)]
    assert sorted(event.node for event in assigned) == NODES, "each once"
    assert {event.station for event in assigned} == set(DESKS)

    again = room.run("rack", "flash", "pi[0-7]", "--yes")
    assert again.code == 0, again.out
    assert [step["action"] for step in again.result["steps"]] == ["nothing"] * 8, again.out

    # Nothing of a node's keys is left anywhere but in the rack.
    bodies = [
        line
        for path in (room.place.rack / ".picloud/keys").rglob("*")
        if path.is_file() and path.suffix not in (".pub", ".json", ".lock")
        for line in path.read_bytes().splitlines()
        if len(line) > 50
    ]
    assert len(bodies) > 10
    assert any(b"salt" in memory for memory in eves), "there is something to look through"
    assert not any(found_in(bodies, memory) for memory in eves)
    assert wire.stat().st_size > 2**20
    assert not found_in(bodies, wire.read_bytes())
    wire.unlink()
    for path in room.lab.folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**26:
            data = path.read_bytes()
            assert not any(body in data for body in bodies), path


def test_a_cable_that_is_out_for_seconds_costs_no_card(room: Room) -> None:
    with begun(room, "pi[0-7]") as (head, lines):
        until(lines, "write")
        with room.lab.unplugged("desk2"):
            time.sleep(20)
        result = last_of(lines)
    assert head.returncode == 0, result
    assert result["verified"] == NODES


@pytest.mark.long(minutes=15)
@pytest.mark.timeout(1800)
def test_a_cable_that_is_out_for_minutes_makes_cards_unknown_and_the_next_run_collects(
    room: Room,
) -> None:
    with begun(room, "pi[0-7]") as (head, lines):
        until(lines, "write")
        with room.lab.unplugged("desk2"):
            result = last_of(lines)
            assert head.wait(60) == 30, result
            assert result["verified"] == NODES[:4]
            for node in result["nodes"][4:]:
                assert node["outcome"] == "unknown"
                assert f"look at the card in desk2's slot {node['slot']}" in node["hint"]
            ledger = read_ledger(room.place.rack)
            assert {ledger.state_of(node).standing() for node in NODES[:4]} == {Standing.VERIFIED}
            assert {ledger.state_of(node).standing() for node in NODES[4:]} == {Standing.UNKNOWN}
    room.lab.head.wait_until_answering({*DESKS}, seconds=300, patience=15)
    again = room.run("rack", "flash", "pi[0-7]", "--yes")
    assert again.code == 0, again.out
    assert [step["action"] for step in again.result["steps"]] == ["nothing"] * 8, again.out
    ledger = read_ledger(room.place.rack)
    assert {ledger.state_of(node).standing() for node in NODES} == {Standing.VERIFIED}
    assigned = [event.node for event in ledger.events if isinstance(event, Assigned)]
    assert sorted(assigned) == NODES, "no second card for any node"


def test_a_desk_whose_cable_is_out_is_named(room: Room) -> None:
    with room.lab.unplugged("desk2"):
        said = room.run("rack", "plan", "pi[0-7]")
    assert said.code == 0, said.out
    assert "does not answer" in said.result["left_out"]["desk2"]
    assert len(said.result["steps"]) == 4
    assert json.loads(said.out.splitlines()[-1])["without_card"] == NODES[4:]
