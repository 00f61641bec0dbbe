"""Commands in hints, as the person who reads them has to type them.

In: a text that names commands as if nothing else were needed, ``picloud-image fetch``. Out: the
same with what this person gave on their own command line, ``sudo picloud-image --rack there
fetch``. Every hint goes through here, so whoever writes one need not know what was given. The
common options stand before the command's name, where each command takes them; how the rack's Salt
master is reached (``imager.cli.master``) stands behind the name of a command that only asks it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable

import click
from click.core import ParameterSource

from imager.base.ownership import person
from imager.cli.settings import Settings

_PROGRAM = "picloud-image"
_CARRIED = ("rack", "cache", "release", "signing_key")
"""Common options without which a command would be about something else."""

_WAY = {"user": "--user", "host": "--host", "port": "--port", "identity": "--identity"}
_ASKS_MASTER = re.compile(rf"{_PROGRAM} rack (?:status|stations(?: (?:install|list))?)\b")

Pasting = Callable[[str], str]


def as_it_stands(text: str) -> str:
    """``text`` itself, where nothing was given that a command in it needs."""
    return text


def pasting(context: click.Context, settings: Settings) -> Pasting:
    """What turns the commands of a text into those that the caller of ``context`` has to type.

    An option that the environment gave is left out: it holds for the next command as well. Only
    sudo forgets the environment. An option that the text itself gives is not repeated.
    """
    root = context.find_root()
    by_sudo = person() != os.geteuid()
    given = {
        f"--{name.replace('_', '-')}": str(getattr(settings, name))
        for name in _CARRIED
        if getattr(settings, name) is not None and (by_sudo or _is_typed(context, name))
    }
    way = shlex.join(_way(context))
    if not isinstance(root.command, click.Group) or not (given or by_sudo or way):
        return as_it_stands
    names = "|".join(root.command.list_commands(root))
    command = re.compile(rf"(?<![\w/.-]){_PROGRAM} (?=(?:{names})\b)")

    def pasted(text: str) -> str:
        if way:
            text = _ASKS_MASTER.sub(lambda found: f"{found[0]} {way}", text)
        words = [word for option in given if option not in text for word in (option, given[option])]
        typed = shlex.join([*(["sudo"] if by_sudo else []), _PROGRAM, *words])
        return command.sub(lambda _: f"{typed} ", text)

    return pasted


def _way(context: click.Context) -> list[str]:
    """The words that say how the master is reached, as far as they were typed."""
    values, commandline = context.params, ParameterSource.COMMANDLINE
    typed = [name for name in _WAY if context.get_parameter_source(name) is commandline]
    words = [word for name in typed for word in (_WAY[name], str(values[name]))]
    if context.get_parameter_source("local") is commandline:
        words.append("--local" if values["local"] else "--ssh")
    return words


def _is_typed(context: click.Context | None, name: str) -> bool:
    """Whether the option ``name`` stands on the command line, before or after the command."""
    while context is not None:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            return True
        context = context.parent
    return False
