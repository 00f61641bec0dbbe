"""A cache on a disk that is too small: a tmpfs of 128 KiB, which only root can mount."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import HostStorage
from imager.base.units import KiB
from imager.packages.locking import packages_of
from imager.packages.wish import PackageWish
from tests.support.carrying import Carrying, archived, take
from tests.support.fetching import PATH, Scene
from tests.support.mirror import Manners, serving
from tests.support.repository import PackageScene, database_of, files_of, packages_in
from tests.support.signing import make_key

pytestmark = pytest.mark.device


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=755", "none", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.fixture
def scene(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("NO_PROXY", "*")
    scene = Scene(tmp_path, make_key())
    scene.cache = Cache(disk)
    return scene


def test_too_little_room_is_seen_before_the_download(scene: Scene) -> None:
    with (
        serving(scene.files) as mirror,
        pytest.raises(HostStorage, match="still to come") as caught,
    ):
        scene.fetch(mirror)
    assert caught.value.exit_code == 41
    assert "--cache" in caught.value.hint


def test_a_disk_that_fills_up_keeps_what_came_in(scene: Scene) -> None:
    with serving(scene.files) as mirror:
        mirror.misbehave(PATH, Manners(chunked=True, ignores_range=True))
        with pytest.raises(HostStorage, match="No space left on device"):
            scene.fetch(mirror)
    assert (scene.partial / "tarball").stat().st_size > 0
    assert scene.archived() == []


def test_a_disk_too_small_for_an_archive_keeps_nothing_of_it(disk: Path, tmp_path: Path) -> None:
    carrying = Carrying(tmp_path, make_key(), release=random.Random(1).randbytes(200_000))
    carrying.export()
    with pytest.raises(HostStorage, match="No space left on device"):
        take(carrying.file, Cache(disk), carrying.key)
    assert archived(Cache(disk)) == {}
    carrying.file = disk / "rack.tar"
    with pytest.raises(HostStorage, match="No space left on device") as caught:
        carrying.export()
    assert "name a file on another disk" in caught.value.hint
    assert not list(disk.glob("*rack.tar*"))


def test_a_full_disk_locks_nothing(disk: Path, tmp_path: Path) -> None:
    """Wherever it is full: in what the release has, in pacman's folder, in the archive."""
    key, paths = make_key(), packages_in(tmp_path / "repository")
    files = files_of(paths, database_of(paths, tmp_path / "repository"), key)
    wish = PackageWish(("docker",))
    with serving(files) as mirror:
        scene = PackageScene(tmp_path, key, (mirror,))
        scene.cache = Cache(disk / "cache")
        before = scene.lock_path.read_bytes()
        for free in (4, 24, 48):
            (disk / "other").write_bytes(bytes((128 - free) * KiB))
            with pytest.raises(HostStorage, match="No space left on device"):
                packages_of(scene.order(wish))
            assert scene.lock_path.read_bytes() == before
        (disk / "other").unlink()
        assert packages_of(scene.order(wish))
