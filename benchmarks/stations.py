"""Many cards at many stations, over the real Salt: beside one station, and what the head takes.

Five stations and a head in namespaces of this computer (``tests.support.laboratory``). Four have
fourteen readers each: loop devices in memory, slow enough that a card, and not the processors that
five computers share here, is what all wait for. The fifth has one, and a cable that carries 100
Mbit/s: the golden image of the stand-in is fetched there, beside a plain copy over TCP.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase

from benchmarks.devices import Loop, no_throttle, throttled
from benchmarks.process import Ran, measure, peak_of
from benchmarks.stationlab import composed, has_nodes, station_runs, stations
from benchmarks.table import Row, Sample, skipped, tell
from benchmarks.workshop import Workshop
from imager.base.units import GiB, MiB
from imager.stations.salt.on_minion import PILLAR
from tests.support.deskrack import DeskRack, on_head, put_in_slots
from tests.support.laboratory import MASTER_ADDRESS, Desk, Laboratory
from tests.support.rackcards import SIZE, blank_cards, flash_words, forget
from tests.support.salt import installed_salt

STATIONS, CARDS = 4, 14
LIMIT = 1.15
WIRE_LIMIT = 1.2
MEMORY_BYTES = 250 * MiB
MASTER_SHARE = 0.1
WRITE_BPS, READ_BPS = 800_000, 1_600_000
"""A card of the tests' small release, 33 MB, then takes a minute."""
WIRE_MBIT = 100
_FAR = f"desk{STATIONS + 1}"
_FAR_CARD_BYTES = 2 * GiB
_IN_MEMORY = Path("/dev/shm")
_ALL = STATIONS * CARDS
_WHAT = f"stations: {_ALL} cards at {STATIONS} stations"
_SERVE = """
import socket, sys
with socket.create_server(("", 4599)) as server:
    print("ready", flush=True)
    there, _ = server.accept()
    there.sendall(bytes(int(sys.argv[1])))
    there.close()
"""
_TAKE = """
import socket, sys
with socket.create_connection((sys.argv[1], 4599)) as there:
    while there.recv(1 << 20):
        pass
"""


def stations_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """14 cards at one station beside 56 at four, and what the head, the master and a station take;
    then the first fetch of a golden image."""
    limit = f"{LIMIT} × one station"
    if missing := no_throttle():
        yield skipped(_WHAT, limit, missing)
        return
    with _room(place) as room:
        one, many = [], []
        for number in range(repetitions):
            # Nodes that had no keys, as a rack has that is flashed for the first time.
            one.append(_flashed(room, 1, f"one{ascii_lowercase[number]}"))
            many.append(_flashed(room, STATIONS, f"many{ascii_lowercase[number]}"))
            tell(f"stations {number + 1}: {CARDS} at one {one[-1].ran.seconds:.1f} s, "
                 f"{_ALL} at {STATIONS} {many[-1].ran.seconds:.1f} s")  # fmt: skip
        yield from _whole_rows(one, many)
        yield _station_row(room, many)
        yield from _wire_rows(place, room)


@dataclass
class _Room:
    """A head and its stations; ``cards`` are those of each of the first four."""

    lab: Laboratory
    rack: DeskRack
    cards: Sequence[Sequence[Loop]]


@dataclass
class _Watched:
    """A run of the head: processor time of the master at moments (seconds since it began), and the
    most memory that a station's program had."""

    ran: Ran
    master: list[tuple[float, float]] = field(default_factory=list)
    station_bytes: int = 0

    def master_share(self) -> float:
        """Of one processor, while cards were written and read back."""
        phases = [phase for phase in self.ran.phases if phase.name in ("write", "read back")]
        since, until = min(p.began for p in phases), max(p.ended for p in phases)
        began, before = [told for told in self.master if told[0] <= since][-1]
        ended, after = next(told for told in self.master if told[0] >= until)
        return (after - before) / (ended - began)


