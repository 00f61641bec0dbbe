"""Which folder is the rack."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError
from imager.config.example import Choices
from imager.config.folder import default_rack_to_be, find_rack, init_rack, rack_at_hand
from imager.config.load import load_rack


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


def test_the_nearest_rack_toml_upwards_counts(tmp_path: Path) -> None:
    (tmp_path / "rack/deep/er").mkdir(parents=True)
    (tmp_path / "rack/rack.toml").write_text("")
    found = find_rack(tmp_path / "rack/deep/er")
    assert (found.path, found.is_default) == (tmp_path / "rack", False)


def test_without_one_a_default_rack_is_made_and_said_to_be_one(
    tmp_path: Path, data_home: Path
) -> None:
    found = find_rack(tmp_path)
    assert found.is_default
    assert found.path.is_relative_to(data_home)
    rack = load_rack(found.path)
    assert rack.node("pi7")
    assert rack.master.name == "salt"
    (found.path / "rack.toml").write_text('[rack]\nnodes = "a"\n')
    assert find_rack(tmp_path) == found, "a default rack that is there is kept"
    assert load_rack(found.path).node("a")


@pytest.mark.skipif(os.geteuid() != 0, reason="sudo makes a user root")
def test_with_sudo_the_default_rack_is_that_of_who_called_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, roots = tmp_path / "me", tmp_path / "root"
    home.mkdir()
    os.chown(home, 1234, 1234)
    person = pwd.struct_passwd(("me", "x", 1234, 1234, "", str(home), "/bin/sh"))
    monkeypatch.setattr("imager.base.ownership.pwd.getpwuid", lambda user: person)
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(roots))
    monkeypatch.setenv("SUDO_UID", "1234")
    found = find_rack(tmp_path).path
    assert found == home / ".local/share/picloud-image/default-rack"
    assert {path.lstat().st_uid for path in home.rglob("*")} == {1234}
    assert not roots.exists()
    (roots / ".local/share/picloud-image").mkdir(parents=True)
    assert find_rack(tmp_path).path.is_relative_to(roots), "keys may be in it"


def test_a_rack_named_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"rack\.toml: no such file"):
        find_rack(tmp_path, tmp_path / "nowhere")


def test_a_rack_can_be_named_by_its_file(tmp_path: Path) -> None:
    init_rack(tmp_path / "r")
    assert find_rack(tmp_path, tmp_path / "r/rack.toml").path == tmp_path / "r"


def test_init_makes_a_rack_and_never_overwrites_one(tmp_path: Path) -> None:
    made = init_rack(tmp_path / "r", Choices(nodes="a[1-2]", master="a1"))
    assert {path.name for path in made} == {"rack.toml", ".picloud"}
    assert stat.S_IMODE((tmp_path / "r/.picloud").stat().st_mode) == 0o700
    assert load_rack(tmp_path / "r").master.is_node
    before = (tmp_path / "r/rack.toml").read_bytes()
    with pytest.raises(ConfigurationError, match="is there already"):
        init_rack(tmp_path / "r")
    assert (tmp_path / "r/rack.toml").read_bytes() == before


def test_init_with_a_bad_name_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        init_rack(tmp_path / "r", Choices(nodes="pi_[0-3]"))
    assert "underscore" in caught.value.details[0]
    assert not (tmp_path / "r").exists()


def test_looking_for_a_rack_at_hand_makes_none(tmp_path: Path, data_home: Path) -> None:
    assert rack_at_hand(tmp_path) is None
    assert not data_home.exists()
    made = find_rack(tmp_path).path
    assert rack_at_hand(tmp_path) == made, "a default rack that is there is at hand"
    (tmp_path / "rack/deep").mkdir(parents=True)
    (tmp_path / "rack/rack.toml").write_text("")
    assert rack_at_hand(tmp_path / "rack/deep") == tmp_path / "rack"
    assert rack_at_hand(tmp_path, tmp_path / "rack") == tmp_path / "rack"
    with pytest.raises(ConfigurationError, match="no such file"):
        rack_at_hand(tmp_path, tmp_path / "nowhere")


def test_the_default_rack_to_be_is_the_one_that_is_made(tmp_path: Path, data_home: Path) -> None:
    to_be = default_rack_to_be()
    assert not data_home.exists()
    assert to_be == load_rack(find_rack(tmp_path).path)


def test_a_rack_that_was_lost_is_told_as_one_that_was_never_there(tmp_path: Path) -> None:
    (made, _) = init_rack(tmp_path / "r")
    made.unlink()
    with pytest.raises(ConfigurationError) as lost:
        load_rack(tmp_path / "r")
    with pytest.raises(ConfigurationError) as never_there:
        find_rack(tmp_path, tmp_path / "r")
    assert (lost.value.what, lost.value.hint) == (never_there.value.what, never_there.value.hint)
