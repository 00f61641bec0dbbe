"""Each stage of a card is made in one place, so that having one proves what it says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

CARD = Path(__file__).resolve().parents[3] / "imager/card"


def makers(stage: str) -> set[str]:
    """The modules that call the class ``stage``."""
    return {
        str(path.relative_to(CARD))
        for path in CARD.parent.rglob("*.py")
        if f"{stage}(" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == stage
    }


@pytest.mark.parametrize(
    ("stage", "where"),
    [
        ("ClaimedCard", {"claim/claim.py"}),
        ("UnprovenCard", {"make/restore.py", "write/read_back.py"}),
        ("WrittenCard", {"write/write.py", "write/stream.py", "write/update.py"}),
        ("VerifiedCard", {"write/read_back.py"}),
    ],
)
def test_only_who_does_the_work_makes_the_stage(stage: str, where: set[str]) -> None:
    assert makers(stage) == where
