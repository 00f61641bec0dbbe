"""A station makes of a golden image and a delta what the rack's key signed, and nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import NotAuthentic
from imager.base.units import MiB
from imager.disk.manifest import build_manifest
from imager.node.image import Delta
from imager.node.stamp.stamp import STAMP_AREA
from imager.stations.desk.image import ordered_image
from imager.stations.wire.delta import pack_delta
from tests.support.bootdisk import reading
from tests.support.deskcard import Ordered, ordered_card
from tests.support.smallcard import LAYOUT, SIZE


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


def packed_and(ordered: Ordered, at: int, data: bytes) -> bytes:
    """The delta with bytes at a place that is none of its own."""
    return pack_delta(ordered.image.delta.with_piece(at, data))


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (lambda ordered: b"", "cut short"),
        (lambda ordered: pack_delta(Delta([(0, b"x")])), "carries no stamp"),
        (lambda ordered: packed_with(ordered, STAMP_AREA.offset + 40, b"?"), "its signature"),
        (
            lambda ordered: packed_with(ordered, ordered.image.delta.pieces[-1][0], b"?"),
            f"its MiB from byte {12 * MiB} on is not what the rack's key signed",
        ),
        (lambda ordered: packed_and(ordered, 440, b"\x07"), "its MiB from byte 0 on is not"),
        (lambda ordered: packed_and(ordered, MiB - 1, b"x"), "its MiB from byte 0 on is not"),
        (
            lambda ordered: packed_and(ordered, LAYOUT.root.end - 1, b"x"),
            f"its MiB from byte {LAYOUT.root.end - MiB} on is not",
        ),
    ],
)
def test_what_cannot_be_a_card_of_the_rack(ordered: Ordered, packed: object, why: str) -> None:
    assert callable(packed)
    with pytest.raises(NotAuthentic, match=why):
        ordered_image(ordered.order, ordered.card, ordered.golden, packed(ordered))


def test_a_golden_image_of_the_same_key_that_is_another_one(
    ordered: Ordered, tmp_path: Path
) -> None:
    """Whoever alters the order can name one of their own, with its right digest."""
    shutil.copyfile(ordered.golden.path, tmp_path / "golden.raw")
    at = LAYOUT.root.end - MiB
    with (tmp_path / "golden.raw").open("r+b") as file:
        file.seek(at)
        file.write(b"x")
    with reading(tmp_path / "golden.raw") as read:
        manifest = build_manifest(SIZE, ordered.golden.manifest.extents, read)
    mtime = (tmp_path / "golden.raw").stat().st_mtime_ns
    another = replace(
        ordered.golden, path=tmp_path / "golden.raw", manifest=manifest, mtime_ns=mtime
    )
    with pytest.raises(NotAuthentic, match=f"its MiB from byte {at} on is not what the rack's key"):
        ordered_image(ordered.order, ordered.card, another, ordered.packed)
