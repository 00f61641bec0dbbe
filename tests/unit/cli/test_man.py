"""Manual pages: one for each command, from the text of its help, without a warning of the programs
that show them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from imager.base import errors
from imager.cli.lazy import LazyGroup
from imager.cli.main import cli
from imager.cli.pages import PageCommand, page_of
from imager.cli.rack.group import rack

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("man") / "man1"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1764374400"}
    subprocess.run([ROOT / "scripts/man", folder], env=environment, check=True)
    return {path.name: path.read_text() for path in folder.iterdir()}


def names(group: click.Group, path: str) -> set[str]:
    context = click.Context(group)
    found = {f"{path}.1"}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        below = f"{path}-{name}"
        found |= names(command, below) if isinstance(command, click.Group) else {f"{below}.1"}
    return found


def said_of(pages: dict[str, str], folder: Path, *program: str) -> str:
    for name, text in pages.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [*program, *sorted(pages)], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_every_command_has_one(pages: dict[str, str]) -> None:
    assert set(pages) == names(cli, "picloud-image")
    for name, text in pages.items():
        called = name.removesuffix(".1").replace("-", r"\-")
        assert text.startswith(f".TH {called.upper()} 1 2025-11-29 ")
        assert f"\n{called} \\- " in text


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_groff_warns_of_nothing(pages: dict[str, str], tmp_path: Path) -> None:
    assert said_of(pages, tmp_path, "groff", "-ww", "-man", "-Tutf8", "-z") == ""
    spoilt = {name: text.replace(".RE", ".RX") for name, text in pages.items()}
    assert "RX" in said_of(spoilt, tmp_path, "groff", "-ww", "-man", "-Tutf8", "-z")


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_mandoc_warns_of_nothing(pages: dict[str, str], tmp_path: Path) -> None:
    assert said_of(pages, tmp_path, "mandoc", "-Tlint", "-W", "warning") == ""


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_they_say_what_help_says(pages: dict[str, str], tmp_path: Path) -> None:
    name = "picloud-image-rack-flash.1"
    shown = said_of({name: pages[name]}, tmp_path, "groff", "-P-cbou", "-man", "-Tutf8")
    flat = " ".join(shown.split())
    above = click.Context(cli, info_name="picloud-image")
    assert isinstance(rack, LazyGroup)
    flash = rack.lazy["flash"].load()
    assert isinstance(flash, PageCommand)
    page = page_of(flash, click.Context(flash, info_name="rack flash", parent=above))
    rows = (" ".join(row) for listing in page.listings for row in listing.rows)
    examples = (f"{example.line} {example.meaning}" for example in page.examples)
    for said in (f"{page.path} {page.usage}", *page.text, *rows, *examples):
        assert " ".join(said.split()) in flat


def test_the_first_one_has_every_exit_code(pages: dict[str, str]) -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    known = {str(each.exit_code) for each in classes if issubclass(each, errors.PicloudError)}
    listed = re.findall(r"^\.B (\d+)$", pages["picloud-image.1"], re.MULTILINE)
    assert listed[0] == "0"
    assert known <= set(listed)
