"""Where and how busily it was measured: the lines under the table."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from imager.base.run import search_path
from imager.base.units import GiB, format_size


def load() -> str:
    """The load averages of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


def footer(tarball: Path, load_before: str) -> list[str]:
    """Machine, tools, release, and how much else was running."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GiB
    tools = (_version("tar", "--version"), _version("mke2fs", "-V"), _version("bmaptool"))
    return [
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} × {_processor()}, {memory:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}",
        f"tools: {', '.join(tools)}",
        f"release: the stand-in, {format_size(tarball.stat().st_size)} packed",
        f"load average (1, 5, 15 min): {load_before} before, {load()} after",
        "medians (least to most); a ratio is the median of pairs measured one after the other",
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(tool: str, question: str = "--version") -> str:
    environment = {"PATH": search_path(), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            [tool, question], env=environment, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return f"no {tool}"
    return next(iter((done.stdout + done.stderr).splitlines()), tool).strip()
