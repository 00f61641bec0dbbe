"""A cache on a disk that is too small: a tmpfs of 128 KiB, which only root can mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import HostStorage
from tests.support.fetching import PATH, Scene
from tests.support.mirror import Manners, serving
from tests.support.signing import make_key

pytestmark = pytest.mark.device


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    if os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip("only root can mount a small disk")
    monkeypatch.setenv("NO_PROXY", "*")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=755", "none", disk], check=True)
    try:
        scene = Scene(tmp_path, make_key())
        scene.cache = Cache(disk)
        yield scene
    finally:
        subprocess.run(["umount", disk], check=True)


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