def _whole_rows(one: Sequence[_Watched], many: Sequence[_Watched]) -> Iterator[Row]:
    alone = Sample(tuple(each.ran.seconds for each in one))
    together = Sample(tuple(each.ran.seconds for each in many))
    ratio = together.ratio_to(alone)
    yield Row(
        f"{_WHAT}, {WRITE_BPS / 1e6:g} and {READ_BPS / 1e6:g} MB/s so that five computers on "
        f"{os.cpu_count()} processors wait for cards",
        f"{LIMIT} × one station",
        together.text("s"),
        f"{CARDS} at one: {alone.text('s')}",
        ratio,
        ratio <= LIMIT,
    )
    cpu = Sample(tuple(each.ran.cpu_seconds for each in many))
    beside = Sample(tuple(each.ran.cpu_seconds for each in one))
    yield Row("… the head's processor time, with Salt's programs that it runs", "–", cpu.text("s"),
              f"{CARDS} at one: {beside.text('s')}")  # fmt: skip
    peaks = Sample(
        tuple(max(each.ran.peak_bytes, each.ran.child_peak_bytes) / MiB for each in many)
    )
    yield Row("… the head's peak memory", f"{MEMORY_BYTES // MiB} MiB", peaks.text("MiB", 0),
              met=max(peaks.values) <= MEMORY_BYTES / MiB)  # fmt: skip
    shares = Sample(tuple(each.master_share() for each in many))
    yield Row("… salt-master while they are written and read back", f"{MASTER_SHARE} processors",
              shares.text("processors", 3), met=max(shares.values) < MASTER_SHARE)  # fmt: skip


def _station_row(room: _Room, many: Sequence[_Watched]) -> Row:
    """A station's memory beside that of ``rack flash`` with as many cards."""
    with _cards(CARDS, slow=True) as loops:
        place = room.rack.place
        forget(place)
        has_nodes(place, "alone", CARDS)
        words = flash_words(f"alone[0-{CARDS - 1}]", [loop.node for loop in loops])
        alone = measure([*place.command(*words), "--json"], cwd=place.folder,
                        env=place.environment)  # fmt: skip
    peaks = Sample(tuple(each.station_bytes / MiB for each in many))
    return Row(
        f"… a station's peak memory, {CARDS} cards",
        "as rack flash",
        peaks.text("MiB", 0),
        f"rack flash: {alone.peak_bytes / MiB:.0f} MiB",
        max(peaks.values) * MiB / alone.peak_bytes,
        max(peaks.values) * MiB <= alone.peak_bytes,
    )


def _wire_rows(place: Workshop, room: _Room) -> Iterator[Row]:
    """The first fetch of the stand-in's golden image over a slow cable."""
    what, limit = "stations: first fetch of the golden image", f"{WIRE_LIMIT} × the wire"
    plug = [*room.lab.hub.entering, "tc", "qdisc", "add", "dev", f"to-{_FAR}", "root", "tbf"]
    words = [*plug, "rate", f"{WIRE_MBIT}mbit", "burst", "256kb", "latency", "50ms"]
    slow = subprocess.run(words, capture_output=True, text=True, check=False)
    if slow.returncode:
        yield skipped(what, limit, f"no slow cable: {slow.stderr.strip()}")
        return
    place.picloud("compose")
    far = room.lab.desks[_FAR]
    with _Fetched(far) as fetched:
        words = ["--rack", str(place.rack), "--cache", str(place.cache), "--yes"]
        _measured(room, "rack", "flash", "pi0", "--stations", _FAR, *words)
    pieces = sorted((room.lab.folder / "head/srv/salt" / PILLAR).glob("golden-*"),
                    key=lambda folder: folder.stat().st_mtime)[-1]  # fmt: skip
    size = sum(piece.stat().st_size for piece in pieces.iterdir())
    plain = _plain_copy(room.lab, far, size)
    tell(f"stations: fetched in {fetched.seconds:.1f} s, plain copy in {plain:.1f} s")
    ratio = fetched.seconds / plain
    yield Row(
        f"{what}, {size / 1e6:.0f} MB packed, {WIRE_MBIT} Mbit/s",
        limit,
        f"{fetched.seconds:.1f} s, unpacked and proven",
        f"a plain copy of these bytes over TCP: {plain:.1f} s",
        ratio,
        ratio <= WIRE_LIMIT,
    )


