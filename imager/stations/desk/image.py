"""Golden image + delta -> NodeImage, on a station: the rack's signature vouches for all of it.

In: a golden image of the cache, the delta that the head made, what was ordered. Out: the very
NodeImage that the head has, whose stamp's map says what every chunk of the card must be.
"""

from __future__ import annotations

from imager.base.errors import NotAuthentic
from imager.disk.budget import Budget
from imager.disk.extents import ExtentMap
from imager.disk.fat.geometry import FatError
from imager.disk.fat.volume import FatVolume
from imager.disk.manifest import build_manifest
from imager.image.compose.golden import GoldenImage
from imager.node.image import Delta, NodeImage, golden_open, manifest_of
from imager.node.stamp.facts import StampError
from imager.node.stamp.stamp import STAMP_AREA, Stamp, parse_stamp
from imager.stations.wire.delta import DeltaFault, unpack_delta
from imager.stations.wire.order import CardWork, WorkOrder


def ordered_image(
    order: WorkOrder, card: CardWork, golden: GoldenImage, packed: bytes
) -> NodeImage:
    """The image that ``order`` wants on ``card``; ``packed`` is its delta.

    Raises NotAuthentic for anything but what the rack's key signed for this very card.
    """
    try:
        delta = unpack_delta(packed)
        stamp = parse_stamp(delta.over(lambda _, length: bytes(length))(*_PLACE))
    except (DeltaFault, StampError) as error:
        raise _refused(card, str(error)) from None
    _require_ordered(order, card, golden, stamp)
    _require_signed(card, golden, delta, stamp)
    with golden_open(golden, delta) as reader:
        manifest = build_manifest(
            stamp.layout.size_bytes,
            stamp.manifest.extents,
            reader.read,
            base=stamp.manifest,
            changed=ExtentMap([stamp.extent]),
        )
        boot = stamp.layout.boot
        try:
            volume = FatVolume.parse(reader.read, boot.offset, boot.length, Budget.of_our_image())
            boot_files = stamp.boot_digests(volume)
        except FatError as error:
            raise _refused(card, str(error)) from None
    return NodeImage(golden, card.node, card.image_id, stamp.layout, delta, manifest, boot_files)


_PLACE = (STAMP_AREA.offset, STAMP_AREA.length)


def _require_ordered(order: WorkOrder, card: CardWork, golden: GoldenImage, stamp: Stamp) -> None:
    facts = stamp.facts
    pairs = (
        ("signing key", order.rack, stamp.public_key.hex()),
        ("node", card.node, facts.node),
        ("model", card.model, facts.model),
        ("image", card.image_id, facts.image_id),
        ("golden image", golden.key, facts.golden_key),
        ("size in bytes", card.size_bytes, facts.layout.size_bytes),
    )
    for what, wanted, found in pairs:
        if wanted != found:
            raise _refused(card, f"its {what} is {found}, and {wanted} was ordered")


def _require_signed(card: CardWork, golden: GoldenImage, delta: Delta, stamp: Stamp) -> None:
    """Raise NotAuthentic where the card would hold other bytes than the stamp's map says: the
    delta, and the golden image that the order names, prove nothing by themselves."""
    unstamped = delta.inside(delta.extents - ExtentMap([stamp.extent]))
    made = manifest_of(golden, unstamped, stamp.layout.size_bytes, stamp.manifest.extents)
    for (chunk, digest), signed in zip(made.chunks(), stamp.manifest.digests, strict=True):
        if digest != signed:
            raise _refused(
                card, f"its MiB from byte {chunk.offset} on is not what the rack's key signed"
            )


def _refused(card: CardWork, why: str) -> NotAuthentic:
    return NotAuthentic(
        f"what the head handed over for {card.node} is not what it ordered: {why}",
        hint="run the same command again; if it happens again, please report it",
    )
