"""The very card image boots: real kernel, real systemd, from the SD slot of QEMU's Pi 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imager.base.units import GiB
from imager.image.fat import FatVolume
from imager.image.mbr import parse
from tests.support.qemu import Machine, booting
from tests.support.standin import StandIn

pytestmark = [pytest.mark.boot, pytest.mark.timeout(900)]

LOGIN_SECONDS = 600
"""On two idle cores it takes 110."""
FIRST_BOOT_SECONDS = 240


def picloud_image(*words: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "imager", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr


def card_of_pi7(folder: Path, stand_in: StandIn) -> Path:
    """An image made by the real command, for a card of 2 GiB, put on one of 4 GiB."""
    rack, image = folder / "rack", folder / "pi7.img"
    rack.mkdir()
    with stand_in.served() as url:
        (rack / "rack.toml").write_text(
            '[rack]\nname = "boot"\nnodes = "pi[0-13]"\nmaster = "pi0"\nmodel = "pi2"\n'
            f'[release]\nurl = "{url}"\nsigning_key = "{stand_in.fingerprint}"\n'
            '[swap]\nsize = "64MiB"\n'
        )
        picloud_image(
            *("write", image, "--node", "pi7", "--size", "2GiB", "--yes", "--rack", rack),
            *("--cache", folder / "cache", "--signing-key", stand_in.signing_key),
        )
    os.truncate(image, 4 * GiB)
    return image


def file_on_boot_partition(image: Path, path: str) -> bytes:
    with image.open("rb") as card:

        def read(offset: int, length: int) -> bytes:
            return os.pread(card.fileno(), length, offset)

        boot = parse(read(0, 512)).partitions[0]
        return FatVolume.parse(read, boot.start_lba * 512, boot.sector_count * 512).read_file(path)


@pytest.fixture(scope="module")
def card(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return card_of_pi7(tmp_path_factory.mktemp("boot"), stand_in)


def test_the_card_boots_to_a_login_prompt_of_its_node(
    card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with booting(card) as machine:
        to_login = machine.wait_for("pi7 login:", seconds=LOGIN_SECONDS)
        to_complete = machine.wait_for("pi7: complete", seconds=FIRST_BOOT_SECONDS)
        its_first_boot_is_done(machine)
    with capsys.disabled():
        sys.stdout.write(f" login after {to_login:.0f} s, first boot {to_complete:.0f} s more ")

    report = json.loads(file_on_boot_partition(card, "picloud/firstboot.json"))
    assert (report["node"], report["state"]) == ("pi7", "complete")
    assert {step["state"] for step in report["steps"]} == {"done"}
    notes = {step["name"]: step["note"] for step in report["steps"]}
    assert notes["20-grow-root"] == "/ has 3832 MiB", "grown while mounted, to the card's end"
    assert notes["30-swap"] == "64 MiB in /swapfile"
    assert b"40-start-minion" in file_on_boot_partition(card, "picloud/firstboot.log")


def its_first_boot_is_done(machine: Machine) -> None:
    assert "[FAILED]" not in machine.console, "a unit failed"
    assert "Kernel panic" not in machine.console
