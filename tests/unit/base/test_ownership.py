"""Whose home ``~`` is: that of the person who typed the command, with sudo or without."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from imager.base.ownership import at_home

SOMEBODY = pwd.getpwnam("daemon")


def test_without_sudo_it_is_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.setenv("HOME", "/somewhere")
    assert at_home("~/.ssh/id.pub") == Path("/somewhere/.ssh/id.pub")
    assert at_home("~") == Path("/somewhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="sudo makes a user root")
def test_with_sudo_it_is_the_home_of_who_called_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setenv("SUDO_UID", str(SOMEBODY.pw_uid))
    assert at_home("~/.ssh/id.pub") == Path(SOMEBODY.pw_dir, ".ssh/id.pub")
    assert at_home("~") == Path(SOMEBODY.pw_dir)
    for path in ("keys/~", "/etc/keys", "~root/.ssh"):
        assert at_home(path) == Path(path).expanduser()


@pytest.mark.skipif(os.geteuid() != 0, reason="sudo makes a user root")
def test_a_caller_of_whom_nothing_is_known_has_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    monkeypatch.setenv("SUDO_UID", "4294967290")
    assert at_home("~/x") == Path("/root/x")
