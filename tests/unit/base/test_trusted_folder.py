"""Below a folder nothing is followed and nobody is trusted unseen; what is made is its owner's."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError
from imager.base.trusted_folder import TrustedFolder

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


@pytest.fixture
def folder(tmp_path: Path) -> TrustedFolder:
    (tmp_path / "rack" / "state").mkdir(parents=True, mode=0o755)
    (tmp_path / "secret").write_text("secret")
    return TrustedFolder(tmp_path / "rack") / "state"


Act = Callable[[TrustedFolder], object]


def lock(folder: TrustedFolder) -> None:
    with folder.locked("file"):
        pass


ACTS: dict[str, Act] = {
    "read": lambda folder: folder.read("file", 100),
    "lock": lock,
    "write": lambda folder: folder.write("file", b"x"),
}
INTO: dict[str, Act] = {
    **ACTS,
    "make": lambda folder: folder.make(),
    "make private": lambda folder: folder.make_private(),
    "names": lambda folder: folder.names(),
    "exists": lambda folder: folder.exists(),
    "remove": lambda folder: folder.remove("file"),
    "remove folder": lambda folder: folder.remove_folder("file"),
    "rename": lambda folder: folder.rename("file", "other"),
}


def plant_link(file: Path, secret: Path) -> None:
    file.symlink_to(secret)


def plant_name(file: Path, secret: Path) -> None:
    file.hardlink_to(secret)


def plant_pipe(file: Path, secret: Path) -> None:
    os.mkfifo(file)


def plant_folder(file: Path, secret: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize("plant", [plant_link, plant_name, plant_pipe, plant_folder])
@pytest.mark.parametrize("act", ACTS)
def test_a_file_is_a_plain_one(
    folder: TrustedFolder, tmp_path: Path, plant: Callable[[Path, Path], None], act: str
) -> None:
    plant(folder.path / "file", tmp_path / "secret")
    with pytest.raises(ConfigurationError, match=str(folder.path / "file")):
        ACTS[act](folder)
    assert (tmp_path / "secret").read_text() == "secret"


@pytest.mark.parametrize("act", INTO)
def test_no_folder_on_the_way_is_a_link(folder: TrustedFolder, tmp_path: Path, act: str) -> None:
    folder.path.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "elsewhere" / "file").write_text("kept")
    folder.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="is a symbolic link"):
        INTO[act](folder)
    assert os.listdir(tmp_path / "elsewhere") == ["file"]
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755


def test_what_a_person_named_may_be_a_link(folder: TrustedFolder, tmp_path: Path) -> None:
    (tmp_path / "short").symlink_to(folder.root)
    (TrustedFolder(tmp_path / "short") / "state").write("file", b"x")
    assert folder.read("file", 10) == b"x"


@root_only
@pytest.mark.parametrize("whose", ["root", "state", "file"])
@pytest.mark.parametrize("act", ["read", "lock"])
def test_a_stranger_s_is_refused_by_name(folder: TrustedFolder, whose: str, act: str) -> None:
    folder.write("file", b"x")
    path = {"root": folder.root, "state": folder.path, "file": folder.path / "file"}[whose]
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(ConfigurationError, match=f"{path}: belongs to ") as refused:
        ACTS[act](folder)
    assert f"chown -R root: {path}" in refused.value.hint


@root_only
def test_who_called_sudo_is_no_stranger(
    folder: TrustedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(folder.root, NOBODY, NOBODY)
    os.chown(folder.path, NOBODY, NOBODY)
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    folder.write("file", b"x")
    with folder.locked("lock"):
        pass
    (folder / "keys").make()
    for made in ("file", "lock", "keys"):
        about = (folder.path / made).stat()
        assert (about.st_uid, about.st_gid) == (NOBODY, NOBODY), made


@root_only
def test_a_new_root_belongs_to_whom_the_folder_above_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    TrustedFolder(home / "share" / "rack").make()
    assert (home / "share").stat().st_uid == NOBODY
    assert (home / "share" / "rack").stat().st_uid == NOBODY


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777])
def test_what_others_can_write_is_refused(folder: TrustedFolder, mode: int) -> None:
    os.chown(folder.path, -1, 4)  # adm: a group with a life of its own
    folder.path.chmod(mode)
    with pytest.raises(ConfigurationError, match="can be written by") as refused:
        folder.write("file", b"x")
    advice = "a folder of your own" if mode & stat.S_ISVTX else f"chmod -R go-w {folder.path}"
    assert advice in refused.value.hint


def test_a_group_that_is_its_owner_s_alone_may_write(folder: TrustedFolder) -> None:
    os.chown(folder.path, -1, os.getegid())
    folder.path.chmod(0o775)
    folder.write("file", b"x")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_mode_is_what_was_asked_for_under_any_umask(folder: TrustedFolder, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder.write("secret", b"x", mode=0o400)
        with folder.open("made", os.O_RDWR | os.O_CREAT, 0o640):
            pass
        (folder / "keys").make_private()
        (folder / "plain").make(0o755)
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((folder.path / name).stat().st_mode) for name in folder.names()}
    assert modes == {"secret": 0o400, "made": 0o640, "keys": 0o700, "plain": 0o755}


def test_a_file_larger_than_any_such_file_is_not_read(folder: TrustedFolder) -> None:
    folder.write("file", bytes(101))
    assert len(folder.read("file", 101)) == 101
    with pytest.raises(ConfigurationError, match="larger than 100 bytes"):
        folder.read("file", 100)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
def test_a_name_is_no_path(folder: TrustedFolder, name: str) -> None:
    with pytest.raises(ValueError, match="is not the name"):
        folder.write(name, b"x")
    with pytest.raises(ValueError, match="is not the name"):
        folder / name


def test_what_is_not_there_is_not_made_by_looking(folder: TrustedFolder) -> None:
    absent = folder / "absent"
    assert not absent.exists()
    assert absent.names() == []
    with pytest.raises(FileNotFoundError):
        absent.read("file", 10)
    absent.remove("file")
    absent.remove_folder("file")
    assert folder.names() == []


_HOLD_ALL = """
import fcntl, os, sys
held = []
for top, folders, files in os.walk(sys.argv[1]):
    for path in (top, *(os.path.join(top, name) for name in files)):
        try:
            held.append(os.open(path, os.O_RDONLY))
            fcntl.flock(held[-1], fcntl.LOCK_EX)
        except PermissionError:
            pass
