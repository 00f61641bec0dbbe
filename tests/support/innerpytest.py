"""A pytest of its own, for what the tests' plugins do to a whole run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.standin import ROOT


def pytest_in(
    folder: Path, plugin: str, *words: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the tests in ``folder`` with ``plugin`` and nothing of this project else; ``more`` is
    added to what the environment has."""
    here = {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "xdist.plugin", "-p", plugin),
            *("-p", "no:cacheprovider", f"--rootdir={folder}", "-c", os.devnull, *words),
        ],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **here, **more},
        capture_output=True,
        text=True,
        check=False,
    )
