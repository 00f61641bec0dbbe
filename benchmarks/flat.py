"""CPU and memory as cards and images grow: both must stay what they are.

Cards of three sizes get the same image, which is what a larger card costs; then hand-made images of
growing block maps go to a card by the same engine, which is what a larger release would cost.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

from benchmarks.card import write
from benchmarks.devices import card_of
from benchmarks.process import Ran, measure
from benchmarks.table import Row, tell
from benchmarks.workshop import ROOT, Workshop
from imager.base.units import GiB, MiB

CPU_LIMIT_SECONDS = 1.5
MEMORY_LIMIT_BYTES = 120 * MiB
CARDS_GIB = (2, 4, 8)
"""The stand-in's golden image needs 1.3 GiB."""
_THOROUGH_GIB, _QUICK_GIB = (1, 4, 8), (1, 2)


def flat_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """CPU for each GiB and VmHWM, over the size of the card and over that of the image."""
    cards = []
    for size in CARDS_GIB:
        with card_of(place.folder, size * GiB) as card:
            cards.append(write(place, card))
    yield from _rows(f"cards of {_listed(CARDS_GIB)} GiB", cards)
    sizes = _QUICK_GIB if repetitions == 1 else _THOROUGH_GIB
    yield from _rows(f"images of {_listed(sizes)} GiB", [_synthetic(place, gib) for gib in sizes])


def _synthetic(place: Workshop, gib: int) -> Ran:
    """Write a hand-made image of which every byte is mapped."""
    folder = place.folder / "synthetic"
    folder.mkdir()
    try:
        with card_of(place.folder, gib * GiB) as card:
            card.require_ours()
            module = "benchmarks.synthetic"
            words = [sys.executable, "-m", module, str(folder), str(card.node), str(gib)]
            return measure(words, cwd=ROOT)
    finally:
        shutil.rmtree(folder)


def _rows(what: str, runs: list[Ran]) -> Iterator[Row]:
    cpu = [
        (ran.cpu_seconds - ran.phase("blank").cpu_began) / (ran.number("mapped_bytes") / GiB)
        for ran in runs
    ]
    peaks = [ran.peak_bytes for ran in runs]
    tell(f"{what}: CPU {cpu}, peaks {peaks}, seconds {[ran.seconds for ran in runs]}")
    yield Row(
        f"CPU for each GiB written and read back, {what}",
        f"{CPU_LIMIT_SECONDS} s",
        ", ".join(f"{seconds:.2f}" for seconds in cpu) + " s",
        met=max(cpu) <= CPU_LIMIT_SECONDS,
    )
    yield Row(
        f"peak memory, {what}",
        f"{MEMORY_LIMIT_BYTES // MiB} MiB",
        ", ".join(f"{peak / MiB:.0f}" for peak in peaks) + " MiB",
        met=max(peaks) <= MEMORY_LIMIT_BYTES,
    )


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))
