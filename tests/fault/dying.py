"""Cards that wear out, each read until it gives no more: what is saved, lost, and named.

In: a kind of card, how many of its sectors cannot be read any more, and how it is read. Out: what
of it is not as it must be. Every sound byte that a filesystem uses must be in the image, every
worn one in the map, and no other byte may be called lost.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from imager.base.run import run as run_tool
from imager.base.units import SECTOR_BYTES, KiB, MiB
from imager.card.save.original import opened_original
from imager.disk.budget import MAX_FINDINGS
from imager.disk.extents import Extent, ExtentMap
from imager.disk.rescue_map import LOST, RescueMap
from tests.support.faultcard import FaultCard, fault_card

SIZE = 24 * MiB
ROOT = Path(__file__).resolve().parents[2]
WORN = (1, 100, 10_000)
AT_ONCE, KILLED, DDRESCUE = WAYS = ("at once", "killed and gone on with", "begun by ddrescue")
_KILLS = 3
_SLOW = 12e6
"""Bytes a second: a run takes two seconds, so that there are moments to kill it."""


@dataclass(frozen=True, slots=True)
class Death:
    """A card of one ``kind`` with so many ``worn`` sectors, read in one of ``WAYS``."""

    kind: str
    worn: int
    way: str

    def __str__(self) -> str:
        return f"{self.kind}, {self.worn} worn, {self.way}"


def all_deaths() -> list[Death]:
    """The whole table."""
    return [Death(*each) for each in product(KINDS, WORN, WAYS)]


@dataclass(frozen=True, slots=True)
class Dying:
    """A card and the bytes of it that count, as it says while it is well."""

    card: FaultCard
    in_use: ExtentMap


@contextmanager
def dying_card(folder: Path, kind: str) -> Iterator[Dying]:
    """A card of ``kind``, still well; it is slower than a file so that it can be killed."""
    with fault_card(folder / "card", SIZE) as card:
        KINDS[kind](card.store, folder)
        with opened_original(card.node) as original:
            in_use = original.card.extents
        yield Dying(card, in_use)


def faults_of(dying: Dying, death: Death, folder: Path, seed: str) -> Iterator[str]:
    """Wear the card out, read it as ``death`` says, and tell what is wrong with what came of it."""
    chance = random.Random(f"{seed} {death}")
    sectors = chance.sample(range(SIZE // SECTOR_BYTES), death.worn)
    worn = ExtentMap(Extent(sector * SECTOR_BYTES, SECTOR_BYTES) for sector in sectors)
    card, image = dying.card, folder / "saved.img"
    card.arm(worn=sectors)
    try:
        if death.way == KILLED:
            card.set_speed(read_bps=_SLOW)
            for _ in range(_KILLS):
                run_for(chance.uniform(0, 2), "read", card.node, image)
            card.set_speed()
        elif death.way == DDRESCUE:
            run_tool(["ddrescue", "-dnq", card.node, image, f"{image}.map"], ok=(0, 1))
        code, events = run_to_the_end("read", card.node, image)
    finally:
        card.arm()
        card.set_speed()
    lost = lost_in(image)
    if code != (22 if lost else 0):
        yield f"exit code {code}: {events[-1]}"
        return
    if death.way == DDRESCUE:  # of what is free its map may say that nobody tried each sector
        lost &= worn | dying.in_use
    if lost - worn:
        yield f"sound bytes are called lost: {[*(lost - worn)][:3]}"
    if missing := (worn & dying.in_use) - lost:
        yield f"lost bytes are not named: {[*missing][:3]}"
    named = sum(event["event"] == "finding" for event in events)
    if named != min(ranges := events[-1]["lost_ranges"], MAX_FINDINGS):
        yield f"{ranges} ranges are lost, and {named} named"
    if differing := first_differing(dying.card.store, image, dying.in_use - worn):
        yield f"byte {differing.offset} is not as on the card"
    if first_differing(Path("/dev/zero"), image, worn & lost):
        yield "what is lost is not zeros"


def lost_in(image: Path) -> ExtentMap:
    """What the map beside ``image`` calls lost; nothing where there is no map."""
    path = Path(f"{image}.map")
    return RescueMap.parse(path.read_bytes()).having(*LOST) if path.exists() else ExtentMap()


def first_differing(first: Path, second: Path, extents: ExtentMap) -> Extent | None:
    """The first piece of ``extents`` in which two files differ."""
    with first.open("rb") as one, second.open("rb") as other:
        for piece in extents.split(MiB):
            same = os.pread(one.fileno(), piece.length, piece.offset)
            if same != os.pread(other.fileno(), piece.length, piece.offset):
                return piece
    return None


# ── runs of the command ──────────────────────────────────────────────────────────────────────────


def words_of(*words: object) -> list[str]:
    """The command with ``words``, as a program of its own."""
    return [sys.executable, "-m", "imager", *map(str, words), "--json"]


def run_for(seconds: float, *words: object) -> float:
    """Kill the command with ``words`` so long after the first that it said; how long it took from
    there on."""
    with subprocess.Popen(
        words_of(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return time.monotonic() - began


def run_to_the_end(*words: object) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of the command with ``words``, and all that it said."""
    done = subprocess.run(words_of(*words), cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


# ── kinds of card ────────────────────────────────────────────────────────────────────────────────


def _tree(folder: Path, size: int) -> Path:
    tree = folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "hostname").write_text("pi7\n")
    (tree / "big").write_bytes(random.Random(3).randbytes(size))
    return tree


def _table(store: Path, script: str) -> None:
    run_tool(["sfdisk", "--quiet", store], stdin=script.encode())


def _ext4(store: Path, tree: Path, at: int, size: int) -> None:
    words: Sequence[str | Path] = ["-q", "-F", "-t", "ext4", "-d", tree, "-E", f"offset={at}"]
    run_tool(["mke2fs", *words, store, f"{size // KiB}k"])


def _fat(store: Path, tree: Path, at: int, size: int) -> None:
    part = store.with_name("part")
    run_tool(["mkfs.vfat", "-C", "-F", "16", "-s", "1", part, str(size // KiB)])
    run_tool(["mcopy", "-i", part, "-s", tree / "big", tree / "etc", "::/"])
    run_tool(["dd", f"if={part}", f"of={store}", "bs=1M", f"seek={at // MiB}", "conv=notrunc"])


def _one_ext4(store: Path, folder: Path) -> None:
    _table(store, "label: dos\nstart=2048, type=83\n")
    _ext4(store, _tree(folder, 12 * MiB), MiB, SIZE - MiB)


def _one_fat(store: Path, folder: Path) -> None:
    _table(store, "label: dos\nstart=2048, type=e\n")
    _fat(store, _tree(folder, 12 * MiB), MiB, SIZE - MiB)


def _gpt(store: Path, folder: Path) -> None:
    _table(store, "label: gpt\nstart=2048, size=16384, type=U\nstart=18432, size=28672\n")
    tree = _tree(folder, 5 * MiB)
    _fat(store, tree, MiB, 8 * MiB)
    _ext4(store, tree, 9 * MiB, 14 * MiB)


def _raw(store: Path, folder: Path) -> None:
    del folder
    store.write_bytes(random.Random(5).randbytes(SIZE))


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "raw": _raw,
    "ext4": _one_ext4,
    "FAT": _one_fat,
    "GPT": _gpt,
}
