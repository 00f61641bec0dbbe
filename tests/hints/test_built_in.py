"""Hints about a disk that is built in: a loop device that /sys calls a SCSI disk which stays.

Only whoever is in a mount namespace of the test sees that /sys, and the disk's node in /dev.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imager.base.units import MiB
from tests.hints.following import Row, follow, words_of
from tests.support.loop import loop_over, missing_abilities, sized_file
from tests.support.netns import network
from tests.support.sysfs import FakeHost
from tests.support.workplace import ROOT, Said

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]

_PROGRAM = (sys.executable, "-m", "imager")
_MODEL = "BUILT-IN"
_SEEN = """
mount --bind {sysfs} /sys
mount -t tmpfs -o mode=755 dev /dev
mknod -m 666 /dev/null c 1 3
mknod -m 600 /dev/sda b {number}
"""


@dataclass(frozen=True, slots=True)
class Computer:
    """A folder, on a computer whose only disk is /dev/sda; ``entering`` are the words before a
    command that is to run there."""

    folder: Path
    entering: tuple[str, ...]

    def typed(self, line: str) -> Said:
        """Type ``line`` and the disk's name where that is asked."""
        given, words = words_of(line)
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "PICLOUD_CACHE": str(self.folder / "cache"),
            "PICLOUD_RACK": str(self.folder / "rack"),
        }
        ours, theirs = os.openpty()
        with open(ours, "wb") as keyboard, open(theirs, "rb") as terminal:
            keyboard.write(f"{_MODEL}\n".encode())
            keyboard.flush()
            done = subprocess.run(
                [*self.entering, "env", f"--chdir={self.folder}", *_PROGRAM, *words],
                env=environment | given,
                stdin=terminal,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        return Said(done.returncode, done.stdout, done.stderr)


BUILT_IN = {
    "if it is the right one, say --allow-fixed-disk and type its name when asked": Row(
        "write /dev/sda --image card.img",
        "--allow-fixed-disk",
        "write /dev/sda --image card.img {said}",
        code=20,
    ),
    "no batch takes such a disk; picloud-image write can, with --allow-fixed-disk": Row(
        "rack restore saves --nodes pi1 --target /dev/sda",
        "picloud-image write can, with --allow-fixed-disk",
        "write /dev/sda --image card.img --allow-fixed-disk",
        code=20,
        before=("$ mkdir saves; cp card.img saves/pi1.img",),
    ),
}


@pytest.fixture
def computer(here: Path) -> Iterator[Computer]:
    with loop_over(sized_file(here / "disk.raw", 8 * MiB, b"\x5a")) as loop:
        host = FakeHost(here / "host")
        real = Path("/sys/block", loop.name)
        number, size, diskseq = (
            (real / name).read_text().strip() for name in ("dev", "size", "diskseq")
        )
        host.disk("sda", number, size=size, diskseq=diskseq, removable="0", device__model=_MODEL)
        seen = _SEEN.format(sysfs=host.root / "sys", number=number.replace(":", " "))
        with network(seen) as entering:
            yield Computer(here, entering)


@pytest.mark.parametrize("text", BUILT_IN)
def test_it_works_with_a_disk_that_is_built_in(computer: Computer, text: str) -> None:
    follow(BUILT_IN[text], computer, computer.folder, computer.typed)
    written = (computer.folder / "card.img").read_bytes()
    assert (computer.folder / "disk.raw").read_bytes().startswith(written)
