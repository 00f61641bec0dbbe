"""What pip said becomes an error that a person can use, and what it takes has limits; a script
stands in for a pip that fails."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError, NetworkError
from imager.base.run import TooMuch, run
from imager.base.units import GiB, MiB
from imager.release.salt.pip import (
    _GUARD,
    _HEADWAY_BYTES,
    _STILL_SECONDS,
    FileTooLarge,
    _Headway,
    fetch_source,
)


def failing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, most_bytes: int = 1000
) -> Exception:
    """The error for a pip that does what ``script`` says and gives no file."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises((ConfigurationError, NetworkError)) as caught:
        fetch_source("salt", "3008.9", tmp_path, most_bytes)
    return caught.value


def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> Exception:
    """The error for a pip that printed ``lines`` and gave no file."""
    words = " ".join(shlex.quote(line) for line in lines)
    return failing(tmp_path, monkeypatch, f"printf '%s\\n' {words} >&2\nexit 1")


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


def test_one_whose_download_stands_still_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imager.release.salt.pip._STILL_SECONDS", 1.0)
    began = time.monotonic()
    error = failing(tmp_path, monkeypatch, "sleep 100; true")
    assert isinstance(error, NetworkError)
    assert error.what == "pip, which fetches salt==3008.9, got less than 64 KiB in 1 s"
    assert time.monotonic() - began < 90


def test_as_long_as_anything_comes_it_is_waited_for(tmp_path: Path) -> None:
    headway = _Headway(tmp_path)
    for number in range(1, 5):
        headway.reached_at = long_ago = time.monotonic() - _STILL_SECONDS - 1
        (tmp_path / "x.tar.gz").write_bytes(bytes(number * _HEADWAY_BYTES))
        headway.look()
        assert headway.reached_at > long_ago
    (tmp_path / "x.tar.gz").write_bytes(bytes(5 * _HEADWAY_BYTES - 1))
    headway.look()
    headway.reached_at = time.monotonic() - _STILL_SECONDS - 1
    with pytest.raises(TooMuch, match="got less than 64 KiB in 180 s"):
        headway.look()


@pytest.mark.parametrize("unpack", ["head -c 3000000 /dev/zero >x", "mkdir $(seq 600)"])
def test_one_that_unpacks_without_an_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpack: str
) -> None:
    monkeypatch.setattr("imager.release.salt.pip.LARGEST_FILE", MiB)
    monkeypatch.setattr("imager.release.salt.pip._UNPACKED_BYTES", MiB)
    error = failing(tmp_path, monkeypatch, f"cd temporary; {unpack}; sleep 100; true")
    assert isinstance(error, NetworkError)
    assert error.what == "pip, which fetches salt==3008.9, unpacked more than 1 MiB"


def test_one_that_talks_without_an_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = failing(tmp_path, monkeypatch, "yes")
    assert error.args == ("pip, which fetches salt==3008.9, says more than 4 MiB",)


def test_a_file_that_is_whole_and_too_large_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "head -c 1001 /dev/zero >downloads/salt-3008.9.tar.gz"
    error = failing(tmp_path, monkeypatch, script)
    assert isinstance(error, FileTooLarge)
    assert error.what == "the index sends more than 1 kB as salt==3008.9"


@pytest.mark.parametrize(("hard", "limit"), [("unlimited", 5000), ("9000", 5000), ("4000", 4000)])
def test_its_files_are_limited_also_where_they_already_are(
    tmp_path: Path, hard: str, limit: int
) -> None:
    """An ordinary user may not set a higher limit, and the guard that failed would guard nothing:
    no code of a source release is to be run."""
    (tmp_path / "sitecustomize.py").write_text(_GUARD)
    shown = run(
        ["prlimit", f"--fsize={hard}:{hard}", sys.executable, "-c",
         "import resource; print(resource.getrlimit(resource.RLIMIT_FSIZE)[1])"],
        env={
            "PYTHONPATH": str(tmp_path), "PICLOUD_DOWNLOADS": str(tmp_path),
            "PICLOUD_FILE_BYTES": "5000", "PICLOUD_MEMORY_BYTES": str(GiB),
        },
    )  # fmt: skip
    assert (shown.stdout, shown.stderr) == (f"{limit}\n".encode(), b"")
