"""``help``: the page of a command, as ``--help`` after it shows it."""

from __future__ import annotations

import click

from imager.base.errors import UsageError
from imager.cli.lazy import CommandGroup
from imager.cli.session import CommandResult, Session, command


@command("help", uses=())
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
def show_help(session: Session, words: tuple[str, ...]) -> CommandResult:
    """Show what a command does, its options and examples.

    Examples:
        picloud-image help write
            The same as picloud-image write --help.
        picloud-image help rack flash
            A command of a group.
    """
    context = click.get_current_context().find_root()
    for word in words:
        group, hint = context.command, f"{context.command_path} --help says more"
        if not isinstance(group, CommandGroup):
            raise UsageError(f"{context.command_path} has no commands below it", hint=hint)
        found = group.get_command(context, word)
        if found is None:
            raise UsageError(group.unknown(context, word), hint=hint)
        context = click.Context(found, info_name=word, parent=context)
    page = context.get_help()
    session.console.lines(*page.splitlines())
    return {"page": page}
