"""The lock that keeps udev away from a card; tests/device holds real disks."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from imager.base.errors import TargetRefused
from imager.card.host import exclusive
from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk


def test_the_lock_shuts_out_even_those_that_only_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """udev asks for a shared lock before it probes; a shared lock of ours would let it in."""
    monkeypatch.setattr(exclusive, "_PATIENCE_SECONDS", 0.0)
    path = tmp_path / "disk"
    path.touch()
    disk = Disk(str(path), "0:0", 0, Bus.USB)
    with path.open("rb") as ours, path.open("rb") as udev:
        assert exclusive._locked(ours.fileno(), disk)
        with pytest.raises(BlockingIOError):
            fcntl.flock(udev, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(ours, fcntl.LOCK_UN)
        fcntl.flock(udev, fcntl.LOCK_SH)
        with pytest.raises(TargetRefused, match="locked by another program"):
            exclusive._locked(ours.fileno(), disk)
