"""What ``--signing-key`` may name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError, HostStorage
from imager.release import signing_keys
from imager.release.signing_keys import key_file


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


def test_a_key_that_may_not_be_read_is_no_fault_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, limit: int) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(signing_keys, "read_named", read)
    with pytest.raises(HostStorage, match="Permission denied"):
        key_file(tmp_path / "key.asc")
