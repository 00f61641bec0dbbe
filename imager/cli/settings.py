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
from imager.cli.terminal.colour import ColourChoice

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
    color: str | None = None

    @property
    def colour(self) -> ColourChoice:
        """What ``--color`` says, or its default."""
        return ColourChoice(self.color or ColourChoice.AUTO)

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
_COLOUR = click.option(
    "--color",
    metavar="WHEN",
    type=click.Choice([choice.value for choice in ColourChoice]),
    help="Colour: auto, always or never; auto heeds NO_COLOR. [auto]",
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
        help="Where releases are archived and golden images kept. [~/.cache/picloud-image]",
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
        help="OpenPGP key that signed the release, as a file; its fingerprint is compared.",
    ),
    click.option(
        "--offline",
        is_flag=True,
        envvar="PICLOUD_OFFLINE",
        help="Fetch nothing; the release must be archived.",
    ),
    _JSON,
    click.option("-q", "--quiet", is_flag=True, help="Only errors and the result."),
    click.option("-v", "--verbose", is_flag=True, help="Also each command that is run."),
    _COLOUR,
)


class VersionAsked(Exception):
    """``--version`` was given: what is shown then, and how, the whole command line decides."""


def _ask_version(context: click.Context, _option: click.Parameter, is_given: bool) -> None:
    if is_given and not context.resilient_parsing:
        raise VersionAsked


_VERSION = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_ask_version,
    help="Show the version and exit.",
)
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
@_COLOUR
def _only_shown() -> None:
    """A command that understands how it is to be shown and lets every other word pass."""


def settings_of(words: Sequence[str]) -> Settings:
    """How to show an error of ``words``, a command line that could not be understood: as JSON, and
    in colour, as an option anywhere in it or the environment asks."""
    context = _only_shown.make_context("picloud-image", list(words), resilient_parsing=True)
    return Settings(as_json=bool(context.params["as_json"]), color=context.params["color"])
