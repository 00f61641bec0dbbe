"""Whose home ``~`` is: that of the person who typed the command, with sudo or without."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from imager.base.ownership import at_home, home_behind_sudo

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


@pytest.mark.skipif(os.geteuid() != 0, reason="sudo makes a user root")
def test_only_a_home_of_their_own_is_the_home_behind_sudo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    users = {1234: str(tmp_path), 4321: str(tmp_path), 65534: "/nonexistent"}

    def known(user: int) -> pwd.struct_passwd:
        return pwd.struct_passwd(("me", "x", user, user, "", users[user], "/bin/sh"))

    monkeypatch.setattr("imager.base.ownership.pwd.getpwuid", known)
    os.chown(tmp_path, 1234, 1234)
    for uid, home in (("1234", tmp_path), ("4321", None), ("65534", None), ("777", None)):
        monkeypatch.setenv("SUDO_UID", uid)
        assert home_behind_sudo() == home
    monkeypatch.setenv("SUDO_UID", "0")
    assert home_behind_sudo() is None
    monkeypatch.delenv("SUDO_UID")
    assert home_behind_sudo() is None
