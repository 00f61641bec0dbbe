"""What a master knows beyond the rack is told in the order in which people count."""

from __future__ import annotations

from pathlib import Path

from imager.config.load import load_rack
from imager.rack.master.connection import Door
from imager.rack.master.status import ask_status
from tests.unit.rack.master.test_answers import printed


def test_strangers_are_told_as_people_count(tmp_path: Path) -> None:
    (tmp_path / "rack.toml").write_text('[rack]\nnodes = "pi[0-3]"\n')
    keys = {"minions": ["pi0", "pi20", "pi100", "pi4", "desk"], "minions_pre": ["pi30", "pi5"]}
    (tmp_path / "said").write_text(printed(keys=keys, up={"up": ["pi20"], "down": []}))
    door = Door("here", ("cat", str(tmp_path / "said")), is_local=True)
    found = ask_status(load_rack(tmp_path), [], door)
    assert list(found.strangers) == ["desk", "pi4", "pi5", "pi20", "pi30", "pi100"]
