"""``rack stations`` asks a master that may not be one, and says so as ``rack status`` does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imager.cli.main import run
from imager.rack.master.connection import Door
from tests.support.racks import rack_in


@pytest.mark.parametrize(
    ("command", "asked"),
    [("status", "imager.cli.rack.status"), ("stations", "imager.cli.stations.stations")],
)
@pytest.mark.parametrize(
    ("script", "code", "what"),
    [
        ("exit 127", 40, "salt-key is not installed there"),
        ("exit 124", 11, "salt-key did not end within 180 s"),
        ("echo hello", 11, "salt-key ended with status 0 and said: hello"),
        ("echo '[]'; exit 1", 11, "salt-key ended with status 1 and said: []"),
        ("kill -KILL $PPID", 11, "salt-key ended with status 137 and said: nothing"),
    ],
)
def test_a_master_that_does_not_answer_as_salt_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    asked: str,
    script: str,
    code: int,
    what: str,
) -> None:
    for name in ("salt-key", "salt-run"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    door = Door("there", ("env", f"PATH={tmp_path}:{os.environ['PATH']}", "sh", "-s"), True)
    monkeypatch.setattr(f"{asked}.door_to_master", lambda *_: door)
    rack_in(tmp_path, '[rack]\nnodes = "pi[0-1]"\n')
    assert run(["--rack", str(tmp_path), "rack", command]) == code
    assert f"picloud-image: there: {what}\n" in capsys.readouterr().err
