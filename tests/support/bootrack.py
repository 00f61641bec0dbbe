"""Racks whose cards are made by the real command from the stand-in release, for QEMU's Pi 2.

In: the stand-in release and rack.toml's own lines of a test. Out: card images that
``tests.support.qemu`` boots, and what is on their boot partition after that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imager.base.boards import ALARM_ARMV7
from imager.base.units import GiB
from imager.disk.fat.volume import FatVolume
from imager.disk.mbr import parse
from tests.support.standin import ROOT, StandIn, as_mirror

SLOT_BYTES = 4 * GiB
"""The size of the card an image is put on; the image itself is made for one of 2 GiB."""


@dataclass(frozen=True)
class BootRack:
    """A rack in ``folder`` whose cards hold the stand-in release and Salt from PyPI."""

    folder: Path
    cache: Path

    def command(self, *words: str | Path, environment: Mapping[str, str] | None = None) -> str:
        """What picloud-image prints for this rack, with more in its ``environment``."""
        done = subprocess.run(
            [sys.executable, "-m", "imager", *words, "--rack", self.folder, "--cache", self.cache],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def card(self, node: str, size: str = "2GiB") -> Path:
        """The card image of ``node``, made for ``size`` and put on a card of SLOT_BYTES."""
        image = self.folder.parent / f"{node}.img"
        self.command("write", image, "--node", node, "--size", size, "--yes", "--offline")
        os.truncate(image, SLOT_BYTES)
        return image


def boot_rack(folder: Path, cache: Path, stand_in: StandIn, text: str) -> BootRack:
    """A rack in ``folder``/rack: rack.toml is ``text`` and which release, which is fetched."""
    rack = BootRack(folder / "rack", cache)
    rack.folder.mkdir(exist_ok=True)
    with stand_in.served() as url:
        release = f'[release]\nurl = "{url}"\nsigning_key = "{stand_in.fingerprint}"\n'
        (rack.folder / "rack.toml").write_text(f'{text}[swap]\nsize = "64MiB"\n{release}')
        rack.command("fetch", "--signing-key", stand_in.signing_key, environment=as_mirror(url))
    return rack


def rack_as_init_writes_it(
    folder: Path, cache: Path, stand_in: StandIn, more: str, *words: str
) -> BootRack:
    """A rack in ``folder``/rack as ``rack init`` with ``words`` writes it, and ``more`` lines, for
    whose release ``stand_in`` is taken, which is fetched with its packages."""
    rack = BootRack(folder / "rack", cache)
    rack.command("rack", "init", "--yes", *words)
    file = rack.folder / "rack.toml"
    written = file.read_text()
    named = f'name = "{ALARM_ARMV7}"'
    assert written.count(named) == 1
    with stand_in.served() as url:
        release = f'url = "{url}"\nsigning_key = "{stand_in.fingerprint}"'
        file.write_text(written.replace(named, release) + more)
        rack.command("fetch", "--signing-key", stand_in.signing_key, environment=as_mirror(url))
    return rack


def partition_start(image: Path, number: int) -> int:
    """Where the partition 0 or 1 of ``image`` begins, in bytes."""
    with image.open("rb") as card:
        return parse(card.read(512)).partitions[number].start_lba * 512


def boot_file(image: Path, path: str) -> bytes:
    """What the file ``path`` of the boot partition of ``image`` holds."""
    with image.open("rb") as card:

        def read(offset: int, length: int) -> bytes:
            return os.pread(card.fileno(), length, offset)

        boot = parse(read(0, 512)).partitions[0]
        return FatVolume.parse(read, boot.start_lba * 512, boot.sector_count * 512).read_file(path)


def first_boot_report(image: Path) -> dict[str, Any]:
    """What the node last wrote of its first boot on the card ``image``."""
    report: dict[str, Any] = json.loads(boot_file(image, "picloud/firstboot.json"))
    return report


def add_kernel_word(image: Path, word: str) -> None:
    """Do what a person with a laptop does: add ``word`` to the line of cmdline.txt."""
    line = boot_file(image, "cmdline.txt").decode().rstrip("\n")
    subprocess.run(
        ["mcopy", "-n", "-o", "-i", f"{image}@@{partition_start(image, 0)}", "-", "::cmdline.txt"],
        input=f"{line} {word}\n".encode(),
        check=True,
    )


@pytest.fixture(scope="session")
def boot_cache() -> Path:
    """One archive for all boot tests, whichever process they are in: their golden images are the
    same, and who comes second waits for the first."""
    return Path(tempfile.gettempdir()) / "boot-cache"
