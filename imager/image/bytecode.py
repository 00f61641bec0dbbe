"""Salt compiled ahead, where this computer has the release's Python.

In: a folder of Python files, and the minor version of the Python that will import them. Out: the
bytecode of each. A node that has none compiles what it imports when Salt first runs, which takes
longer than all the rest of that start. Bytecode is the same for every processor; it is for one
minor version of Python (PEP 3147), and says of which source it is by a hash that Python looks at
before it believes it (PEP 552), so that no file that is changed on a node is run as it was.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from imager.base.run import find_tool, run

_OLDEST, _NEWEST = 9, 30
"""Minor versions that are looked for: compileall has what is asked of it since 3.9."""


def interpreter(minor: int) -> str | None:
    """A Python 3.``minor`` of this computer that runs, or None."""
    if sys.version_info[:2] == (3, minor) and sys.executable:
        return sys.executable
    found = find_tool(f"python3.{minor}")
    return found if found and _version(found).startswith(f"Python 3.{minor}.") else None


def versions() -> tuple[str, ...]:
    """What ``interpreter`` can find, each with its full version: two may compile differently."""
    found = (interpreter(minor) for minor in range(_OLDEST, _NEWEST))
    return tuple(_version(python) for python in found if python)


def _version(python: str) -> str:
    return run([python, "-V"], ok=range(256)).output()


def compiled(folder: Path, place: str, python: str) -> Iterator[tuple[str, bytes]]:
    """The bytecode of all Python files below ``folder``, which a node has at /``place``.

    Gives paths relative to ``folder``, sorted. A file that is not sound Python has none. Nothing
    of the files is run, and nothing is written in ``folder``.
    """
    with tempfile.TemporaryDirectory() as name:
        # One process and no random hashes: the same files give the same bytes.
        flags = ("-s", "-S", "-X", f"pycache_prefix={name}", "-m", "compileall", "-qq")
        words = ("--invalidation-mode", "checked-hash", "-s", os.fspath(folder), "-p", f"/{place}")
        run(
            [python, *flags, *words, folder],
            cwd=Path("/"),
            env={"PYTHONHASHSEED": "0"},
            ok=(0, 1),
        )
        made = Path(name) / folder.absolute().relative_to("/")
        for file in sorted(made.rglob("*.pyc")):
            path = PurePosixPath(file.relative_to(made))
            yield str(path.parent / "__pycache__" / path.name), file.read_bytes()
