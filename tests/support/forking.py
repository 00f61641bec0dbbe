"""Command lines one after the other, each in a process that is forked from one which has read all
commands: for where that one matters, as who it is or what watches it (else: ``starter``).

In: the words before a Python's name, such as setpriv's. Out: how each line ended, and what it said.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_RUNNER = """
import importlib, json, os, pkgutil, sys
import imager.cli
from imager.cli.main import run
for found in pkgutil.walk_packages(imager.cli.__path__, "imager.cli."):
    importlib.import_module(found.name)
ended = []
for line in sys.argv[1:]:
    said = os.memfd_create("said")
    child = os.fork()
    if not child:
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = run(line.split())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.lseek(said, 0, os.SEEK_SET)
    with open(said, encoding="utf-8", errors="replace") as text:
        ended.append((code, text.read()))
print(json.dumps(ended))
"""


def run_each(
    before: Sequence[str | Path],
    lines: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    python: str = sys.executable,
) -> list[tuple[int, str]]:
    """The exit code of each of ``lines`` of ``picloud-image``, and all that it printed."""
    done = subprocess.run(
        [*before, python, "-c", _RUNNER, *lines],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(code, said) for code, said in json.loads(done.stdout)]
