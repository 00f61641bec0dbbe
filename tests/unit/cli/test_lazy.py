"""Help pages are shown without importing a command, and say what the commands say themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from imager.cli.lazy import CommandGroup, LazyCommand, LazyGroup
from imager.cli.main import cli, run
from imager.cli.pages import as_text, page_of

ROOT = Path(__file__).resolve().parents[3]
HEAVY = (
    "requests",
    "cryptography",
    "jinja2",
    "pyudev",
    "pysequoia",
    "ClusterShell",
    "platformdirs",
)
HELP = """
import sys
from imager.cli.main import run
assert run(sys.argv[1:]) == 0
sys.stderr.write("\\n".join(sys.modules))
"""


def lazy_commands(group: LazyGroup) -> Iterator[tuple[str, LazyCommand]]:
    for name, lazy in group.lazy.items():
        yield f"{group.name} {name}", lazy
        command = lazy.load()
        if isinstance(command, LazyGroup):
            yield from lazy_commands(command)


ALL = dict(lazy_commands(cli))


@pytest.mark.parametrize("name", ALL)
def test_a_summary_is_the_command_s_own(name: str) -> None:
    command = ALL[name].load()
    assert command.name == name.split()[-1]
    assert ALL[name].summary == command.get_short_help_str(limit=1000)


def test_every_command_is_in_a_group() -> None:
    """A group's own file has the commands that are below it."""
    folder = ROOT / "imager/cli"
    files = (
        path
        for room in ("about", "card", "rack", "release", "saves", "stations")
        for path in (folder / room).glob("*.py")
    )
    places = {
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for path in files
        if "@command(" in path.read_text()
    }
    listed = {lazy.place.split(":")[0] for lazy in (*ALL.values(), *cli.unlisted.values())}
    assert places == listed - {"rack.group"}


@pytest.mark.parametrize("words", [["--help"], ["rack", "--help"]], ids=" ".join)
def test_a_help_page_imports_no_command_and_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = done.stderr.splitlines()
    places = {lazy.place.split(":")[0] for lazy in ALL.values()} - {"rack.group"}
    assert "Commands:" in done.stdout
    assert not [module for module in imported if module.split(".")[0] in HEAVY]
    assert not {f"imager.cli.{place}" for place in places} & set(imported)


GROUPS: dict[str, CommandGroup] = {"": cli} | {
    name: found for name, lazy in ALL.items() if isinstance(found := lazy.load(), CommandGroup)
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_help_page_has_every_summary_whole_on_a_narrow_terminal(name: str) -> None:
    group = GROUPS[name]
    context = click.Context(group)
    page = as_text(page_of(group, context), 60)
    assert max(len(line) for line in page.splitlines()) <= 60
    wanted = "Commands: " + " ".join(
        f"{command} {found.get_short_help_str(limit=1000)}"
        for command in group.list_commands(context)
        if (found := group.get_command(context, command))
    )
    assert wanted in " ".join(page.split())


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("wrte", "write"),
        ("flash", "rack flash"),
        ("rotate", "rack keys rotate"),
        ("rack shwo", "show"),
        ("rack keys rotat", "rotate"),
    ],
)
def test_a_command_that_is_not_there_is_told_from_what_may_be_meant(
    words: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words.split()) == 2
    name = words.split()[-1]
    first, hint = capsys.readouterr().err.splitlines()
    assert first == f"picloud-image: No such command {name!r} (did you mean {meant}?)"
    assert hint.endswith(" --help says more")


def test_a_word_that_is_like_no_command_means_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["xyzzy"]) == 2
    assert capsys.readouterr().err.startswith("picloud-image: No such command 'xyzzy'\n")
