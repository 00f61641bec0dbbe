"""What an ordinary user's run skips is run once more as root, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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


def pytest_in(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    here = {"PYTHONPATH": str(ROOT), "NOTES": str(folder / "notes"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.support.again"),
            *("-p", "no:cacheprovider", f"--rootdir={folder}", "-c", os.devnull, *words),
        ],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **here, **more},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_was_skipped_is_run_once_and_nothing_twice(folder: Path) -> None:
    first = pytest_in(folder, "--skipped-to", "skipped")
    assert first.returncode == 0, first.stdout
    assert (folder / "notes").read_text().split() == ["all"]
    second = pytest_in(folder, "--only-from", "skipped", ROOT="1")
    assert second.returncode == 0, second.stdout
    assert "4 passed, 1 deselected" in second.stdout
    assert (folder / "notes").read_text().split() == ["all", "root1", "root2", "device"]


def test_arguments_choose_in_both_runs(folder: Path) -> None:
    words = ("test_mixed.py", "-k", "device")
    assert "1 skipped" in pytest_in(folder, "--skipped-to", "skipped", *words).stdout
    second = pytest_in(folder, "--only-from", "skipped", *words, ROOT="1")
    assert "1 passed" in second.stdout
    assert (folder / "notes").read_text().split() == ["device"]


def test_nothing_skipped_is_an_empty_list(folder: Path) -> None:
    assert pytest_in(folder, "--skipped-to", "skipped", ROOT="1").returncode == 0
    assert (folder / "skipped").read_text() == ""
