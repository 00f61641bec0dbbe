"""Verifying a card that refuses some bytes: each place and file is named, the rest is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from imager.base.errors import CardIOError
from imager.base.progress import Quiet
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.inspect.verify import open_target, verify_card
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from tests.fault.rig import Rig
from tests.support.faultcard import Fault, why_not
from tests.support.smallcard import KERNEL, LIBRARY, SIZE

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


def test_every_unreadable_place_is_named_and_the_rest_is_judged(bench: Rig, tmp_path: Path) -> None:
    card = bench.card
    card.phase("")
    card.arm()
    made = make_card(CardOrder(bench.image, accept(target_at(card.node), SIZE), tmp_path), Quiet())
    kernel, library, flipped = (
        next(place.extent for place in bench.places if place.name == name)
        for name in ("kernel file", "file data", "FAT")
    )
    card.arm(
        [
            Fault("eio", kernel, ("verify",), on="read"),
            Fault("eio", library, ("verify",), on="read"),
            Fault("flip", flipped, ("verify",), on="read"),
        ]
    )
    card.phase("verify")
    try:
        with open_target(card.node) as fresh:
            found = verify_card(fresh, made.receipt, Quiet())
    finally:
        card.phase("")
        card.arm()
    assert [mismatch.extent for mismatch in found.unreadable] == [kernel, library]
    (differing,) = (mismatch.extent for mismatch in found.mismatches if not mismatch.unreadable)
    assert differing.offset <= flipped.offset < differing.end
    with pytest.raises(CardIOError) as caught:
        found.require_sound()
    said = "\n".join(caught.value.details)
    assert f"2 ranges of {made.receipt.node}'s card cannot be read" in caught.value.what
    assert f"/boot/{KERNEL}" in caught.value.what
    assert LIBRARY in said
