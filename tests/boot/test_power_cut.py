"""The power fails at ten random moments of pi7's first boot; switched on again, it joins.

One first boot is recorded write by write, sector by sector. A card that lost its power at some
moment is the card as it was and the writes up to then: as good as a machine that was killed there,
to be had again from the seed, and it takes one boot instead of two.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.boot.pi7 import LOGIN_SECONDS, Pi7, pi7_beside_its_master
from tests.support.bootrack import first_boot_report
from tests.support.qemu import copied
from tests.support.salt import SaltPrograms
from tests.support.sampling import SEED
from tests.support.standin import StandIn
from tests.support.telling import Tell
from tests.support.writelog import replay, writes

pytestmark = [
    pytest.mark.boot,
    pytest.mark.long(minutes=60),
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]

CUTS = 10


@dataclass(frozen=True)
class Recorded:
    """A first boot that was not cut: ``log`` holds its writes, and those from ``first`` to ``last``
    fell between its first step and its end."""

    pi7: Pi7
    log: Path
    first: int
    last: int
    notes: dict[str, str]

    def moment(self, number: int) -> int:
        """How many writes are done when the power fails for the ``number``-th time."""
        return random.Random(f"{os.environ[SEED]} {number}").randrange(self.first, self.last)


def steps_of(card: Path) -> dict[str, str]:
    """The steps that are done, each with its note, as the card tells."""
    report = first_boot_report(card)
    assert report["state"] == "complete"
    return {step["name"]: step["note"] for step in report["steps"] if step["state"] == "done"}


@pytest.fixture(scope="module")
def recorded(
    stand_in: StandIn,
    salt_programs: SaltPrograms,
    boot_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("cut")
    log = folder / "log"
    with pi7_beside_its_master(folder, boot_cache, stand_in, salt_programs) as pi7:
        card = copied(pi7.card, folder / "recorded.img")
        with pi7.switched_on(card, "--record", str(log)) as machine:
            machine.wait_for("picloud-firstboot: 10-clock", seconds=LOGIN_SECONDS)
            begun = log.stat().st_size
            pi7.wait_until_joined(machine)
            ended = log.stat().st_size
        places = [write.data for write in writes(log)]
        first, last = (sum(place < size for place in places) for size in (begun, ended))
        yield Recorded(pi7, log, first, last, steps_of(card))


@pytest.mark.parametrize("number", range(CUTS))
def test_a_node_whose_power_failed_joins_when_it_is_switched_on_again(
    number: int, recorded: Recorded, tmp_path: Path, tell: Tell
) -> None:
    pi7, moment = recorded.pi7, recorded.moment(number)
    tell(
        f"{SEED}={os.environ[SEED]}: cut after write {moment}, first boot is"
        f" {recorded.first} to {recorded.last}"
    )
    card = copied(pi7.card, tmp_path / "cut.img")
    replay(recorded.log, moment, card)
    with pi7.joined(card) as (machine, times):
        assert not machine.failed_units
    assert steps_of(card) == recorded.notes
    tell(times)
