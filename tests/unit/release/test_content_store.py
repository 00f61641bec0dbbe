"""A folder of the archive gets its name only when the names in it cannot be lost any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import HostStorage
from imager.base.trusted_folder import TrustedFolder
from imager.release.content_store import placed, set_aside
from tests.support.syncing import fsyncs


def test_names_are_on_the_disk_before_the_folder_has_its_own(tmp_path: Path) -> None:
    """Also of a file that was moved in last, after which nothing else is made durable."""
    cache = Cache(tmp_path / "cache")
    folder = cache.releases / ("ab" * 32)
    cache.made("releases")
    with fsyncs() as done, placed(cache, folder) as staged:
        (staged / "file").touch()
        done.clear()
    assert [sync.path for sync in done] == [staged, cache.releases]
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_what_another_run_has_put_there_meanwhile_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    folder = cache.releases / ("ab" * 32)
    with placed(cache, folder) as staged:
        (staged / "file").write_text("ours")
        folder.mkdir()
        (folder / "file").write_text("theirs")
    assert (folder / "file").read_text() == "theirs"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_anything_else_in_its_place_is_still_an_error(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    folder = cache.releases / ("ab" * 32)
    with (
        pytest.raises(HostStorage, match="Not a directory"),
        placed(cache, folder) as staged,
    ):
        (staged / "file").touch()
        folder.touch()


def test_what_another_run_has_set_aside_meanwhile_is_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found the same damage; the other one was the first to rename it."""
    cache = Cache(tmp_path / "cache")
    damaged = cache.made("releases") / ("ab" * 32)
    damaged.path.mkdir()
    (damaged.parent.path / f"{damaged.name}.damaged-1").mkdir()
    really, theirs = TrustedFolder.rename, []

    def rename(folder: TrustedFolder, old: str, new: str) -> None:
        monkeypatch.undo()
        theirs.append(set_aside(damaged))
        really(folder, old, new)

    monkeypatch.setattr(TrustedFolder, "rename", rename)
    ours = set_aside(damaged)
    assert [ours] == theirs
    assert ours.name.endswith(".damaged-2")
    assert set_aside(damaged) == ours, "and as well where it was gone from the beginning"
    assert len(list(damaged.parent.path.iterdir())) == 2
