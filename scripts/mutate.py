"""Break the program in small ways and say which of them no test notices: see scripts/mutate.

In: folders or files of imager/. Out: a line for each change that survived, and a count for each
folder. A change is put into a copy of this tree; a forked process runs the tests there that call
the changed function, quickest first, until one fails. It is killed when it takes too long, takes
too much memory, or this program ends.
"""

from __future__ import annotations

import argparse
import ast
import copy
import ctypes
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.FloorDiv: ast.Mult,
}
FLAGS = {"LOCK_EX": "LOCK_SH", "O_EXCL": "O_CLOEXEC", "O_NOFOLLOW": "O_CLOEXEC"}
SHOWN = re.compile(r"(self\._?)?(progress|meter|report|board)\.")
"""Calls that only tell people how far the work is."""
MEMORY_BYTES = 6 << 30
MOST_SECONDS = 60
"""Of tests for one change in one ring; the slowest are left out."""
_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: ``source`` is the whole file after it, ``span`` the lines of its function."""

    path: Path
    line: int
    before: str
    after: str
    span: tuple[int, int]
    source: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The change without its place, as the list of equivalent ones names it."""
        return f"{self.before} → {self.after}"


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What ``node`` itself may become."""
    new = copy.deepcopy(node)
    match new:
        case ast.Compare(ops=ops) if type(ops[0]) in SWAPS:
            new.ops[0] = SWAPS[type(ops[0])]()  # type: ignore[call-overload]
            yield new
        case ast.BoolOp(op=op) | ast.BinOp(op=op) if type(op) in SWAPS:
            new.op = SWAPS[type(op)]()  # type: ignore[assignment]
            yield new
        case ast.UnaryOp(op=ast.Not()):
            yield new.operand
        case ast.Constant(value=bool() as truth):
            yield ast.Constant(not truth)
        case ast.Constant(value=int() as number):
            yield ast.Constant(number + 1)
            yield ast.Constant(number - 1)
        case ast.Attribute(attr=name) if name in FLAGS:
            new.attr = FLAGS[name]
            yield new
        case ast.Raise():
            yield ast.Pass()
        case ast.Expr(value=ast.Call(func=called)) if not SHOWN.match(ast.unparse(called)):
            yield ast.Pass()
        case ast.Return(value=ast.expr()):
            yield ast.Return(None)


def conditions(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """The condition of ``node`` and what it may become: its opposite; for a guard, never true."""
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield node.test, ast.UnaryOp(ast.Not(), node.test)
        if isinstance(node, ast.If) and not node.orelse:
            yield node.test, ast.Constant(False)


def places(tree: ast.AST, span: tuple[int, int]) -> Iterator[tuple[ast.AST, tuple[int, int]]]:
    """Every node that may be changed, with its function's lines. Left out are types, texts for
    people (f-strings, what is raised) and docstrings."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.JoinedStr | ast.arg | ast.alias):
            continue
        if isinstance(tree, ast.AnnAssign) and child is tree.annotation:
            continue
        if isinstance(tree, ast.FunctionDef) and child is tree.returns:
            continue
        inner = span
        if isinstance(child, ast.FunctionDef):
            first = min(child.lineno, *(word.lineno for word in child.decorator_list), child.lineno)
            inner = (first, child.end_lineno or first)
        yield child, inner
        if not isinstance(child, ast.Raise):
            yield from places(child, inner)


def mutants(path: Path) -> Iterator[Mutant]:
    """Every change of the module at ``path``."""
    source = (ROOT / path).read_bytes()
    starts = [0]
    for row in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(row))
    for node, span in places(ast.parse(source), (0, 0)):
        pairs = [*((node, new) for new in changes(node)), *conditions(node)]
        for old, new in pairs:
            assert isinstance(old, ast.expr | ast.stmt)
            assert old.end_lineno is not None and old.end_col_offset is not None
            low = starts[old.lineno - 1] + old.col_offset
            high = starts[old.end_lineno - 1] + old.end_col_offset
            text = ast.unparse(ast.fix_missing_locations(new))
            word = f"({text})" if isinstance(new, ast.expr) else text
            changed = source[:low] + word.encode() + source[high:]
            was, now = (_row(whole, starts[old.lineno - 1]) for whole in (source, changed))
            yield Mutant(path, old.lineno, was, now, span, changed)


def _row(source: bytes, start: int) -> str:
    return source[start : source.find(b"\n", start)].decode().strip()


class Calls:
    """A pytest plugin: which functions of the named files each test calls, how long it takes."""

    def __init__(self, tree: Path, files: set[Path], out: Path) -> None:
        self.files = {os.fspath(tree / path): os.fspath(path) for path in files}
        self.out = out
        self.calls: set[tuple[str, int]] = set()
        self.shared: dict[str, set[tuple[str, int]]] = {}
        self.tests: dict[str, tuple[float, list[tuple[str, int]]]] = {}
        self.failed: set[str] = set()

    def _profile(self, frame: FrameType, event: str, _arg: object) -> None:
        if event == "call" and frame.f_code.co_filename in self.files:
            name = self.files[frame.f_code.co_filename]
            self.calls.add((name, frame.f_code.co_firstlineno))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        """What a fixture for several tests calls is called for each of them."""
        if fixturedef.scope == "function":
            yield
            return
        before, self.calls = self.calls, set()
        yield
        self.shared.setdefault(fixturedef.argname, set()).update(self.calls)
        self.calls |= before

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Iterator[None]:
        self.calls, began = set(), time.monotonic()
        sys.setprofile(self._profile)
        threading.setprofile(self._profile)
        yield
        sys.setprofile(None)
        for name in item.fixturenames:
            self.calls |= self.shared.get(name, set())
        self.tests[item.nodeid] = time.monotonic() - began, sorted(self.calls)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        for name in self.failed & set(self.tests):
            del self.tests[name]
        self.out.write_text(json.dumps(self.tests))


