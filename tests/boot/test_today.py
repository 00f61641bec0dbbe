"""Today's stand-in: a base tarball's content, and a kernel, systemd and Python as new as any.

Nothing that Salt needs is in it. It comes from the release's own repositories, is on the card, and
the node joins with no network but its master.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.boot.pi7 import LOGIN_SECONDS, pi7_beside_its_master
from tests.support.bootrack import add_kernel_word, boot_rack, first_boot_report
from tests.support.qemu import LOGIN, booting, unless_the_emulator_fails
from tests.support.salt import SaltPrograms
from tests.support.standin import StandIn
from tests.support.telling import Tell

pytestmark = [
    pytest.mark.boot,
    pytest.mark.long(minutes=8),
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]


def test_todays_release_boots_to_a_login(
    today: StandIn, boot_cache: Path, tmp_path: Path, tell: Tell
) -> None:
    rack = boot_rack(tmp_path, boot_cache, today, '[rack]\nnodes = "pi7"\nmodel = "pi2"\n')
    card = rack.card("pi7")
    add_kernel_word(card, "picloud.firstboot=skip")

    def boot() -> float:
        with booting(card) as machine:
            machine.wait_for(LOGIN, seconds=LOGIN_SECONDS)
            assert not machine.failed_units
            return machine.seconds_on

    tell(f"login after {unless_the_emulator_fails([card], boot):.0f} s")


def test_it_joins_with_packages_from_the_releases_repositories(
    today: StandIn, salt_programs: SaltPrograms, boot_cache: Path, tmp_path: Path, tell: Tell
) -> None:
    with (
        pi7_beside_its_master(tmp_path, boot_cache, today, salt_programs) as pi7,
        pi7.joined(pi7.card) as (machine, times),
    ):
        tell(times)
        assert not machine.failed_units
        report = first_boot_report(pi7.card)
        assert (report["state"], {step["state"] for step in report["steps"]}) == (
            "complete",
            {"done"},
        )
        assert pi7.ask("grains.get", "pythonversion")[:2] == [3, 14]
        # What is on the node is what its own pacman says, and all of it is whole.
        assert "No database errors" in pi7.ask("cmd.run", "LC_ALL=C pacman -Dk 2>&1")
        assert "python-pyzmq" in pi7.ask("cmd.run", "pacman -Qq").split()
