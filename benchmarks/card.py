"""A whole card written and read back at the speed of a card, beside bmaptool and dd.

The card is a loop device limited to 20 MB/s for writing and 40 MB/s for reading. bmaptool gets our
own finished image and a block map it made of it; it writes and does not read back. dd writes
every byte, holes too; it is measured on the beginning and reckoned for the whole.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.devices import Loop, card_of, no_throttle, throttled, written_bytes
from benchmarks.process import Ran, measure, parts
from benchmarks.table import Row, Sample, skipped, tell
from benchmarks.workshop import Workshop
from imager.base.units import GiB, MiB
from imager.image.compose.root_fs import JOURNAL_MIB

WRITE_BPS, READ_BPS = 20 * 10**6, 40 * 10**6
LIMIT = 1.05
PROBE_LIMIT_SECONDS = 3
CARD_BYTES = 4 * GiB
NODE = "pi7"
_JOURNAL_BYTES = JOURNAL_MIB * MiB
_DD_BLOCKS = 48
_WHAT = "write and read back a 4 GiB card, 20 MB/s and 40 MB/s"
_PLAIN = f"{LIMIT} × bytes/speed"


@dataclass(frozen=True, slots=True)
class Peer:
    """Our finished image, and what bmaptool's map of it says must be written."""

    image: Path
    bmap: Path
    mapped_bytes: int


@dataclass(slots=True)
class _Times:
    """Seconds and bytes of each repetition."""

    whole: list[float] = field(default_factory=list)
    ideal: list[float] = field(default_factory=list)
    writing: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    bmaptool: list[float] = field(default_factory=list)
    bmaptool_written: list[float] = field(default_factory=list)
    probe: list[float] = field(default_factory=list)
    parts: str = ""


def card_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """Time and bytes of a whole card."""
    missing = no_throttle() or without_bmaptool()
    if missing:
        yield skipped(_WHAT, _PLAIN, missing)
        return
    peer = peer_image(place)
    times = _Times()
    for number in range(repetitions):
        with slow_card(place) as card:
            _ours(place, card, times)
        with slow_card(place) as card:
            _bmaptool(peer, card, times)
        with slow_card(place) as card:
            times.probe.append(_probe(place, card))
        tell(f"card {number + 1}: {times.parts}; bmaptool {times.bmaptool[-1]:.1f} s")
    with slow_card(place) as card:
        dd_seconds = _dd(peer, card)
    yield from _rows(times, peer, dd_seconds)


def _rows(times: _Times, peer: Peer, dd_seconds: float) -> Iterator[Row]:
    whole, ideal = Sample(tuple(times.whole)), Sample(tuple(times.ideal))
    yield Row(
        _WHAT,
        f"{LIMIT} × bytes/speed",
        whole.text("s"),
        f"bytes/speed: {ideal.text('s')}",
        whole.ratio_to(ideal),
        whole.ratio_to(ideal) <= LIMIT,
    )
    writing, bmaptool = Sample(tuple(times.writing)), Sample(tuple(times.bmaptool))
    yield Row(
        "… the writing alone",
        "–",
        writing.text("s"),
        f"bmaptool copy: {bmaptool.text('s')}",
        writing.ratio_to(bmaptool),
    )
    dd = Sample((dd_seconds,) * len(writing.values))
    yield Row(
        "… the writing alone",
        "–",
        writing.text("s"),
        f"dd bs=4M oflag=direct: {dd_seconds:.0f} s (reckoned from {_DD_BLOCKS * 4} MiB)",
        writing.ratio_to(dd),
    )
    written, mapped = Sample(tuple(times.written)), peer.mapped_bytes
    sent = Sample(tuple(times.bmaptool_written)).median
    allowed = LIMIT * (mapped + _JOURNAL_BYTES)
    yield Row(
        "… bytes written to the card",
        f"{LIMIT} × (map + {JOURNAL_MIB} MiB journal) = {allowed / MiB:.0f} MiB",
        f"{written.median / MiB:.1f} MiB",
        f"map of bmaptool: {mapped / MiB:.1f} MiB, written {sent / MiB:.1f}",
        written.median / mapped,
        max(written.values) <= allowed,
    )
    probe = Sample(tuple(times.probe))
    yield Row(
        "… before it: a short probe, if the card is unknown",
        f"{PROBE_LIMIT_SECONDS} s",
        probe.text("s"),
        met=probe.median <= PROBE_LIMIT_SECONDS,
    )


@contextmanager
def slow_card(place: Workshop) -> Iterator[Loop]:
    """An empty card: one that holds our image already would only be brought up to date."""
    with (
        card_of(place.folder, CARD_BYTES) as card,
        throttled(card, write_bps=WRITE_BPS, read_bps=READ_BPS),
    ):
        yield card


def _ours(place: Workshop, card: Loop, times: _Times) -> None:
    before = written_bytes(card)
    ran = write(place, card)
    mapped = ran.number("mapped_bytes")
    began = ran.phase("blank").began
    times.whole.append(ran.seconds - began)
    times.writing.append(ran.phase("read back").began - began)
    times.ideal.append(mapped / WRITE_BPS + mapped / READ_BPS)
    times.written.append(written_bytes(card) - before)
    times.parts = parts(ran, since="blank")


def _bmaptool(peer: Peer, card: Loop, times: _Times) -> None:
    before = written_bytes(card)
    times.bmaptool.append(bmaptool_copy(peer, card).seconds)
    times.bmaptool_written.append(written_bytes(card) - before)


def _dd(peer: Peer, card: Loop) -> float:
    """Seconds for the whole image, reckoned from its first blocks."""
    card.require_ours()
    words = ["dd", f"if={peer.image}", f"of={card.node}", "bs=4M", f"count={_DD_BLOCKS}"]
    ran = measure([*words, "oflag=direct", "conv=fsync,nocreat", "status=none"])
    return ran.seconds * CARD_BYTES / (_DD_BLOCKS * 4 * MiB)


def without_bmaptool() -> str:
    """Why bmaptool cannot be measured; empty when it can."""
    return "" if shutil.which("bmaptool") else "needs bmaptool (Debian: bmap-tools)"


def peer_image(place: Workshop) -> Peer:
    """The same node's card as a file, and bmaptool's map of it; made once."""
    image, bmap = place.folder / "peer.img", place.folder / "peer.bmap"
    if not bmap.exists():
        place.picloud("write", image, "--node", NODE, "--size", str(CARD_BYTES), "--yes")
        measure(["bmaptool", "create", "-o", bmap, image])
    text = bmap.read_text()
    blocks = re.search(r"<MappedBlocksCount>\s*(\d+)", text)
    block_bytes = re.search(r"<BlockSize>\s*(\d+)", text)
    assert blocks is not None, text[:500]
    assert block_bytes is not None, text[:500]
    return Peer(image, bmap, int(blocks[1]) * int(block_bytes[1]))


def write(place: Workshop, card: Loop) -> Ran:
    """Write the whole of our card, without the short probe, which is measured by itself."""
    card.require_ours()
    return place.picloud("write", card.node, "--node", NODE, "--yes", "--full", "--no-probe")


def _probe(place: Workshop, card: Loop) -> float:
    """Seconds the short probe of an unknown card takes: from the first byte to the real write."""
    card.require_ours()
    ran = place.picloud("write", card.node, "--node", NODE, "--yes", stop_at="write")
    return ran.phase("write").began - ran.phase("blank").began


def bmaptool_copy(peer: Peer, card: Loop) -> Ran:
    """Write the same image with bmaptool."""
    card.require_ours()
    return measure(["bmaptool", "copy", "--bmap", peer.bmap, peer.image, card.node])
