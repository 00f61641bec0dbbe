"""``rack plan`` and ``rack flash`` judge the folder of ``--images``: it gets the keys of all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.starter import run_command

STRANGER = 65534


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "rack/cards").mkdir(parents=True)
    (tmp_path / "rack/rack.toml").write_text('[rack]\nnodes = "pi[0-1]"\n')
    return tmp_path


def refused(place: Path, images: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(place / "home"),
        "PICLOUD_RACK": str(place / "rack"),
        "PICLOUD_CACHE": str(place / "cache"),
    }
    for words in (["rack", "plan"], ["rack", "flash", "--yes", "--offline"]):
        line = [*words, "--images", images]
        code, _, err = run_command(line, cwd=place, env=environment, stdin="", seconds=60)
        assert code == 10, err
        assert f"/{images}: " in err
    return err


def test_a_folder_that_others_can_write_is_refused(place: Path) -> None:
    (place / "cards").mkdir()
    (place / "cards").chmod(0o1777)
    assert "can be written by everybody" in refused(place, "cards")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_a_stranger_s_folder_is_refused(place: Path) -> None:
    (place / "alice").mkdir()
    os.chown(place / "alice", STRANGER, STRANGER)
    assert "belongs to" in refused(place, "alice")


def test_a_folder_of_a_rack_that_is_a_link_leads_nowhere(place: Path) -> None:
    (place / "outside").mkdir()
    (place / "rack/elsewhere").symlink_to(place / "outside")
    assert "is a symbolic link" in refused(place, "rack/elsewhere")
