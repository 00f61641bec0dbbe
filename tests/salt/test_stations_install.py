"""From nothing: two minions are made stations by ``rack stations install``, and make four cards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imager.rack.history.events import Standing
from imager.rack.history.ledger import read_ledger
from tests.support.deskrack import DeskRack, desk_rack
from tests.support.loop import missing_abilities
from tests.support.rackcards import is_whole
from tests.support.salt import SaltPrograms

pytestmark = [
    pytest.mark.salt,
    pytest.mark.long(minutes=1),
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]
NODES = ["pi0", "pi1", "pi2", "pi3"]


@pytest.fixture
def two_desks(
    salt_programs: SaltPrograms, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DeskRack]:
    with desk_rack(tmp_path_factory.mktemp("desks"), salt_programs, desks=2, cards=2) as made:
        yield made


def test_two_minions_become_stations_and_make_four_cards(two_desks: DeskRack) -> None:
    before = two_desks.run("rack", "stations").result["stations"]
    assert [one["station"] for one in before] == ["desk1", "desk2"]
    for one in before:
        install = f"picloud-image rack stations install {one['station']}"
        assert one["fault"] == f"it has nothing of picloud-image yet: {install}"
    installed = two_desks.run("rack", "stations", "install", "desk[1-2]")
    assert installed.code == 0, installed.err
    assert installed.result["stations"] == {"desk1": None, "desk2": None}

    said = two_desks.run("rack", "flash", "pi[0-3]", "--stations", "desk[1-2]", "--yes")
    assert said.code == 0, said.out[-3000:] + said.err
    assert said.result["verified"] == NODES
    ledger = read_ledger(two_desks.place.rack)
    for node, card in zip(NODES, two_desks.cards, strict=True):
        state = ledger.state_of(node)
        assert state.standing() is Standing.VERIFIED
        assert state.last is not None
        assert is_whole(card.backing, two_desks.place, state.last.receipt)
    after = two_desks.run("rack", "stations").result["stations"]
    assert [len(one["cards"]) for one in after] == [2, 2]
    assert all(len(one["goldens"]) == 1 for one in after), "it was fetched once"
