"""Whatever is killed at whatever moment: one good card for each node, or it is said to be unknown.

Two stations with two cards each; scripts/reliability has four with fourteen, and makes a table of
it. What is killed, and when, the seed of the run says; ``PICLOUD_STATION_ROUNDS`` how often.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.fault.station_kills import VICTIMS, Course, struck, undisturbed
from tests.support.deskrack import DeskRack, desk_rack
from tests.support.loop import missing_abilities
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


@pytest.fixture(scope="module")
def desks(
    salt_programs: SaltPrograms, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DeskRack]:
    folder = tmp_path_factory.mktemp("killed")
    with desk_rack(folder, salt_programs, desks=2, cards=2) as made:
        said = made.run("rack", "stations", "install", "desk[1-2]")
        assert said.code == 0, said.err + said.out
        yield made


@pytest.fixture(scope="module")
def course(desks: DeskRack) -> Course:
    return undisturbed(desks)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_every_node_has_one_good_card_or_is_unknown(
    desks: DeskRack, course: Course, number: int, tell: Tell
) -> None:
    chance = random.Random(f"{os.environ[SEED]} {number}")
    done = struck(desks, VICTIMS[number % len(VICTIMS)], chance, course)
    tell(str(done))
    assert not done.wrong
