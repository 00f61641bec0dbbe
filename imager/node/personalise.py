"""Golden image + node -> NodeImage: adds all that is the node's own, and copies nothing.

In: a golden image, a rack, one of its nodes, the size of the card. Out: the blocks that differ from
the golden image, and the manifest of the whole. The same identity and the same imaging time give
the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from imager.base.errors import ConfigurationError, MalformedRelease, TargetRefused
from imager.base.programs import ToolUse, tools_for
from imager.base.progress import Progress
from imager.base.run import require_tools
from imager.base.units import SECTOR_BYTES, format_size
from imager.bootcheck.sums import SUMS_PATH
from imager.config.rack import Node, Rack
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.manifest import build_manifest
from imager.image.compose.golden import GoldenImage
from imager.node.content import CONTENT_STEPS, node_content
from imager.node.edit.edit import EDIT_STEPS, Edited, OpenGolden, edit, opened
from imager.node.files.boot import digests, laid_over
from imager.node.files.card_values import Occasion
from imager.node.image import NodeImage, golden_open, manifest_of
from imager.node.keys.identity import CardNumbers, count_missing_keys, make_keys
from imager.node.keys.signing import rack_key
from imager.node.stamp.facts import StampFacts
from imager.node.stamp.stamp import STAMP_AREA, StampTooLarge, encode_stamp


def personalise(
    golden: GoldenImage,
    rack: Rack,
    node: Node,
    size_bytes: int,
    progress: Progress,
    occasion: Occasion | None = None,
) -> NodeImage:
    """The image of ``node`` for a card of ``size_bytes``, made now, or exactly as it was made on an
    earlier ``occasion``.

    Raises ConfigurationError for what is wrong with the rack, its overlays or its keys;
    TargetRefused for a card smaller than the golden image; MissingTool.
    """
    with opened(golden) as view:
        return personalise_one(view, rack, node, size_bytes, progress, occasion)


def personalise_one(
    golden: OpenGolden,
    rack: Rack,
    node: Node,
    size_bytes: int,
    progress: Progress,
    occasion: Occasion | None = None,
) -> NodeImage:
    """As ``personalise``, for one of many nodes made of the same golden image."""
    require_tools(*tools_for(ToolUse.NODE))
    image = golden.image
    _check_model(image, node)
    layout = layout_on(image, size_bytes)
    occasion = occasion or Occasion.now()
    lacking = count_missing_keys(rack, node)
    steps = lacking + CONTENT_STEPS + EDIT_STEPS
    with progress.steps(f"prepare {node.name}", steps) as phase:
        if lacking:
            make_keys(rack, node, phase)
        content = node_content(golden, rack, node, occasion.imaged_at)
        phase.advance(CONTENT_STEPS)
        edited = edit(layout, golden.filesystems, content.card, golden.reader.read, phase)
    if not content.can_log_in:
        progress.warn(
            f"nobody can log in to {node.name}: its default passwords are locked and rack.toml "
            "names no authorized_keys under [login]"
        )
    card = content.card
    unstamped = _image(image, node, layout, edited, digests(card.files.boot))
    return _stamped(unstamped, rack, node, occasion, card.numbers, edited)


def _image(
    golden: GoldenImage, node: Node, layout: Layout, edited: Edited, boot: Mapping[str, str]
) -> NodeImage:
    delta = edited.delta
    manifest = manifest_of(golden, delta, layout.size_bytes, edited.extents)
    return NodeImage(
        golden=golden,
        node=node.name,
        image_id=manifest.digest,
        layout=layout,
        delta=delta,
        manifest=manifest,
        boot_files=laid_over(golden.boot_files, boot),
    )


def _stamped(
    image: NodeImage,
    rack: Rack,
    node: Node,
    occasion: Occasion,
    numbers: CardNumbers,
    edited: Edited,
) -> NodeImage:
    """``image`` with the stamp, which is a signed proof of all the rest."""
    golden, key = image.golden, rack_key(rack)
    facts = StampFacts(
        rack=rack.name,
        node=node.name,
        model=node.model,
        release_name=golden.release_name,
        release_sha256=golden.release_sha256,
        golden_key=golden.key,
        image_id=image.image_id,
        boot_sums=image.boot_files[SUMS_PATH],
        tool_version=occasion.tool_version,
        imaged_at=occasion.imaged_at,
        disk_id=numbers.disk_id,
        layout=image.layout,
        root_uuid=numbers.root_uuid,
    )
    files = golden.files.changed(edited.present, edited.written)
    try:
        stamp = encode_stamp(facts, image.manifest, files, key.public, key.sign)
    except StampTooLarge as error:
        raise MalformedRelease(
            f"{golden.release_name} is too large for the stamp of its cards: {error}",
            hint="use a smaller release: this one fills more than 25 GB",
        ) from error
    delta = image.delta.with_piece(STAMP_AREA.offset, stamp)
    with golden_open(golden, delta) as reader:
        manifest = build_manifest(
            image.layout.size_bytes,
            image.manifest.extents,
            reader.read,
            base=image.manifest,
            changed=ExtentMap([Extent(STAMP_AREA.offset, len(stamp))]),
        )
    return replace(image, delta=delta, manifest=manifest)


def _check_model(golden: GoldenImage, node: Node) -> None:
    if node.model not in golden.models:
        raise ConfigurationError(
            f"{node.name} is a {node.model}, and {golden.release_name} was composed for "
            f"{', '.join(golden.models)}",
            hint="set model of the node, or [release], in rack.toml",
        )


def layout_on(golden: GoldenImage, size_bytes: int) -> Layout:
    """How a card of ``size_bytes`` is laid out; raises TargetRefused for one that is too small."""
    if size_bytes % SECTOR_BYTES:
        raise TargetRefused(
            f"{size_bytes} bytes is no whole number of {SECTOR_BYTES}-byte sectors",
            hint="give a size in MiB or GiB",
        )
    if size_bytes < golden.layout.size_bytes:
        raise TargetRefused(
            f"the target has {format_size(size_bytes)} ({size_bytes} bytes) and "
            f"{golden.release_name} needs {format_size(golden.layout.size_bytes)} "
            f"({golden.layout.size_bytes} bytes)",
            hint="use a larger card, or a larger --size for an image file",
        )
    return golden.layout.grown_to(size_bytes)
