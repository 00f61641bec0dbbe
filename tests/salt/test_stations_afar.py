"""The head is not the master: it reaches it by ssh, and stations by way of it. Cards are put in one
after the other, and all at once."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from imager.config.load import load_rack
from imager.rack.history.events import Standing
from imager.rack.history.ledger import read_ledger
from imager.rack.master.connection import Door, Way, door_to_master
from imager.stations.salt.install import MASTER_FILE
from imager.stations.salt.salt_bus import opened_bus
from imager.stations.salt.scripts import PILLAR_FOLDER
from tests.support.deskrack import DeskRack, desk_rack, from_afar
from tests.support.laboratory import MASTER_ADDRESS
from tests.support.loop import missing_abilities
from tests.support.rackcards import is_whole
from tests.support.salt import SaltPrograms
from tests.support.secrets import private_files

pytestmark = [
    pytest.mark.salt,
    pytest.mark.long(minutes=7),
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]
SOON_SECONDS = 300
NODES = ["pi0", "pi1", "pi2", "pi3"]


@pytest.fixture(scope="module")
def afar(
    salt_programs: SaltPrograms, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DeskRack]:
    folder = tmp_path_factory.mktemp("afar")
    with (
        desk_rack(folder, salt_programs, desks=2, cards=2) as near,
        from_afar(near) as made,
    ):
        (folder / "lab/head/etc/salt/master.d" / MASTER_FILE).unlink()
        start_again(near, "salt-master")
        yield made


def start_again(rack: DeskRack, daemon: str) -> None:
    lab = rack.lab
    assert lab.kill(lab.head, daemon.encode())
    lab.start(lab.head, daemon)
    lab.head.wait_until_answering(set(lab.desks), seconds=SOON_SECONDS)


@contextmanager
def at_work(afar: DeskRack, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command with ``words``, whose lines are read as they come; killed with the block."""
    with subprocess.Popen(
        afar.command(*words, "--stations", "desk[1-2]"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_with(process: subprocess.Popen[str], words: str) -> str:
    """The next line that has ``words``."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return line
    raise AssertionError(f"no {words} in {seen[-30:]}")


def put_in(afar: DeskRack, number: int) -> None:
    desk, slot = f"desk{number // 2 + 1}", number % 2
    afar.lab.desks[desk].put(f"pci-{desk}-{slot}", afar.cards[number].node)


def take_out(afar: DeskRack, number: int) -> None:
    desk, slot = f"desk{number // 2 + 1}", number % 2
    (afar.lab.desks[desk].folder / "by-path" / f"pci-{desk}-{slot}").unlink()


def left_on_master(afar: DeskRack) -> list[str]:
    """Files that were handed over, and programs of Salt that were started for the head."""
    handed = (afar.lab.folder / f"head{PILLAR_FOLDER}/hosts").rglob("*")
    listed = subprocess.run(
        [*afar.lab.head.entering, "ps", "-eo", "args"], capture_output=True, text=True, check=True
    )
    running = [line for line in listed.stdout.splitlines() if "salt-run" in line]
    return [str(path) for path in handed if path.is_file()] + running


def test_a_master_that_knows_nothing_is_told_and_started_again(afar: DeskRack) -> None:
    install = ("rack", "stations", "install", "desk[1-2]")
    looked = afar.run(*install, "--dry-run")
    assert (looked.code, looked.result["master_knows"]) == (0, False)
    assert looked.result["file_server"] == "/srv/salt"
    told = afar.run(*install)
    assert told.code == 10
    assert told.events[-2]["hint"].startswith("systemctl restart salt-master there")
    hasty = afar.run(*install)
    assert hasty.code == 30
    why = hasty.result["stations"]["desk1"]
    assert why.startswith("its pillar has nothing for it from the head: was salt-master started")
    start_again(afar, "salt-master")
    done = afar.run(*install)
    assert done.code == 0, done.err + done.out
    assert done.result["stations"] == {"desk1": None, "desk2": None}


def test_a_card_put_in_at_any_desk_gets_the_next_node(afar: DeskRack) -> None:
    for number in range(1, 4):
        take_out(afar, number)
    try:
        with at_work(afar, "rack", "watch", "pi[0-1]", "--countdown", "1") as watch:
            assert '"D1S0"' in line_with(watch, '"event": "offer"')
            line_with(watch, '"event": "card"')
            put_in(afar, 3)
            assert '"D2S1"' in line_with(watch, '"event": "offer"')
            line_with(watch, '"event": "result"')
            assert watch.wait(60) == 0
    finally:
        for number in range(1, 4):
            put_in(afar, number)
    ledger = read_ledger(afar.place.rack)
    for node, number in (("pi0", 0), ("pi1", 3)):
        last = ledger.state_of(node).last
        assert last is not None and last.outcome == "verified"
        assert is_whole(afar.cards[number].backing, afar.place, last.receipt)
    assert left_on_master(afar) == []


def test_the_rest_is_made_at_once_also_when_the_head_is_killed_meanwhile(afar: DeskRack) -> None:
    with at_work(afar, "rack", "flash", "pi[0-3]", "--yes") as head:
        line_with(head, '"write"')
    until = time.monotonic() + SOON_SECONDS
    while any("salt-run" in line for line in left_on_master(afar)):
        assert time.monotonic() < until, "who listened for the head ends when it is gone"
        time.sleep(1)
    while (said := afar.run("rack", "flash", "pi[0-3]", "--yes", "--stations", "desk[1-2]")).code:
        assert time.monotonic() < until, said.out[-3000:] + said.err
        time.sleep(5)
    assert said.code == 0, said.out[-3000:] + said.err
    ledger = read_ledger(afar.place.rack)
    for node in NODES:
        state = ledger.state_of(node)
        assert state.standing() is Standing.VERIFIED
        assert state.last is not None
        (card,) = (one for one in afar.cards if state.last.target.endswith(f":{one.node}"))
        assert is_whole(card.backing, afar.place, state.last.receipt)


def test_no_key_of_a_node_is_on_the_master_or_a_station(afar: DeskRack) -> None:
    keys = [
        path.read_bytes().splitlines()[-2]
        for node in NODES
        for path in private_files(afar.place.rack / ".picloud/keys" / node)
    ]
    found = {
        path.relative_to(afar.lab.folder).parts[:2]
        for path in afar.lab.folder.rglob("*")
        if path.is_file() and not path.is_symlink()
        if any(key in data for data in [path.read_bytes()] for key in keys)
    }
    assert found == {("head", "sshd")}, "the master has its own host keys"


@pytest.fixture
def by_sudo(afar: DeskRack) -> DeskRack:
    """The master lets in ann, who is not root, and whom sudo lets do everything; its sudo has the
    PATH that Debian gives it, with the place of this Salt."""
    sudo = shutil.which("sudo")
    if sudo is None:
        pytest.skip("sudo is not installed")
    folder = afar.programs.folder
    script = f"""
        own() {{ cat >"/etc/$1.new" && chmod "$2" "/etc/$1.new" && mv "/etc/$1.new" "/etc/$1"; }}
        (cat /etc/passwd; echo 'ann:x:4242:4242::/:/bin/sh') | own passwd 644
        (cat /etc/shadow; echo 'ann:*:19000:0:99999:7:::') | own shadow 600
        (echo 'Defaults env_reset, use_pty, secure_path="{folder}:/usr/sbin:/usr/bin:/sbin:/bin"'
         echo 'root ALL=(ALL:ALL) ALL'
         echo 'ann ALL=(ALL:ALL) NOPASSWD: ALL') | own sudoers 440
    """
    subprocess.run([*afar.lab.head.entering, "sh", "-euc", script], check=True)
    return replace(afar, way=(*afar.way, "--user", "ann"))


def test_who_is_not_root_on_the_master_does_all_of_it_by_sudo(by_sudo: DeskRack) -> None:
    ann = by_sudo
    listed = ann.run("rack", "stations")
    assert listed.code == 0, listed.err
    assert [one["fault"] for one in listed.result["stations"]] == [None, None]
    installed = ann.run("rack", "stations", "install", "desk[1-2]")
    assert installed.code == 0, installed.err + installed.out
    flash = ("rack", "flash", "pi0", "--stations", "desk[1-2]", "--yes", "--again")
    said = ann.run(*flash)
    assert said.code == 0, said.out[-3000:] + said.err
    assert any(event["event"] == "progress" for event in said.events), "its events were heard"
    last = read_ledger(ann.place.rack).state_of("pi0").last
    assert last is not None
    (card,) = (one for one in ann.cards if last.target.endswith(f":{one.node}"))
    assert is_whole(card.backing, ann.place, last.receipt)
    assert left_on_master(ann) == []


def test_more_stations_than_an_sshd_lets_log_in_at_once(afar: DeskRack) -> None:
    rack = load_rack(afar.place.rack)
    identity = afar.place.folder / "me"
    door = door_to_master(rack, Way(host=MASTER_ADDRESS, identity=identity, local=False))
    door = Door(door.name, (*afar.entering, *door.words), is_local=False)
    with opened_bus(door) as bus, ThreadPoolExecutor(30) as all_at_once:
        taken = all_at_once.map(lambda n: bus.take_back(f"desk{n}", "delta"), range(30))
        assert list(taken) == [None] * 30
