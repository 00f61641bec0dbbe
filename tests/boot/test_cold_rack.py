"""A cold rack joins by itself: two machines on a network of their own, pi0 their Salt master.

Nothing outside helps: no DHCP, no name server, no time server, no key accepted. Only ssh reaches
pi0, to ask it what a person would ask.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.bootrack import boot_rack, first_boot_report
from tests.support.qemu import LOGIN, Machine, booting, unless_the_emulator_fails
from tests.support.salt import Wire, bridged
from tests.support.ssh import Ssh, new_login_key
from tests.support.standin import StandIn
from tests.support.telling import Tell

pytestmark = [
    pytest.mark.boot,
    pytest.mark.long(minutes=8),  # two emulators compute all the while: for --all
    pytest.mark.timeout(2400),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]

JOIN_SECONDS = 1500
"""On two slow cores, which both machines share, it was 604, and 884 with other tests beside."""
RACK = """\
[rack]
name = "cold"
nodes = "pi[0-1]"
master = "pi0"
model = "pi2"
[network]
addresses = "10.77.0.[10-11]"
prefix = 24
[salt]
version = "3008.3"
[login]
authorized_keys = ["{login}"]
"""
TEST_PING = "salt --out=json --static --timeout=120 '*' test.ping"
"""The seconds are the node's own, each some seven of this computer's. None is given up before it is
answered, as every question more makes both nodes slower."""


def test_a_cold_rack_of_two_answers_with_no_outside_help(
    stand_in: StandIn, boot_cache: Path, tmp_path: Path, tell: Tell
) -> None:
    login = tmp_path / "login"
    rack = boot_rack(tmp_path, boot_cache, stand_in, RACK.format(login=new_login_key(login)))
    cards = {name: rack.card(name) for name in ("pi0", "pi1")}
    (tmp_path / "known_hosts").write_text(rack.command("rack", "known-hosts"))

    with bridged("rack", "10.77.0.1") as on:
        at_pi0 = Ssh("pi0", "10.77.0.10", login, tmp_path / "known_hosts", on)
        answers, keys, times = unless_the_emulator_fails(
            cards.values(), lambda: switched_on(cards, at_pi0, on)
        )
    tell(times)

    assert answers == {"pi0": True, "pi1": True}
    assert set(keys.pop("minions")) == {"pi0", "pi1"}
    assert not any(keys.values()), keys
    for name, card in cards.items():
        assert first_boot_report(card)["state"] == "complete", name


def switched_on(
    cards: Mapping[str, Path], at_pi0: Ssh, on: Wire
) -> tuple[dict[str, bool], dict[str, list[str]], str]:
    """Both machines until both have joined: what ``test.ping`` said, the master's keys, times."""
    with ExitStack() as power:
        pi0 = power.enter_context(booting(cards["pi0"], "--bridge", "rack", on=on))
        pi1 = power.enter_context(booting(cards["pi1"], "--bridge", "rack", on=on))
        for machine in (pi0, pi1):
            machine.wait_for(LOGIN, seconds=JOIN_SECONDS)
        to_login = pi0.seconds_on
        # Nobody asks before: what asks takes pi0 a minute, which it needs for what it does.
        for name, machine in (("pi0", pi0), ("pi1", pi1)):
            machine.wait_for(f"{name}: complete", seconds=JOIN_SECONDS)
            assert not machine.failed_units, name
        to_complete = pi0.seconds_on
        answers = wait_until_both_answer(at_pi0, pi0, pi1)
        to_answers = pi0.seconds_on
        keys = json.loads(at_pi0.run("salt-key --list-all --out=json"))
        times = (
            f"logins after {to_login:.0f} s, first boots complete after {to_complete:.0f} s,"
            f" both answered test.ping after {to_answers:.0f} s"
        )
        return answers, keys, times


def wait_until_both_answer(at_pi0: Ssh, pi0: Machine, pi1: Machine) -> dict[str, bool]:
    """Ask on pi0, as a person would, until both do."""
    said = ""
    while pi0.seconds_on < JOIN_SECONDS:
        for machine in (pi0, pi1):
            machine.require_running("before both answered")
        said = at_pi0.run(TEST_PING, seconds=JOIN_SECONDS)
        with suppress(json.JSONDecodeError):  # a master that is slow yet: what Salt says of it
            answers: dict[str, bool] = json.loads(said)
            if sum(answer is True for answer in answers.values()) == 2:
                return answers
    raise AssertionError(f"no answers in {JOIN_SECONDS} s: {said}\n{pi1.console[-3000:]}")
