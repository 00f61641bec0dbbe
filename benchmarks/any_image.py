"""An image that is none of ours, packed, onto a slow card, beside bmaptool and ``xzcat | dd``.

The card is that of ``card``: 20 MB/s for writing, 40 MB/s for reading. What counts of the image is
found by us in its filesystems, for bmaptool in a map that it made before. dd writes every byte; it
is measured on the beginning and reckoned for the whole. Neither of them reads back.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.card import (
    CARD_BYTES,
    READ_BPS,
    WRITE_BPS,
    peer_image,
    slow_card,
    without_bmaptool,
)
from benchmarks.devices import Loop, no_throttle
from benchmarks.process import Ran, measure, parts
from benchmarks.table import Row, Sample, skipped, tell
from benchmarks.workshop import ROOT, Workshop, command
from imager.base.units import MiB

LIMIT = 1.03
MEMORY_MIB = 150
_DD_BLOCKS = 32
_WHAT = "write --image of a 4 GiB card"
_LIMIT = f"{LIMIT} × the larger: bytes/speed, unpacking alone"
_PACKERS: Mapping[str, tuple[str, ...]] = {"xz": ("xz", "-1", "-k"), "zst": ("zstd", "-q", "-3")}


def any_image_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """Time and memory for each way of packing."""
    if missing := no_throttle() or without_bmaptool():
        yield skipped(_WHAT, _LIMIT, missing)
        return
    peer = peer_image(place)
    for suffix, words in _PACKERS.items():
        packed = Path(f"{peer.image}.{suffix}")
        if not packed.exists():
            subprocess.run([*words, peer.image], check=True)
        yield from _rows(place, packed, peer.bmap, suffix, repetitions)


def _rows(
    place: Workshop, packed: Path, bmap: Path, suffix: str, repetitions: int
) -> Iterator[Row]:
    unpacker = _PACKERS[suffix][0]
    alone = measure(["sh", "-c", f"{unpacker} -dc {packed} >/dev/null"]).seconds
    writing, whole, ideal, theirs, peaks = [], [], [], [], []
    for _ in range(repetitions):
        with slow_card(place) as card:
            ran = _ours(place, packed, card)
        mapped, began = ran.number("mapped_bytes"), ran.phase("blank").began
        writing.append(ran.phase("read back").began - began)
        whole.append(ran.seconds - began)
        ideal.append(max(mapped / WRITE_BPS, alone))
        peaks.append(ran.peak_bytes / MiB)
        told = parts(ran)
        with slow_card(place) as card:
            card.require_ours()
            ran = measure(["bmaptool", "copy", "--bmap", bmap, packed, card.node])
            theirs.append(ran.seconds)
        tell(f"image.{suffix}: {told}; bmaptool {theirs[-1]:.1f} s; {peaks[-1]:.0f} MiB")
    with slow_card(place) as card:
        dd_seconds = _dd(f"{unpacker} -dc {packed}", card)
    ours, limit = Sample(tuple(writing)), Sample(tuple(ideal))
    yield Row(
        f"{_WHAT}, .{suffix}: until the read back",
        _LIMIT,
        ours.text("s"),
        f"that limit: {limit.text('s')} (unpacking alone {alone:.1f} s)",
        ours.ratio_to(limit),
        ours.ratio_to(limit) <= LIMIT,
    )
    both = Sample(tuple(seconds + mapped / READ_BPS for seconds in ideal))
    yield Row(
        "… written and read back",
        "–",
        Sample(tuple(whole)).text("s"),
        f"that, and bytes/speed of reading: {both.text('s')}",
        Sample(tuple(whole)).ratio_to(both),
    )
    other = Sample(tuple(theirs))
    yield Row(
        "… the writing alone", "–", ours.text("s"),
        f"bmaptool copy: {other.text('s')}", ours.ratio_to(other),
    )  # fmt: skip
    dd = Sample((dd_seconds,) * len(writing))
    yield Row(
        "… the writing alone", "–", ours.text("s"),
        f"{unpacker} -dc | dd bs=4M: {dd_seconds:.0f} s (reckoned from {_DD_BLOCKS * 4} MiB)",
        ours.ratio_to(dd),
    )  # fmt: skip
    memory = Sample(tuple(peaks))
    yield Row(
        "… peak memory", f"{MEMORY_MIB} MiB", memory.text("MiB", 0),
        met=max(peaks) <= MEMORY_MIB,
    )  # fmt: skip


def _ours(place: Workshop, packed: Path, card: Loop) -> Ran:
    card.require_ours()
    words = [*command(), "--cache", place.cache, "--json", "write", card.node, "--image", packed]
    # Its receipt is none of the person's own.
    home = {"XDG_DATA_HOME": str(place.folder)}
    return measure([*words, "--yes", "--no-probe", "--no-bmap"], cwd=ROOT, env=home)


def _dd(unpacking: str, card: Loop) -> float:
    """Seconds for the whole image, reckoned from its first blocks."""
    card.require_ours()
    line = f"{unpacking} 2>/dev/null | dd of={card.node} bs=4M count={_DD_BLOCKS}"
    ran = measure(["sh", "-c", f"{line} iflag=fullblock oflag=direct conv=fsync,nocreat 2>&1"])
    return ran.seconds * CARD_BYTES / (_DD_BLOCKS * 4 * MiB)