class Copies:
    """Copies of the tree, and a forked process at work in each."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.folder, self.free = folder, list(range(jobs))
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
        self, mutant: Mutant | None, words: list[str], seconds: float, calls: set[Path]
    ) -> None:
        """Run pytest with ``words`` in a free copy with ``mutant`` in it."""
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
                ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:
                    os._exit(9)
                os._exit(self._child(number, words, calls))
            finally:
                os._exit(2)
        self.running[child] = number, time.monotonic() + seconds, mutant, before

    def _child(self, number: int, words: list[str], calls: set[Path]) -> int:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        log = os.open(self.folder / f"log{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        tree = self.tree(number)
        os.chdir(tree)
        os.environ.update(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1")
        sys.dont_write_bytecode = not calls
        plugins = [Calls(tree, calls, self.folder / "calls")] if calls else []
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
        self.slow = 0

    def ring(self, tests: list[str], rooms: set[Path] | None = None) -> None:
        """Run the tests at the paths ``tests`` against what still lives, in ``rooms`` if given."""
        here = [m for room in rooms or self.chosen for m in self.chosen[room] if m in self.alive]
        found = self._timed(tests, {mutant.path for mutant in here}) if here else {}
        waiting = [(mutant, *_meeting(mutant, found)) for mutant in here]
        waiting = [item for item in waiting if item[1]]
        print(f"mutate: {len(waiting)} of {len(here)} meet {' '.join(tests)}", file=sys.stderr)
        while waiting or self.copies.running:
            while waiting and self.copies.free:
                mutant, names, seconds = waiting.pop()
                limit = 60 + 5 * seconds
                self.copies.start(mutant, ["-x", *names], limit, set())
            for mutant_ended, code in self.copies.ended():
                assert mutant_ended is not None
                self.slow += code is None
                if code != 0:
                    self.alive.remove(mutant_ended)

        for room in rooms or self.chosen:
            left = [mutant for mutant in self.chosen[room] if mutant in self.alive]
            print(f"mutate: {room}: {len(left)} of {len(self.chosen[room])} left", file=sys.stderr)
            for mutant in left:
                print(
                    f"    {mutant.path}:{mutant.line}: {mutant.text}", file=sys.stderr, flush=True
                )

    def _timed(self, tests: list[str], files: set[Path]) -> dict[str, tuple[float, set[Place]]]:
        self.copies.start(None, tests, 3600, files)
        while self.copies.running:
            for _, code in self.copies.ended():
                if code not in (0, 1):
                    raise SystemExit(f"mutate: pytest ended with {code} without any change")
                if code == 1:
                    print(
                        "mutate: tests that fail without any change are left out", file=sys.stderr
                    )
        known = json.loads((self.copies.folder / "calls").read_text())
        return {
            name: (took, {tuple(at) for at in called}) for name, (took, called) in known.items()
        }


Place = tuple[str, int]


def _meeting(mutant: Mutant, found: dict[str, tuple[float, set[Place]]]) -> tuple[list[str], float]:
    """The tests that call the mutant's function (what stands outside of functions: its module),
    quickest first, and the seconds they take."""
    module, first = os.fspath(mutant.path), mutant.span[0]
    names: list[str] = []
    total = 0.0
    for name, (took, called) in sorted(found.items(), key=lambda item: item[1][0]):
        meets = (module, first) in called or (not first and any(at[0] == module for at in called))
        if meets and (not names or total + took < MOST_SECONDS):
            names.append(name)
            total += took
    return names, total


def nearest(room: Path) -> str:
    """The folder of unit tests that mirrors ``room``, or the nearest one above it."""
    folder = ROOT / "tests/unit" / (room.parent if room.suffix else room).relative_to("imager")
    while not folder.is_dir():
        folder = folder.parent
    return os.fspath(folder.relative_to(ROOT))


def chosen_from(room: Path, seed: int, sample: int | None) -> list[Mutant]:
    """The mutants of ``room``, or so many of them."""
    files = [room] if room.suffix else [p.relative_to(ROOT) for p in (ROOT / room).rglob("*.py")]
    found = [mutant for path in sorted(files) for mutant in mutants(path)]
    if sample is not None and sample < len(found):
        found = random.Random(f"{seed} {room}").sample(found, sample)
    for mutant in found:
        ast.parse(mutant.source, mutant.text)  # one that cannot run would count as found
    return found


def equivalent() -> set[tuple[str, str]]:
    """(file, change) of every mutant that is known to make no difference."""
    listed = tomllib.loads((ROOT / "scripts/mutants.toml").read_text())["equivalent"]
    return {(entry["file"], f"{entry['before']} → {entry['after']}") for entry in listed}


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
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="picloud-mutate-", ignore_cleanup_errors=True) as where:
        copies = Copies(Path(where), given.jobs)
        run = Run(copies, chosen)
        try:
            if given.tests:
                run.ring(given.tests)
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
    print(f"seed {given.seed}; {run.slow} were stopped for taking too long")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
