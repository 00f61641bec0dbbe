"""Whatever is killed at whatever moment, the next runs end with one good card for each node.

``PICLOUD_STATION_ROUNDS=50`` is the full run. What is killed, and when, the seed of the run says.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator

import pytest

from imager.rack.history.ledger import Standing, read_ledger
from tests.support.deskrack import DeskRack, desk_rack
from tests.support.loop import missing_abilities
from tests.support.rackcards import forget, is_whole
from tests.support.salt import SaltPrograms
from tests.support.sampling import SEED
from tests.support.telling import Tell

pytestmark = [
    pytest.mark.salt,
    pytest.mark.long(minutes=30),
    pytest.mark.timeout(6 * 3600),
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]
ROUNDS = int(os.environ.get("PICLOUD_STATION_ROUNDS", "4"))
NODES = ["pi0", "pi1", "pi2", "pi3"]
FLASH = ("rack", "flash", "pi[0-3]", "--stations", "desk[1-2]", "--yes")
MOST_LINES = 60
"""The command says about so many while it makes four cards."""
PATIENCE_SECONDS = 1200
"""A card that never reached its station is known to be so after seven minutes."""


@pytest.fixture(scope="module")
def desks(
    salt_programs: SaltPrograms, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DeskRack]:
    folder = tmp_path_factory.mktemp("killed")
    with desk_rack(folder, salt_programs, desks=2, cards=2) as made:
        said = made.run("rack", "stations", "install", "desk[1-2]")
        assert said.code == 0, said.err + said.out
        yield made


@pytest.mark.parametrize("number", range(ROUNDS))
def test_every_node_has_one_good_card_in_the_end(desks: DeskRack, number: int, tell: Tell) -> None:
    chance = random.Random(f"{os.environ[SEED]} {number}")
    victim = ("head", "station", "minion", "master")[number % 4]
    moment = chance.randrange(MOST_LINES)
    forget(desks.place)
    for card in desks.cards:
        with card.backing.open("r+b") as file:
            file.write(bytes(1 << 20))

    struck = struck_at(desks, victim, f"desk{chance.randrange(1, 3)}", moment)
    began = time.monotonic()
    while (said := desks.run(*FLASH)).code:
        assert time.monotonic() - began < PATIENCE_SECONDS, said.out[-3000:]
        time.sleep(10)
    ledger = read_ledger(desks.place.rack)
    targets = set()
    for node in NODES:
        state = ledger.state_of(node)
        assert state.last is not None and state.standing() is Standing.VERIFIED, node
        targets.add(state.last.target)
        (card,) = (one for one in desks.cards if state.last.target.endswith(f":{one.node}"))
        assert is_whole(card.backing, desks.place, state.last.receipt), node
    assert len(targets) == len(NODES), "each node has a card of its own"
    tell(f"{victim} killed after {struck} lines: right after {time.monotonic() - began:.0f} s")


def struck_at(desks: DeskRack, victim: str, desk: str, moment: int) -> int:
    """Kill ``victim`` once the command has said ``moment`` lines, or has ended; start again what
    computers start by themselves. Returns how many lines it said before."""
    lab = desks.lab
    lines = 0
    with subprocess.Popen(
        desks.command(*FLASH), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as head:
        assert head.stdout is not None
        while lines < moment and head.stdout.readline():
            lines += 1
        if victim == "head":
            lab.kill(lab.head, b"rack\0flash")
        elif victim == "station":
            lab.kill(lab.desks[desk].box, b"station\0work")
        elif victim == "minion":
            assert lab.kill(lab.desks[desk].box, b"salt-minion")
            lab.start(lab.desks[desk].box, "salt-minion")
        else:
            assert lab.kill(lab.head, b"salt-master")
            lab.start(lab.head, "salt-master")
        while head.stdout.readline():
            pass
    lab.head.wait_until_answering(set(lab.desks), seconds=300)
    return lines
