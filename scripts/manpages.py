"""Write the manual pages: see scripts/man.

In: the HelpPage of every command, and docs/exit-codes.md. Out: pages in the language of man(7),
without a warning from groff or mandoc. Nothing is said here that ``--help`` does not say.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from imager.cli.lazy import CommandGroup  # noqa: E402 - also where it is not installed
from imager.cli.main import cli  # noqa: E402
from imager.cli.pages import Example, HelpPage, Listing, PageCommand, page_of  # noqa: E402

_ESCAPES = {
    "\\": r"\(rs",
    "-": r"\-",
    "'": r"\(aq",
    "`": r"\(ga",
    "^": r"\(ha",
    "~": r"\(ti",
    '"': r"\(dq",
}
_EXIT_ROW = re.compile(r"^\| (\d+) \|(?: [^|]+)? \| (.+?) \|", re.MULTILINE)
_EXIT_ELSEWHERE = """\
0 if it did what it was asked for; the other codes are in
.BR picloud\\-image (1)."""


def pages() -> dict[str, HelpPage]:
    """The page of every command by the name of its manual page."""
    found: dict[str, HelpPage] = {}

    def take(context: click.Context) -> None:
        command = context.command
        assert isinstance(command, PageCommand)
        found[context.command_path.replace(" ", "-")] = page_of(command, context)
        if isinstance(command, CommandGroup):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                take(click.Context(below, info_name=name, parent=context))

    take(click.Context(cli, info_name="picloud-image", **cli.context_settings))
    return found


def manual(name: str, page: HelpPage, names: Iterable[str], date: str) -> str:
    """The manual page of one command; ``names`` are those of all pages."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    summary, *rest = page.text
    lines = [
        f'.TH {_roff(name.upper())} 1 {date} "picloud\\-image {version}" "picloud\\-image"',
        ".nh",  # a word that is broken cannot be typed
        ".ad l",
        ".SH NAME",
        f"{_roff(name)} \\- {_roff(summary[0].lower() + summary[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_roff(page.path)}",
        _line(page.usage),
        ".SH DESCRIPTION",
        *_paragraphs([summary, *rest]),
    ]
    for listing in page.listings:
        lines += _section(listing, name)
    if page.examples:
        lines += [".SH EXAMPLES", *_examples(page.examples)]
    lines += [".SH EXIT STATUS", *(_exit_codes() if name == "picloud-image" else [_EXIT_ELSEWHERE])]
    lines += [".SH SEE ALSO", *_see_also(name, names)]
    return "\n".join(lines) + "\n"


def _section(listing: Listing, name: str) -> Iterator[str]:
    title, _, more = listing.title.partition(", ")
    yield f".SH {_roff(title.upper())}"
    if more:
        yield f"{_line(more[0].upper() + more[1:])}:"
    for term, meaning in listing.rows:
        yield ".TP"
        if title == "Commands":
            yield f".BR {_roff(f'{name}-{term}')} (1)"
        else:
            yield " ".join(map(_term, term.split()))
        yield _line(meaning)


def _term(word: str) -> str:
    """An option and a variable stand as they are typed, a value does not."""
    if word == "/":
        return word
    return rf"\f{'B' if word.startswith(('-', 'PICLOUD')) else 'I'}{_roff(word)}\fR"


def _paragraphs(texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number:
            yield ".PP"
        yield _line(text)


def _examples(examples: Iterable[Example]) -> Iterator[str]:
    for number, example in enumerate(examples):
        if number:
            yield ".PP"
        yield from (".nf", rf"\fB{_roff(example.line)}\fR", ".fi")
        if example.meaning:
            yield from (".RS", _line(example.meaning), ".RE")


def _exit_codes() -> Iterator[str]:
    for code, what in _EXIT_ROW.findall((ROOT / "docs/exit-codes.md").read_text()):
        yield from (".TP", f".B {code}", _line(what.replace("`", "")))


def _see_also(name: str, names: Iterable[str]) -> Iterator[str]:
    """The page above, the pages below, and those beside it."""
    above = name.rpartition("-")[0]
    near = [other for other in names if other != name and other.rpartition("-")[0] in (name, above)]
    listed = sorted({"picloud-image", *near} - {name})
    for each in listed:
        yield f".BR {_roff(each)} (1){'' if each == listed[-1] else ','}"


def _line(text: str) -> str:
    """A line of text: one that begins with a dot would be a command."""
    return rf"\&{_roff(text)}" if text.startswith((".", "'")) else _roff(text)


def _roff(text: str) -> str:
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in text)
    return re.sub(r"[^\x00-\x7f]", lambda found: rf"\[u{ord(found[0]):04X}]", escaped)


def main() -> None:
    """Write all pages into the folder that is named, made when it is not there."""
    if len(sys.argv) != 2:
        sys.exit("usage: scripts/man DIR")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    day = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    found = pages()
    for name, page in found.items():
        (folder / f"{name}.1").write_text(manual(name, page, found, f"{day:%Y-%m-%d}"))


if __name__ == "__main__":
    main()
