"""Racks of 14, 100 and 1000 nodes: making their keys, and commands that only look.

At first the racks have no card yet. Salt's keys are made by ``rack keys export``; those of ssh,
which nobody needs before a card is written, by the function that makes both. Then every node has a
good card, as the ledger says, and is asked whether the rack would make the same now.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path

from benchmarks.process import Ran, measure
from benchmarks.table import Row, Sample, tell
from benchmarks.workshop import ROOT, Workshop, command
from imager.config.load import load_rack
from imager.config.rack import Rack
from imager.node.keys.identity import identity_of
from imager.node.keys.making import make_missing
from imager.node.keys.ssh import new_host_keys
from imager.node.keys.store import folders_of
from imager.rack.history.events import CardFinished
from imager.rack.history.ledger import append
from imager.rack.history.outcome import Outcome

COUNTS = (14, 100, 1000)
LIMITS = {"show": None, "known-hosts": 1.0, "plan": 3.0}
FINISHED = "show, all cards made"
FINISHED_LIMIT = 5.0
"""Seconds for the largest rack."""
BUSY = 0.8
"""The least share of all processors' time that making keys must use."""
_RACK = """\
[rack]
name = "big"
nodes = "pi[0-{last}]"
master = "pi0"
model = "pi2"
[network]
addresses = "{addresses}"
prefix = 22
"""


def racks_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """Rows for each size, and what one node more costs."""
    folders = {count: _rack(place, count) for count in COUNTS}
    spent: dict[str, dict[int, float]] = {}
    for count, folder in folders.items():
        for what, seconds, cpu in (_salt_keys(place, folder), _ssh_keys(load_rack(folder))):
            tell(f"racks: {what} of {count} nodes in {seconds:.1f} s, CPU {cpu:.1f} s")
            share = cpu / seconds / len(os.sched_getaffinity(0))
            spent.setdefault(f"making {what}", {})[count] = cpu
            yield Row(
                f"{count} nodes: making {what}",
                f"{BUSY:.0%} of all processors",
                f"{seconds:.1f} s, {share:.0%}: {cpu:.1f} s of their time",
                met=share >= BUSY if count == max(COUNTS) else None,
            )
    for name, limit in LIMITS.items():
        yield from _looks(place, folders, name, limit, repetitions, spent)
    place.picloud("compose")
    for folder in folders.values():
        _finish(place, folder)
    yield from _looks(place, folders, FINISHED, FINISHED_LIMIT, repetitions, spent)
    for what, cpu_of in spent.items():
        (few, some, many) = COUNTS
        first = (cpu_of[some] - cpu_of[few]) / (some - few) * 1000
        later = (cpu_of[many] - cpu_of[some]) / (many - some) * 1000
        told = f"{first:.2f} ms up to {some} nodes, {later:.2f} ms up to {many}"
        yield Row(f"one node more: {what}, processor time", "–", told)


def _looks(
    place: Workshop,
    folders: Mapping[int, Path],
    name: str,
    limit: float | None,
    repetitions: int,
    spent: dict[str, dict[int, float]],
) -> Iterator[Row]:
    for count, folder in folders.items():
        runs = [_look(place, folder, name.partition(",")[0]) for _ in range(repetitions)]
        took = Sample(tuple(ran.seconds for ran in runs))
        tell(f"racks: {name} of {count} nodes: {took.text('s', 2)}")
        cpu = Sample(tuple(ran.cpu_seconds for ran in runs)).median
        spent.setdefault(f"rack {name}", {})[count] = cpu
        largest = limit is not None and count == max(COUNTS)
        yield Row(
            f"{count} nodes: rack {name}",
            f"{limit:.0f} s" if largest else "–",
            f"{took.text('s', 2)}, {cpu:.2f} s of processor time",
            met=took.median <= limit if limit is not None and largest else None,
        )


def _rack(place: Workshop, count: int) -> Path:
    folder = place.folder / f"rack-{count}"
    folder.mkdir()
    addresses = ",".join(f"10.0.{n // 250}.{n % 250 + 1}" for n in range(count))
    (folder / "rack.toml").write_text(_RACK.format(last=count - 1, addresses=addresses))
    return folder


def _finish(place: Workshop, folder: Path) -> None:
    """Give every node of the rack in ``folder`` the rest of its keys, and a line in the ledger that
    says that it has a good card of the release in ``place``."""
    _, heading, release = (place.rack / "rack.toml").read_text().partition("[release]")
    with (folder / "rack.toml").open("a") as file:
        file.write(heading + release)
    shutil.copy(place.rack / "rack.lock", folder)
    rack = load_rack(folder)
    for node in rack.nodes:
        identity_of(rack, node)
        words = dict.fromkeys((field.name for field in fields(CardFinished)), "")
        made = words | {"node": node.name, "outcome": Outcome.VERIFIED.value}
        append(folder, CardFinished(**made))


def _salt_keys(place: Workshop, folder: Path) -> tuple[str, float, float]:
    ran = _run(place, folder, "keys", "export", "--pki", folder / "pki")
    return "Salt's keys", ran.seconds, ran.cpu_seconds


def _ssh_keys(rack: Rack) -> tuple[str, float, float]:
    makers = {
        folders_of(rack.keys, node.name).ssh: partial(new_host_keys, node.name)
        for node in rack.nodes
    }
    began, cpu = time.perf_counter(), time.process_time()
    make_missing(rack.keys, makers)
    return "ssh's keys", time.perf_counter() - began, time.process_time() - cpu


def _look(place: Workshop, folder: Path, name: str) -> Ran:
    return _run(place, folder, name, *(("--images", place.folder) if name == "plan" else ()))


def _run(place: Workshop, folder: Path, *words: str | Path) -> Ran:
    common = ("--rack", folder, "--cache", place.cache, "--json")
    return measure([*command(), *common, "rack", *words], cwd=ROOT)
