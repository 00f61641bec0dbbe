"""Salt by its version: fetched by the real pip from an index on loopback, pinned and archived."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import (
    ConfigurationError,
    MissingTool,
    NetworkError,
    NotAuthentic,
    UsageError,
)
from imager.base.units import KiB, MiB
from imager.release.lock import RackLock
from imager.release.salt.salt import (
    archived_package,
    archived_salt,
    fetch_salt,
    publish,
    require_archived,
    salt_at_hand,
)
from imager.release.terms import FetchTerms
from imager.release.verified import VerifiedSalt
from tests.support.fetching import Heard
from tests.support.mirror import Manners
from tests.support.pypi import RAN, VERSION, WHEEL, Index, index_for_pip, source_release, wheel

pytestmark = pytest.mark.image

SOURCE = f"salt-{VERSION}.tar.gz"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def pypi(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with index_for_pip(monkeypatch) as offered:
        yield offered


class Scene:
    """A cache, a rack's lock, and what was said."""

    def __init__(self, folder: Path) -> None:
        self.cache = Cache(folder / "cache")
        self.lock_path = folder / "rack" / "rack.lock"
        self.heard = Heard()

    @property
    def lock(self) -> RackLock:
        return RackLock.load(self.lock_path)

    def fetch(
        self, version: str = VERSION, *, offline: bool = False, update: bool = False
    ) -> VerifiedSalt:
        return fetch_salt(version, self.lock, FetchTerms(self.cache, self.heard, offline, update))

    def kept(self) -> list[str]:
        """The names in the archive."""
        return sorted(path.name for path in self.cache.packages.iterdir() if path.is_dir())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fetched")
    with pytest.MonkeyPatch.context() as monkeypatch, index_for_pip(monkeypatch):
        Scene(folder).fetch()
    return folder


@pytest.fixture
def fetched(template: Path, tmp_path: Path) -> Scene:
    """One in which Salt was fetched, for which pip takes a second."""
    return Scene(shutil.copytree(template, tmp_path / "scene"))


def test_salt_is_fetched_archived_and_pinned(scene: Scene, pypi: Index) -> None:
    salt = scene.fetch()
    assert (salt.version, salt.source.path.read_bytes()) == (VERSION, source_release())
    assert salt.source.path.parent == scene.cache.packages / sha256(source_release())
    assert [package.path.name for package in salt.wheels] == [WHEEL]
    pin = scene.lock.package("salt")
    assert pin is not None
    assert (pin.version, pin.sha256) == (VERSION, sha256(source_release()))
    assert pin.size_bytes == len(source_release())
    assert scene.lock.package("looseversion") is not None
    assert any("salt: pin moved from nothing to 3008.3" in note for note in scene.heard.notes)
    assert sum(scene.heard.phases["fetch salt 3008.3"]) == len(source_release())
    assert not list(scene.cache.work.glob("pip-*")), "nothing is left of pip's folders"


def test_no_code_of_a_source_release_is_run(
    scene: Scene, pypi: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RAN, os.fspath(tmp_path / "ran"))
    monkeypatch.setattr("imager.release.salt.pip._FOREIGN", re.compile(rf"PIP_\w+|{RAN}"))
    scene.fetch()
    assert not (tmp_path / "ran").exists()


def test_a_pinned_and_archived_salt_asks_nobody(fetched: Scene, pypi: Index) -> None:
    first = fetched.fetch()
    pypi.mirror.log.clear()
    assert fetched.fetch() == first
    assert fetched.fetch(offline=True) == first
    assert salt_at_hand(VERSION, fetched.cache, fetched.lock) == first
    pin = fetched.lock.package("salt")
    assert pin is not None
    assert archived_package("salt", fetched.cache, pin) == first.source
    assert archived_package("salt", fetched.cache, replace(pin, sha256="0" * 64)) is None
    assert pypi.mirror.log == []


def test_offline_needs_what_is_archived(scene: Scene, pypi: Index) -> None:
    with pytest.raises(NetworkError, match=r"salt 3008\.3 is not in") as caught:
        scene.fetch(offline=True)
    with pytest.raises(NetworkError) as early:
        require_archived(VERSION, scene.cache, scene.lock)
    assert (early.value.what, early.value.hint) == (caught.value.what, caught.value.hint)
    assert "without --offline" in caught.value.hint
    assert pypi.mirror.log == []


