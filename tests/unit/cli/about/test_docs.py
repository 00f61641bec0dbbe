"""``docs`` shows what lies in docs/, by any of the names by which a document is spoken of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imager.cli.main import run
from imager.config.example import initial_rack_toml

DOCS = Path(__file__).resolve().parents[4] / "docs"


@pytest.mark.parametrize("name", ["exit-codes", "exit-codes.md", "docs/exit-codes.md"])
def test_a_document_is_shown_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["docs", name]) == 0
    assert capsys.readouterr().out == (DOCS / "exit-codes.md").read_text()


def test_without_a_name_each_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["docs"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == sorted(path.stem for path in DOCS.glob("*.md"))


def test_one_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["docs", "../README"]) == 2
    said = capsys.readouterr().err
    assert "../README: there is no such document" in said
    assert "exit-codes" in said


def test_the_documents_that_a_new_rack_names_are_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = set(re.findall(r"picloud-image docs\s(\S+?)[).]", initial_rack_toml()))
    assert {"boards", "firstboot", "salt", "locking"} <= named
    for name in named:
        assert run(["docs", name]) == 0
        assert capsys.readouterr().out
    assert "docs/" not in initial_rack_toml()
