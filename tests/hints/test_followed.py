"""Every hint with a command or a setting in it is followed where it is printed.

The tables beside this file have a row for each. A row makes the situation by the real command line,
finds what it is told to type in what was printed, and types it.
"""

from __future__ import annotations

from tests.hints.collected import texts_to_follow
from tests.hints.not_reached import ELSEWHERE, NOT_REACHED
from tests.hints.test_as_root import READERS
from tests.hints.test_beside_release import CARDS, SHOP
from tests.hints.test_built_in import BUILT_IN
from tests.hints.test_by_ssh import BY_SSH, COPIED
from tests.hints.test_images import IMAGES
from tests.hints.test_packages import LOCKED
from tests.hints.test_releases import PINNED
from tests.hints.test_without_release import BARE
from tests.hints.test_worn import WORN
from tests.support.workplace import ROOT

TABLES = (
    *(BARE, IMAGES, READERS, BY_SSH, COPIED, LOCKED, PINNED, SHOP, CARDS, BUILT_IN, WORN),
    NOT_REACHED,
)


def test_every_hint_has_a_row() -> None:
    found = texts_to_follow()
    rows = [text for table in TABLES for text in table]
    missing = {text: place for text, place in found.items() if text not in rows}
    assert not missing, "give each a row, or say in NOT_REACHED why nobody can"
    assert not set(rows) - set(found), "is said nowhere"
    assert len(rows) == len(set(rows)), "one row for each"


def test_who_follows_them_elsewhere_is_there() -> None:
    for reason in NOT_REACHED.values():
        if reason.startswith(ELSEWHERE):
            assert (ROOT / reason.removeprefix(ELSEWHERE)).is_file()
