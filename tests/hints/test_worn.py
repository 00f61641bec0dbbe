"""Hints about a card of which a sector cannot be read any more: a disk over FUSE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imager.base.units import SECTOR_BYTES, MiB
from tests.hints.following import Row, follow, typed
from tests.support.faultcard import fault_card, why_not
from tests.support.workplace import Said

pytestmark = [pytest.mark.device, pytest.mark.skipif(bool(why_not()), reason=why_not())]


@dataclass(frozen=True, slots=True)
class WornOut:
    """A folder, and a card that is in a reader."""

    folder: Path
    card: Path

    def typed(self, line: str) -> Said:
        """Type ``line``; the card is called ``CARD`` there, and in what is said."""
        said = typed(self.folder, line.replace("CARD", str(self.card)), "rack")
        named = [text.replace(str(self.card), "CARD") for text in (said.out, said.err)]
        return Said(said.code, *named)


def _saved(place: WornOut) -> None:
    assert place.typed("read CARD saved.img").code == 22


WORN = {
    "command_line('read', original.target.node, 'saved.img')": Row(
        "clone CARD new.img", "picloud-image read CARD saved.img", code=41, ends=22
    ),
    "command_line('write', 'TARGET', '--image', 'saved.img')": Row(
        "clone CARD new.img",
        "picloud-image write TARGET --image saved.img",
        code=41,
        fill={"TARGET": "new.img"},
        between=(_saved,),
    ),
}


@pytest.fixture
def worn_out(here: Path, tmp_path: Path) -> Iterator[WornOut]:
    with fault_card(tmp_path / "card", 8 * MiB) as card:
        card.arm(worn=[3 * MiB // SECTOR_BYTES])
        yield WornOut(here, card.node)


@pytest.mark.parametrize("text", WORN)
def test_it_works_with_what_a_card_still_gives(worn_out: WornOut, text: str) -> None:
    follow(WORN[text], worn_out, worn_out.folder, worn_out.typed)
