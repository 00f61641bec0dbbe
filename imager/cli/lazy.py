"""Groups of commands, and groups that import a command only when it is needed.

In: commands, or names, and for each the place of its command and a summary. Out: a click group. The
help page of a lazy group shows these summaries and imports no command. A test compares each with
its command's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from imager.cli.pages import Listing, PageCommand

_WHOLE = 1000
"""More letters than any summary has."""


class BareGroup(click.UsageError):
    """A group was called, and nothing after it. What it can do is then shown; it is no success,
    because nothing was done."""

    def __init__(self, context: click.Context) -> None:
        super().__init__(f"{context.command_path} needs a command after it", context)


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


class CommandGroup(PageCommand, click.Group):
    """A group that knows what its commands do, and which one was meant by a word that is none."""

    def summaries(self) -> dict[str, str]:
        """The first sentence of each command's help, by its name."""
        listed = self.commands.items()
        return {name: command.get_short_help_str(limit=_WHOLE) for name, command in listed}

    def own_listings(self) -> Iterable[Listing]:
        """See PageCommand: its commands."""
        return (Listing("Commands", tuple(sorted(self.summaries().items()))),)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, but raises BareGroup where nothing was given."""
        if not args and not ctx.resilient_parsing:
            raise BareGroup(ctx)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it; a UsageError for a command that is not there says what is like it."""
        name = args[0]
        if name.startswith("-") or ctx.resilient_parsing or self.get_command(ctx, name):
            return super().resolve_command(ctx, args)
        raise click.UsageError(self.unknown(ctx, name), ctx)

    def unknown(self, ctx: click.Context, name: str) -> str:
        """What to say of a word that is no command of this group."""
        # Imported here: most lines are typed right.
        from difflib import get_close_matches

        known = dict(self._paths(ctx, ""))
        near = known.get(name) or get_close_matches(name, self.list_commands(ctx), n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        return f"No such command {name!r}{meant}"

    def _paths(self, ctx: click.Context, before: str) -> Iterator[tuple[str, list[str]]]:
        """The name of each command below a group of this one, and the words that call it."""
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if isinstance(command, CommandGroup):
                yield from command._paths(ctx, f"{before}{name} ")
            if before:
                yield name, [f"{before}{name}"]


class LazyGroup(CommandGroup):
    """A group of the commands ``lazy``, by their names, and of those that only other programs call,
    ``unlisted``: no page and no completion speaks of them."""

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, LazyCommand],
        unlisted: Mapping[str, LazyCommand] | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.lazy = lazy
        self.unlisted = unlisted or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help page."""
        return sorted(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now; None for a name that is not known."""
        known = self.lazy.get(cmd_name) or self.unlisted.get(cmd_name)
        return known.load() if known else None

    def summaries(self) -> dict[str, str]:
        """As it was told, so that no command is imported."""
        return {name: known.summary for name, known in self.lazy.items()}
