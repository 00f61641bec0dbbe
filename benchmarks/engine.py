"""The card engine on a card that minds jumps, beside everything else that makes such a card.

The card is the FUSE model of ``tests.support.faultcard``: 20 MB/s for writing, 40 MB/s for reading,
50 ms for each write that goes on elsewhere. It also counts what reaches it. Its own limit for a
block map is reckoned: every byte once at full speed, from the lowest to the highest, with a jump
only where the map has one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.card import CARD_BYTES, NODE, Peer, bmaptool_copy, peer_image, without_bmaptool
from benchmarks.flat import flat_rows
from benchmarks.node import golden_of
from benchmarks.process import Ran, measure, parts
from benchmarks.table import Row, Sample, skipped, tell
from benchmarks.unpack import unpack, without_tools
from benchmarks.workshop import Workshop
from imager.base.progress import Quiet
from imager.base.units import KiB, MiB
from imager.card.receipt.store import load_receipt
from imager.config.load import load_rack
from imager.disk.extents import ExtentMap
from imager.disk.layout import FIRST_MIB
from imager.node.personalise import personalise
from tests.support.faultcard import FaultCard, fault_card, why_not

WRITE_BPS, READ_BPS = 20e6, 40e6
SCATTER_SECONDS = 0.05
_BUFFER_SECONDS = 0.02
WRITE_LIMIT, BMAPTOOL_LIMIT, UPDATE_LIMIT = 1.03, 1.00, 1.05
UPDATE_SPARE_BYTES = MiB
OTHER_NODE = "pi8"
_UNIT = 4 * MiB
_GRANULE = 4 * KiB
_WHOLE = "card that minds jumps: write and read back"
_WHOLE_LIMIT = f"{WRITE_LIMIT} × the card's own limit"


@dataclass(slots=True)
class _Times:
    """Seconds and bytes of each repetition; a pair of lists of one length makes a ratio."""

    whole: list[float] = field(default_factory=list)
    ideal: list[float] = field(default_factory=list)
    writing: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    bmaptool: list[float] = field(default_factory=list)
    bmaptool_written: list[float] = field(default_factory=list)
    update: list[float] = field(default_factory=list)
    one_pass: list[float] = field(default_factory=list)
    update_written: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Other:
    """What somebody else does for one such card: ``seconds``, and how we know."""

    what: str
    seconds: float
    how: str = ""


def engine_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """Time and bytes on the FUSE card, then CPU and memory as cards and images grow."""
    if missing := why_not() or without_bmaptool():
        yield skipped(_WHOLE, _WHOLE_LIMIT, missing)
        return
    peer = peer_image(place)
    times = _Times()
    for number in range(repetitions):
        with _slow_card(place) as card:
            _write(place, card, times)
            _update(place, card, times)
        with _slow_card(place) as card:
            times.bmaptool.append(bmaptool_copy(peer, card.loop).seconds)
            times.bmaptool_written.append(card.counts()["write"])
        tell(
            f"engine {number + 1}: {times.whole[-1]:.2f} s of {times.ideal[-1]:.2f}, writing "
            f"{times.writing[-1]:.2f}, bmaptool {times.bmaptool[-1]:.2f}, update "
            f"{times.update[-1]:.2f} of {times.one_pass[-1]:.2f}"
        )
    yield from _write_rows(times)
    yield from _other_rows(times, list(_others(place, peer, thorough=repetitions > 1)))
    yield from _update_rows(times, *_of_the_other_node(place))
    yield from flat_rows(place, repetitions)


@contextmanager
def _slow_card(place: Workshop) -> Iterator[FaultCard]:
    """An empty card that is as slow as a real one."""
    with (
        tempfile.TemporaryDirectory(prefix="slow-", dir=place.folder) as folder,
        fault_card(Path(folder), CARD_BYTES) as card,
    ):
        card.set_speed(
            write_bps=WRITE_BPS,
            read_bps=READ_BPS,
            scatter_seconds=SCATTER_SECONDS,
            buffer_seconds=_BUFFER_SECONDS,
        )
        yield card


def _write(place: Workshop, card: FaultCard, times: _Times) -> None:
    card.loop.require_ours()
    ran = place.picloud("write", card.node, "--node", NODE, "--yes", "--full", "--no-probe")
    began = ran.phase("blank").began
    mapped = _map_of(ran)
    jumps = SCATTER_SECONDS * _jumps(mapped)
    times.whole.append(ran.seconds - began)
    times.writing.append(ran.phase("read back").began - began)
    times.written.append(card.counts()["write"])
    times.ideal.append(mapped.total_bytes / WRITE_BPS + jumps + mapped.total_bytes / READ_BPS)
    tell(f"engine, writing: {parts(ran, since='blank')}; {jumps:.2f} s of jumps in the limit")


def _update(place: Workshop, card: FaultCard, times: _Times) -> None:
    """Make the card another node's."""
    card.loop.require_ours()
    card.arm()
    ran = place.picloud("write", card.node, "--node", OTHER_NODE, "--yes", "--no-probe")
    times.update.append(ran.seconds - ran.phase("compare").began)
    times.one_pass.append(_map_of(ran).total_bytes / READ_BPS)
    times.update_written.append(card.counts()["write"])
    tell(f"engine, update: {parts(ran, since='compare')}")


def _map_of(ran: Ran) -> ExtentMap:
    return load_receipt(Path(str(ran.result["receipt"]))).manifest.extents


