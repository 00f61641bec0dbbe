"""Help pages: what a command says of itself, as a value, and that value as lines for a terminal.

In: a click command in its context. Out: a HelpPage, and its text. What a page says stands once, in
the docstring and the options of a command; scripts/man makes manual pages of the same value. A word
is never broken, because most are to be typed as they stand.
"""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from textwrap import dedent
from typing import Any

import click

from imager.cli.settings import COMMON, WHERE_USED
from imager.cli.terminal.folding import wrapped

_WIDEST = 100
_NARROWEST = 50
_WIDEST_TERM = 24
"""A longer term has its explanation below it."""

_NO_SETTINGS = frozenset(("--version", "--help"))
"""Common options that are no settings."""

_RANGES = (
    (re.compile(r"(\d+)<=x<=(\d+)(?=[];])"), r"\1 to \2"),
    (re.compile(r"x>=(\d+)(?=[];])"), r"at least \1"),
)
"""How click says what a number may be, and in words."""
_EXAMPLES = re.compile(r"^Examples?:\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Example:
    """A command line that can be typed, and what comes of it."""

    line: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Terms and what each means, under a title: options, commands, variables."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class HelpPage:
    """All that the help of one command says. ``path`` are the words that call it, ``usage`` what
    comes after them, ``text`` its paragraphs."""

    path: str
    usage: str
    text: tuple[str, ...]
    listings: tuple[Listing, ...]
    examples: tuple[Example, ...]
    closing: str


class PageCommand(click.Command):
    """A command that shows its HelpPage. ``uses`` are the common options that mean something to
    it, or None for all; the others are taken, but not shown."""

    def __init__(self, *args: Any, uses: Collection[str] | None = None, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        for param in self.params:
            if uses is not None and param.name in WHERE_USED and param.name not in uses:
                assert isinstance(param, click.Option)  # noqa: S101 - common options are options
                param.hidden = True

    def get_help(self, ctx: click.Context) -> str:
        """The page, as wide as the terminal."""
        columns = shutil.get_terminal_size().columns
        return as_text(page_of(self, ctx), max(min(columns, _WIDEST) - 2, _NARROWEST))

    def own_listings(self) -> Iterable[Listing]:
        """What its page lists beside options."""
        return ()


def page_of(command: PageCommand, context: click.Context) -> HelpPage:
    """What the help of ``command``, called in ``context``, says."""
    text, examples = _parts(command.help or "")
    usage = [piece for param in command.get_params(context) for piece in _usage_of(param, context)]
    words = ["[OPTIONS]", *usage]
    if isinstance(command, click.Group):
        words.append(command.subcommand_metavar)
    listings = [
        *command.own_listings(),
        *_options(command, context),
        *([_environment(command)] if context.parent is None else []),
    ]
    return HelpPage(
        path=context.command_path,
        usage=" ".join(words),
        text=text,
        listings=tuple(listing for listing in listings if listing.rows),
        examples=examples,
        closing=command.epilog or "",
    )


def _usage_of(param: click.Parameter, context: click.Context) -> Iterable[str]:
    return param.get_usage_pieces(context) if isinstance(param, click.Argument) else ()


def _parts(docstring: str) -> tuple[tuple[str, ...], tuple[Example, ...]]:
    """The paragraphs of a docstring and the examples below them: a line to type, and deeper what it
    means."""
    text, *rest = _EXAMPLES.split(inspect.cleandoc(docstring), maxsplit=1)
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    examples: list[Example] = []
    for line in dedent(rest[0]).splitlines() if rest else ():
        if line.startswith(" "):
            meaning = f"{examples[-1].meaning} {line.strip()}".strip()
            examples[-1] = Example(examples[-1].line, meaning)
        elif line:
            examples.append(Example(line, ""))
    return tuple(filter(None, paragraphs)), tuple(examples)


def _options(command: click.Command, context: click.Context) -> Iterator[Listing]:
    own: list[tuple[str, str]] = []
    common: list[tuple[str, str]] = []
    for param in command.get_params(context):
        row = None if isinstance(param, click.Argument) else param.get_help_record(context)
        if row is not None:
            is_common = param.name in COMMON or not _NO_SETTINGS.isdisjoint(param.opts)
            # Click adds what it knows itself, as a range, in brackets of its own.
            meaning = row[1].replace("]  [", "; ").replace("  [", " [")
            for shape, words in _RANGES:
                meaning = shape.sub(words, meaning)
            (common if is_common else own).append((row[0], meaning))
    yield Listing("Options", tuple(own))
    where = "before or after the command" if isinstance(command, click.Group) else ""
    yield Listing(f"Common options, {where}" if where else "Common options", tuple(common))


def _environment(command: click.Command) -> Listing:
    """The variables that are read where an option is not given."""
    return Listing(
        "Environment, for what no option says",
        tuple(
            (
                str(param.envvar),
                f"1 for {param.opts[-1]}."
                if param.is_flag
                else f"{param.metavar} for {param.opts[-1]}.",
            )
            for param in command.params
            if isinstance(param, click.Option) and param.envvar
        ),
    )


def as_text(page: HelpPage, width: int) -> str:
    """The page in lines of at most ``width`` characters, unless a single word or an example is
    longer."""
    return "\n".join(_lines(page, width))


def _lines(page: HelpPage, width: int) -> Iterator[str]:
    head = f"Usage: {page.path} "
    yield from wrapped(page.usage, width, head, " " * len(head))
    for paragraph in page.text:
        yield ""
        yield from wrapped(paragraph, width, "  ", "  ")
    for listing in page.listings:
        yield from ("", f"{listing.title}:", *_rows(listing.rows, width))
    if page.examples:
        yield from ("", "Examples:")
    for example in page.examples:
        yield f"  {example.line}"
        yield from wrapped(example.meaning, width, " " * 6, " " * 6)
    if page.closing:
        yield ""
        yield from wrapped(page.closing, width, "  ", "  ")


def _rows(rows: Collection[tuple[str, str]], width: int) -> Iterator[str]:
    column = 4 + max(len(term) for term, _ in rows if len(term) <= _WIDEST_TERM)
    for term, meaning in rows:
        head = f"  {term}"
        if len(head) + 2 > column:
            yield head
            head = ""
        yield from wrapped(meaning, width, head.ljust(column), " " * column)