def test_another_rack_uses_what_is_archived_and_pins_it(fetched: Scene, pypi: Index) -> None:
    first = fetched.fetch()
    fetched.lock_path = fetched.lock_path.with_name("other") / "rack.lock"
    pypi.mirror.log.clear()
    with pytest.raises(NetworkError):
        salt_at_hand(VERSION, fetched.cache, fetched.lock)
    assert not fetched.lock_path.exists()
    assert archived_salt(VERSION, fetched.cache, fetched.lock) == first.source
    require_archived(VERSION, fetched.cache, fetched.lock)
    assert not fetched.lock_path.exists(), "nothing is pinned by looking"
    assert fetched.fetch(offline=True) == first
    assert fetched.lock.package("salt") is not None


def test_another_rack_does_not_use_what_came_by_import(
    scene: Scene, pypi: Index, tmp_path: Path
) -> None:
    """Neither a Salt nor a wheel of the version that is asked for."""
    strange = source_release(files={"salt/version.py": "# a stranger's\n"})
    for name, data in ((SOURCE, strange), (WHEEL, wheel({"looseversion/__init__.py": "#"}))):
        file = tmp_path / name
        file.write_bytes(data)
        publish(file, name.partition("-")[0], scene.cache)
    salt = scene.fetch()
    assert salt.source.path.read_bytes() == source_release()
    assert salt.wheels[0].path.read_bytes() == wheel()
    assert len(scene.kept()) == 4, "what was imported is still there"
    pypi.mirror.log.clear()
    scene.lock_path = scene.lock_path.with_name("other") / "rack.lock"
    assert scene.fetch(offline=True) == salt
    assert pypi.mirror.log == []


def test_what_was_imported_and_is_pypis_is_so_from_then_on(
    scene: Scene, pypi: Index, tmp_path: Path
) -> None:
    for name, data in ((SOURCE, source_release()), (WHEEL, wheel())):
        file = tmp_path / name
        file.write_bytes(data)
        publish(file, name.partition("-")[0], scene.cache)
    with pytest.raises(NetworkError):
        scene.fetch(offline=True)
    first = scene.fetch()
    assert len(scene.kept()) == 2
    assert [package.fetched for package in first.packages] == [True, True]
    scene.lock_path = scene.lock_path.with_name("other") / "rack.lock"
    again = scene.fetch(offline=True)
    assert again == first
    assert [package.fetched for package in again.packages] == [False, False]


def test_other_bytes_than_the_pinned_ones_are_refused(fetched: Scene, pypi: Index) -> None:
    fetched.fetch()
    other = source_release(files={"NOTICE": "changed\n"})
    pypi.publish(SOURCE, other)
    fetched.cache = Cache(fetched.cache.root.with_name("empty"))
    with pytest.raises(NotAuthentic, match=r"not the one that rack\.lock pins") as caught:
        fetched.fetch()
    assert "--update" in caught.value.hint
    pin = fetched.lock.package("salt")
    assert pin is not None
    assert pin.sha256 == sha256(source_release()), "the pin stays"


def test_other_bytes_than_the_pinned_ones_are_not_kept_for_other_racks(
    fetched: Scene, pypi: Index
) -> None:
    fetched.fetch()
    pypi.publish(SOURCE, source_release(files={"NOTICE": "changed\n"}))
    fetched.cache = Cache(fetched.cache.root.with_name("empty"))
    with pytest.raises(NotAuthentic):
        fetched.fetch()
    assert not fetched.cache.packages.exists() or fetched.kept() == []


@pytest.mark.parametrize("endless", [False, True], ids=["larger", "endless"])
def test_a_file_that_is_larger_than_the_pinned_one_is_refused(
    fetched: Scene, pypi: Index, endless: bool
) -> None:
    fetched.fetch()
    pypi.publish(SOURCE, source_release(files={"NOTICE": os.urandom(2 * KiB).hex()}))
    if endless:
        pypi.mirror.files[f"/files/{SOURCE}"] = os.urandom(MiB)
        pypi.mirror.misbehave(f"/files/{SOURCE}", Manners(endless=True))
    fetched.cache = Cache(fetched.cache.root.with_name("empty"))
    with pytest.raises(NotAuthentic) as caught:
        fetched.fetch()
    assert caught.value.what.startswith("PyPI's salt 3008.3 is not the one that rack.lock pins (")
    assert caught.value.what.endswith(f": more than {len(source_release())} bytes")
    assert "--update" in caught.value.hint
    assert sum(fetched.heard.phases["fetch salt 3008.3"]) <= MiB, "no more came on this disk"
    assert not list(fetched.cache.work.glob("pip-*"))


