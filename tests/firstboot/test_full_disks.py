"""Filesystems that are full or refuse to be written, as the kernel makes them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.fakenode import STEPS, FakeNode

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")

PAGE = 4096
CANNOT = "the root filesystem cannot be written"
SILENCE = "the minion was started but pi0 has not taken it in after 0 s"


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A small filesystem of its own in ``folder``, holding what the folder held."""
    before = folder.with_name(f"{folder.name}-before")
    shutil.copytree(folder, before, symlinks=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "test", folder], check=True)
    try:
        shutil.copytree(before, folder, symlinks=True, dirs_exist_ok=True)
        for option in options:
            subprocess.run(["mount", "-o", option, folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path, *, leaving: int = 0) -> None:
    """Leave no more than ``leaving`` bytes in the filesystem of ``folder``."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(PAGE))
        except OSError:
            filler.truncate(max(0, filler.tell() - leaving))


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    node = FakeNode(tmp_path, SWAP_BYTES="0")
    node.fake_tool("sync", "")  # a copy of the root would be as full
    return node


def test_a_full_boot_partition_stops_nothing(node: FakeNode) -> None:
    fat = node.root / "boot"
    with mounted(fat):
        fill(fat)
        boot = node.boot()
        assert not (fat / "picloud/firstboot.json").exists(), "half a report is none"
    assert boot.status == 0, boot.output
    assert len(boot.output.splitlines()) == len(STEPS) + 1, "no complaints on the console"


def test_a_boot_partition_that_fills_up_keeps_the_last_whole_report(node: FakeNode) -> None:
    fat = node.root / "boot"
    node.fake_tool("swapon", "exit 1\n")
    node.configure(SWAP_BYTES="1048576")
    with mounted(fat):
        assert node.boot().status == 1
        assert node.report["step"] == "30-swap"
        fill(fat)
        assert node.run().status == 1
        assert json.loads((fat / "picloud/firstboot.json").read_text())["step"] == "30-swap"


def test_a_boot_partition_mounted_read_only_stops_nothing(node: FakeNode) -> None:
    fat = node.root / "boot"
    with mounted(fat, "remount,ro"):
        boot = node.boot()
        assert not (fat / "picloud/firstboot.json").exists()
    assert boot.status == 0, boot.output
    assert len(boot.output.splitlines()) == len(STEPS) + 1, "no complaints on the console"


def test_a_full_root_is_told_on_the_boot_partition(node: FakeNode) -> None:
    marks = node.root / "var/lib"
    with mounted(marks):
        (marks / "picloud/firstboot").mkdir(parents=True)
        fill(marks)
        boot = node.boot()
        assert boot.status == 1
        assert node.report["state"] == "failed"
        assert node.report["note"] == f"{CANNOT}: No space left on device"
        assert "make room" in node.report["hint"]
        (marks / "filler").unlink()
        assert node.run().status == 0
        assert node.report["state"] == "complete"


def test_a_root_mounted_read_only_is_told_on_the_boot_partition(node: FakeNode) -> None:
    with mounted(node.root / "var/lib", "remount,ro"):
        for _ in range(20):
            assert node.boot().status == 1
            assert node.report["note"] == f"{CANNOT}: Read-only file system"


@pytest.mark.parametrize("why", ["Read-only file system", "No space left on device"])
def test_a_root_that_fails_later_is_told_before_what_failed_until_then(
    node: FakeNode, why: str
) -> None:
    """As a dying card's does, for one: the steps of which older marks tell are not the reason."""
    node.minion_does(":")
    assert node.boot().status == 1
    assert (node.report["step"], node.report["note"]) == ("80-await-master", SILENCE)
    marks = node.root / "var/lib"
    (marks / "picloud/firstboot/90-highstate.running").touch()
    with mounted(marks):
        if why.startswith("Read"):
            subprocess.run(["mount", "-o", "remount,ro", marks], check=True)
        else:
            fill(marks)
        boot = node.boot()
    assert boot.status == 1
    report = node.report
    assert (report["state"], report["node"], report["step"]) == ("failed", "pi7", "")
    assert report["note"] == f"{CANNOT}: {why}"
    assert "write the card again" in report["hint"]
    assert report["note"] in boot.output


def test_a_root_that_cannot_be_written_can_be_skipped(node: FakeNode) -> None:
    node.write("proc/cmdline", "rw picloud.firstboot=skip\n")
    with mounted(node.root / "var/lib", "remount,ro"):
        assert node.boot().status == 0
    assert node.report["state"] == "skipped"


def test_a_root_that_is_nearly_full_never_marks_what_is_not_done(node: FakeNode) -> None:
    """Whatever room there is, a step is done or it is not, and with room all get done. Where it is
    too little that is what is told."""
    marks = node.root / "var/lib"
    with mounted(marks):
        (marks / "picloud/firstboot").mkdir(parents=True)
        for pages in range(12):
            fill(marks, leaving=pages * PAGE)
            status = node.boot().status
            done = [name for name in node.state if name.endswith(".done")]
            assert all(node.state[name] for name in done), "a mark without its note"
            assert ("complete" in node.state) == (status == 0)
            if status == 0:
                assert len(done) == len(STEPS)
            else:
                told = node.report["note"], node.report["hint"]
                assert told[0] == f"{CANNOT}: No space left on device", pages
                assert told[1].startswith("make room"), pages
            (marks / "filler").unlink()
        assert node.boot().status == 0
        assert node.report["state"] == "complete"
