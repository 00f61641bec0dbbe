"""A pytest of its own, for what the tests' plugins do to a whole run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.record import MARK
from tests.support.standin import ROOT


def pytest_in(
    folder: Path, plugin: str, *words: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the tests in ``folder`` with ``plugin`` and nothing of this project else; ``more`` is
    added to what the environment has."""
    with started_pytest(folder, plugin, *words, **more) as process:
        said, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, said, errors)


def started_pytest(folder: Path, plugin: str, *words: str, **more: str) -> subprocess.Popen[str]:
    """The same, begun."""
    here = {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    ours = {name: os.environ[name] for name in ("PATH", "TMPDIR", MARK) if name in os.environ}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "xdist.plugin", "-p", plugin),
            *("-p", "no:cacheprovider", f"--rootdir={folder}", "-c", os.devnull, *words),
        ],
        cwd=folder,
        env={**ours, **here, **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