def _jumps(extents: ExtentMap) -> int:
    """How often a write of ``extents`` in ascending order must go on elsewhere, at the least."""
    units = sorted({part.offset // _UNIT for part in extents.split(_UNIT)})
    return sum(after - before > 1 for before, after in pairwise(units))


def _others(place: Workshop, peer: Peer, *, thorough: bool) -> Iterator[_Other]:
    """The peers that take minutes, each once; dd by its first MiB, unpacking in a thorough run."""
    for block, count, prefix in (("4M", 16, 64 * MiB), ("512", 16384, 8 * MiB)):
        with _slow_card(place) as card:
            card.loop.require_ours()
            words = ["dd", f"if={peer.image}", f"of={card.node}", f"bs={block}", f"count={count}"]
            seconds = measure([*words, "conv=fsync,nocreat", "status=none"]).seconds
        yield _Other(
            f"dd bs={block} conv=fsync",
            seconds * CARD_BYTES / prefix,
            f" (reckoned from {prefix // MiB} MiB)",
        )
    if thorough and not without_tools():
        with _slow_card(place) as card:
            yield _Other("the distribution's own way", unpack(place, card.loop))


def _write_rows(times: _Times) -> Iterator[Row]:
    whole, ideal = Sample(tuple(times.whole)), Sample(tuple(times.ideal))
    yield Row(
        _WHOLE,
        _WHOLE_LIMIT,
        whole.text("s"),
        f"the card's own limit: {ideal.text('s')}",
        whole.ratio_to(ideal),
        whole.ratio_to(ideal) <= WRITE_LIMIT,
    )
    writing, bmaptool = Sample(tuple(times.writing)), Sample(tuple(times.bmaptool))
    yield Row(
        "… the writing alone",
        f"{BMAPTOOL_LIMIT:.2f} × bmaptool",
        f"{writing.text('s')}, {max(times.written) / MiB:.0f} MiB",
        f"bmaptool copy: {bmaptool.text('s')}, {max(times.bmaptool_written) / MiB:.0f} MiB",
        writing.ratio_to(bmaptool),
        writing.ratio_to(bmaptool) <= BMAPTOOL_LIMIT,
    )
    ours = Sample(tuple(times.writing[n] / size * 1e6 for n, size in enumerate(times.written)))
    theirs = Sample(
        tuple(times.bmaptool[n] / size * 1e6 for n, size in enumerate(times.bmaptool_written))
    )
    yield Row(
        "… for each byte written",
        f"{BMAPTOOL_LIMIT:.2f} × bmaptool",
        f"{1 / ours.median:.2f} MB/s",
        f"bmaptool copy: {1 / theirs.median:.2f} MB/s",
        ours.ratio_to(theirs),
        ours.ratio_to(theirs) <= BMAPTOOL_LIMIT,
    )


def _other_rows(times: _Times, others: list[_Other]) -> Iterator[Row]:
    whole = Sample(tuple(times.whole))
    for other in others:
        yield Row(
            "… written and read back, beside writing by",
            "–",
            whole.text("s"),
            f"{other.what}: {other.seconds:.0f} s{other.how}",
            whole.median / other.seconds,
        )


def _update_rows(times: _Times, delta_bytes: int, jumps: int) -> Iterator[Row]:
    update, one_pass = Sample(tuple(times.update)), Sample(tuple(times.one_pass))
    yield Row(
        "… making it another node's",
        f"{UPDATE_LIMIT} × one reading",
        update.text("s"),
        f"one reading: {one_pass.text('s')}",
        update.ratio_to(one_pass),
        update.ratio_to(one_pass) <= UPDATE_LIMIT,
    )
    ideal = Sample(
        tuple(
            seconds + SCATTER_SECONDS * jumps + size / WRITE_BPS
            for seconds, size in zip(times.one_pass, times.update_written, strict=True)
        )
    )
    yield Row(
        "… the same, beside what such a card must take",
        f"{WRITE_LIMIT} × the card's own limit",
        update.text("s"),
        f"one reading, {jumps} jumps, the bytes: {ideal.text('s')}",
        update.ratio_to(ideal),
        update.ratio_to(ideal) <= WRITE_LIMIT,
    )
    written, allowed = Sample(tuple(times.update_written)), delta_bytes + UPDATE_SPARE_BYTES
    yield Row(
        "… bytes written for that",
        f"delta + {UPDATE_SPARE_BYTES // MiB} MiB = {allowed / MiB:.2f} MiB",
        f"{max(written.values) / MiB:.2f} MiB",
        f"delta: {delta_bytes / MiB:.2f} MiB",
        max(written.values) / delta_bytes,
        max(written.values) <= allowed,
    )


def _of_the_other_node(place: Workshop) -> tuple[int, int]:
    """In how many bytes it differs from the golden image, and how often a card must jump to be
    made it: ascending through what differs from the first node, and back to the first MiB."""
    rack = load_rack(place.rack)
    golden = golden_of(place, rack)
    one, other = (
        personalise(golden, rack, rack.node(name), CARD_BYTES, Quiet())
        for name in (NODE, OTHER_NODE)
    )
    with one.open() as old, other.open() as new:
        differing = [
            part
            for part in (one.delta.extents | other.delta.extents).split(_GRANULE)
            if old.read(part.offset, part.length) != new.read(part.offset, part.length)
        ]
    jumps = _jumps(ExtentMap([FIRST_MIB, *differing])) + 1
    return other.delta.extents.total_bytes, jumps
