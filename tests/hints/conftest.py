"""A folder with racks and files in which nothing was fetched, and lines typed in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hints.following import typed
from tests.hints.locked import Locked, fetched
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


@pytest.fixture(scope="package")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    with fetched(tmp_path_factory.mktemp("locked")) as found:
        yield found


@pytest.fixture
def locked(template: Locked, tmp_path: Path) -> Iterator[Locked]:
    """A rack that is locked, for one row."""
    with template.copied(tmp_path / "locked") as found:
        yield found
