"""Many cards at once, on cards of a card's speed: the time of one, the memory, the processor.

Fourteen loop devices, each limited to 20 MB/s for writing and 40 MB/s for reading, over files in
memory: one real disk below them all would be slower than fourteen cards. Peers: the same command
one card after the other, and as many ``dd`` at once, which read nothing back.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.card import READ_BPS, WRITE_BPS
from benchmarks.devices import Loop, missing_abilities, no_throttle, throttled
from benchmarks.process import Ran, measure
from benchmarks.table import Row, Sample, skipped, tell
from benchmarks.workshop import Workshop
from imager.base.units import GiB, MiB
from tests.support.rackcards import SIZE, blank_cards, flash_words
from tests.support.workplace import workplace

CARDS, MANY = 14, 56
LIMIT = 1.10
MEMORY_BYTES, MANY_MEMORY_BYTES = 250 * MiB, 400 * MiB
DISK_BYTES = 8 * MiB
_CARD_BYTES = 2 * GiB
_IN_MEMORY = Path("/dev/shm")
_ROOM = CARDS * 640 * MiB
_DD_BLOCKS = 16
_WHAT = f"rack: {CARDS} cards, written and read back"


def rack_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """14 cards beside one, and what 14 and 56 take."""
    limit = f"{LIMIT} × one card"
    if missing := no_throttle() or _no_room():
        yield skipped(_WHAT, limit, missing)
        return
    one, all_of_them, dd = [], [], []
    peaks, cpu, disk = [], [], []
    for number in range(repetitions):
        # Nodes that had no keys, as a rack has that is flashed for the first time.
        single = _flash(place, 1, 60 + number)
        ran = _flash(place, CARDS, 1 + CARDS * number)
        one.append(single.seconds)
        all_of_them.append(ran.seconds)
        peaks.append(ran.peak_bytes / MiB)
        cpu.append(ran.cpu_seconds / ran.seconds / (os.cpu_count() or 1))
        disk.append(_kept(place) / (CARDS + 1) / (number + 1) / MiB)
        dd.append(_parallel_dd(place))
        tell(f"rack {number + 1}: one {one[-1]:.1f} s, {CARDS} {all_of_them[-1]:.1f} s")
    together, alone = Sample(tuple(all_of_them)), Sample(tuple(one))
    ratio = together.ratio_to(alone)
    yield Row(_WHAT, limit, together.text("s"), f"one: {alone.text('s')}", ratio, ratio <= LIMIT)
    serial = Sample(tuple(CARDS * seconds for seconds in one))
    beside = f"one after the other: {serial.text('s', 0)} (reckoned from one)"
    yield Row("… beside one after the other", "–", together.text("s"), beside,
              together.ratio_to(serial))  # fmt: skip
    many_dd = Sample(tuple(dd))
    words = f"{CARDS} dd at once, every byte of 2 GiB: {many_dd.text('s', 0)} (reckoned)"
    yield Row("… beside dd", "–", together.text("s"), words, together.ratio_to(many_dd))
    share = Sample(tuple(cpu)).median
    bears = f"{share:.0%} of {os.cpu_count()} processors; it would bear {CARDS / share:.0f} cards"
    yield Row("… processor", "not the limit", bears, met=share < 0.8)
    memory = Sample(tuple(peaks))
    yield Row("… peak memory", f"{MEMORY_BYTES // MiB} MiB", memory.text("MiB", 0),
              met=max(peaks) <= MEMORY_BYTES / MiB)  # fmt: skip
    room = Sample(tuple(disk))
    yield Row("… disk for a node, beside the golden image", f"{DISK_BYTES // MiB} MiB",
              room.text("MiB", 2), met=max(disk) <= DISK_BYTES / MiB)  # fmt: skip
    yield _many(place)


def _no_room() -> str:
    if not _IN_MEMORY.is_dir():
        return f"needs {_IN_MEMORY}"
    free = os.statvfs(_IN_MEMORY)
    available = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
    room = min(free.f_bavail * free.f_frsize, int(available) * 1024)
    return "" if room > _ROOM else f"needs {_ROOM / GiB:.0f} GiB of memory"


@contextmanager
def _cards(count: int, size_bytes: int, *, slower: int = 1) -> Iterator[Sequence[Loop]]:
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-", dir=_IN_MEMORY) as name,
        blank_cards(Path(name), count, size_bytes) as loops,
        ExitStack() as limits,
    ):
        for loop in loops:
            write, read = WRITE_BPS // slower, READ_BPS // slower
            limits.enter_context(throttled(loop, write_bps=write, read_bps=read))
        yield loops


def _flash(place: Workshop, count: int, first: int) -> Ran:
    nodes = f"pi[{first}-{first + count - 1}]"
    with _cards(count, _CARD_BYTES) as loops:
        return place.picloud(*flash_words(nodes, [loop.node for loop in loops]))


def _kept(place: Workshop) -> int:
    """Bytes of keys, receipts and ledger."""
    files = (place.rack / ".picloud").rglob("*")
    return sum(path.stat().st_blocks * 512 for path in files if path.is_file())


def _parallel_dd(place: Workshop) -> float:
    """Seconds for whole cards, reckoned from their first blocks, all at once."""
    (golden,) = (place.cache / "golden").glob("*/image")
    with _cards(CARDS, _CARD_BYTES) as loops:
        began = time.perf_counter()
        running = []
        for loop in loops:
            loop.require_ours()
            words = ["dd", f"if={golden}", f"of={loop.node}", "bs=4M", f"count={_DD_BLOCKS}"]
            running.append(subprocess.Popen([*words, "conv=fsync,nocreat", "oflag=direct",
                                             "status=none"]))  # fmt: skip
        if any([process.wait() for process in running]):
            raise RuntimeError("dd failed")
        seconds = time.perf_counter() - began
    return seconds * _CARD_BYTES / (_DD_BLOCKS * 4 * MiB)


def _many(place: Workshop) -> Row:
    """56 cards of the tests' small release, because those of the stand-in would fill the memory
    they lie in. They are a tenth as fast, so that all are under way at the same time."""
    what = f"peak memory, {MANY} cards (of a small hand-made release)"
    limit = f"{MANY_MEMORY_BYTES // MiB} MiB"
    if missing := missing_abilities():
        return skipped(what, limit, missing)
    folder = place.folder / "many"
    folder.mkdir()
    with workplace(folder) as made, _cards(MANY, SIZE, slower=10) as loops:
        toml = made.rack / "rack.toml"
        text = toml.read_text().replace('nodes = "pi[0-13]"', f'nodes = "pi[0-{MANY - 1}]"')
        toml.write_text("".join(line for line in text.splitlines(True) if "slots =" not in line))
        words = flash_words(f"pi[0-{MANY - 1}]", [loop.node for loop in loops])
        ran = measure([*made.command(*words), "--json"], cwd=folder, env=made.environment)
    assert len(str(ran.result["verified"]).split(",")) == MANY, ran.result
    tell(f"rack: {MANY} cards in {ran.seconds:.1f} s, {ran.peak_bytes / MiB:.0f} MiB")
    mib = ran.peak_bytes / MiB
    return Row(what, limit, f"{mib:.0f} MiB", met=mib <= MANY_MEMORY_BYTES / MiB)
