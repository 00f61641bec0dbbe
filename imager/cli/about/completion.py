"""``completion``: what a shell needs so that TAB completes a line of this program, and its answers.

In: a shell's name; with ``--answer``, on standard input, the line as far as it is typed. Out: the
text that the shell reads once; or a line for each word that may come next. An answer is quick, is
empty where anything is wrong, and looks only. Words of strangers that a shell could take for more
than a word are left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import click
from click.shell_completion import split_arg_string

from imager.base.text import printable
from imager.cli.about.next_words import (
    NextKind,
    NextWord,
    UnfinishedLine,
    names,
    options,
    understood,
)
from imager.cli.about.shells import SCRIPTS
from imager.cli.about.values import values_of
from imager.cli.session import CommandResult, Session, command

_HARMLESS = re.compile(r"[A-Za-z0-9_./:,+@=-]+\Z")
_LONGEST = 1 << 16


@command("completion", uses=())
@click.argument("shell", type=click.Choice(list(SCRIPTS)))
@click.option("--answer", is_flag=True, hidden=True, help="Answer the shell; it asks so itself.")
def completion(session: Session, shell: str, answer: bool) -> CommandResult:
    """Print what your shell needs so that TAB completes commands, options, nodes and disks.

    Examples:
        source <(picloud-image completion bash)
            For this bash; in ~/.bashrc for all.
        picloud-image completion zsh > ~/.zfunc/_picloud-image
            Make that folder first; in ~/.zshrc, fpath+=~/.zfunc comes before compinit.
        picloud-image completion fish | source
            For this fish; in ~/.config/fish/config.fish for all.
    """
    if not answer:
        if not session.settings.as_json:
            for line in SCRIPTS[shell].splitlines():
                session.console.data(line)
        return {"script": SCRIPTS[shell]}
    root = click.get_current_context().find_root().command
    assert isinstance(root, click.Group)  # noqa: S101 - a command is below a group
    # A person who is typing is not to be disturbed, whatever is wrong: there is just no answer.
    with suppress(Exception):
        typed = sys.stdin.buffer.read(_LONGEST).decode(errors="replace")
        words = _words_of_line(typed) if shell == "bash" else typed.split("\0")[:-1]
        lines = list(answers(root, words[1:], whole=shell == "fish"))
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    return {}


def _words_of_line(line: str) -> list[str]:
    """Bash cuts a line at ``=`` and ``:``, and keeps the quotes, so it tells the line instead."""
    words = split_arg_string(line)
    return [*words, ""] if not words or line[-1].isspace() else words


def answers(root: click.Group, words: Sequence[str], *, whole: bool) -> Iterator[str]:
    """The lines that answer for ``words``, of which the last is not finished. For a value that is
    joined to its option by ``=``, ``whole`` candidates have the option, too."""
    *before, last = words
    option, equals, value = last.partition("=")
    is_joined = bool(equals) and option.startswith("--")
    line = understood(root, [*before, option] if is_joined else before)
    if line is None:
        return
    begun = value if is_joined else last
    for candidate in _candidates(line, begun):
        if candidate.kind is not NextKind.WORD:
            yield candidate.kind.value
        elif candidate.value.startswith(begun) and _HARMLESS.match(candidate.value):
            word = f"{option}={candidate.value}" if is_joined and whole else candidate.value
            yield f"{NextKind.WORD}\t{word}\t{printable(candidate.help)}"


def _candidates(line: UnfinishedLine, begun: str) -> Iterable[NextWord]:
    if line.waiting is not None:
        return values_of(line.waiting, line, begun)
    if begun.startswith("-") and not line.options_ended:
        return options(line)
    if line.argument is not None:
        return values_of(line.argument, line, begun)
    return names(line)
