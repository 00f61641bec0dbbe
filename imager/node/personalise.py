"""Golden image + node -> NodeImage: everything a node needs to be itself, and nothing copied.

In: a golden image, a rack, one of its nodes, the size of the card. Out: the node's delta over the
golden image, and the manifest of the two together. The same identity at the same imaging time
gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from imager.base.errors import ConfigurationError, TargetRefused
from imager.base.progress import Progress
from imager.base.run import require_tools
from imager.base.units import SECTOR_BYTES, format_size
from imager.image.golden import GoldenImage
from imager.image.layout import Layout
from imager.image.manifest import Manifest, build_manifest
from imager.node.bootfiles import boot_files, digests, node_file
from imager.node.cardtree import merge
from imager.node.cardvalues import card_values, imaging_time
from imager.node.edit import TOOLS, CardContent, Filesystems, edit
from imager.node.identity import identity_of
from imager.node.image import Delta, ImageReader, NodeImage
from imager.node.nodefiles import can_log_in, node_files
from imager.node.overlay import load_overlays
from imager.node.rack import Node, Rack
from imager.node.templates import Templates
from imager.node.trees import trees_folder


def personalise(
    golden: GoldenImage, rack: Rack, node: Node, size_bytes: int, progress: Progress
) -> NodeImage:
    """The image of ``node`` for a card of ``size_bytes``.

    Raises ConfigurationError for what is wrong with the rack, its overlays or its keys;
    TargetRefused for a card smaller than the golden image; MissingTool.
    """
    require_tools(*TOOLS)
    _check_model(golden, node)
    layout = _layout(golden, size_bytes)
    time = imaging_time()
    with progress.phase(f"prepare {node.name}"), _reading(golden) as reader:
        identity = identity_of(rack, node)
        card = card_values(identity, time)
        templates = Templates({"rack": rack, "node": node, "card": card})
        overlays = load_overlays(trees_folder() / "overlays", rack.overlays, node, templates)
        old = Filesystems.open(reader.read, golden.layout)
        files = merge(overlays, node_files(rack, node, identity, old.root, overlays))
        about = node_file(golden, rack, node, card)
        boot = boot_files(golden, old.boot, files.boot, about, card)
        content = CardContent(replace(files, boot=boot), identity.numbers, time)
        delta, extents = edit(layout, old, content, reader.read)
    if not can_log_in(node, overlays):
        progress.warn(
            f"nobody can log in to {node.name}: its default passwords are locked and rack.toml "
            "names no authorized_keys under [login]"
        )
    with _reading(golden, delta) as reader:
        manifest = build_manifest(
            layout.size_bytes, extents, reader.read, base=golden.manifest, changed=delta.extents
        )
    return NodeImage(
        golden=golden,
        node=node.name,
        image_id=_image_id(manifest),
        layout=layout,
        delta=delta,
        manifest=manifest,
        boot_files={**golden.boot_files, **digests(boot)},
    )


def _check_model(golden: GoldenImage, node: Node) -> None:
    if node.model not in golden.models:
        raise ConfigurationError(
            f"{node.name} is a {node.model}, and {golden.release_name} was composed for "
            f"{', '.join(golden.models)}",
            hint="set model of the node, or [release], in rack.toml",
        )


def _layout(golden: GoldenImage, size_bytes: int) -> Layout:
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


@contextmanager
def _reading(golden: GoldenImage, delta: Delta | None = None) -> Iterator[ImageReader]:
    descriptor = os.open(golden.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield ImageReader(descriptor, delta or Delta(()))
    finally:
        os.close(descriptor)


def _image_id(manifest: Manifest) -> str:
    text = json.dumps(manifest.to_json(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
