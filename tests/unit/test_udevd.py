"""The udevd of a run that was killed is ended by the next one, and nothing else is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import loop


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "users"
    monkeypatch.setattr(loop, "_UDEVD_USERS", path)
    return path


def test_a_number_that_is_nobodys_since_the_computer_started_anew_is_forgotten(users: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    users.write_text(str(ended.pid))
    loop.end_unused_udevd()
    assert users.read_text() == ""


def test_a_number_that_is_another_processs_by_now_is_forgotten(users: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            users.write_text(str(other.pid))
            loop.end_unused_udevd()
            assert other.poll() is None
        finally:
            other.kill()
    assert users.read_text() == ""
