"""What an ordinary user's run skips is run once more as root, and nothing else is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.innerpytest import pytest_in

MIXED = """
import os, pytest
def note(word):
    with open(os.environ["NOTES"], "a") as notes: notes.write(word + " ")
def test_for_all(): note("all")
@pytest.mark.skipif("ROOT" not in os.environ, reason="needs root")
@pytest.mark.parametrize("n", [1, 2])
def test_for_root(n): note(f"root{n}")
@pytest.fixture
def device():
    if "ROOT" not in os.environ: pytest.skip("needs root")
def test_with_a_device(device): note("device")
"""
WHOLE = """
import os, pytest
if "ROOT" not in os.environ: pytest.skip("needs root", allow_module_level=True)
def test_in_a_file_for_root(): os.path.exists("x")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_mixed.py").write_text(MIXED)
    (tmp_path / "test_whole.py").write_text(WHOLE)
    return tmp_path


def run(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return pytest_in(folder, "tests.support.again", *words, NOTES=str(folder / "notes"), **more)


def test_what_was_skipped_is_run_once_and_nothing_twice(folder: Path) -> None:
    first = run(folder, "--skipped-to", "skipped")
    assert first.returncode == 0, first.stdout
    assert (folder / "notes").read_text().split() == ["all"]
    second = run(folder, "--only-from", "skipped", ROOT="1")
    assert second.returncode == 0, second.stdout
    assert "4 passed, 1 deselected" in second.stdout
    assert (folder / "notes").read_text().split() == ["all", "root1", "root2", "device"]


def test_two_processes_skip_and_run_the_same(folder: Path) -> None:
    first = run(folder, "--skipped-to", "skipped", "-n", "2")
    assert first.returncode == 0, first.stdout
    assert (folder / "notes").read_text().split() == ["all"]
    second = run(folder, "--only-from", "skipped", "-n", "2", ROOT="1")
    assert second.returncode == 0, second.stdout
    assert "4 passed" in second.stdout
    assert sorted((folder / "notes").read_text().split()) == ["all", "device", "root1", "root2"]


def test_arguments_choose_in_both_runs(folder: Path) -> None:
    words = ("test_mixed.py", "-k", "device")
    assert "1 skipped" in run(folder, "--skipped-to", "skipped", *words).stdout
    second = run(folder, "--only-from", "skipped", *words, ROOT="1")
    assert "1 passed" in second.stdout
    assert (folder / "notes").read_text().split() == ["device"]


def test_nothing_skipped_is_an_empty_list(folder: Path) -> None:
    assert run(folder, "--skipped-to", "skipped", ROOT="1").returncode == 0
    assert (folder / "skipped").read_text() == ""
