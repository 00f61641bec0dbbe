"""What may come next on a command line that is not finished.

In: the words before the cursor, the last of them not whole, perhaps empty. Out: NextWords for it.
Nothing is called and nothing converted: the words are only held against the names of commands and
options, so an unfinished line costs no more than the import of its command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import click

from imager.cli.lazy import CommandGroup


class NextKind(StrEnum):
    """What a shell is told: a word, or to look for files or folders itself."""

    WORD = "word"
    FILE = "file"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class NextWord:
    """A word that may stand there, and what it means."""

    value: str = ""
    help: str = ""
    kind: NextKind = NextKind.WORD


FILE = NextWord(kind=NextKind.FILE)
FOLDER = NextWord(kind=NextKind.FOLDER)


@dataclass(slots=True)
class UnfinishedLine:
    """The words before the last one, as far as they are understood.

    ``context`` is of the last command named, ``waiting`` the option whose value comes next;
    ``given`` has the last value of each option so far, ``arguments`` the words that are neither
    option nor command.
    """

    context: click.Context
    waiting: click.Option | None = None
    given: dict[str, str] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    options_ended: bool = False

    @property
    def options(self) -> dict[str, click.Option]:
        """The options of the command, by each of their names."""
        params = self.context.command.get_params(self.context)
        return {
            name: param
            for param in params
            if isinstance(param, click.Option)
            for name in (*param.opts, *param.secondary_opts)
        }

    @property
    def argument(self) -> click.Argument | None:
        """The argument that the next word would be; None when there are enough."""
        params = self.context.command.params
        known = [param for param in params if isinstance(param, click.Argument)]
        place = len(self.arguments)
        if place < len(known):
            return known[place]
        return known[-1] if known and known[-1].nargs == -1 else None


def understood(root: click.Group, words: Sequence[str]) -> UnfinishedLine | None:
    """What ``words``, which come after the program's name, say; None when one of them is no
    command."""
    # As click makes the context of a command line, but without a line.
    line = UnfinishedLine(click.Context(root, info_name=root.name, **root.context_settings))
    for word in words:
        if line.options_ended or not (word.startswith("-") and word != "-"):
            if line.waiting is not None:
                line.given[line.waiting.name or ""] = word
                line.waiting = None
            elif not _enters(line, word):
                return None
        elif word == "--":
            line.options_ended = True
        else:
            _take_option(line, word)
    return line


def _enters(line: UnfinishedLine, word: str) -> bool:
    """Whether ``word`` is a command where one is wanted; where none is, it is an argument."""
    group = line.context.command
    if not isinstance(group, click.Group):
        line.arguments.append(word)
        return True
    command = group.get_command(line.context, word)
    if command is not None:
        line.context = click.Context(command, info_name=word, parent=line.context)
    return command is not None


def _take_option(line: UnfinishedLine, word: str) -> None:
    name, is_joined, value = word.partition("=")
    option = line.options.get(name)
    line.waiting = None
    if option is None or option.name is None:
        return
    line.given[option.name] = value
    if not (is_joined or option.is_flag or option.count):
        line.waiting = option


def names(line: UnfinishedLine) -> Iterator[NextWord]:
    """The commands that may come next."""
    group = line.context.command
    if isinstance(group, CommandGroup):
        for name, summary in sorted(group.summaries().items()):
            yield NextWord(name, summary)


def options(line: UnfinishedLine) -> Iterator[NextWord]:
    """The options that are shown in the help of the command and not given yet."""
    for name, option in line.options.items():
        is_given = option.name in line.given and not option.multiple
        if name.startswith("--") and not (option.hidden or is_given):
            yield NextWord(name, option.help or "")
