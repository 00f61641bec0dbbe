"""A folder with racks and files in which nothing was fetched, and lines typed in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.hints.following import typed
from tests.support.rackhistory import rack_with_history


@pytest.fixture(scope="package")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small rack, one with a history, and files that are no cards."""
    folder = tmp_path_factory.mktemp("hints")
    for name in ("empty", "images", "used", "home"):
        (folder / name).mkdir()
    rack_with_history(folder / "used", 14)
    (folder / "card.img").write_bytes(bytes(1 << 20))
    made = typed(folder, "rack init --nodes pi[0-1] --rack rack", "")
    assert made.code == 0, made.err
    return folder


@pytest.fixture
def here(furnished: Path, tmp_path: Path) -> Path:
    """A copy of it, for one row."""
    return shutil.copytree(furnished, tmp_path / "here")
