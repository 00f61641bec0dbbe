"""Files that are whole or absent, secrets that are private from birth, locks that end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.durable import free_bytes, remove_tree, require_free, write_atomically
from imager.base.errors import HostStorage
from imager.base.trusted_folder import TrustedFolder
from imager.doctor.checkup import Verdict
from imager.doctor.storage import place_checkup


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_mode_is_what_was_asked_for_under_any_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "secret", b"x", mode=0o400)
        write_atomically(tmp_path / "plain", b"x", mode=0o644)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "secret") == 0o400
    assert mode_of(tmp_path / "plain") == 0o644


def test_replaces_whole_and_leaves_no_temporary(tmp_path: Path) -> None:
    write_atomically(tmp_path / "f", b"old")
    write_atomically(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


def test_a_failure_keeps_the_old_file_and_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x").touch()
    with pytest.raises(HostStorage, match="/f"):
        write_atomically(tmp_path / "f", b"new")
    assert os.listdir(tmp_path) == ["f"]


def test_what_to_do_about_a_long_name_is_said(tmp_path: Path) -> None:
    with pytest.raises(HostStorage, match="File name too long") as caught:
        write_atomically(tmp_path / ("a" * 300), b"x")
    assert caught.value.hint == "give a shorter name"


def test_an_unwritable_place_is_host_storage() -> None:
    with pytest.raises(HostStorage) as caught:
        write_atomically(Path("/proc/picloud/file"), b"x")
    assert "/proc/picloud" in caught.value.what


@pytest.mark.parametrize("below", ["", "folder"])
def test_nothing_is_made_where_the_disk_of_a_link_is_not_mounted(
    tmp_path: Path, below: str
) -> None:
    disk, link = tmp_path / "disk", tmp_path / "link"
    link.symlink_to(disk)
    said = f"{link} is a link to {disk}, where no folder is"
    with pytest.raises(HostStorage, match=said):
        write_atomically(link / below / "file", b"x")
    with pytest.raises(HostStorage, match=said):
        TrustedFolder(link / below).make()
    told = place_checkup("cache", link / below)
    assert (told.verdict, told.found) == (Verdict.WRONG, said)
    assert not disk.exists()
    disk.mkdir()
    TrustedFolder(link / below).make()
    assert place_checkup("cache", link / below).verdict is Verdict.OK


def test_room_is_that_of_the_nearest_folder_and_who_runs_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def nearly_full(path: Path) -> os.statvfs_result:
        asked.append(path)
        return os.statvfs_result((4096, 1000, 9000, 5000, 4000, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", nearly_full)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert free_bytes(tmp_path / "not" / "yet") == 5_000_000
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert free_bytes(tmp_path) == 4_000_000
    assert asked == [tmp_path] * 2
    require_free(tmp_path, 4_000_000, "this takes", "make room")
    with pytest.raises(HostStorage) as caught:
        require_free(tmp_path, 4_100_000, "this takes", "make room")
    assert caught.value.what == f"{tmp_path}: 4 MB free, and this takes 4.1 MB"
    assert caught.value.hint == "make room"


def test_a_second_holder_is_turned_away_until_the_first_ends(tmp_path: Path) -> None:
    with (
        TrustedFolder(tmp_path).locked("l"),
        pytest.raises(BlockingIOError),
        TrustedFolder(tmp_path).locked("l", wait=False),
    ):
        pass
    with TrustedFolder(tmp_path).locked("l", wait=False):
        pass


def test_work_folder_is_private_and_gone_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Cache(tmp_path).work_folder("compose") as folder:
        assert mode_of(folder) == 0o700
        (folder / "locked").mkdir()
        (folder / "locked" / "f").touch()
        (folder / "locked").chmod(0o000)
        raise RuntimeError
    assert [name for name in os.listdir(tmp_path / "work") if name != ".guard"] == []


def hold_for_ever(parent: str) -> None:
    with Cache(Path(parent)).work_folder("victim") as folder:
        (folder / "half-made").touch()
        time.sleep(60)


def test_the_folder_of_a_killed_run_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=hold_for_ever, args=(os.fspath(tmp_path),)
    )
    process.start()
    try:
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob("work/victim-*/half-made")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with Cache(tmp_path).work_folder("other"):
            assert list(tmp_path.glob("work/victim-*/half-made")), "a living run lost its folder"
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with Cache(tmp_path).work_folder("other"):
            assert not list(tmp_path.glob("work/victim-*"))
    finally:
        process.kill()
        process.join()


def test_remove_tree_removes_what_modes_forbid(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "f").touch()
    inner.chmod(0o000)
    (tmp_path / "a").chmod(0o500)
    remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()
