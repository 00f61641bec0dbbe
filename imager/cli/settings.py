"""The options that every command takes, before or after its name, and their values.

In: command line and environment. Out: one frozen Settings. An option given after the command
wins over the same option given before it, and both win over the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from imager.cli.paths import EXISTING_FILE, FOLDER

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the common options; None for one that is neither on the line nor in the
    environment."""

    rack: Path | None = None
    cache: Path | None = None
    release: str | None = None
    signing_key: Path | None = None
    offline: bool = False
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False

    def merged(self, later: dict[str, Any]) -> Settings:
        """These settings with every option that ``later`` gives."""
        given = {name: value for name, value in later.items() if value not in (None, False)}
        return replace(self, **given)


_JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="PICLOUD_JSON",
    help="One JSON object per line on standard output; the last is the result.",
)
_OPTIONS = (
    click.option(
        "--rack",
        metavar="DIR",
        type=FOLDER,
        envvar="PICLOUD_RACK",
        help="Folder with rack.toml; else the one here or above.",
    ),
    click.option(
        "--cache",
        metavar="DIR",
        type=FOLDER,
        envvar="PICLOUD_CACHE",
        help="Where releases are archived and golden images kept.",
    ),
    click.option(
        "--release",
        metavar="NAME|URL",
        envvar="PICLOUD_RELEASE",
        help="Use this release instead of the one rack.toml names.",
    ),
    click.option(
        "--signing-key",
        metavar="FILE",
        envvar="PICLOUD_SIGNING_KEY",
        type=EXISTING_FILE,
        help="OpenPGP certificate that signed the release; must have the pinned fingerprint.",
    ),
    click.option(
        "--offline",
        is_flag=True,
        envvar="PICLOUD_OFFLINE",
        help="Never use the network; the release must be archived.",
    ),
    _JSON,
    click.option("-q", "--quiet", is_flag=True, help="Only errors and the result."),
    click.option("-v", "--verbose", is_flag=True, help="Also each command that is run."),
)
_VERSION = click.version_option(package_name="picloud-image", message="picloud-image %(version)s")
COMMON = tuple(entry.name for entry in fields(Settings))
"""The names of the common options."""

WHERE_USED = frozenset(("rack", "cache", "release", "signing_key", "offline"))
"""Those that mean nothing to some commands, whose help then does not show them."""


def common_options(function: Function) -> Function:
    """Give a command (or the group itself) the common options, and ``--version``; read them with
    ``take``."""
    function = _VERSION(function)
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def take(context: click.Context, options: dict[str, Any]) -> Settings:
    """Remove the common options from ``options`` and merge them over the enclosing group's."""
    own = {name: options.pop(name) for name in COMMON if name in options}
    base = context.parent.obj if context.parent and context.parent.obj else Settings()
    assert isinstance(base, Settings)  # noqa: S101 - click hands back what take() stored
    # Click reads the environment for the group and again for the command. The second reading must
    # not win over an option that was given before the command.
    given = {
        name: value
        for name, value in own.items()
        if context.get_parameter_source(name) is not ParameterSource.ENVIRONMENT
        or getattr(base, name) in (None, False)
    }
    return base.merged(given)


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@_JSON
def _only_json() -> None:
    """A command that understands ``--json`` and lets every other word pass."""


def asks_for_json(words: Sequence[str]) -> bool:
    """Whether JSON was asked for, by an option anywhere in ``words`` or by the environment. For
    command lines that could not be understood."""
    context = _only_json.make_context("picloud-image", list(words), resilient_parsing=True)
    return bool(context.params["as_json"])
