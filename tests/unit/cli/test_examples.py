"""Help pages: every command has examples, every example can be typed, no word is ever broken."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest
from click.core import ParameterSource

from imager.cli.main import cli, run
from imager.cli.pages import HelpPage, Listing, PageCommand, as_text, page_of
from imager.cli.settings import COMMON, WHERE_USED

NARROW, WIDE = 58, 78
"""What a terminal of 60 and one of 80 columns leave."""

FILES_AT_HAND = ("rack.tar",)
"""Files of examples that must be there."""


def contexts(context: click.Context) -> list[click.Context]:
    found = [context]
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            found += contexts(click.Context(command, info_name=name, parent=context))
    return found


def page(context: click.Context) -> HelpPage:
    assert isinstance(context.command, PageCommand), f"{context.command_path}: see @command"
    return page_of(context.command, context)


ROOT = click.Context(cli, info_name="picloud-image", **cli.context_settings)
PAGES = {context.command_path: context for context in contexts(ROOT)}
EXAMPLES = [
    (path, example.line) for path, context in PAGES.items() for example in page(context).examples
]


def words_typed(line: str) -> list[str]:
    """The words after the program's name: without sudo, and without what is the shell's."""
    line = line.partition(" | ")[0].removeprefix("source <(").rstrip(")")
    words = shlex.split(line.partition(" >")[0].removeprefix("sudo "))
    assert words[0] == "picloud-image"
    return words[1:]


@pytest.mark.parametrize("path", PAGES)
def test_every_command_has_an_example_of_itself(path: str) -> None:
    context = PAGES[path]
    examples = page(context).examples
    own = path.split()[1:]
    assert examples, f"{path}: write Examples: into its docstring"
    assert all(words_typed(example.line)[: len(own)] == own for example in examples)
    if not isinstance(context.command, click.Group):
        assert all(example.meaning.endswith((".", "?")) for example in examples)


@pytest.mark.parametrize(("path", "line"), EXAMPLES)
def test_an_example_can_be_typed(
    path: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in FILES_AT_HAND:
        (tmp_path / name).touch()
    called: list[click.Context] = []

    def note(command: PageCommand, context: click.Context) -> object:
        if isinstance(command, click.Group):
            return click.Group.invoke(command, context)
        called.append(context)
        return None

    monkeypatch.setattr(PageCommand, "invoke", note, raising=False)
    assert run(words_typed(line)) == 0
    (context,) = called
    assert context.command_path.startswith(path)
    typed = [
        param
        for param in context.command.params
        if context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
    ]
    hidden = [param for param in typed if isinstance(param, click.Option) and param.hidden]
    assert not hidden, "an example shows no option that its help does not show"


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_a_page_fits_and_breaks_no_word(path: str, width: int) -> None:
    found = page(PAGES[path])
    text = as_text(found, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert text == "\n".join(line.rstrip() for line in text.splitlines())
    pieces = [found.usage, *found.text, found.closing]
    pieces += [piece for listing in found.listings for row in listing.rows for piece in row]
    pieces += [piece for each in found.examples for piece in (each.line, each.meaning)]
    wanted = {word for piece in pieces for word in piece.split()}
    assert wanted <= set(text.split())


@pytest.mark.parametrize("path", PAGES)
def test_a_command_takes_every_common_option_and_shows_what_it_uses(path: str) -> None:
    params = {param.name: param for param in PAGES[path].command.params}
    assert set(COMMON) <= set(params)
    shown = dict(row for listing in page(PAGES[path]).listings for row in listing.rows)
    for name in COMMON:
        option = params[name]
        assert isinstance(option, click.Option)
        is_shown = any(option.opts[-1] in term.split() for term in shown)
        assert is_shown is not option.hidden
        assert name in WHERE_USED or is_shown


def test_the_first_page_tells_of_the_environment() -> None:
    text = as_text(page(ROOT), WIDE)
    for name in ("RACK", "CACHE", "RELEASE", "SIGNING_KEY", "OFFLINE", "JSON"):
        assert f"  PICLOUD_{name} " in text
    assert "  PICLOUD_RACK         DIR for --rack.\n" in text
    assert "  PICLOUD_OFFLINE      1 for --offline.\n" in text
    assert "PICLOUD_" not in as_text(page(PAGES["picloud-image write"]), WIDE)


def test_what_a_page_looks_like() -> None:
    wanted = """\
Usage: picloud-image explain [OPTIONS] [TARGET]

  Say what the lights or the screen of a dead board mean,
  and what to check.

  With TARGET, its card, the card is read too, and what on
  it can cause this comes first.

Options:
  --blinks N     Short blinks, e.g. 4; 2+1: 2 long ones
                 and 1 short.
  --rainbow      The rainbow screen stays.
  --blank        A dark screen, and no blink.
  --model MODEL  Which board it is, e.g. pi2.

Common options:
  --json         One JSON object per line on standard
                 output; the last is the result.
  -q, --quiet    Only errors and the result.
  -v, --verbose  Also each command that is run.
  --color WHEN   Colour: auto, always or never; auto heeds
                 NO_COLOR. [auto]
  --version      Show the version and exit.
  -h, --help     Show this message and exit.

Examples:
  picloud-image explain --blinks 4
      The green light blinks four times, again and again.
  picloud-image explain /dev/sdb --rainbow --model pi2
      Look on the card of this Pi 2 for what causes it."""
    assert as_text(page(PAGES["picloud-image explain"]), NARROW) == wanted


def test_a_long_term_has_its_meaning_below_it_and_a_long_usage_goes_on_below_itself() -> None:
    rows = (
        ("--short", "one"),
        ("--twenty-four-letters---", "two"),
        ("--twenty-five-letters----", "3"),
    )
    found = HelpPage("picloud-image x", "[A]... " * 8, (), (Listing("Options", rows),), (), "")
    assert (
        as_text(found, NARROW)
        == """\
Usage: picloud-image x [A]... [A]... [A]... [A]... [A]...
                       [A]... [A]... [A]...

Options:
  --short                   one
  --twenty-four-letters---  two
  --twenty-five-letters----
                            3"""
    )
