"""Python packages in the archive: whose they are, which one is used, and who waits for whom."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import NotAuthentic
from imager.base.progress import Quiet
from imager.release.lock import RackLock
from imager.release.salt.salt import archived_salt, fetch_salt, publish, version_in
from imager.release.terms import FetchTerms
from imager.release.verified import VerifiedPackage, VerifiedSalt

SOURCE, WHEEL = "salt-3008.3.tar.gz", "looseversion-1.3.0-py3-none-any.whl"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def lock(tmp_path: Path) -> RackLock:
    return RackLock.load(tmp_path / "rack" / "rack.lock")


def archived(cache: Cache, tmp_path: Path, file: str, data: bytes) -> VerifiedPackage:
    path = tmp_path / file
    path.write_bytes(data)
    return publish(path, file.partition("-")[0], cache)


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
