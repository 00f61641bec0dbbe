"""Runs a FUSE filesystem of ours in a process of its own for as long as a block lasts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def why_no_fuse() -> str:
    """Why there can be no FUSE here; empty when there can."""
    return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "needs /dev/fuse"


@contextmanager
def fuse_process(module: str, mountpoint: Path, *words: Path) -> Iterator[subprocess.Popen[str]]:
    """``python -m MODULE MOUNTPOINT WORDS`` with pipes to its stdin and stdout, once mounted."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(mountpoint), *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not os.path.ismount(mountpoint):
            assert process.poll() is None, "the FUSE process ended at once"
            assert time.monotonic() < deadline, f"nothing was mounted on {mountpoint}"
            time.sleep(0.01)
        yield process
    finally:
        subprocess.run(["fusermount3", "-u", "-z", mountpoint], capture_output=True, check=False)
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
