"""A phase of steps: a bar with the time left, no bytes in its line, its steps in JSON."""

from __future__ import annotations

import io
import json
import re
import time

import pytest

from imager.cli.console import Console
from imager.cli.terminal.phases import BarCounter


def test_steps_show_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("COLUMNS", "60")
    bar = BarCounter("prepare pi7", None, steps=4)
    bar.began = bar._bar.start_t = bar._bar.last_print_t = time.time() - 9
    bar.advance(3)
    bar._bar.mininterval = 1e6  # however long it takes to the next line
    bar.advance(9)  # more than there are
    assert (bar.done_steps, bar._bar.n) == (4, 4), "no bar goes past its end"
    bar.close()
    frames = re.findall(r"prepare pi7 +(\d+)% \|[^|]*\| (\S+) left", shown.getvalue())
    assert frames == [("0", "?"), ("75", "00:03")]
    assert " B" not in shown.getvalue()


def test_steps_are_told_to_a_program_and_to_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (True, False):
        with Console(as_json=as_json).steps("prepare pi7", 4) as phase:
            phase.advance(3)
    said = capsys.readouterr()
    ended = [json.loads(line) for line in said.out.splitlines()][-1]
    assert (ended["state"], ended["done_steps"], ended["total_steps"]) == ("done", 3, 4)
    assert (ended["done_bytes"], ended["total_bytes"]) == (0, None)
    assert re.fullmatch(r"prepare pi7: less than 0\.1 s\n", said.err)
