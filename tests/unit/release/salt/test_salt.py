"""Python packages in the archive: whose they are, which one is used, and who waits for whom."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import NetworkError, NotAuthentic
from imager.base.progress import Quiet
from imager.base.timestamps import timestamp
from imager.packages.carry.lists import rows_of
from imager.release.lock import PackagePin, RackLock
from imager.release.salt.fetched import fetched_at, record_fetched
from imager.release.salt.salt import (
    archived_salt,
    fetch_salt,
    publish,
    require_archived,
    version_in,
)
from imager.release.terms import FetchTerms
from imager.release.verified import VerifiedPackage, VerifiedSalt

SOURCE, WHEEL = "salt-3008.3.tar.gz", "looseversion-1.3.0-py3-none-any.whl"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def lock(tmp_path: Path) -> RackLock:
    return RackLock.load(tmp_path / "rack" / "rack.lock")


def archived(
    cache: Cache, tmp_path: Path, file: str, data: bytes, *, fetched: bool = True
) -> VerifiedPackage:
    """A file in the archive, where pip brought it if it was ``fetched``."""
    path = tmp_path / file
    path.write_bytes(data)
    package = publish(path, file.partition("-")[0], cache)
    if fetched:
        record_fetched(cache.looked_at("packages") / package.sha256)
    return package


@pytest.mark.parametrize(
    ("file", "name", "version"),
    [
        (SOURCE, "salt", "3008.3"),
        ("Salt-3008.3.tar.gz", "salt", "3008.3"),
        (WHEEL, "looseversion", "1.3.0"),
        (WHEEL, "salt", None),
        ("salt-3008.3.zip", "salt", None),
        ("salt", "salt", None),
    ],
)
def test_a_version_is_in_the_name_of_a_package(file: str, name: str, version: str | None) -> None:
    assert version_in(file, name) == version


def test_a_package_is_archived_once_and_read_only(cache: Cache, tmp_path: Path) -> None:
    first = archived(cache, tmp_path, SOURCE, b"salt")
    assert first.path.read_bytes() == b"salt"
    assert first.path.stat().st_mode & 0o777 == 0o444
    assert (first.sha256, first.size_bytes) == (hashlib.sha256(b"salt").hexdigest(), 4)
    assert archived(cache, tmp_path, SOURCE, b"salt") == first


def test_a_file_of_another_package_is_not_archived(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / WHEEL
    path.write_bytes(b"wheel")
    with pytest.raises(NotAuthentic, match=f"pip gave {WHEEL} for salt"):
        publish(path, "salt", cache)
    assert not cache.packages.exists()


def test_of_two_archived_ones_the_newer_is_used(
    cache: Cache, tmp_path: Path, lock: RackLock
) -> None:
    """PyPI does not let a file be replaced, but other indexes do."""
    both = [archived(cache, tmp_path, SOURCE, data) for data in (b"one", b"two")]
    for newer in both:
        for package in both:
            seconds = 2_000_000_000 if package is newer else 1_900_000_000
            os.utime(package.path.parent, (seconds, seconds))
        assert archived_salt("3008.3", cache, lock) == newer


def test_what_was_imported_is_used_only_by_the_hash_that_a_rack_pins(
    cache: Cache, tmp_path: Path, lock: RackLock
) -> None:
    """A stranger's file may hold another Salt under the name of the right one."""
    strange = archived(cache, tmp_path, SOURCE, b"strange", fetched=False)
    archived(cache, tmp_path, WHEEL, b"wheel")
    offline = FetchTerms(cache, Quiet(), offline=True)
    assert archived_salt("3008.3", cache, lock) is None
    for look in (
        lambda: fetch_salt("3008.3", lock, offline),
        lambda: require_archived("3008.3", cache, lock),
    ):
        with pytest.raises(NetworkError, match=r"nothing says that the salt in .* is PyPI's") as no:
            look()
        assert no.value.hint == "run picloud-image fetch once without --offline"
    assert lock.package("salt") is None
    with pytest.raises(NetworkError, match=r"salt 3008\.4 is not in"):
        fetch_salt("3008.4", lock, offline)
    lock.with_pin("salt", PackagePin("3008.3", strange.sha256, strange.size_bytes, timestamp()))
    pinned = RackLock.load(lock.path)
    assert fetch_salt("3008.3", pinned, offline).source == strange
    require_archived("3008.3", cache, pinned)


def test_of_an_imported_and_a_fetched_one_the_fetched_one_is_used(
    cache: Cache, tmp_path: Path, lock: RackLock
) -> None:
    right = archived(cache, tmp_path, SOURCE, b"right")
    strange = archived(cache, tmp_path, SOURCE, b"strange", fetched=False)
    seconds = time.time() + 100
    os.utime(strange.path.parent, (seconds, seconds))
    assert archived_salt("3008.3", cache, lock) == right
    assert archived(cache, tmp_path, SOURCE, b"strange") == strange
    assert archived_salt("3008.3", cache, lock) == strange, "now pip brought the very same bytes"


def test_when_it_was_fetched_is_known_and_only_of_a_sound_record(
    cache: Cache, tmp_path: Path
) -> None:
    package = archived(cache, tmp_path, SOURCE, b"salt", fetched=False)
    folder = cache.looked_at("packages") / package.sha256
    before = timestamp(1_900_000_000.0)
    os.utime(package.path.parent, (1_900_000_000, 1_900_000_000))
    assert fetched_at(folder) is None
    assert [row.fetched_at for row in rows_of(cache, {})] == [before], "when it was put there"
    record_fetched(folder)
    os.utime(package.path.parent, (1_900_000_000, 1_900_000_000))
    assert fetched_at(folder) not in (None, before)
    assert [row.fetched_at for row in rows_of(cache, {})] == [fetched_at(folder)]
    for broken in (b"", b"[]", b"{", b'{"fetched_at": 7}'):
        folder.write("fetched.json", broken)
        assert fetched_at(folder) is None


def test_what_another_run_fetched_meanwhile_is_used(
    cache: Cache, tmp_path: Path, lock: RackLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")  # a pip that has nothing
    found: list[VerifiedSalt] = []
    fetching = threading.Thread(
        target=lambda: found.append(fetch_salt("3008.3", lock, FetchTerms(cache, Quiet())))
    )
    with cache.made("packages").locked("salt.lock"):
        fetching.start()
        time.sleep(0.2)  # it looks, finds nothing, and waits
        salt = archived(cache, tmp_path, SOURCE, b"salt")
        wheel = archived(cache, tmp_path, WHEEL, b"wheel")
    fetching.join()
    assert found == [VerifiedSalt(salt, (wheel,))]
    assert found[0].packages == (salt, wheel)
