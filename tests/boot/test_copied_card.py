"""pi7's card, once it has joined: saved and put on a smaller card it is pi7, and a copy is pi8."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.units import GiB
from tests.boot.pi7 import JOIN_SECONDS, LOGIN_SECONDS, Pi7, pi7_beside_its_master
from tests.support.bootrack import SLOT_BYTES, first_boot_report
from tests.support.headnode import PATIENCE
from tests.support.qemu import LOGIN, unless_the_emulator_fails
from tests.support.salt import SaltPrograms
from tests.support.standin import StandIn
from tests.support.telling import Tell

pytestmark = [
    pytest.mark.boot,
    pytest.mark.long(minutes=20),
    pytest.mark.timeout(5400),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]

SMALLER = 2 * GiB
"""The card of pi7 has SLOT_BYTES; QEMU takes only powers of two."""
OFF_SECONDS = 300
MINE = "/root/what-a-person-put-there"


@pytest.fixture(scope="module")
def used(
    stand_in: StandIn,
    salt_programs: SaltPrograms,
    boot_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pi7]:
    """pi7 has joined, was used and was shut down."""
    folder = tmp_path_factory.mktemp("copied")
    with pi7_beside_its_master(folder, boot_cache, stand_in, salt_programs) as pi7:
        assert pi7.card.stat().st_size == SLOT_BYTES
        with pi7.joined(pi7.card) as (machine, _):
            pi7.ask("cmd.run", f"echo kept >{MINE}")
            pi7.ask("cmd.run", "systemctl --no-block poweroff")
            machine.wait_for("reboot: Power down", seconds=OFF_SECONDS)
        yield pi7


def test_saved_made_small_and_put_on_a_smaller_card_it_is_the_same_node(
    used: Pi7, tmp_path: Path, tell: Tell
) -> None:
    saved, card = tmp_path / "saved.img", tmp_path / "smaller.img"
    used.rack.command("read", used.card, saved, "--shrink")
    used.rack.command(
        "write", card, "--image", saved, "--size", str(SMALLER), "--yes",
        environment={"XDG_DATA_HOME": str(tmp_path)},
    )  # fmt: skip

    def boot() -> None:
        with used.switched_on(card) as machine:
            machine.wait_for(LOGIN, seconds=LOGIN_SECONDS)
            used.head.box.wait_until_answering({"pi7"}, seconds=JOIN_SECONDS, patience=PATIENCE)
            assert used.ask("grains.get", "machine_id") == used.identity()["machine_id"]
            assert used.ask("cmd.run", f"cat {MINE}") == "kept"
            assert not machine.failed_units
            tell(f"answered {machine.seconds_on:.0f} s after it was switched on")

    unless_the_emulator_fails([card], boot)


def test_a_copy_for_pi8_goes_through_first_boot_and_joins_as_pi8(
    used: Pi7, tmp_path: Path, tell: Tell
) -> None:
    card = tmp_path / "pi8.img"
    used.rack.command("clone", used.card, card, "--node", "pi8")
    with used.joined(card, "pi8") as (machine, times):
        assert not machine.failed_units
        grains = used.head.ask("pi8", "grains.item", "id", "host")
        assert grains == {"id": "pi8", "host": "pi8"}
        assert used.head.ask("pi8", "cmd.run", f"cat {MINE}") == "kept"
        tell(times)
    report = first_boot_report(card)
    assert (report["node"], report["state"]) == ("pi8", "complete")
    keys = used.head.box.keys()
    assert set(keys["minions"]) == {f"pi{n}" for n in range(14)}
    assert not keys["minions_pre"]
    assert not keys["minions_denied"]
