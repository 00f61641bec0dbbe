"""Groups that know the names and summaries of their commands, and import one when it is needed.

In: names, and for each the place of its command. Out: a click group. A help page shows what is
written here, so that it costs no import; a test holds each summary against its command's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is, as ``module:attribute`` below ``imager.cli``, and what its group's help
    page says of it."""

    place: str
    summary: str

    def load(self) -> click.Command:
        """The command itself; imports its module."""
        module, _, attribute = self.place.partition(":")
        command = getattr(import_module(f"imager.cli.{module}"), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - a test loads every one
        return command


class LazyGroup(click.Group):
    """A group of the commands ``lazy``, by their names."""

    def __init__(self, *args: Any, lazy: Mapping[str, LazyCommand], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help page."""
        return sorted(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now; None for a name that is not known."""
        known = self.lazy.get(cmd_name)
        return known.load() if known else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Click asks every command for its summary; these stand-ins answer for them."""
        told = [click.Command(name, help=known.summary) for name, known in self.lazy.items()]
        click.Group(commands=told).format_commands(ctx, formatter)