print(len(held), flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_a_stranger(folder: Path) -> Iterator[int]:
    """A stranger locks whatever they can open in ``folder``; how much that is."""
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    words = [*as_nobody, "/usr/bin/python3", "-c", _HOLD_ALL, str(folder)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stranger:
        assert stranger.stdin is not None and stranger.stdout is not None
        yield int(stranger.stdout.readline())
        stranger.stdin.close()


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that everybody can reach; those of the tests are private."""
    with tempfile.TemporaryDirectory(prefix="picloud-held-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@root_only
def test_no_stranger_holds_anybody_up(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """flock(2) asks for no more than a descriptor, so that one who may only read can lock."""
    folder = TrustedFolder(reachable / "rack")
    folder.make(0o755)
    folder.write("rack.toml", b"")
    (folder.path / "old.lock").touch()
    (folder.path / "old.lock").chmod(0o644)
    for name in ("old.lock", "new.lock"):
        with folder.locked(name):
            pass
    with folder.held():
        pass
    waits = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda fd, how: waits(fd, how | fcntl.LOCK_NB))
    with held_by_a_stranger(folder.path) as count:
        assert count == 2, "the folder and rack.toml"
        with folder.held(), folder.locked("old.lock"), folder.locked("new.lock"):
            pass


def test_a_change_is_held_in_the_private_folder(tmp_path: Path) -> None:
    """Which is made with its lock, and which git does not see."""
    folder = TrustedFolder(tmp_path / "rack")
    with folder.held():
        assert folder.names() == [".picloud"]
        assert (folder / ".picloud").is_locked("changes.lock")
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o755
    private = folder.path / ".picloud"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE((private / "changes.lock").stat().st_mode) == 0o600
    subprocess.run(["git", "init", "-q", str(folder.path)], check=True)
    words = ["git", "-C", str(folder.path), "status", "--porcelain"]
    assert not subprocess.run(words, check=True, capture_output=True).stdout
