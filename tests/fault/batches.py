"""A batch of cards of which some are bad, drawn by a seed; and batches killed at a random moment.

In: a workplace and a row of fault cards. Out: everything about a batch that is not as it must be:
a healthy card that is not verified and whole, a bad one without the right name for what it has, a
ledger or an exit code that tells another story.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imager.base.json_fields import read_object
from imager.base.progress import Quiet
from imager.base.units import SECTOR_BYTES, KiB, MiB, align_down
from imager.card.host.exclusive import settle
from imager.card.host.sysfs import HostTrees
from imager.card.inspect.stamp import read_stamp
from imager.card.inspect.verify import open_target, verify_card
from imager.card.medium.reopen import reader_of
from imager.disk.extents import Extent
from imager.disk.manifest import Manifest
from imager.rack.history.events import Standing
from imager.rack.history.ledger import read_ledger
from imager.rack.history.outcome import Outcome
from tests.fault.rig import UNBLANKABLE
from tests.support.faultcard import EVERY_TIME, Fault, FaultCard, fault_card
from tests.support.loop import Loop, call
from tests.support.rackcards import SIZE, first_mib, flash_words, forget, is_whole
from tests.support.workplace import Said, Workplace

CARDS = 14
ALWAYS = "always"
"""The one phase the cards of a batch know: whether a fault strikes does not depend on it here."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of bad card, and what must come of it. ``mended`` is whether the receipt must tell
    of trouble; ``fraction`` is how much of a fake is there."""

    name: str
    outcome: Outcome
    fault: str = ""
    on: str = "write"
    times: int = EVERY_TIME
    mended: bool = False
    seconds: float = 0.0
    fraction: tuple[int, int] = (1, 1)
    keeps_beyond: bool = True


V, F, E, X = Outcome.VERIFIED, Outcome.FAULTY, Outcome.IO_ERROR, Outcome.FAKE_CAPACITY
HEALTHY = Kind("healthy", V)
KINDS = (
    Kind("EIO once at writing", V, "eio", times=1),
    Kind("EIO always at writing", E, "eio"),
    Kind("a bit flipped once", V, "flip", times=1, mended=True),
    Kind("a bit flipped at every write", F, "flip"),
    Kind("a write dropped once", V, "drop", times=1, mended=True),
    Kind("writes always dropped", F, "drop"),
    Kind("zeros at every write", F, "zeros"),
    Kind("stale data after every flush", F, "stale"),
    Kind("a short write once", V, "short", times=1, mended=True),
    Kind("ENOSPC", E, "enospc"),
    Kind("turning read-only", E, "read-only"),
    Kind("vanishing at writing", E, "vanish"),
    Kind("a stall", V, "stall", times=1, seconds=0.5),
    Kind("EIO once at reading", V, "eio", on="read", times=1, mended=True),
    Kind("EIO always at reading", E, "eio", on="read"),
    Kind("reads that lie once", V, "flip", on="read", times=1, mended=True),
    Kind("reads that always lie", F, "flip", on="read"),
    Kind("vanishing at reading", E, "vanish", on="read"),
    Kind("a fake that wraps around", X, fraction=(1, 4)),
    Kind("a fake that forgets", X, fraction=(1, 2), keeps_beyond=False),
)


@dataclass
class Row:
    """Fault cards in a row, and the workplace whose command writes them."""

    place: Workplace
    cards: tuple[FaultCard, ...]
    places: tuple[Extent, ...]

    def lay(self, seed: int) -> tuple[Kind, ...]:
        """Blank cards, a third of them bad in a way the ``seed`` draws."""
        chance = random.Random(seed)
        drawn = []
        for card in self.cards:
            kind = chance.choice(KINDS) if chance.random() < 0.4 else HEALTHY
            blank(card.loop, card.store)
            settle(HostTrees())
            card.phase(ALWAYS)
            up, down = kind.fraction
            faults = []
            if kind.fault:
                where = chance.choice(self.places)
                fault = Fault(kind.fault, where, (ALWAYS,), kind.on, kind.times, kind.seconds)
                faults.append(fault)
            card.arm(
                faults,
                real_bytes=0 if up == down else align_down(SIZE * up // down, MiB),
                keeps_beyond=kind.keeps_beyond,
            )
            drawn.append(kind)
        return tuple(drawn)

    def run(self) -> Said:
        """Flash all of them."""
        forget(self.place)
        nodes = f"pi[0-{len(self.cards) - 1}]"
        return self.place.json(*flash_words(nodes, [card.node for card in self.cards]))


def blank(loop: Loop, store: Path) -> None:
    """Make the card one that holds nothing, also in the kernel's memory, and in that of any udevd
    there was or is: one that runs looks anew at a disk that was open for writing."""
    os.truncate(store, 0)
    os.truncate(store, SIZE)
    call("blockdev", "--flushbufs", str(loop.node))
    number = Path(f"/sys/block/{loop.name}/dev").read_text().strip()
    Path(f"/run/udev/data/b{number}").unlink(missing_ok=True)
    os.close(os.open(loop.node, os.O_RDWR))


@contextmanager
def row(folder: Path, place: Workplace) -> Iterator[Row]:
    """Fault cards for a batch; taken down at the end."""
    composed = place.json("compose")
    assert composed.code == 0, composed.err
    places = tuple(_places(Path(composed.result["image"])))
    with ExitStack() as attached:
        cards = tuple(
            attached.enter_context(fault_card(folder / f"card{n}", SIZE)) for n in range(CARDS)
        )
        yield Row(place, cards, places)


def _places(image: Path) -> Iterator[Extent]:
    """Blocks that hold something (where zeros belong, a lost write does no harm), a little away
    from the powers of two at which a probe looks for the end of a fake."""
    document = read_object(image.with_name("golden.json").read_bytes())
    with image.open("rb") as file:
        for extent in Manifest.from_json(document.child("manifest")).extents.split(MiB):
            block = Extent(extent.offset + 64 * KiB, 4 * KiB)
            if extent.offset < 8 * MiB or block.end > extent.end:
                continue
            sectors = range(block.offset, block.end, SECTOR_BYTES)
            if all(os.pread(file.fileno(), 64, at).strip(b"\0") for at in sectors):
                yield block


def faults_of(at: Row, kinds: Sequence[Kind], said: Said) -> Iterator[str]:
    """Everything about a batch that is not as it must be."""
    if "Traceback" in said.err:
        yield f"it broke: {said.err}"
        return
    good = all(kind.outcome is Outcome.VERIFIED for kind in kinds)
    if said.code != (0 if good else 30):
        yield f"exit code {said.code}"
    ledger = read_ledger(at.place.rack)
    if ledger.unread:
        yield f"{ledger.unread} lines of the ledger cannot be read"
    nodes = {node["node"]: node for node in said.result["nodes"]}
    for number, (card, kind) in enumerate(zip(at.cards, kinds, strict=True)):
        name = f"pi{number}"
        last = ledger.state_of(name).last
        if last is None or (last.outcome, last.reason) != (
            nodes[name]["outcome"],
            nodes[name]["reason"],
        ):
            yield f"{name}: the ledger says {last}"
        for fault in _faults_of_card(at.place, card, kind, nodes[name]):
            yield f"{name} ({kind.name}): {fault}"


def _faults_of_card(
    place: Workplace, card: FaultCard, kind: Kind, node: dict[str, Any]
) -> Iterator[str]:
    card.counts()
    if kind.fault and not card.fired[0]:
        yield "the fault never struck"
    if node["outcome"] != kind.outcome:
        yield f"{node['outcome']}: {node['reason']}"
        return
    told = " ".join([node["reason"], *node["details"]])
    if kind.outcome is Outcome.VERIFIED:
        if not is_whole(card.store, place, node["receipt"]):
            yield "it was called verified and is not whole"
        if (node["trouble"] is not None) is not kind.mended:
            yield f"trouble: {node['trouble']}"
    elif UNBLANKABLE not in told:
        if "visibly blank" not in told:
            yield f"its state is not told: {told}"
        if any(first_mib(card.store)):
            yield "it is not blank"


# ── killed ──────────────────────────────────────────────────────────────────────────────────


def killed(
    place: Workplace, loops: Sequence[Loop], seconds: Sequence[float], states: Counter[str]
) -> Iterator[str]:
    """Kill a batch at each of these moments, each time on blank cards, and run it again; everything
    that is not as it must be. ``states`` counts in which states the cards were found."""
    words = flash_words(f"pi[0-{len(loops) - 1}]", [loop.node for loop in loops])
    for number, moment in enumerate(seconds):
        forget(place)
        for loop in loops:
            blank(loop, loop.backing)
        settle(HostTrees())
        status = _flash_and_kill(place, words, moment)
        if status not in (0, -signal.SIGKILL):
            yield f"round {number}: status {status}"
        for fault in _after_kill(place, loops, states):
            yield f"round {number}, killed after {moment:.2f} s: {fault}"
        said = place.json(*words)
        if said.code:
            bad = [n["reason"] for n in said.result.get("nodes", ()) if n["outcome"] != "verified"]
            yield f"round {number}: the next run ended with {said.code}: {said.err} {bad}"
            continue
        for fault in _complete(place, loops):
            yield f"round {number}, run again: {fault}"


def _after_kill(place: Workplace, loops: Sequence[Loop], states: Counter[str]) -> Iterator[str]:
    """Each card is blank, or whole and proven or not."""
    ledger = read_ledger(place.rack)
    for number, loop in enumerate(loops):
        last = ledger.state_of(f"pi{number}").last
        if last is not None and last.is_verified:
            states["verified"] += 1
            if not is_whole(loop.backing, place, last.receipt):
                yield f"pi{number}: the ledger says verified, and it is not whole"
        elif any(first_mib(loop.backing)[:SECTOR_BYTES]):
            states["whole"] += 1
            with open_target(loop.backing) as fresh:
                stamp = read_stamp(reader_of(fresh.raw), fresh.raw.size_bytes)
                if not verify_card(fresh, stamp, Quiet()).matches:
                    yield f"pi{number}: it has a partition table and is not whole"
        else:
            states["blank"] += 1


def _complete(place: Workplace, loops: Sequence[Loop]) -> Iterator[str]:
    ledger = read_ledger(place.rack)
    if ledger.unread:
        yield f"{ledger.unread} lines of the ledger cannot be read"
    for number, loop in enumerate(loops):
        last = ledger.state_of(f"pi{number}").last
        if ledger.state_of(f"pi{number}").standing() is not Standing.VERIFIED or last is None:
            yield f"pi{number}: {last}"
        elif not is_whole(loop.backing, place, last.receipt):
            yield f"pi{number}: it is not whole"


def _flash_and_kill(place: Workplace, words: Sequence[str | Path], after_seconds: float) -> int:
    """Begin a batch and kill -9 it, and whatever it started, at a moment; its status."""
    process = subprocess.Popen(
        place.command(*words),
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(after_seconds)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
