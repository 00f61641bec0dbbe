"""The options of commands that ask the Salt master: how it is reached.

In: the command line. Out: a Way, as the keyword ``way`` of the command's function.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from imager.cli.paths import EXISTING_FILE
from imager.rack.master.connection import ROOT, Way


def master_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--user``, ``--host``, ``--port``, ``--identity`` and ``--local``."""

    @wraps(function)
    def with_way(
        *words: Any,
        user: str,
        host: str | None,
        port: int | None,
        identity: Path | None,
        local: bool | None,
        **options: Any,
    ) -> Any:
        return function(*words, way=Way(user, host, port, identity, local), **options)

    for option in (
        click.option(
            "--local/--ssh",
            default=None,
            help="This computer is the master, or it is not. [found out]",
        ),
        click.option(
            "--identity",
            metavar="FILE",
            type=EXISTING_FILE,
            help="Private key for ssh.",
        ),
        click.option(
            "--port", metavar="N", type=click.IntRange(1, 65535), help="Port of its sshd."
        ),
        click.option("--host", metavar="HOST", help="Where it is, if not where rack.toml says."),
        click.option(
            "--user", metavar="NAME", default=ROOT, help="Whom to log in as on the master. [root]"
        ),
    ):
        option(with_way)
    return with_way
