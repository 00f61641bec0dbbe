"""Saving a card: a 4 GiB card of which 400 MiB are in use, read at the speed of a card.

The card is the FUSE model of ``tests.support.faultcard`` at 40 MB/s. Its own limit is every byte
that counts, once. Beside it partclone.ext4, which saves one partition, where it is installed, and
dd, which reads all, reckoned from its beginning. An image as small as it can be is what PiShrink
makes of dd's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.devices import FILLED_FROM, fill_card
from benchmarks.process import measure, parts
from benchmarks.table import Row, Sample, skipped, tell
from benchmarks.workshop import Workshop
from imager.base.run import find_tool
from imager.base.units import GiB, MiB
from tests.support.faultcard import FaultCard, fault_card, why_not

READ_BPS = 40e6
LIMIT = 1.03
_MEMORY_LIMIT = 150 * MiB
_CARD_BYTES = 4 * GiB
_FILES_BYTES = 400 * MiB
_DD_BYTES = 64 * MiB
_BUFFER_SECONDS = 0.02
_WHAT = "save a 4 GiB card of which 400 MiB are in use, 40 MB/s"
_LIMIT = f"{LIMIT} × bytes/speed"


def saving_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """Time and memory of ``read``, beside its peers."""
    if missing := why_not():
        yield skipped(_WHAT, _LIMIT, missing)
        return
    seconds, ideal, peaks = [], [], []
    with _card(place) as card:
        for number in range(repetitions):
            image = place.folder / "saved.img"
            ran = place.picloud("read", card.node, image)
            seconds.append(ran.seconds - ran.phase("read").began)
            ideal.append(ran.number("in_use_bytes") / READ_BPS)
            peaks.append(ran.peak_bytes)
            for path in (image, Path(f"{image}.bmap")):
                path.unlink()
            tell(f"saving {number + 1}: {parts(ran, since='read')}, of {ideal[-1]:.1f} s")
        peers = [_dd(card), _partclone(place, card)]
        shrunk = place.picloud("read", card.node, place.folder / "small.img", "--shrink")
        shrinking = _shrinking(place, card)
    ours, limit = Sample(tuple(seconds)), Sample(tuple(ideal))
    yield Row(
        _WHAT,
        _LIMIT,
        ours.text("s"),
        f"the card's own limit: {limit.text('s')}",
        ours.ratio_to(limit),
        ours.ratio_to(limit) <= LIMIT,
    )
    yield Row(
        "… memory",
        f"{_MEMORY_LIMIT // MiB} MiB",
        f"{max(peaks) / MiB:.0f} MiB",
        met=max(peaks) <= _MEMORY_LIMIT,
    )
    for name, theirs in peers:
        if theirs is None:
            yield skipped(f"… beside {name}", "–", "it is not installed")
        else:
            text = f"{name}: {theirs:.1f} s"
            yield Row("… beside", "–", ours.text("s"), text, ours.median / theirs)
    theirs = (peers[0][1] or 0.0) + shrinking
    yield Row(
        "… as small as it can be (--shrink)",
        "–",
        f"{(small := shrunk.seconds - shrunk.phase('read').began):.1f} s",
        f"dd of all of it (reckoned), e2fsck -pf, resize2fs -M: {theirs:.1f} s",
        small / theirs,
    )


@contextmanager
def _card(place: Workshop) -> Iterator[FaultCard]:
    with (
        tempfile.TemporaryDirectory(prefix="saving-", dir=place.folder) as name,
        fault_card(Path(name), _CARD_BYTES) as card,
    ):
        fill_card(card.store, _CARD_BYTES, _FILES_BYTES)
        card.set_speed(read_bps=READ_BPS, buffer_seconds=_BUFFER_SECONDS)
        yield card


def _dd(card: FaultCard) -> tuple[str, float | None]:
    words = ["dd", f"if={card.node}", "of=/dev/null", "bs=4M", "iflag=direct", "status=none"]
    ran = measure([*words, f"count={_DD_BYTES // (4 * MiB)}"])
    return "dd of all of it (reckoned)", ran.seconds * _CARD_BYTES / _DD_BYTES


def _shrinking(place: Workshop, card: FaultCard) -> float:
    """Seconds that the tools take by which PiShrink makes the image of ``card`` small."""
    part = place.folder / "part"
    skip = f"skip={FILLED_FROM // MiB}"
    measure(["dd", f"if={card.store}", f"of={part}", "bs=1M", skip, "conv=sparse", "status=none"])
    tools = (("e2fsck", "-pf"), ("resize2fs", "-M"))
    seconds = sum(measure([*words, part]).seconds for words in tools)
    part.unlink()
    return seconds


def _partclone(place: Workshop, card: FaultCard) -> tuple[str, float | None]:
    name = "partclone.ext4"
    if find_tool(name) is None:
        return name, None
    target = place.folder / "partclone"
    (part,) = card.loop.partition_nodes()
    ran = measure([name, "-c", "-s", part, "-O", target, "-L", "/dev/null", "-B"])
    target.unlink()
    return name, ran.seconds
