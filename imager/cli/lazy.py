"""Groups of commands: their help pages, and groups that import a command only when it is needed.

In: commands, or names, and for each the place of its command and a summary. Out: a click group. The
help page of a lazy group shows these summaries and imports no command. A test compares each with
its command's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

_WHOLE = 1000
"""More letters than any summary has."""


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


class CommandGroup(click.Group):
    """A group whose help page has every summary whole, on as many lines as it takes; click itself
    cuts it at the end of one."""

    def summaries(self) -> dict[str, str]:
        """The first sentence of each command's help, by its name."""
        listed = self.commands.items()
        return {name: command.get_short_help_str(limit=_WHOLE) for name, command in listed}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(self.summaries().items()))


class LazyGroup(CommandGroup):
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

    def summaries(self) -> dict[str, str]:
        """As it was told, so that no command is imported."""
        return {name: known.summary for name, known in self.lazy.items()}
