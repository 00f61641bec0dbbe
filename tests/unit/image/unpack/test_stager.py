"""Members become files in two folders, and what cannot be a file yet is kept as an entry."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imager.base.errors import MalformedRelease
from imager.base.progress import Quiet
from imager.image.unpack.members import EntryKind, TreeEntry
from imager.image.unpack.stager import Stager
from imager.image.unpack.tar_stream import read_members, unpacked
from imager.image.unpack.tree import implied_folder
from tests.support.release import MTIME, ReleaseTree, build_release

Look = Callable[[Stager], None]


def staged(folder: Path, tree: ReleaseTree, look: Look) -> None:
    """Unpack ``tree`` below ``folder`` and let ``look`` see what came of it."""
    release = build_release(folder, tree)
    (folder / "staging").mkdir()
    (folder / "staging").chmod(0o700)
    release.tarball.chmod(0o600)
    with (
        Stager.opened(folder / "staging") as stager,
        Quiet().phase("unpack") as phase,
        unpacked(release.tarball, release.sha256, phase) as stream,
    ):
        read_members(stream, release.tarball, stager.add)
        look(stager)


def test_every_kind_of_member_is_staged(tmp_path: Path) -> None:
    tree = ReleaseTree()
    tree.folder("etc", 0o700)
    tree.file("etc/hostname", "alarmpi\n", 0o4755, uid=7, gid=8)
    tree.symlink("etc/link", "hostname")
    tree.hardlink("etc/other", "etc/hostname")
    tree.add("tty", tarfile.CHRTYPE, devmajor=5, devminor=1)
    tree.file("tty", "no device any more")
    tree.add("null", tarfile.CHRTYPE, devmajor=1, devminor=3)
    tree.sparse("holes", 5000, [(600, b"x" * 600), (4000, b"y" * 600)])
    tree.file("boot/kernel7.img", "kernel")
    tree.hardlink("boot/again.img", "boot/kernel7.img")
    tree.hardlink("usr/lib/kernel", "boot/kernel7.img")
    tree.hardlink("boot/kernel7.img", "boot/kernel7.img")

    def look(stager: Stager) -> None:
        root, boot = stager.root.entries, stager.boot.entries
        assert sorted(root) == [
            *("", "boot", "etc", "etc/hostname", "etc/link", "etc/other"),
            *("holes", "null", "tty", "usr", "usr/lib", "usr/lib/kernel"),
        ]
        assert sorted(boot) == ["", "again.img", "kernel7.img"]
        hostname = TreeEntry(EntryKind.FILE, 0o4755, 7, 8, MTIME * 10**9, 8)
        assert root["etc/hostname"] == hostname
        assert root["etc/other"] is root["etc/hostname"]
        assert boot["again.img"] == boot["kernel7.img"] == root["usr/lib/kernel"]
        assert boot["again.img"] is not boot["kernel7.img"] is not root["usr/lib/kernel"]
        assert root["null"].device == (1, 3)
        assert root["usr"] == implied_folder(MTIME * 10**9)
        assert root[""] == boot[""] == implied_folder(0)
        place = stager.root_folder
        assert place == tmp_path / "staging/root"
        assert (place / "etc/hostname").samefile(place / "etc/other")
        assert (place / "etc/link").readlink() == Path("hostname")
        assert (place / "tty").read_text() == "no device any more"
        assert not (place / "null").exists()
        holes = bytes(600) + b"x" * 600 + bytes(2800) + b"y" * 600 + bytes(400)
        assert (place / "holes").read_bytes() == holes
        for path in place.rglob("*"):
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                assert mode == (0o700 if path.is_dir() else 0o600), path
        assert stager.text_of_root("etc/hostname") == "alarmpi\n"
        assert stager.text_of_root("etc/link") == stager.text_of_root("etc/none") == ""

    staged(tmp_path, tree, look)


def test_what_is_too_large_for_a_text_is_not_read(tmp_path: Path) -> None:
    tree = ReleaseTree()
    tree.file("etc/os-release", "\n" * (17 << 20))

    def look(stager: Stager) -> None:
        with pytest.raises(MalformedRelease, match="etc/os-release' is larger than 16 MiB"):
            stager.text_of_root("etc/os-release")
        with pytest.raises(MalformedRelease, match="is larger than 16 MiB"):
            stager.md5("etc/os-release")

    staged(tmp_path, tree, look)


def test_what_is_in_no_archive_is_added_and_replaces_what_is(tmp_path: Path) -> None:
    tree = ReleaseTree()
    tree.file("etc/motd", "old")
    tree.hardlink("etc/kept", "etc/motd")
    tree.file("etc/zone", "old")

    def look(stager: Stager) -> None:
        stager.put("etc/motd", b"new", mode=0o640, mtime_ns=5)
        stager.put("opt/x/y", b"y", mode=0o644, mtime_ns=6)
        stager.link("etc/zone", "/usr/share", mtime_ns=7)
        root, place = stager.root.entries, stager.root_folder
        assert root["etc/motd"] == TreeEntry(EntryKind.FILE, 0o640, 0, 0, 5, 3)
        assert root["opt"] == root["opt/x"] == implied_folder(6)
        zone = TreeEntry(EntryKind.SYMLINK, 0o777, 0, 0, 7, target="/usr/share")
        assert root["etc/zone"] == zone
        assert zone.size_bytes == 0
        assert (place / "etc/motd").read_text() == "new"
        assert (place / "etc/kept").read_text() == "old"
        assert (place / "etc/zone").readlink() == Path("/usr/share")
        assert stat.S_IMODE((place / "opt/x/y").stat().st_mode) == 0o600

    staged(tmp_path, tree, look)


def test_what_was_added_is_found_takes_anothers_place_and_is_taken_out(tmp_path: Path) -> None:
    with Stager.opened(tmp_path) as stager:
        for path, data in (("etc/a", b"old"), ("etc/a.new", b"new"), ("boot/k", b"kernel")):
            stager.put(path, data, mode=0o644, mtime_ns=len(data))
        stager.link("etc/link", "a", mtime_ns=0)
        assert [stager.md5(path) for path in ("etc", "etc/link", "etc/none")] == [None] * 3
        assert stager.md5("etc/a") == hashlib.md5(b"old").hexdigest()
        assert stager.md5("boot/k") == hashlib.md5(b"kernel").hexdigest()
        moved = stager.entry("etc/a.new")
        stager.rename("etc/a.new", "etc/a")
        stager.rename("boot/k", "boot/K")  # FAT takes both for one name
        assert stager.entry("etc/a") is moved
        assert stager.entry("etc/a.new") is stager.entry("boot/k") is None
        found = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert found == {"a": b"new", "link": b"new", "K": b"kernel"}
        for path in ("boot/K", "etc/a", "etc/link"):
            assert not stager.is_empty(path.partition("/")[0])
            stager.remove(path)
        assert stager.is_empty("etc")
        assert stager.is_empty("boot")
        stager.remove("etc")
        assert stager.entry("etc") is None
        assert sorted(stager.root.entries) == ["", "boot"]
        assert [*tmp_path.glob("*/*")] == [tmp_path / "root/boot"]


def test_the_boot_partition_takes_only_what_fat_can_hold(tmp_path: Path) -> None:
    tree = ReleaseTree()
    tree.file("boot/a:b")
    with pytest.raises(MalformedRelease, match="cannot be on the FAT boot partition"):
        staged(tmp_path, tree, lambda _: None)


def test_a_later_file_leaves_the_other_names_of_an_earlier_one(tmp_path: Path) -> None:
    tree = ReleaseTree()
    tree.file("a", "first")
    tree.hardlink("b", "a")
    tree.file("a", "second")

    def look(stager: Stager) -> None:
        texts = [(stager.root_folder / name).read_text() for name in "ab"]
        assert texts == ["second", "first"]

    staged(tmp_path, tree, look)


def test_only_a_file_that_is_there_has_a_second_name(tmp_path: Path) -> None:
    device, folder, nothing = ReleaseTree(), ReleaseTree(), ReleaseTree()
    nothing.hardlink("x", "y")
    device.add("tty", tarfile.CHRTYPE, devmajor=5, devminor=1)
    device.hardlink("tty2", "tty")
    folder.folder("etc")
    folder.hardlink("etc2", "etc")
    for number, (tree, says) in enumerate(
        (
            (device, "'tty', a character device"),
            (folder, "to the directory 'etc'"),
            (nothing, "to 'y', which is not before it"),
        )
    ):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(MalformedRelease, match=says):
            staged(tmp_path / str(number), tree, lambda _: None)


def test_nobody_else_can_look_into_it_whatever_the_umask(tmp_path: Path) -> None:
    tree = ReleaseTree()
    tree.file("etc/shadow", "secret")
    open_before = len(list(Path("/proc/self/fd").iterdir()))

    def look(stager: Stager) -> None:
        folder = tmp_path / "staging"
        paths = [folder / "root", folder / "boot", *(folder / "root").rglob("*")]
        modes = {str(path.relative_to(folder)): path.stat().st_mode & 0o7777 for path in paths}
        assert modes == {
            **dict.fromkeys(("root", "boot", "root/etc"), 0o700),
            "root/etc/shadow": 0o600,
        }

    before = os.umask(0o577)
    try:
        staged(tmp_path, tree, look)
    finally:
        os.umask(before)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_the_newest_member_is_not_one_of_this_moment_or_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 4_000_000_000)
    tree = ReleaseTree()
    for seconds in (2, 3, 1, 4, 5):
        tree.file(f"at{seconds}", mtime=seconds)
    found: list[int] = []
    staged(tmp_path, tree, lambda stager: found.append(stager.newest))
    assert found == [3]
