"""A card as a head orders it of a desk: a small golden image, a node's delta, and its stamp.

In: a folder. Out: what the head sends and what the card must become, made without a rack: the key
is that of ``tests.support.stamps``.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from imager.base.programs import tool_version
from imager.base.units import KiB, MiB
from imager.bootcheck.sums import SUMS_PATH, encode_sums
from imager.disk.extents import ExtentMap
from imager.disk.layout import FIRST_MIB
from imager.disk.manifest import Reader, build_manifest
from imager.image.compose.file_digests import FileDigests
from imager.image.compose.golden import GoldenImage
from imager.node.image import Delta, NodeImage, golden_open
from imager.node.stamp.stamp import STAMP_AREA, encode_stamp
from imager.stations.wire.delta import pack_delta
from imager.stations.wire.golden import wanted_golden
from imager.stations.wire.order import CardWork, WorkOrder
from tests.support.bootdisk import reading
from tests.support.fatdisk import put_files
from tests.support.smallcard import LAYOUT, SIZE, small_card
from tests.support.stamps import FACTS, KEY, PUBLIC

NODE = "pi7"
_BLOCK = 4 * KiB


@dataclass(frozen=True, slots=True)
class Ordered:
    """``order`` is for the one ``card``, which becomes ``image``; ``packed`` is its delta."""

    golden: GoldenImage
    image: NodeImage
    order: WorkOrder
    card: CardWork
    packed: bytes


def ordered_card(folder: Path, *, boot: Mapping[str, bytes] | None = None) -> Ordered:
    """The order; the files of ``boot`` are there in place of those that boot a Pi 2."""
    others = boot or {}
    folder.mkdir(exist_ok=True)
    small = small_card(folder, node=NODE)
    mtime = small.golden.path.stat().st_mtime_ns
    golden = replace(small.golden, key="5" * 32, release_sha256="6" * 64, mtime_ns=mtime)
    own = folder / "own.raw"
    shutil.copyfile(golden.path, own)
    boot_files = dict(small.boot_files) | {
        name: hashlib.sha256(data).hexdigest() for name, data in others.items()
    }
    sums = encode_sums(boot_files)
    put_files(own, LAYOUT.boot.offset, {**others, SUMS_PATH: sums})
    boot_sums = hashlib.sha256(sums).hexdigest()
    with reading(golden.path) as before, reading(own) as after:
        delta = _differences(before, after)
    extents = golden.manifest.extents | delta.extents | ExtentMap([FIRST_MIB])
    with golden_open(golden, delta) as reader:
        unstamped = build_manifest(SIZE, extents, reader.read)
    facts = replace(
        FACTS,
        node=NODE,
        release_sha256=golden.release_sha256,
        golden_key=golden.key,
        image_id=unstamped.digest,
        boot_sums=boot_sums,
        layout=LAYOUT,
    )
    stamp = encode_stamp(facts, unstamped, FileDigests(), PUBLIC, KEY.sign)
    delta = delta.with_piece(STAMP_AREA.offset, stamp)
    with golden_open(golden, delta) as reader:
        manifest = build_manifest(SIZE, extents, reader.read)
    listed = {**boot_files, SUMS_PATH: boot_sums}
    image = NodeImage(golden, NODE, unstamped.digest, LAYOUT, delta, manifest, listed)
    card = CardWork(
        NODE, "pi2", "/dev/sdb", "A1", SIZE, 7, None, image.image_id, "ab" * 32, "b.1+pi7"
    )
    order = WorkOrder(
        job="b.1",
        batch="b",
        rack=PUBLIC.hex(),
        version=tool_version(),
        at=time.time(),
        golden=wanted_golden(golden),
        cards=(card,),
        update=True,
        probe=True,
        at_once=None,
        max_size_bytes=1024 * MiB,
    )
    return Ordered(golden, image, order, card, pack_delta(delta))


def _differences(before: Reader, after: Reader) -> Delta:
    """The blocks of the boot partition that are others."""
    boot = LAYOUT.boot
    old, new = (read(boot.offset, boot.length) for read in (before, after))
    return Delta(
        (boot.offset + at, new[at : at + _BLOCK])
        for at in range(0, boot.length, _BLOCK)
        if old[at : at + _BLOCK] != new[at : at + _BLOCK]
    )