def _plain_copy(lab: Laboratory, far: Desk, size: int) -> float:
    """Seconds in which ``size`` bytes go from the head to the station ``far``."""
    serve = [*lab.head.entering, sys.executable, "-c", _SERVE, str(size)]
    with subprocess.Popen(serve, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            server.stdout.readline()
            began = time.perf_counter()
            taking = [sys.executable, "-c", _TAKE, MASTER_ADDRESS]
            subprocess.run([*far.box.entering, *taking], check=True)
            return time.perf_counter() - began
        finally:
            server.kill()


class _Fetched:
    """How long a golden image was on its way to ``desk``, seen in its cache."""

    def __init__(self, desk: Desk) -> None:
        self._folder = desk.folder / "cache/picloud-image/golden"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.seconds = 0.0

    def __enter__(self) -> _Fetched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        began = 0.0
        while not self._over.wait(0.02):
            if not began and any(self._folder.glob("*.lock")):
                began = time.perf_counter()
            if began and not self.seconds and any(self._folder.glob("*/image")):
                self.seconds = time.perf_counter() - began


# ── the computers, and a run of the head ────────────────────────────────────────────────────────


@contextmanager
def _room(place: Workshop) -> Iterator[_Room]:
    folder = place.folder / "stations"
    folder.mkdir()
    programs = installed_salt()
    with ExitStack() as held:
        made = held.enter_context(composed(folder))
        path = station_runs(folder, "-m", "imager")
        lab = held.enter_context(stations(folder, programs, STATIONS + 1, path))
        cards = []
        for name, desk in lab.desks.items():
            is_far = name == _FAR
            loops = held.enter_context(
                _cards(1, _FAR_CARD_BYTES) if is_far else _cards(CARDS, slow=True)
            )
            put_in_slots(desk, loops)
            if not is_far:
                cards.append(loops)
                # The first fetch is reckoned apart.
                (golden,) = (made.cache / "golden").glob("*/image")
                there = desk.folder / "cache/picloud-image/golden" / golden.parent.name
                there.parent.mkdir(0o700, parents=True)
                shutil.copytree(golden.parent, there, copy_function=shutil.copy2)
        all_cards = tuple(loop for loops in cards for loop in loops)
        yield _Room(lab, on_head(lab, made, programs, all_cards), cards)


@contextmanager
def _cards(count: int, size_bytes: int = SIZE, *, slow: bool = False) -> Iterator[Sequence[Loop]]:
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-", dir=_IN_MEMORY) as name,
        blank_cards(Path(name), count, size_bytes) as loops,
        ExitStack() as limits,
    ):
        for loop in loops if slow else ():
            limits.enter_context(throttled(loop, write_bps=WRITE_BPS, read_bps=READ_BPS))
        yield loops


def _flashed(room: _Room, desks: int, name: str) -> _Watched:
    """All cards of the first ``desks`` stations made; the nodes' names begin with ``name``."""
    forget(room.rack.place)
    for loops in room.cards[:desks]:
        for loop in loops:
            with loop.backing.open("r+b") as file:
                file.write(bytes(MiB))
    count = desks * CARDS
    has_nodes(room.rack.place, name, count)
    nodes = f"{name}[0-{count - 1}]"
    names = f"desk[1-{desks}]" if desks > 1 else "desk1"
    watched = _measured(room, "rack", "flash", nodes, "--stations", names, "--yes")
    verified = watched.ran.result["verified"]
    assert isinstance(verified, list) and len(verified) == count, watched.ran.result
    return watched


def _measured(room: _Room, *words: str) -> _Watched:
    """The command on the head, the master and the stations watched meanwhile."""
    over = threading.Event()
    master: list[tuple[float, float]] = []
    peaks = [0]
    began = time.perf_counter()

    def look() -> None:
        spent = room.lab.head.cpu_seconds("salt-master")
        master.append((time.perf_counter() - began, spent))
        peaks.append(max(map(peak_of, _at_work())))

    def watch() -> None:
        while not over.wait(0.5):
            look()

    look()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        ran = measure(room.rack.command(*words), cwd=room.rack.place.folder)
    finally:
        over.set()
        thread.join()
    look()
    return _Watched(ran, master, max(peaks))


def _at_work() -> Iterator[int]:
    """The processes that make cards for a station; this one among them, for there to be one."""
    yield 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"imager\0--json\0station\0work" in (process / "cmdline").read_bytes():
                yield int(process.name)
