"""One reader in a process of its own that may not have much memory, under a fuzzer or not.

usage: python -m tests.fuzz.child try NAME FILE...           # each input once
       python -m tests.fuzz.child fuzz NAME LIBFUZZER-ARG... # until it finds something

A finding ends the process with a traceback; ``fuzz`` also writes the input down.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

LIMIT_SECONDS = 1.0
"""Of one core, for one input."""
LIMIT_BYTES = 300 << 20
"""More than what is in memory when the first input comes."""


class TooSlowError(AssertionError):
    """A reader took longer for a small input than it may."""


def try_input(target: Target, data: bytes) -> bool:
    """Have it read; whether it took ``data`` without refusing it. Raises what is a finding."""
    before = time.process_time()
    try:
        target.read(data)
        taken = True
    except target.refusals:
        taken = False
    seconds = time.process_time() - before
    if seconds > LIMIT_SECONDS:
        raise TooSlowError(f"{len(data)} bytes took {seconds:.1f} s")
    return taken


def limit_memory() -> None:
    """Any more than LIMIT_BYTES from now on is a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGESIZE") + LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def try_files(name: str, files: list[str]) -> None:
    """Each of ``files`` once."""
    from tests.fuzz.targets import TARGETS

    limit_memory()
    for file in files:
        sys.stderr.write(f"{file}\n")
        try_input(TARGETS[name], Path(file).read_bytes())


def fuzz(name: str, words: list[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["imager", "tarfile"]):
        from tests.fuzz.targets import TARGETS

    def one(data: bytes) -> None:
        try:
            try_input(TARGETS[name], data)
        except TooSlowError:
            # Watched over by a fuzzer everything is several times slower: ask without it.
            with tempfile.NamedTemporaryFile() as file:
                file.write(data)
                file.flush()
                words = (sys.executable, "-m", "tests.fuzz.child", "try", name, file.name)
                subprocess.run(words, check=True)

    atheris.Setup(["fuzz", *words], one)
    limit_memory()
    atheris.Fuzz()


if __name__ == "__main__":
    {"try": try_files, "fuzz": fuzz}[sys.argv[1]](sys.argv[2], sys.argv[3:])
