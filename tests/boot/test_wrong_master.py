"""pi7's card was made for another master's key than the one that answers: it does not join.

The master is the other one here: it knows pi7's key and would take it in. What would be lost if pi7
did not look is the node, to whoever holds the master's address.
"""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from imager.node.keys.salt import salt_pair
from imager.node.keys.store import KeyFolder
from tests.boot.pi7 import JOIN_SECONDS, LOGIN_SECONDS, Pi7, pi7_beside_its_master
from tests.support.bootrack import first_boot_report
from tests.support.qemu import LOGIN, unless_the_emulator_fails
from tests.support.salt import SaltPrograms
from tests.support.standin import StandIn
from tests.support.telling import Tell

pytestmark = [
    pytest.mark.boot,
    pytest.mark.long(minutes=15),
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]

REFUSED = "80-await-master: head has another key than this card was made for: not joined"
REFUSALS = 3
PAUSES = (30, 60)
"""Seconds of the node between a refusal and the next try, at least; the third pause is 120."""
STOPPING_SECONDS = 50
QUIET_SECONDS = 50


def test_a_master_with_another_key_gets_neither_a_minion_nor_a_flood(
    stand_in: StandIn,
    salt_programs: SaltPrograms,
    boot_cache: Path,
    tmp_path: Path,
    tell: Tell,
) -> None:
    with pi7_beside_its_master(tmp_path, boot_cache, stand_in, salt_programs) as pi7:
        expected = salt_pair(KeyFolder(tmp_path / "other"), "master").public
        (pi7.rack.folder / "master.pub").write_bytes(expected)
        card = pi7.rack.card("pi7")
        tell(unless_the_emulator_fails([card], lambda: refused(pi7, card)))
    report = first_boot_report(card)
    assert report["state"] == "failed"
    (step,) = (step for step in report["steps"] if step["state"] == "failed")
    assert step["name"] == "80-await-master"
    assert step["note"] == REFUSED.partition(": ")[2]
    assert "find out which computer answers in its place" in step["hint"]


def refused(pi7: Pi7, card: Path) -> str:
    master = pi7.head.box
    asked_before = asked(pi7)
    with pi7.switched_on(card) as machine:
        machine.wait_for(LOGIN, seconds=LOGIN_SECONDS)
        own: list[float] = []
        for times in range(1, REFUSALS + 1):
            machine.wait_for(REFUSED, seconds=JOIN_SECONDS, times=times)
            own.append(machine.own_seconds)
        for pause, (one, next_one) in zip(PAUSES, pairwise(own), strict=True):
            assert next_one - one >= pause, f"it tries again at once: {own}"
        time.sleep(STOPPING_SECONDS)
        heard = asked(pi7)
        assert heard > asked_before, "the master was never asked, so nothing was refused"
        time.sleep(QUIET_SECONDS)
        assert asked(pi7) == heard, "the minion still asks between two tries"
        assert master.answering({"pi7"}, patience=60) == set()
        assert not machine.failed_units
    return (
        f"refused after {', '.join(f'{second:.0f}' for second in own)} s by the node's own clock;"
        f" the master was asked {heard - asked_before} times"
    )


def asked(pi7: Pi7) -> int:
    """How often pi7 has asked the master to be taken in."""
    return pi7.head.box.log("salt-master").count("Authentication request from pi7")
