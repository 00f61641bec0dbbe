"""``rack status``: ``--wait`` takes the next word, and says so where that is a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from imager.cli.main import run
from tests.support.racks import rack_in


@pytest.mark.parametrize("word", ["pi1", "pi[1-6]", "nan", "inf", "", "10min"])
def test_what_is_no_number_of_seconds_is_named_and_how_to_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    rack_in(tmp_path, '[rack]\nnodes = "pi[0-6]"\n')
    assert run(["--rack", str(tmp_path), "rack", "status", "--wait", word]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"picloud-image: --wait wants seconds, and {word!r} is no number of them"
    assert "rack status pi1 --wait 600" in hint
