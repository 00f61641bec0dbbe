"""The Salt master is away for the first ten minutes of pi7, which then joins by itself, once.

The minutes are those of the node, as its kernel counts them.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.boot.pi7 import JOIN_SECONDS, LOGIN_SECONDS, Pi7, pi7_beside_its_master
from tests.support.bootrack import first_boot_report
from tests.support.headnode import PATIENCE
from tests.support.qemu import LOGIN, unless_the_emulator_fails
from tests.support.salt import SaltPrograms, unplugged
from tests.support.standin import StandIn
from tests.support.telling import Tell

pytestmark = [
    pytest.mark.boot,
    pytest.mark.long(minutes=30),
    pytest.mark.timeout(7200),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]

ABSENT_SECONDS = 600
SLOWNESS = 10
"""How many seconds of this computer one of the node takes, at most."""
AWAY = "60-reach-master: head (10.0.2.2) does not answer on port 4506"


def test_a_master_that_comes_ten_minutes_late_is_found(
    stand_in: StandIn,
    salt_programs: SaltPrograms,
    boot_cache: Path,
    tmp_path: Path,
    tell: Tell,
) -> None:
    with pi7_beside_its_master(tmp_path, boot_cache, stand_in, salt_programs) as pi7:
        times = unless_the_emulator_fails([pi7.card], lambda: joined_late(pi7))
        tell(times)
        unless_the_emulator_fails([pi7.card], lambda: joined_again(pi7))
    report = first_boot_report(pi7.card)
    assert report["state"] == "complete"
    assert {step["state"] for step in report["steps"]} == {"done"}


def failed_steps(card: Path) -> set[str]:
    steps = first_boot_report(card)["steps"]
    return {step["name"] for step in steps if step["state"] == "failed"}


def joined_late(pi7: Pi7) -> str:
    with pi7.switched_on(pi7.card) as machine:
        with unplugged(pi7.head.wire):
            machine.wait_for(AWAY, seconds=JOIN_SECONDS)
            said, said_own = machine.seconds_on, machine.own_seconds
            while "60-reach-master" not in failed_steps(pi7.card):
                assert machine.seconds_on < said + 60, "who holds the card in hand is not told"
                time.sleep(1)
            while machine.own_seconds < ABSENT_SECONDS:
                machine.require_running("while its master was away")
                assert machine.seconds_on < SLOWNESS * ABSENT_SECONDS, "it says nothing any more"
                time.sleep(1)
            away, away_own = machine.seconds_on, machine.own_seconds
            tries = machine.console.count(AWAY)
            assert tries < ABSENT_SECONDS / 60, "it asks in a fast loop"
        times = pi7.wait_until_joined(machine)
        return (
            f"by the node's own clock away until {away_own:.0f} s, missed after {said_own:.0f} s"
            f" and {tries} times; by this computer's away until {away:.0f} s, missed after"
            f" {said:.0f} s; {times.partition(', ')[2]}"
        )


def joined_again(pi7: Pi7) -> None:
    """Switched on once more after its power was lost: nothing is left to do."""
    with pi7.switched_on(pi7.card) as machine:
        machine.wait_for(LOGIN, seconds=LOGIN_SECONDS)
        pi7.head.box.wait_until_answering({"pi7"}, seconds=JOIN_SECONDS, patience=PATIENCE)
        assert "picloud-firstboot" not in machine.console
        assert not machine.failed_units
