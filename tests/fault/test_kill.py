"""kill -9 and pulled cards: whatever the moment, a card is blank, or whole, or not yet touched.

The moments are random and seeded. Twelve rounds in an ordinary run of the tests; a full run has
``PICLOUD_FAULT_ROUNDS=200``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imager.node.image import NodeImage
from tests.fault.killing import desk, make_both, rounds, sibling
from tests.support.faultcard import why_not
from tests.support.smallcard import small_card

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(3600),
]

ROUNDS = int(os.environ.get("PICLOUD_FAULT_ROUNDS", "12"))
PULLED = pytest.param(True, marks=pytest.mark.long(minutes=1))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[NodeImage, NodeImage]:
    """Cards of two releases."""
    return tuple(  # type: ignore[return-value]
        small_card(tmp_path_factory.mktemp(name), seed=seed, node=name)
        for seed, name in ((2, "old"), (1, "pi7"))
    )


@pytest.mark.parametrize("pulled", [False, PULLED], ids=["kill_9", "pulled"])
def test_a_killed_write_leaves_a_blank_or_a_whole_card(
    tmp_path: Path, images: tuple[NodeImage, NodeImage], pulled: bool
) -> None:
    """``pulled``: of what was written after the last flush, any part may be lost as well."""
    with desk(tmp_path, *images) as at:
        states = rounds(at, "write", ROUNDS, pulled=pulled, until="blank")
    assert set(states) <= {"blank", "new", "old"}
    assert states["blank"], "no moment hit the writing: this proves nothing"


@pytest.mark.parametrize("pulled", [False, PULLED], ids=["kill_9", "pulled"])
def test_a_killed_update_leaves_a_blank_or_a_whole_card(
    tmp_path: Path, images: tuple[NodeImage, NodeImage], pulled: bool
) -> None:
    new = images[1]
    old = sibling(new)
    with desk(tmp_path, old, new) as at:
        make_both(at)
        states = rounds(at, "update", ROUNDS // 3, pulled=pulled)
    assert set(states) <= {"blank", "new", "old"}
