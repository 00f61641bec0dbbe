"""pi7 comes up whole where nothing can be written to its boot partition, a real FAT.

Its first boot has nobody to join, which makes it short. Of the two ways one is drawn by chance,
but for ``--all``.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.boot.pi7 import JOIN_SECONDS
from tests.support.bootrack import boot_file, boot_rack, partition_start
from tests.support.qemu import booting, unless_the_emulator_fails
from tests.support.sampling import one_of_each
from tests.support.standin import StandIn

pytestmark = [
    pytest.mark.boot,
    pytest.mark.long(minutes=8),  # not really: it boots as test_join does, and is for --all
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]

RACK = '[rack]\nnodes = "pi7"\nmodel = "pi2"\n'


def free_bytes(volume: str) -> int:
    """What mtools says is free on ``volume``."""
    listing = subprocess.run(
        ["mdir", "-i", volume, "::"], capture_output=True, text=True, check=True
    ).stdout
    free = re.search(r"([\d ]+) bytes free", listing)
    assert free, listing
    return int(free[1].replace(" ", ""))


def fill(card: Path) -> None:
    """Leave no free cluster on the boot partition."""
    volume = f"{card}@@{partition_start(card, 0)}"
    filler = card.with_name("filler")
    filler.touch()
    os.truncate(filler, free_bytes(volume))
    subprocess.run(["mcopy", "-i", volume, filler, "::filler"], check=True)
    assert free_bytes(volume) == 0


def mount_read_only(card: Path) -> None:
    """Have the node mount it so, as the kernel itself does after an error."""
    volume = f"{card}?offset={partition_start(card, 1)}"
    fstab = card.with_name("fstab")
    said = subprocess.run(
        ["debugfs", "-R", "cat /etc/fstab", volume], capture_output=True, text=True, check=True
    ).stdout
    assert said.count("defaults,noatime,nofail") == 1, said
    fstab.write_text(said.replace("defaults,noatime,nofail", "ro,noatime,nofail"))
    subprocess.run(
        ["debugfs", "-w", "-f", "-", volume],
        input=f"rm /etc/fstab\nwrite {fstab} /etc/fstab\n",
        capture_output=True,
        text=True,
        check=True,
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    ways = [fill, mount_read_only]
    whole = metafunc.config.getoption("--all")
    metafunc.parametrize("spoil", ways if whole else one_of_each(ways, lambda _: "any"))


def test_first_boot_is_complete_and_the_boot_files_are_whole(
    spoil: Callable[[Path], None], stand_in: StandIn, boot_cache: Path, tmp_path: Path
) -> None:
    rack = boot_rack(tmp_path, boot_cache, stand_in, RACK)
    card = rack.card("pi7")
    spoil(card)

    def boot() -> None:
        with booting(card) as machine:
            machine.wait_for("pi7: complete", seconds=JOIN_SECONDS)
            assert not machine.failed_units

    unless_the_emulator_fails([card], boot)
    with pytest.raises(FileNotFoundError):
        boot_file(card, "picloud/firstboot.json")
    rack.command("verify", card)  # exit code 0: boot files and files of the release are whole
