"""Changes put into the running program, which is quicker than to start it anew for each.

In: Mutants, and a session of pytest. Out: a file, which tests call what (``callers``), and which of
the Mutants a test noticed. Each is tried in a forked process, in which the code of the changed
function is exchanged. What is not noticed is to be tried in a copy of the tree as well: what stands
outside of functions cannot be exchanged, what is called while modules are imported is over, and
what takes too long does so on a busy computer without any change.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import inspect
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType

import pytest
from callers import Calls, Found, meeting
from mutants import Mutant

MEMORY_BYTES = 6 << 30
"""Of address space for one process; a change may ask for endless memory."""
_PDEATHSIG = 1
_NOT_PUT_IN = 77
Functions = dict[tuple[str, str, int], list[FunctionType]]
"""By file, name and first line; a decorator may have made several of one."""


def limited(parent: int) -> None:
    """Bound this process, just forked, in memory, and end it when ``parent`` ends."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(9)
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def patience(seconds: float) -> float:
    """How long tests may take that took ``seconds`` without any change."""
    return 20 + 4 * seconds


class InPlace(Calls):
    """A pytest plugin: runs every test once, then for each Mutant those that call it."""

    def __init__(self, tree: Path, mutants: Sequence[Mutant], jobs: int, out: Path) -> None:
        super().__init__(tree, {mutant.path for mutant in mutants})
        self.tree, self.mutants, self.jobs, self.out = tree, mutants, jobs, out
        self.trying = self.failing = False
        self.running: dict[int, tuple[int, float]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        super().pytest_runtest_logreport(report)
        self.failing |= report.failed

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Iterator[None]:
        """Calls are counted once, without any change."""
        if self.trying:
            yield
        else:
            yield from super().pytest_runtest_protocol(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of pytest's own loop."""
        _run(session.items)
        items = {item.nodeid: item for item in session.items}
        found = self.known
        steady = {name: found[name] for name in found.keys() - self._failing_again(session.items)}
        functions = _functions(set(self.files))
        caches = [one for one in gc.get_objects() if isinstance(one, functools._lru_cache_wrapper)]
        gc.freeze()
        noticed: list[int] = []
        for number, mutant in enumerate(self.mutants):
            names, seconds = meeting(mutant, steady)
            if names:
                chosen = [items[name] for name in names]
                self._start(number, chosen, patience(seconds), functions, caches)
            while len(self.running) >= self.jobs:
                noticed += self._ended()
        while self.running:
            noticed += self._ended()
        tests = {name: (took, sorted(called)) for name, (took, called) in found.items()}
        tried = {"tests": tests, "noticed": noticed}
        self.out.write_text(json.dumps(tried))
        return True

    def _failing_again(self, items: list[pytest.Item]) -> set[str]:
        """The tests that cannot be run twice in one process: here they would notice everything."""
        again = self.out.with_suffix(".again")
        child = os.fork()
        if not child:
            try:
                self.trying = True
                _run(items)
                again.write_text(json.dumps(sorted(self.failed)))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        return set(json.loads(again.read_text()))

    def _start(
        self,
        number: int,
        items: list[pytest.Item],
        seconds: float,
        functions: Functions,
        caches: list[functools._lru_cache_wrapper[object]],
    ) -> None:
        parent = os.getpid()
        child = os.fork()
        if child:
            self.running[child] = number, time.monotonic() + seconds
            return
        code = 2
        try:
            limited(parent)
            if not _put_in(self.mutants[number], self.tree, functions):
                os._exit(_NOT_PUT_IN)
            for cache in caches:
                cache.cache_clear()
            self.trying, self.failing = True, False
            _run(items, until=lambda: self.failing)
            code = int(self.failing)
        finally:
            os._exit(code)

    def _ended(self) -> Iterator[int]:
        """The numbers of those that are over and were noticed."""
        for child, (number, deadline) in list(self.running.items()):
            pid, status = os.waitpid(child, os.WNOHANG)
            late = time.monotonic() > deadline
            if not pid and not late:
                continue
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            if not pid:
                os.waitpid(child, 0)
            del self.running[child]
            if not late and os.waitstatus_to_exitcode(status) not in (0, _NOT_PUT_IN):
                yield number
        time.sleep(0.005)


def tried_in(out: Path) -> tuple[Found, list[int]]:
    """What ``InPlace`` wrote: the tests, and the numbers of the Mutants that were noticed."""
    tried = json.loads(out.read_text())
    tests = tried["tests"].items()
    found = {
        name: ((work, took), {tuple(at) for at in called}) for name, ((work, took), called) in tests
    }
    return found, tried["noticed"]


def _run(items: Sequence[pytest.Item], until: Callable[[], bool] = lambda: False) -> None:
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if until():
            return


def _functions(files: set[str]) -> Functions:
    found: Functions = {}
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__code__.co_filename in files:
            code = one.__code__
            key = code.co_filename, code.co_qualname, code.co_firstlineno
            found.setdefault(key, []).append(one)
    return found


def _put_in(mutant: Mutant, tree: Path, functions: Functions) -> bool:
    """Exchange the code of every function that ``mutant`` changes; whether there was one."""
    path = tree / mutant.path
    old, new = (
        list(_outermost(compile(source, os.fspath(path), "exec", dont_inherit=True)))
        for source in (path.read_bytes(), mutant.source)
    )
    done = False
    for before, after in zip(old, new, strict=True):
        if _meaning(before) != _meaning(after):
            key = os.fspath(path), before.co_qualname, before.co_firstlineno
            for function in functions.get(key, ()):
                function.__code__ = after
                done = True
    return done


def _outermost(code: CodeType) -> Iterator[CodeType]:
    """Functions and methods, without those within them."""
    for inner in filter(lambda one: isinstance(one, CodeType), code.co_consts):
        if inner.co_flags & inspect.CO_NEWLOCALS and inner.co_flags & inspect.CO_OPTIMIZED:
            yield inner
        else:
            yield from _outermost(inner)


def _meaning(code: CodeType) -> tuple[object, ...]:
    """All of ``code`` but its lines, which a change further up moves."""
    inner = (
        _meaning(one) if isinstance(one, CodeType) else (type(one), repr(one))
        for one in code.co_consts
    )
    return code.co_code, code.co_names, code.co_exceptiontable, *inner
