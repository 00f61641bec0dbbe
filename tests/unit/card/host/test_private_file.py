"""What is to hold keys is a file of our own, whatever somebody else put in its place."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from imager.base.errors import TargetRefused
from imager.base.units import MiB
from imager.card.claim.claim import claim
from imager.card.host.private_file import open_private
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at

STRANGER = 65534
SIZE = 12 * MiB
Plant = Callable[[Path], object]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


def link(path: Path) -> None:
    victim = path.with_name("diary.txt")
    victim.write_text("dear diary")
    path.symlink_to(victim)


def dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nothing there"))


def second_name(path: Path) -> None:
    path.touch()
    path.with_name("another").hardlink_to(path)


def writable(path: Path) -> None:
    path.touch()
    path.chmod(0o666)


def stranger(path: Path) -> None:
    path.touch()
    os.chown(path, STRANGER, STRANGER)


def device(path: Path) -> None:
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 250))


PLANTS: tuple[tuple[Plant, str], ...] = (
    (link, "is a link"),
    (dangling_link, "is a link"),
    (second_name, "is no file of its own"),
    (os.mkfifo, "is no file of its own"),
    (Path.mkdir, "is no file of its own"),
    (writable, "can be written by everybody"),
)
BY_ROOT: tuple[tuple[Plant, str], ...] = (
    (stranger, "belongs to"),
    (device, "is no file of its own"),
)


@pytest.mark.parametrize(
    ("plant", "why"),
    [*PLANTS, *(pytest.param(*one, marks=as_root) for one in BY_ROOT)],
)
def test_an_image_is_not_written_to_what_somebody_put_there(
    tmp_path: Path, plant: Plant, why: str
) -> None:
    partial = tmp_path / ".pi7.img.partial"
    plant(partial)
    before = sorted(os.listdir(tmp_path)), partial.lstat()
    target = accept(target_at(tmp_path / "pi7.img"), SIZE)
    with pytest.raises(TargetRefused, match=why) as caught, claim(target, SIZE):
        pass
    assert (sorted(os.listdir(tmp_path)), partial.lstat()) == before
    words = shlex.split(str(caught.value.hint).rpartition(": ")[2])
    subprocess.run(words, check=True)
    with claim(target, SIZE):
        assert partial.stat().st_uid == os.geteuid()


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_in_a_folder_of_a_stranger_s_the_image_is_root_s_alone(tmp_path: Path, mode: int) -> None:
    os.chown(tmp_path, STRANGER, STRANGER)
    tmp_path.chmod(mode)
    with claim(accept(target_at(tmp_path / "pi7.img"), SIZE), SIZE) as card:
        card.held.keep()
    about = (tmp_path / "pi7.img").stat()
    assert (about.st_uid, stat.S_IMODE(about.st_mode)) == (0, 0o600)


@as_root
def test_after_sudo_an_image_is_the_person_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    os.chown(tmp_path, 1234, 1235)
    with claim(accept(target_at(tmp_path / "pi7.img"), SIZE), SIZE) as card:
        card.held.keep()
    about = (tmp_path / "pi7.img").stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (1234, 1235, 0o600)


def test_what_gets_the_name_after_it_was_looked_at_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.touch()
    second_name(theirs)
    about = ours.lstat()
    monkeypatch.setattr(Path, "lstat", lambda _: about)
    held = os.listdir("/proc/self/fd")
    with pytest.raises(TargetRefused, match="is no file of its own"):
        open_private(theirs, os.O_RDWR, lambda what, path: TargetRefused(what, hint=f"rm {path}"))
    assert os.listdir("/proc/self/fd") == held
    assert theirs.stat().st_size == 0


def test_what_is_not_there_is_made_only_where_that_is_wanted(tmp_path: Path) -> None:
    def never(what: str, path: Path) -> TargetRefused:
        raise AssertionError(what, path)

    with pytest.raises(FileNotFoundError):
        open_private(tmp_path / "new", os.O_RDWR, never)
    with pytest.raises(FileNotFoundError):
        open_private(tmp_path / "no folder" / "new", os.O_RDWR | os.O_CREAT, never)
    os.close(open_private(tmp_path / "new", os.O_RDWR | os.O_CREAT, never))
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