def test_a_file_without_an_end_is_not_taken(
    scene: Scene, pypi: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imager.release.salt.salt.LARGEST_FILE", 2 * MiB)
    pypi.mirror.files[f"/files/{SOURCE}"] = os.urandom(MiB)
    pypi.mirror.misbehave(f"/files/{SOURCE}", Manners(endless=True))
    with pytest.raises(NetworkError, match=r"sends more than 2 MiB as salt==3008\.3"):
        scene.fetch()
    assert scene.lock.package("salt") is None
    assert not list(scene.cache.work.glob("pip-*"))


def test_a_page_of_the_index_without_an_end_costs_no_more_than_its_memory(
    scene: Scene, pypi: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imager.release.salt.pip._MEMORY_BYTES", 400 * MiB)
    pypi.mirror.files["/simple/salt/"] *= 20000
    pypi.mirror.misbehave("/simple/salt/", Manners(endless=True))
    with pytest.raises(NetworkError, match="more than pip can hold in 400 MiB of memory"):
        scene.fetch()


def test_update_moves_the_pins_and_says_from_what_to_what(fetched: Scene, pypi: Index) -> None:
    fetched.fetch()
    fetched.fetch(update=True)
    assert "salt: 3008.3 (" in fetched.heard.notes[-2]
    assert "is still what PyPI has" in fetched.heard.notes[-2]
    pypi.publish(WHEEL.replace("1.3.0", "1.4.0"), wheel(version="1.4.0"))
    fetched.fetch()
    pin = fetched.lock.package("looseversion")
    assert pin is not None
    assert pin.version == "1.3.0", "nothing moves by itself"
    fetched.fetch(update=True)
    assert "looseversion: pin moved from 1.3.0 (" in fetched.heard.notes[-1]
    assert ") to 1.4.0 (" in fetched.heard.notes[-1]


def test_another_version_in_rack_toml_moves_the_pin(fetched: Scene, pypi: Index) -> None:
    fetched.fetch()
    pypi.publish("salt-3008.5.tar.gz", source_release("3008.5"))
    assert fetched.fetch("3008.5").version == "3008.5"
    assert "salt: pin moved from 3008.3 (" in fetched.heard.notes[-1]
    assert len(fetched.kept()) == 3, "what was used once is kept"


def test_a_damaged_archive_is_set_aside_and_fetched_anew(fetched: Scene, pypi: Index) -> None:
    salt = fetched.fetch()
    salt.source.path.chmod(0o644)
    salt.source.path.write_bytes(b"x" + salt.source.path.read_bytes()[1:])
    assert fetched.fetch() == salt
    assert salt.source.path.read_bytes() == source_release()
    assert "was altered since it was archived" in fetched.heard.warnings[0]
    assert f"{salt.source.sha256}.damaged-1" in fetched.kept()


def test_a_damaged_archive_is_never_used_offline(fetched: Scene, pypi: Index) -> None:
    salt = fetched.fetch()
    salt.source.path.chmod(0o644)
    salt.source.path.write_bytes(b"x" + salt.source.path.read_bytes()[1:])
    with pytest.raises(NetworkError, match=r"which rack\.lock pins"):
        fetched.fetch(offline=True)
    assert "was altered since it was archived" in fetched.heard.warnings[0]
    with pytest.raises(NetworkError):
        salt_at_hand(VERSION, fetched.cache, fetched.lock)
    assert salt.source.sha256 in fetched.kept(), "whoever only looks leaves it where it is"


def test_a_version_pypi_does_not_have(scene: Scene, pypi: Index) -> None:
    with pytest.raises(ConfigurationError, match=r"PyPI has no salt==3008\.99") as caught:
        scene.fetch("3008.99")
    assert "3008.3" in caught.value.what
    assert "[salt]" in caught.value.hint


def test_no_network(scene: Scene, pypi: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    with pytest.raises(NetworkError, match=r"pip could not fetch salt==3008\.3") as caught:
        scene.fetch()
    assert "network" in caught.value.hint


def test_an_index_that_cuts_the_download(scene: Scene, pypi: Index) -> None:
    pypi.mirror.manners(f"/files/{SOURCE}").cut_after = [100] * 9
    with pytest.raises((NetworkError, NotAuthentic)):
        scene.fetch()
    assert scene.lock.package("salt") is None
    assert not scene.lock_path.exists()


def test_a_python_without_pip(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare-python"
    bare.write_text(f"#!/bin/sh\nshift 2\necho '{bare}: No module named pip' >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr("sys.executable", os.fspath(bare))
    with pytest.raises(MissingTool, match="has no pip") as caught:
        scene.fetch()
    assert "ensurepip" in caught.value.hint


def test_offline_and_update_exclude_each_other(scene: Scene) -> None:
    with pytest.raises(UsageError):
        scene.fetch(offline=True, update=True)
