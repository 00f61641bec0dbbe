"""The distribution's own boot files start just the boards that the table says they start.

The boot partitions are made of its packages' lists of files; no board was at hand to try one on.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from imager.base.boards import ALARM_AARCH64, ALARM_ARMV7, BOARDS, LINUX_RPI_16K
from tests.support.alarmfiles import BOOT_FILES, boot_files
from tests.support.bootdisk import Disk, make_disk

pytestmark = pytest.mark.image

# Seen from outside, the 32-bit kernel that lost these boards is like the one that still had them.
LOST = {"pi4", "pi400", "cm4", "cm4s"}


@pytest.mark.parametrize(("release", "kernel"), BOOT_FILES, ids="-".join)
def test_the_boot_files_of_a_release_start_the_boards_it_is_for(
    tmp_path: Path, release: str, kernel: str
) -> None:
    image = tmp_path / "card.img"
    make_disk(image, boot_files(release, kernel))
    report = Disk(image).check()
    started = set(report.models) - (LOST if release == ALARM_ARMV7 else set())
    assert started == {board.name for board in BOARDS if board.boots(release, kernel)}
    assert report.findings == ()


def test_every_way_a_release_boots_a_board_is_tried_here() -> None:
    tried = {(release, kernel) for release, kernel in BOOT_FILES}
    named = {(name, k) for board in BOARDS for name, ks in board.kernels.items() for k in ks}
    assert tried == named - {(ALARM_ARMV7, "linux-rpi")}, "the 32-bit release's own kernel"


def test_a_board_with_its_firmware_in_a_chip_needs_none_on_the_card(tmp_path: Path) -> None:
    image = tmp_path / "card.img"
    files = boot_files(ALARM_AARCH64, LINUX_RPI_16K)
    make_disk(image, {n: c for n, c in files.items() if not n.endswith((".elf", ".dat", ".bin"))})
    assert Disk(image).check().models == ("pi5", "pi500", "cm5")
