"""Computers with a real Salt for the benchmarks of stations: a head, and stations named desk1, …

In: the workshop's folder, and what a station runs as ``picloud-image``. Out: a ``Laboratory`` whose
stations answer, and a rack of as many nodes as are wanted.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imager.stations.salt.scripts import PILLAR_FOLDER
from tests.support.laboratory import ROOT, Laboratory, laboratory
from tests.support.salt import SaltPrograms
from tests.support.workplace import Workplace, workplace


@contextmanager
def composed(folder: Path) -> Iterator[Workplace]:
    """A rack of the tests' small release, whose golden image is composed."""
    with workplace(folder) as made:
        done = made.run("compose")
        assert done.code == 0, done.err
        yield made


def has_nodes(made: Workplace, name: str, count: int) -> None:
    """Let the rack have the nodes ``name0``, ``name1``, …, and no slots. The first one is the
    master, whose card holds the keys of all others."""
    toml = made.rack / "rack.toml"
    text = re.sub(r'(?m)^nodes = ".*"$', f'nodes = "{name}[0-{count - 1}]"', toml.read_text())
    text = re.sub(r'(?m)^master = ".*"$', f'master = "{name}0"', text)
    toml.write_text("".join(line for line in text.splitlines(True) if "slots =" not in line))


def station_runs(folder: Path, *words: str) -> Path:
    """Have ``picloud-image`` on a station be this Python with ``words``; the folder it lies in."""
    program = folder / "bin/picloud-image"
    program.parent.mkdir(exist_ok=True)
    said = " ".join((sys.executable, *words))
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {said} "$@"\n')
    program.chmod(0o755)
    return program.parent


@contextmanager
def stations(folder: Path, programs: SaltPrograms, count: int, path: Path) -> Iterator[Laboratory]:
    """A head and ``count`` stations, which find programs in ``path`` first."""
    names = [f"desk{number + 1}" for number in range(count)]
    with laboratory(folder / "lab", programs, names, path=str(path)) as lab:
        modules = lab.folder / "head/srv/salt/_modules"
        modules.mkdir(parents=True)
        shutil.copy(ROOT / "imager/stations/salt/on_minion.py", modules / "picloud_image.py")
        (lab.folder / f"head{PILLAR_FOLDER}").mkdir(parents=True)
        lab.head.run("salt", "--static", "*", "saltutil.sync_modules")
        yield lab
