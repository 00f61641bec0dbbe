"""Peak memory and CPU time of writing a card, beside bmaptool, on a card with no limit.

The CPU time is counted from the first byte that goes to the card to the end of the process.
bmaptool's is that of its whole run: it hashes what it reads from the image and does not read back.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.card import CARD_BYTES, bmaptool_copy, peer_image, without_bmaptool, write
from benchmarks.devices import card_of, missing_abilities
from benchmarks.process import parts
from benchmarks.table import Row, Sample, skipped, tell
from benchmarks.workshop import Workshop
from imager.base.units import GiB, MiB

LIMIT_BYTES = 150 * MiB
_WHAT = "peak memory of write"
_LIMIT = f"{LIMIT_BYTES // MiB} MiB"


def memory_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """VmHWM of the process, and CPU seconds for each GiB."""
    if missing := missing_abilities() or without_bmaptool():
        yield skipped(_WHAT, _LIMIT, missing)
        return
    peer = peer_image(place)
    peaks, peer_peaks, cpu, peer_cpu, child = [], [], [], [], 0
    for _ in range(repetitions):
        with card_of(place.folder, CARD_BYTES) as card:
            ours = write(place, card)
        with card_of(place.folder, CARD_BYTES) as card:
            theirs = bmaptool_copy(peer, card)
        peaks.append(ours.peak_bytes / MiB)
        peer_peaks.append(theirs.peak_bytes / MiB)
        child = max(child, ours.child_peak_bytes)
        gib = ours.number("mapped_bytes") / GiB
        cpu.append((ours.cpu_seconds - ours.phase("blank").cpu_began) / gib)
        peer_cpu.append(theirs.cpu_seconds / (peer.mapped_bytes / GiB))
        tell(f"memory: {peaks[-1]:.0f} MiB, CPU {cpu[-1]:.2f} s/GiB; {parts(ours)}")
    mine, other = Sample(tuple(peaks)), Sample(tuple(peer_peaks))
    yield Row(
        _WHAT,
        _LIMIT,
        f"{mine.text('MiB', 0)}; its largest tool {child / MiB:.0f} MiB",
        f"bmaptool copy: {other.text('MiB', 0)}",
        mine.ratio_to(other),
        max(mine.values) <= LIMIT_BYTES / MiB,
    )
    ours_cpu, theirs_cpu = Sample(tuple(cpu)), Sample(tuple(peer_cpu))
    yield Row(
        "CPU for each GiB: written, read back, compared",
        "–",
        ours_cpu.text("s", 2),
        f"bmaptool copy, written only: {theirs_cpu.text('s', 2)}",
        ours_cpu.ratio_to(theirs_cpu),
    )
