"""``--notify``: the end of long work calls the person back, by the bell and on the desktop.

In: a line of our own words. Out: the bell of the terminal, and a notification where notify-send
(libnotify) is installed. That runs as the person behind sudo, whose desktop it is.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from imager.base.errors import MissingTool
from imager.base.ownership import person
from imager.base.run import TooMuch, find_tool, run_bounded

_SECONDS = 5.0
_MOST_BYTES = 1 << 16
_BELL = "\a"


def notify_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--notify`` to a command; ``command`` sees to it."""
    words = "Ring the terminal's bell at the end, and notify your desktop."
    return click.option("--notify", is_flag=True, help=words)(function)


def call_back(line: str) -> None:
    """Ring, and show ``line``. That nobody hears it is no error."""
    with suppress(OSError):
        if sys.stderr.isatty():
            sys.stderr.write(_BELL)
            sys.stderr.flush()
    with suppress(OSError, MissingTool, TooMuch):
        if find_tool("notify-send") is not None:
            words, env = notification(line)
            run_bounded(words, b"", most_bytes=_MOST_BYTES, seconds=_SECONDS, env=env)


def notification(line: str) -> tuple[list[str], dict[str, str]]:
    """The program that shows ``line`` on the person's desktop, and its environment."""
    user = person()
    bus = Path(f"/run/user/{user}/bus")  # where systemd has it (sd_bus_open_user(3))
    address = os.environ.get("DBUS_SESSION_BUS_ADDRESS", f"unix:path={bus}")
    words = ["notify-send", "--app-name=picloud-image", "picloud-image", line]
    if user != os.geteuid():
        address = f"unix:path={bus}"
        group = pwd.getpwuid(user).pw_gid
        words = ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups", *words]
    return words, {"DBUS_SESSION_BUS_ADDRESS": address}
