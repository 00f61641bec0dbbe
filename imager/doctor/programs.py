"""The programs and libraries of this computer: which are there, and of which version.

In: the table of tools, what this package requires of Python. Out: a Checkup for each. A program is
missing only where cards of this rack need it.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from imager.base.programs import CARD_USES, TOOLS, Tool, ToolUse, install_words, tool_version
from imager.base.run import TooMuch, find_tool, run_bounded
from imager.base.units import KiB
from imager.config.rack import Rack
from imager.doctor.checkup import Checkup, missing, warned, well
from imager.release.lock import RackLock

_AREA, _PYTHON = "programs", "python"
_SERVE, _WEB = "rack serve", ("starlette", "uvicorn")
_MOST_BYTES, _SECONDS = 64 * KiB, 5.0
_VERSION = re.compile(r"(?<![A-Za-z0-9.])v?(\d+(?:\.\d+)+\w*)|^(\d+)$", re.MULTILINE)
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:>=\s*([0-9.]+))?[^;]*(;.*extra.*)?")


def uses_of(rack: Rack | None) -> tuple[ToolUse, ...]:
    """What the cards of ``rack`` need programs for, as far as that is certain before anything is
    fetched. Raises ConfigurationError for a broken rack.lock."""
    asks = rack is not None and any(node.packages.names for node in rack.nodes)
    if asks and rack is not None and not RackLock.load(rack.lock_file).sets:
        return (*CARD_USES, ToolUse.RESOLVE)
    return CARD_USES


def program_checkups(needed: Collection[ToolUse]) -> Iterator[Checkup]:
    """Each program of the table; without one for ``needed`` no card can be made."""
    for tool in (tool for tool in TOOLS.values() if tool.uses):
        purpose = " and ".join(tool.uses)
        path = find_tool(tool.name)
        if path is not None:
            said = " ".join(filter(None, (path, _version_of(tool))))
            yield well(_AREA, tool.name, f"{said}, for {purpose}")
        elif set(tool.uses) & set(needed):
            found = f"not installed, needed for {purpose}"
            yield missing(_AREA, tool.name, found, install_words(tool.name))
        else:
            found = f"not installed, wanted for {purpose}"
            yield warned(_AREA, tool.name, found, install_words(tool.name))


def library_checkups() -> Iterator[Checkup]:
    """Python itself, and each library that this package requires."""
    python = f"{platform.python_version()}, runs picloud-image {tool_version()}"
    yield well(_PYTHON, "Python", python)
    for name, least in _required():
        try:
            there = version(name)
        except PackageNotFoundError:
            to_do = "install picloud-image again, with what it requires"
            yield missing(_PYTHON, name, "not installed", to_do)
            continue
        if _numbers(there) < _numbers(least):
            to_do = f"install {name} {least} or newer"
            yield warned(_PYTHON, name, f"{there}, tried with {least} and newer", to_do)
        else:
            yield well(_PYTHON, name, there)


def web_checkup() -> Checkup:
    """What only ``rack serve`` needs."""
    found = []
    for name in _WEB:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            return well(_PYTHON, _SERVE, f"{name} is not installed, and nothing else needs it")
    return well(_PYTHON, _SERVE, " and ".join(found))


def web_words() -> str:
    """How to install what ``rack serve`` needs."""
    return (
        "Debian, Ubuntu: apt install python3-starlette python3-uvicorn · Arch: pacman -S "
        "python-starlette uvicorn · else: pip install 'picloud-image[web]'"
    )


def _version_of(tool: Tool) -> str:
    """What ``tool`` says of its version; empty where it does not say."""
    if not tool.asked:
        return ""
    try:
        words = [tool.name, *tool.asked]
        done = run_bounded(words, b"", most_bytes=_MOST_BYTES, seconds=_SECONDS)
    except (TooMuch, OSError):
        return ""
    found = _VERSION.search(done.output())
    return next(filter(None, found.groups()), "") if found else ""


def _required() -> Iterator[tuple[str, str]]:
    """The libraries and the oldest version of each, as this package was built with them."""
    try:
        lines = requires("picloud-image") or []
    except PackageNotFoundError:
        return  # it runs from its source tree, and nobody wrote down what that needs
    for line in lines:
        found = _REQUIREMENT.match(line)
        if found and not found[3]:
            yield found[1], found[2] or "0"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
