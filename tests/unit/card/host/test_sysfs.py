"""Devices that vanish while they are looked at: nothing is known of them, and nothing raised."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import pytest

from imager.card.host.disks import disk_named
from imager.card.host.sysfs import Properties, udev_properties
from tests.support.sysfs import FakeHost


def test_udev_knows_nothing_of_a_device_without_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is how a device looks whose folder in sysfs has just gone."""
    monkeypatch.setattr("imager.card.host.sysfs._UDEVD", tmp_path)
    assert udev_properties("") == {}


def test_a_link_that_vanishes_while_it_is_followed_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost(tmp_path)
    host.disk("sdc", "8:32")
    host.partition("sdc", "sdc1", "8:33")
    readlink = os.readlink

    def vanished(path: str) -> str:
        Path(path).unlink()
        return readlink(path)

    monkeypatch.setattr(os, "readlink", vanished)
    assert host.kernel.partitions("sdc1") == ()


@pytest.mark.parametrize("asked", ["8:32", "8:33", "8:34"])
def test_partitions_that_vanish_while_their_disk_is_looked_at_harm_nothing(
    tmp_path: Path, asked: str
) -> None:
    host = FakeHost(tmp_path)
    host.disk("sdc", "8:32", gib=32)
    host.partition("sdc", "sdc1", "8:33", 1)
    host.partition("sdc", "sdc2", "8:34", 2)

    def vanishing(number: str) -> Properties:
        if number == asked:
            for part in ("sdc1", "sdc2"):
                rmtree(host.root / f"sys/class/block/sdc/{part}", ignore_errors=True)
        return {}

    disk = disk_named("sdc", kernel=replace(host.kernel, udev=vanishing))
    assert disk.size_bytes == 32 * 2**30
