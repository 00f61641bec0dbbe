"""Break the program in small ways and say which of them no test notices: see scripts/mutate.

In: folders or files of imager/. Out: a line for each change that survived, and a count for each
folder. All tests are run once without a change, and then, for each change, those that call the
changed function, quickest first, until one fails: in a forked process whose code is exchanged
(``inplace``), and what is not noticed there once more in a copy of this tree. A process is killed
when it takes too long, takes too much memory, or this program ends.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from callers import Found, meeting
from inplace import InPlace, limited, patience, tried_in
from mutants import ROOT, Mutant, mutants

_DAY_SECONDS = 86400


class Copies:
    """Copies of the tree, and a forked process at work in each."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.folder, self.jobs, self.free = folder, jobs, list(range(jobs))
        self.running: dict[int, tuple[int, float, Mutant | None, bytes]] = {}
        for number in self.free:
            names = ("imager", "tests", "overlays", "firstboot", "docs", "scripts")
            for name in names:
                shutil.copytree(ROOT / name, self.tree(number) / name, symlinks=True)
            for file in filter(Path.is_file, ROOT.iterdir()):
                shutil.copy(file, self.tree(number))
            for name in (".venv", "build"):
                (self.tree(number) / name).symlink_to(ROOT / name)

    def tree(self, number: int) -> Path:
        return self.folder / f"tree{number}"

    def start(
        self, mutant: Mutant | None, words: list[str], seconds: float, tried: list[Mutant]
    ) -> None:
        """Run pytest with ``words`` in a free copy with ``mutant`` in it, or with each of
        ``tried`` in place."""
        number = self.free.pop()
        tree = self.tree(number)
        before = b""
        if mutant is not None:
            before = (tree / mutant.path).read_bytes()
            (tree / mutant.path).write_bytes(mutant.source)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            try:
                limited(parent)
                os._exit(self._child(number, words, tried))
            finally:
                os._exit(2)
        self.running[child] = number, time.monotonic() + seconds, mutant, before

    def _child(self, number: int, words: list[str], tried: list[Mutant]) -> int:
        log = os.open(self.folder / f"log{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        tree = self.tree(number)
        os.chdir(tree)
        os.environ.update(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1")
        sys.dont_write_bytecode = not tried
        plugins = [InPlace(tree, tried, self.jobs, self.folder / "tried")] if tried else []
        fixed = ["-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={self.folder}/tmp{number}"]
        return int(pytest.main([*fixed, *words], plugins=plugins))

    def ended(self) -> Iterator[tuple[Mutant | None, int | None]]:
        """Each process that is over, with its exit code; None for one that had to be killed."""
        for child, (number, deadline, mutant, before) in list(self.running.items()):
            pid, status = os.waitpid(child, os.WNOHANG)
            late = time.monotonic() > deadline
            if not pid and not late:
                continue
            self.end(child)
            if not pid:
                os.waitpid(child, 0)
            del self.running[child]
            if mutant is not None:
                (self.tree(number) / mutant.path).write_bytes(before)
            self.free.append(number)
            yield mutant, None if late else os.waitstatus_to_exitcode(status)
        time.sleep(0.02)

    def end(self, child: int) -> None:
        """Kill the process ``child`` and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)


class Run:
    """The mutants of one run, held against one ring of tests after the other."""

    def __init__(self, copies: Copies, chosen: dict[Path, list[Mutant]]) -> None:
        self.copies, self.chosen = copies, chosen
        self.alive = [mutant for each in chosen.values() for mutant in each]
        self.slow: list[Mutant] = []

    def ring(self, tests: list[str], rooms: set[Path] | None = None) -> None:
        """Run the tests at the paths ``tests`` against what still lives, in ``rooms`` if given."""
        here = [m for room in rooms or self.chosen for m in self.chosen[room] if m in self.alive]
        found = self._in_place(tests, here) if here else {}
        waiting = [(m, *meeting(m, found)) for m in here if m in self.alive]
        waiting = [item for item in waiting if item[1]]
        print(f"mutate: {len(waiting)} of {len(here)} are to be tried in a copy", file=sys.stderr)
        while waiting or self.copies.running:
            while waiting and self.copies.free:
                mutant, names, seconds = waiting.pop()
                self.copies.start(mutant, ["-x", *names], patience(seconds), [])
            for over, code in self.copies.ended():
                if code != 0 and over is not None:
                    self.alive.remove(over)
                    self.slow += [over] if code is None else []
        print(f"mutate: {len(self.alive)} are left", file=sys.stderr)

    def _in_place(self, tests: list[str], here: list[Mutant]) -> Found:
        """Try ``here`` in place; gives which tests call what."""
        self.copies.start(None, tests, _DAY_SECONDS, here)
        while self.copies.running:
            for _, code in self.copies.ended():
                if code not in (0, 1):
                    raise SystemExit(f"mutate: pytest ended with {code} without any change")
        found, noticed = tried_in(self.copies.folder / "tried")
        for number in noticed:
            self.alive.remove(here[number])
        return found


def nearest(room: Path) -> str:
    """The folder of unit tests that mirrors ``room``, or the nearest one above it."""
    folder = ROOT / "tests/unit" / (room.parent if room.suffix else room).relative_to("imager")
    while not folder.is_dir():
        folder = folder.parent
    return os.fspath(folder.relative_to(ROOT))


def all_of(room: Path) -> list[Mutant]:
    """The mutants of ``room``."""
    files = [room] if room.suffix else [p.relative_to(ROOT) for p in (ROOT / room).rglob("*.py")]
    return [mutant for path in sorted(files) for mutant in mutants(path)]


def chosen_from(room: Path, seed: int, sample: int | None) -> list[Mutant]:
    """The mutants of ``room``, or so many of them."""
    found = all_of(room)
    if sample is not None and sample < len(found):
        found = random.Random(f"{seed} {room}").sample(found, sample)
    for mutant in found:
        compile(mutant.source, mutant.text, "exec")  # one that cannot run would count as found
    return found


def equivalent() -> set[tuple[str, str]]:
    """(file, change) of every mutant that is known to make no difference."""
    listed = tomllib.loads((ROOT / "scripts/mutants.toml").read_text())["equivalent"]
    return {(entry["file"], f"{entry['before']} → {entry['after']}") for entry in listed}


def outdated(rooms: list[Path], listed: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """What of ``listed`` is in ``rooms`` and cannot be made there: the code has changed."""
    here = {entry for entry in listed if any(Path(entry[0]).is_relative_to(one) for one in rooms)}
    return here - {(os.fspath(m.path), m.text) for room in rooms for m in all_of(room)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutate")
    parser.add_argument("modules", nargs="+", metavar="MODULE", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int, metavar="K")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tests", nargs="+", metavar="PATH")
    given = parser.parse_args()
    rooms = [(ROOT / room).resolve().relative_to(ROOT) for room in given.modules]
    chosen = {room: chosen_from(room, given.seed, given.sample) for room in rooms}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="picloud-mutate-", ignore_cleanup_errors=True) as where:
        copies = Copies(Path(where), given.jobs)
        run = Run(copies, chosen)
        try:
            if given.tests:
                for path in given.tests:
                    run.ring([path])
            else:
                for room in rooms:
                    run.ring([nearest(room)], {room})
                run.ring(["tests/unit"])
                run.ring(["tests/image"])
        finally:
            for child in copies.running:
                copies.end(child)
    listed = equivalent()
    bad = 0
    for room, all_here in chosen.items():
        alive = [mutant for mutant in all_here if mutant in run.alive]
        new = [m for m in alive if (os.fspath(m.path), m.text) not in listed]
        for mutant in sorted(new, key=lambda m: (m.path, m.line)):
            print(f"{mutant.path}:{mutant.line}: {mutant.text}")
        bad += len(new)
        print(
            f"{room}: {len(all_here)} changes, {len(new)} survived, {len(alive) - len(new)} equal"
        )
    for mutant in run.slow:
        print(f"stopped for taking too long, twice: {mutant.path}:{mutant.line}: {mutant.text}")
    for file, text in sorted(outdated(rooms, listed)):
        print(f"scripts/mutants.toml lists what is no change any more: {file}: {text}")
    print(f"seed {given.seed}")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
