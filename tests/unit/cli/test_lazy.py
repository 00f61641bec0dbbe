"""Help pages are shown without importing a command, and say what the commands say themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from imager.cli.lazy import LazyCommand, LazyGroup
from imager.cli.main import cli

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


def test_a_help_page_is_the_one_click_makes_of_the_loaded_commands() -> None:
    known = {name: lazy.load() for name, lazy in cli.lazy.items()}
    plain = click.Group("cli", commands=known)
    formatters = click.HelpFormatter(width=60), click.HelpFormatter(width=60)
    for group, formatter in zip((cli, plain), formatters, strict=True):
        group.format_commands(click.Context(group), formatter)
    assert formatters[0].getvalue() == formatters[1].getvalue() != ""
