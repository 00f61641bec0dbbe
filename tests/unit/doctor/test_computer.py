"""What the kernel and the person's rights allow, told apart on computers made of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imager.doctor.checkup import Checkup, Verdict
from imager.doctor.computer import kernel_checkups, right_checkups
from tests.support.sysfs import FakeHost


def seen(host: FakeHost) -> dict[str, Checkup]:
    return {one.name: one for one in kernel_checkups(host.kernel)}


def test_a_computer_that_hides_what_it_mounts_is_not_fit(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    found = seen(host)
    assert (found["mounts"].verdict, found["mounts"].exit_code) == (Verdict.MISSING, 40)
    assert found["disks"].verdict is Verdict.WARNING
    host.add("22 1 8:1 / / rw - ext4 /dev/sda1 rw", to="proc/self/mountinfo")
    assert seen(host)["mounts"].verdict is Verdict.OK


def test_a_kernel_that_does_not_count_media_is_said(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.disk("sdb", "8:16")
    assert seen(host)["changed cards"].verdict is Verdict.WARNING
    assert seen(host)["disks"].found == "1, and a card or stick in 1 of them"
    host.disk("sdc", "8:32", diskseq="9")
    found = seen(host)
    assert found["changed cards"].verdict is Verdict.OK
    assert found["direct I/O"].found.startswith("O_DIRECT, tried on ")
    for name in ("sdb", "sdc"):
        (host.kernel.dev / name).unlink()  # as in a container
    assert seen(host)["direct I/O"].found == "not tried: no disk here can be opened by root"


@pytest.mark.parametrize(
    ("user", "groups", "verdict"),
    [(0, [], Verdict.OK), (4711, [6], Verdict.OK), (4711, [100], Verdict.WARNING)],
)
def test_who_may_write_cards(
    monkeypatch: pytest.MonkeyPatch, user: int, groups: list[int], verdict: Verdict
) -> None:
    monkeypatch.setattr("imager.doctor.computer._DISK_GROUP", "games")
    monkeypatch.setattr("grp.getgrnam", lambda name: os_group(6))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "getegid", lambda: 100)
    monkeypatch.setattr(os, "getgroups", lambda: groups)
    (found,) = right_checkups()
    assert found.verdict is verdict
    assert found.exit_code == 0, "image files can be made by anybody"


def os_group(number: int) -> object:
    class Group:
        gr_gid = number

    return Group
