"""A station makes of a golden image and a delta what the rack's key signed, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imager.base.errors import NotAuthentic
from imager.base.units import MiB
from imager.node.image import Delta
from imager.node.stamp.stamp import STAMP_AREA
from imager.stations.desk.image import ordered_image
from imager.stations.wire.delta import pack_delta
from tests.support.deskcard import Ordered, ordered_card
from tests.support.smallcard import LAYOUT


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> Ordered:
    return ordered_card(tmp_path_factory.mktemp("head"))


def test_it_is_the_very_image_that_the_head_has(ordered: Ordered) -> None:
    made = ordered_image(ordered.order, ordered.card, ordered.golden, ordered.packed)
    there = ordered.image
    assert made.delta.pieces == there.delta.pieces
    assert replace(made, delta=there.delta) == there
    assert made.manifest != ordered.golden.manifest


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("node", {"node": "pi8"}),
        ("model", {"model": "pi4"}),
        ("image", {"image_id": "0" * 64}),
        ("size in bytes", {"size_bytes": 97 * MiB}),
        ("signing key", {"rack": "0" * 64}),
        ("golden image", {"key": "0" * 32}),
    ],
)
def test_another_card_than_was_ordered(
    ordered: Ordered, what: str, changes: dict[str, object]
) -> None:
    order, card, golden = ordered.order, ordered.card, ordered.golden
    if what == "signing key":
        order = replace(order, **changes)  # type: ignore[arg-type]
    elif what == "golden image":
        golden = replace(golden, **changes)  # type: ignore[arg-type]
    else:
        card = replace(card, **changes)  # type: ignore[arg-type]
    with pytest.raises(NotAuthentic, match=f"is not what it ordered: its {what} is ") as refused:
        ordered_image(order, card, golden, ordered.packed)
    assert "run the same command again" in refused.value.hint


def packed_with(ordered: Ordered, at: int, data: bytes) -> bytes:
    """The delta with other bytes at a place, which may be its own."""
    pieces = []
    for offset, old in ordered.image.delta.pieces:
        if offset <= at < offset + len(old):
            start = at - offset
            pieces.append((offset, old[:start] + data + old[start + len(data) :]))
        else:
            pieces.append((offset, old))
    return pack_delta(Delta(pieces))


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (lambda ordered: b"", "cut short"),
        (lambda ordered: pack_delta(Delta([(0, b"x")])), "carries no stamp"),
        (lambda ordered: packed_with(ordered, STAMP_AREA.offset + 40, b"?"), "its signature"),
        (lambda ordered: packed_with(ordered, LAYOUT.boot.offset, bytes(512)), "FAT"),
    ],
)
def test_what_cannot_be_a_card_of_the_rack(ordered: Ordered, packed: object, why: str) -> None:
    assert callable(packed)
    with pytest.raises(NotAuthentic, match=why):
        ordered_image(ordered.order, ordered.card, ordered.golden, packed(ordered))
