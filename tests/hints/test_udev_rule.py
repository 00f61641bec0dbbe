"""The optional udev rule: udev understands it, and it tags what it should."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.support.loop import udev_rules
from tests.support.workplace import ROOT

RULE = ROOT / "packaging/udev/70-picloud-image.rules"
READER = 'KERNEL=="sd*", SUBSYSTEMS=="usb", ATTR{removable}=="1"'
LOOP = 'KERNEL=="loop*", ATTR{removable}=="0"'


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give udev a rule")
@pytest.mark.skipif(shutil.which("udevadm") is None, reason="needs udevadm")
def test_udev_understands_it_and_tags_a_disk_that_fits() -> None:
    text = RULE.read_text()
    assert text.count(READER) == 1
    said_of(text)
    # udevadm does not tell tags, so a property takes the tag's place.
    told = text.replace('TAG+="uaccess"', 'ENV{PICLOUD_TAGGED}="yes"')
    assert "PICLOUD_TAGGED=yes" not in said_of(told)
    assert "PICLOUD_TAGGED=yes" in said_of(told.replace(READER, LOOP))


def said_of(rules: str) -> str:
    """What udev says of these rules and a loop device, which needs no file for it."""
    with udev_rules(*rules.splitlines()):
        words = ["udevadm", "test", "--action=add", "/sys/block/loop0"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert "DEVTYPE" in told
    assert not [line for line in told.splitlines() if "/00-picloud-" in line and "nvalid" in line]
    return told
