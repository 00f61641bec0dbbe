"""The record of a run of the tests: what the next one must know to end what a killed one left.

A file that begins with the folder in which the run makes everything. Loop devices are noted in it:
of one over a file in FUSE the kernel no longer tells whose it is once that is unmounted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MARK = "PICLOUD_TEST_RUN"
"""In the environment of all that a run starts: its record, after those of the runs around it."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a run noted; ``loops`` are names, each with how often the kernel had attached a disk."""

    folder: Path
    loops: dict[str, str]


def read_record(text: str) -> Record:
    """The record whose file holds ``text``."""
    folder, *loops = text.splitlines() or [""]
    return Record(Path(folder), dict(line.split() for line in loops))


def note_loop(name: str) -> None:
    """Note the loop device ``name``, now attached, if this is a run with a record."""
    if mark := os.environ.get(MARK):
        with open(mark.rpartition(":")[2], "a") as record:
            record.write(f"{name} {times_attached(name)}\n")


def times_attached(name: str) -> str:
    """A number that the kernel gives a disk when it is attached, and no other ever after."""
    return Path(f"/sys/block/{name}/diskseq").read_text().strip()
