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
from tests.support.carrying import Carrying, archived, take
from tests.support.fetching import PATH, Scene
from tests.support.mirror import Manners, serving
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
