"""What ``--signing-key`` may name, and what is known of a key."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
from pysequoia import Cert

from imager.base.cache import Cache
from imager.base.errors import ConfigurationError, HostStorage, NetworkError
from imager.base.progress import Quiet
from imager.release import signing_keys
from imager.release.signing_keys import find_key, key_file
from imager.release.terms import KeySources
from imager.release.transfer.web import TransferLimits, Web
from tests.support.signing import make_key, revoked


def test_the_bytes_of_a_file_of_a_keys_size(tmp_path: Path) -> None:
    file = tmp_path / "key.asc"
    file.write_bytes(b"key")
    assert key_file(file) == b"key"


def test_what_is_no_such_file_is_named(tmp_path: Path) -> None:
    large, pipe = tmp_path / "large", tmp_path / "pipe"
    large.touch()
    os.truncate(large, 1 << 30)
    os.mkfifo(pipe)
    for path in (tmp_path / "none", tmp_path, large, pipe):
        with pytest.raises(ConfigurationError, match=f"--signing-key {path}: "):
            key_file(path)


def _known(cache: Cache, file: Path | None, fingerprint: str) -> Cert:
    with closing(Web(TransferLimits())) as web:
        return find_key(fingerprint, cache, web, Quiet(), KeySources((), (), file))


def test_a_revocation_is_not_forgotten(tmp_path: Path) -> None:
    """Neither for an older copy of the key that a person names, nor for the cached one."""
    key = make_key()
    plain, withdrawn = tmp_path / "plain.asc", tmp_path / "revoked.asc"
    plain.write_bytes(key.certificate)
    withdrawn.write_bytes(revoked(key))
    for number, files in enumerate(([withdrawn, plain], [plain, withdrawn])):
        cache = Cache(tmp_path / f"cache{number}")
        for file in files:
            _known(cache, file, key.fingerprint)
        for again in (None, plain):
            assert _known(cache, again, key.fingerprint).is_revoked


def test_offline_it_is_not_said_that_keyservers_were_asked(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="no keyserver was to be asked") as caught:
        _known(Cache(tmp_path / "cache"), None, make_key().fingerprint)
    assert "--signing-key FILE" in caught.value.hint


def test_a_key_that_may_not_be_read_is_no_fault_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, limit: int) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(signing_keys, "read_named", read)
    with pytest.raises(HostStorage, match="Permission denied"):
        key_file(tmp_path / "key.asc")
