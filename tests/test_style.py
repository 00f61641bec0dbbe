"""The linters are tests, so that a green suite means clean code too."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def passes(*words: str) -> None:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_check() -> None:
    passes(sys.executable, "-m", "ruff", "check", ".")


def test_ruff_format() -> None:
    passes(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_mypy_strict() -> None:
    passes(sys.executable, "-m", "mypy")


def shell_scripts() -> list[str]:
    """Every tracked or new file that begins with a shell's #! line."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    found = []
    for name in filter(None, listed):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                first = file.readline(80)
            if first.startswith((b"#!/bin/sh", b"#!/usr/bin/env bash", b"#!/bin/bash")):
                found.append(name)
    return found


def test_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = shell_scripts()
    assert scripts, "no shell script found: the list is broken"
    passes("shellcheck", *scripts)


def test_modules_can_be_read_in_one_sitting() -> None:
    for path in (ROOT / "imager").rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines; split it"
