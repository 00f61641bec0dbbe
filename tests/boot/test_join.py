"""The very card image of pi7 boots in QEMU's Pi 2 and joins a real Salt master by itself.

What the card became is asked over Salt itself, all of it at once: an emulated node works for ten
seconds and more at each job.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.boot.pi7 import LOGIN_SECONDS, Pi7, pi7_beside_its_master
from tests.support.bootrack import (
    SLOT_BYTES,
    add_kernel_word,
    boot_file,
    boot_rack,
    first_boot_report,
)
from tests.support.qemu import LOGIN, booting, unless_the_emulator_fails
from tests.support.salt import SaltPrograms
from tests.support.standin import StandIn
from tests.support.telling import Tell

pytestmark = [
    pytest.mark.boot,
    pytest.mark.long(minutes=4),
    pytest.mark.timeout(2400),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]


NEXT = "+++"
LED = "/sys/class/leds/ACT"
SHELL = {
    "clock": "grep IMAGED_AT /etc/picloud/firstboot.conf; date +%s",
    "ids": "lsblk --noheadings --output PARTUUID,UUID /dev/mmcblk0",
    "host keys": "ssh-keyscan 127.0.0.1 2>/dev/null",
    "led": f"cat {LED}/trigger {LED}/delay_on {LED}/delay_off",
    "passwords": "getent shadow root alarm",
}
"""What a shell on pi7 is asked."""
SALT: dict[str, tuple[str, ...]] = {
    "grains.item": ("id", "host", "machine_id", "picloud"),
    "disk.usage": (),
    "mount.swaps": (),
    "cmd.run": (f"; echo {NEXT}; ".join(SHELL.values()),),
}
"""What pi7's Salt is asked: its functions, and their arguments."""


@dataclass(frozen=True)
class Joined:
    """How pi7's first boot went, and what it then answered; its master runs."""

    pi7: Pi7
    times: str
    failed_units: list[str]
    report: dict[str, Any]
    log: str
    salt: dict[str, Any]

    def shell(self, question: str) -> str:
        """What pi7's shell said."""
        said: str = self.salt["cmd.run"]
        answers = said.split(f"\n{NEXT}\n")
        return dict(zip(SHELL, answers, strict=True))[question]


@pytest.fixture(scope="module")
def joined(
    stand_in: StandIn,
    salt_programs: SaltPrograms,
    boot_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Joined]:
    folder = tmp_path_factory.mktemp("join")
    with (
        pi7_beside_its_master(folder, boot_cache, stand_in, salt_programs) as pi7,
        pi7.joined(pi7.card) as (machine, times),
    ):
        report = first_boot_report(pi7.card)
        log = boot_file(pi7.card, "picloud/firstboot.log").decode()
        *arguments, _ = (word for each in SALT.values() for word in (*each, ","))
        salt = pi7.ask(",".join(SALT), *arguments)
        yield Joined(pi7, times, machine.failed_units, report, log, salt)


@pytest.mark.long(minutes=8)  # not really, but it only measures: for --all
def test_a_plain_boot_of_the_same_release_beside_which_the_join_is_seen(
    stand_in: StandIn, boot_cache: Path, tmp_path: Path, tell: Tell
) -> None:
    """No Salt on the card and first boot switched off by the kernel's word for it."""
    rack = boot_rack(tmp_path, boot_cache, stand_in, '[rack]\nnodes = "pi7"\nmodel = "pi2"\n')
    card = rack.card("pi7")
    add_kernel_word(card, "picloud.firstboot=skip")

    def boot() -> float:
        with booting(card) as machine:
            machine.wait_for(LOGIN, seconds=LOGIN_SECONDS)
            to_login = machine.seconds_on
            machine.wait_for("picloud-firstboot: skipped", seconds=60)
            assert not machine.failed_units
            return to_login

    to_login = unless_the_emulator_fails([card], boot)
    tell(f"login after {to_login:.0f} s")


def test_it_joins_with_no_key_accepted_by_hand(joined: Joined, tell: Tell) -> None:
    tell(joined.times)
    keys = joined.pi7.head.box.keys()
    assert set(keys.pop("minions")) == {f"pi{n}" for n in range(14)}
    assert keys == {"minions_pre": [], "minions_rejected": [], "minions_denied": []}


def test_its_first_boot_is_complete_and_told_on_the_card(joined: Joined) -> None:
    assert not joined.failed_units
    assert (joined.report["node"], joined.report["state"]) == ("pi7", "complete")
    assert {step["state"] for step in joined.report["steps"]} == {"done"}
    assert "80-await-master: joined head" in joined.log


def test_it_is_pi7_and_nobody_else(joined: Joined) -> None:
    own = joined.pi7.identity()
    assert joined.salt["grains.item"] == {
        "id": "pi7",
        "host": "pi7",
        "machine_id": own["machine_id"],
        "picloud": {"rack": "boot", "model": "pi2"},
    }


def test_its_clock_began_when_its_card_was_made(joined: Joined) -> None:
    """A Pi has no clock that runs without power, and this network no time server."""
    said = joined.shell("clock")
    made, now = (int(line.rpartition("=")[2]) for line in said.splitlines())
    assert made < now < made + 86400, said


def test_the_ids_of_its_card_are_its_own(joined: Joined) -> None:
    own = joined.pi7.identity()
    said = joined.shell("ids")
    volume = f"{own['volume_id']:08X}"
    assert [line.split() for line in said.splitlines() if line.strip()] == [
        [f"{own['disk_id']:08x}-01", f"{volume[:4]}-{volume[4:]}"],
        [f"{own['disk_id']:08x}-02", own["root_uuid"]],
    ]


def test_sshd_has_the_keys_of_known_hosts(joined: Joined) -> None:
    known = {
        tuple(line.split()[1:3])
        for line in joined.pi7.rack.command("rack", "known-hosts").splitlines()
        if line.split()[0] == "pi7"
    }
    said = joined.shell("host keys")
    found = (line for line in said.splitlines() if line and not line.startswith("#"))
    assert {tuple(line.split()[1:3]) for line in found} == known, said


def test_root_fills_the_card_and_there_is_swap(joined: Joined) -> None:
    size_kib = int(joined.salt["disk.usage"]["/"]["1K-blocks"])
    assert 0.9 * SLOT_BYTES < size_kib * 1024 < SLOT_BYTES, "grown while mounted"
    assert joined.salt["mount.swaps"]["/swapfile"]["size"] == str(64 * 1024 - 4)


def test_its_led_flashes_slowly_now_that_all_is_well(joined: Joined) -> None:
    said = joined.shell("led")
    assert "[timer]" in said, said
    assert said.splitlines()[1:] == ["100", "1900"]


def test_nobody_logs_in_with_the_passwords_of_the_release(joined: Joined) -> None:
    said = joined.shell("passwords")
    entries = [line.split(":") for line in said.splitlines()]
    assert [user for user, *_ in entries] == ["root", "alarm"]
    assert all(password[0] in "*!" for _, password, *_ in entries), said
