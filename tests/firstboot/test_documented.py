"""Every step of first boot can run, is described for a person, and is tried by a test."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.fakenode import FIRSTBOOT, STEPS

ROOT = Path(__file__).resolve().parents[2]


def test_the_document_lists_the_steps_in_their_order() -> None:
    text = (ROOT / "docs/firstboot.md").read_text()
    listed = re.findall(r"^\| `(\d\d-[a-z-]+)` \|", text, re.MULTILINE)
    assert listed == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_a_step_can_be_run_and_is_tried(step: str) -> None:
    assert re.fullmatch(r"\d\d-[a-z]+(-[a-z]+)*", step)
    assert os.access(FIRSTBOOT / "steps" / step, os.X_OK), "chmod +x"
    tests = "".join(
        path.read_text()
        for level in ("firstboot", "salt")
        for path in (ROOT / "tests" / level).glob("test_*.py")
    )
    assert re.search(rf"\b{step}\b", tests), "no test says what this step does"
