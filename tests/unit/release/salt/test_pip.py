"""What pip said becomes an error that a person can use; a script stands in for a pip that fails."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError, NetworkError
from imager.release.salt.pip import fetch_source


def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> Exception:
    """The error for a pip that printed ``lines`` and gave no file."""
    python = tmp_path / "python"
    words = " ".join(shlex.quote(line) for line in lines)
    python.write_text(f"#!/bin/sh\nprintf '%s\\n' {words} >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises((ConfigurationError, NetworkError)) as caught:
        fetch_source("salt", "3008.9", tmp_path)
    return caught.value


def test_the_newest_five_versions_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = ", ".join(f"3008.{n}" for n in range(8))
    error = said(tmp_path, monkeypatch, [f"ERROR: no salt==3008.9 (from versions: {versions})"])
    assert isinstance(error, ConfigurationError)
    assert error.what.endswith("its newest are 3008.3, 3008.4, 3008.5, 3008.6, 3008.7")


@pytest.mark.parametrize("kind", ["ERROR: ", "WARNING: ", ""])
def test_the_last_six_lines_that_matter_are_details(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    lines = [f"{kind}{n}" for n in range(9)]
    error = said(tmp_path, monkeypatch, [*lines, "Looking in indexes"] if kind else lines)
    assert isinstance(error, NetworkError)
    assert list(error.details) == lines[-6:]


def test_an_index_without_any_version_is_no_fault_of_the_rack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = said(tmp_path, monkeypatch, ["ERROR: no salt==3008.9 (from versions: none)"])
    assert isinstance(error, NetworkError)
