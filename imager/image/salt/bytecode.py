"""Salt compiled to bytecode in advance, where this computer has the release's Python.

In: a folder of Python files, and the minor version of the Python that will import them. Out: the
bytecode of each. A node without it compiles Salt when it first starts it, which takes longer than
everything else at that start. Bytecode is the same for every processor, but only for one minor
version of Python (PEP 3147). It has a hash of its source, which Python compares before it uses the
bytecode (PEP 552): when a file is changed on a node, the changed file is run.
"""

from __future__ import annotations

import io
import os
import platform
import stat
import sys
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from imager.base.run import find_tool, run
from imager.base.units import GiB, MiB

_OLDEST, _NEWEST = 8, 30
"""Minor versions that are looked for."""
_LARGEST, _ALL, _MADE = MiB, 64 * MiB, 256 * MiB
"""Bytes of one source, of all of them, and of what becomes of them. Salt 3008 has 0.5 and 17 MiB. A
source may be a stranger's, and a Python takes 400 times its size to compile it."""
_MEMORY, _SECONDS = 2 * GiB, 600
# Not compileall: it leaves files behind, and on a full disk incomplete ones without an error.
_COMPILE = """\
import io, marshal, pathlib, resource, stat, sys, zipfile
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash

folder, place = sys.argv[1:3]
largest, room, most, memory, seconds, told = map(int, sys.argv[3:])
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
head = MAGIC_NUMBER + (3).to_bytes(4, "little")  # by hash, and the source is looked at (PEP 552)
made, told = io.BytesIO(), io.FileIO(told, "w")
archive = zipfile.ZipFile(made, "w")
for file in sorted(pathlib.Path(folder).rglob("*.py")):
    about = file.lstat()
    if not stat.S_ISREG(about.st_mode) or about.st_size > min(largest, room) or made.tell() > most:
        continue  # a link would be one into this computer
    room -= about.st_size
    told.write(b"%d\\n" % about.st_size)
    source, name = file.read_bytes(), file.relative_to(folder).as_posix()
    try:
        code = compile(source, f"{place}/{name}", "exec", dont_inherit=True)
    except Exception:
        continue
    data = head + source_hash(source) + marshal.dumps(code)
    archive.writestr(cache_from_source(name), data)
archive.close()
sys.stdout.buffer.write(made.getvalue())
"""


def interpreter(minor: int) -> str | None:
    """A Python 3.``minor`` of this computer that runs, or None."""
    found = _found(minor)
    return found[0] if found else None


def versions() -> tuple[str, ...]:
    """The full version of each Python that ``interpreter`` finds: two may compile differently."""
    found = (_found(minor) for minor in range(_OLDEST, _NEWEST))
    return tuple(python[1] for python in found if python)


def _found(minor: int) -> tuple[str, str] | None:
    """The path of that Python, and what it says of its version."""
    if sys.version_info[:2] == (3, minor) and sys.executable:
        return sys.executable, f"Python {platform.python_version()}"
    if (path := find_tool(f"python3.{minor}")) and _version(path).startswith(f"Python 3.{minor}."):
        return path, _version(path)
    return None


@cache
def _version(python: str) -> str:
    """What it says of its version. Asked once: a shim may look through all it knows to answer."""
    return run([python, "-V"], ok=range(256)).output()


def source_bytes(folder: Path) -> int:
    """How much ``compiled`` has to do."""
    statuses = (file.lstat() for file in folder.rglob("*.py"))
    return sum(status.st_size for status in statuses if stat.S_ISREG(status.st_mode))


def compiled(
    folder: Path, place: str, python: str, advance: Callable[[int], None]
) -> dict[str, bytes]:
    """The bytecode of all Python files below ``folder``, which on a node will be /``place``.
    ``advance`` is told the bytes of each source, from another thread.

    The result is by path relative to ``folder``. A file with a syntax error has none. The files
    are not run, and nothing is written. What is a link, or too large, has none either. Raises
    ToolFailed when ``python`` fails.
    """
    told, tells = os.pipe()
    with os.fdopen(told, "rb") as lines, ThreadPoolExecutor(1) as listener:
        heard = listener.submit(_listen, lines, advance)
        try:
            # With a fixed hash seed the same files give the same bytes.
            words = (python, "-s", "-S", "-W", "ignore", "-c", _COMPILE)
            bounds = map(str, (_LARGEST, _ALL, _MADE, _MEMORY, _SECONDS, tells))
            done = run(
                (*words, os.fspath(folder), f"/{place}", *bounds),
                cwd=Path("/"),
                env={"PYTHONHASHSEED": "0"},
                inherit=[tells],
            )
        finally:
            os.close(tells)
        heard.result()
    with zipfile.ZipFile(io.BytesIO(done.stdout)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _listen(lines: Iterable[bytes], advance: Callable[[int], None]) -> None:
    for line in lines:
        advance(int(line))
